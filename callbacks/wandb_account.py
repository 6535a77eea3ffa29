"""Weights & Biases without questions: online with an account, offline without one."""

import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.utilities import rank_zero_info, rank_zero_only


@rank_zero_only  # only this rank logs, and the others name the folder by a clock of their own: they must not make it
def prepare_wandb(loggers: Any, run_dir: Path) -> None:
    """Let Weights & Biases write into the run folder, under one id a run, and offline where there is no account."""
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if not str(getattr(logger, "class_path", "")).endswith("WandbLogger"):
            continue
        settings = logger.init_args
        settings.save_dir = str(run_dir)
        settings.name = settings.name or run_dir.name
        if not os.environ.get("WANDB_MODE") and not settings.offline and not has_wandb_key():
            os.environ["WANDB_MODE"] = "offline"
            rank_zero_info("no Weights & Biases account found (wandb login): logging offline")
        os.environ.setdefault("WANDB_SILENT", "true")
        run_dir.mkdir(parents=True, exist_ok=True)
        earlier = sorted((run_dir / "wandb").glob("run-*"))
        if earlier and settings.version is None:  # a resumed run goes on under its id
            settings.version = earlier[-1].name.rpartition("-")[2]
            logger.dict_kwargs = {"resume": "allow"}


def has_wandb_key() -> bool:
    """Whether Weights & Biases would find a key without asking for one."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
