"""Files that appear whole or not at all, whoever else writes them at the same time."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

PARTIAL = ".partial"  # how the names of unfinished files end


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; when all went well, what lies there is safely on disk as ``path``.

    The name is hidden and this process's own. Whatever goes wrong, the former file stays and nothing else is left, but
    for a process that was killed, whose unfinished file ends in ".partial". The folder is made where it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}{PARTIAL}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def save(value: Any, path: str | Path) -> None:
    """torch.save, whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    with whole(path) as partial:
        try:
            with partial.open("wb") as file:
                torch.save(value, file)
        except RuntimeError as error:  # torch's archive complains of its own trailer when the disk is full
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            if cause is None:
                raise
            raise cause from None


def reason(error: OSError) -> str:
    """What the system says of a file, such as "No space left on device"."""
    return error.strerror or str(error)


class Unwritten(MisconfigurationException):
    """A checkpoint cannot be written."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints whole or not at all: the one before stays as it was, or Unwritten says that it does."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        try:
            save(checkpoint, path)
        except OSError as error:
            earlier = "the one before it is as it was" if Path(path).exists() else "there is none before it"
            raise Unwritten(
                f"the checkpoint {path} cannot be written ({reason(error)}), and {earlier}: make room there, or give "
                "a folder that can be written to with --run_dir"
            ) from error


_said: set[tuple[str, Path]] = set()  # kinds of files and folders


def unwritten(kind: str, path: Path, error: OSError) -> None:
    """Say, once for a kind of file in a folder, that a file which training can do without was not written."""
    if (kind, path.parent) not in _said:
        _said.add((kind, path.parent))
        rank_zero_warn(f"{path} cannot be written ({reason(error)}); training goes on")
