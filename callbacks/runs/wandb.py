"""Weights & Biases without questions: online with an account and a network, offline otherwise."""

import inspect
import netrc
import os
import re
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.runs.secrets import masked

SECONDS = 5  # to wait for an answer of the server
FOLDER = re.compile(r"(?:offline-)?run-\d{8}_\d{6}-(?P<id>.+)")


def wandb_logger(settings: dict[str, Any], folder: Path, resumed: bool) -> WandbLogger:
    """The logger of a run, which writes into the run's folder, under the folder's name and under one id for ever.

    Of ``settings``, the arguments of WandbLogger, a name, a folder or an id wins.
    """
    own: dict[str, Any] = {"save_dir": str(folder), "name": folder.name}
    earlier = sorted((folder / "wandb").glob("*run-*"), key=lambda path: path.name.removeprefix("offline-"))
    ids = [found["id"] for found in map(FOLDER.fullmatch, (path.name for path in earlier)) if found]
    if resumed and ids:
        own |= {"version": ids[-1], "resume": "allow"}
    given = {key: value for key, value in settings.items() if value is not None}
    if given.get("save_dir") == ".":  # WandbLogger's own default
        del given["save_dir"]
    os.environ.setdefault("WANDB_SILENT", "true")
    sys.argv[1:] = masked(sys.argv[1:])  # which Weights & Biases keeps
    if not os.environ.get("WANDB_MODE"):
        os.environ.pop("WANDB_MODE", None)  # an empty one is no mode to Weights & Biases
    if not given.get("offline") and "WANDB_MODE" not in os.environ and (reason := _unreachable()):
        _go_offline(reason)
    logger = _created(own | given)
    try:
        _ = logger.experiment
    except Exception as error:  # refused, too slow, or whatever else: not a reason to lose a training
        if given.get("offline") or os.environ.get("WANDB_MODE") == "offline":
            raise
        _go_offline((str(error).splitlines() or [type(error).__name__])[0])
        logger = _created(own | given)
    return logger


def _created(settings: dict[str, Any]) -> WandbLogger:
    import wandb

    known = {*inspect.signature(WandbLogger.__init__).parameters, *inspect.signature(wandb.init).parameters}
    if unknown := sorted(settings.keys() - known):
        raise MisconfigurationException(f"--trainer.logger.{unknown[0]} is no setting of WandbLogger or wandb.init")
    logger = WandbLogger(**settings)
    logger._wandb_init.pop("anonymous", None)  # Lightning gives it always, and Weights & Biases warns of it
    return logger


@rank_zero_only
def _go_offline(reason: str) -> None:
    os.environ["WANDB_MODE"] = "offline"
    rank_zero_info(f"{reason}: logging offline (WANDB_MODE=offline says so beforehand)")


def _unreachable() -> str:
    """Why nothing can be uploaded; empty where it can. It is found out without being asked for a key."""
    url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    key: Any = os.environ.get("WANDB_API_KEY")
    with suppress(OSError, netrc.NetrcParseError):
        key = key or netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(url).hostname or "")
    if not key:
        return "no Weights & Biases account found (wandb login)"
    try:
        urllib.request.urlopen(url, timeout=SECONDS).close()
    except urllib.error.HTTPError:  # an answer
        return ""
    except (OSError, ValueError) as error:
        return f"Weights & Biases does not answer at {url} ({getattr(error, 'reason', error)})"
    return ""
