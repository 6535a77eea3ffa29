"""What is said of errors: one sentence where the settings are to blame, and nothing where the program is."""

import logging
import re
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.runs.secrets import without_typed_secrets

OF_MACHINE = ("accelerator", "strategy", "precision", "plugins", "profiler")
HARMLESS = (  # warnings of Lightning's of which there is nothing to be done about
    *("LeafSpec", "smaller than the logging interval", "skip_none", "exists and is not empty"),
    "used to create the checkpoint",
)


def quiet() -> None:
    """Warnings in one line each, without those of which there is nothing to be done about."""
    for harmless in HARMLESS:
        warnings.filterwarnings("ignore", f"(?s).*{harmless}")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # not where in the code
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip: For seamless" not in str(record.msg)  # advertisements
    )


def fail(message: str) -> NoReturn:
    """End with one line that says what is wrong, and no secret that was typed."""
    sys.exit(f"error: {without_typed_secrets(' '.join(message.split()), sys.argv[1:])[:450]}")


def of_settings(error: BaseException) -> str | None:
    """What is wrong with the settings that classes were to be made with; None where our own code is wrong."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    packages = {frame.f_globals.get("__name__", "").partition(".")[0] for frame in frames}
    made = re.findall(r"Problem with given class_path '([\w.]+)':\s*(.+)", str(error))
    while error.__cause__ is not None:  # jsonargparse wraps what a constructor raised
        error = error.__cause__
    if "jsonargparse" not in packages and not isinstance(error, ValueError | TypeError | OSError):
        return None
    if type(error) is ValueError and made and made[-1][1] not in str(error):  # one of several things it may have been
        return f"{made[-1][0].rpartition('.')[2]}: {made[-1][1]}"
    plain = isinstance(error, ValueError | TypeError | OSError | ImportError | MisconfigurationException)
    return refusal(error, sys.argv) or (str(error) if plain else f"{type(error).__name__}: {error}")


def complaint(error: BaseException, given: Mapping[str, Any]) -> str:
    """What Lightning says is wrong, with those of the trainer's settings that it speaks of."""
    message = " ".join(str(error).split()) or type(error).__name__
    words = set(re.findall(r"[\w]+", message))
    culprits = [key for key in given if key in words]
    culprits = culprits or [key for key, value in given.items() if str(value).replace("-", "_") in words]
    culprits = culprits or [key for key, value in given.items() if f"'{value}'" in message]
    at_work = _innermost(error).get("self")
    if not culprits and isinstance(at_work, Callback):
        return f"--trainer.callbacks={type(at_work).__name__}: {message}"
    culprits = culprits or [key for key in given if key in OF_MACHINE and isinstance(error, ImportError)]
    return f"{' '.join(f'--trainer.{key}={given[key]}' for key in culprits[:2])}: {message}".removeprefix(": ")


def refusal(error: BaseException, typed: Sequence[str] = (), given: Mapping[str, Any] | None = None) -> str | None:
    """What the settings ask too much of: memory, or what Lightning's own code refuses; None for mistakes of ours."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text or "out of memory" in text:
        large = "".join(f" for {word}" for word in typed if re.fullmatch(r"--(model|data)\.[\w.]+=\d{4,}", word))
        return (
            f"there is not enough memory{large}: smaller are --data.batch_size, --data.image_size and --model.width "
            f"({text[:100]})"
        )
    if "deterministic implementation" in text:
        return f"--trainer.deterministic=true must be warn or false for this model: {text[:200]}"
    judged = isinstance(error, ValueError | RuntimeError | ImportError) and is_lightnings(error)
    return complaint(error, given or {}) if judged else None


def is_lightnings(error: BaseException) -> bool:
    """Whether Lightning's own code raised an error, not something that it called."""
    return _innermost(error).get("__name__", "").startswith("lightning.")


def _innermost(error: BaseException) -> dict[str, Any]:
    """The variables where an error was raised, those of the module included."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_globals | frames[-1].f_locals if frames else {}
