"""How a checkpoint is written: whole or not at all, and by all ranks or none."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.runs.files import reason, save


class Unwritten(MisconfigurationException):
    """A checkpoint cannot be written."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its final name and move it there when it is safely on disk.

    A process killed in between, or a full disk, leaves the previous checkpoint as it was.

    Raises:
        Unwritten: A checkpoint cannot be written.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        try:
            save(checkpoint, path)
        except OSError as error:
            earlier = "the one before it is as it was" if Path(path).exists() else "there is none before it"
            raise Unwritten(
                f"the checkpoint {path} cannot be written ({reason(error)}), and {earlier}: make room there, or give "
                "a folder that can be written to with --run_dir"
            ) from error


@contextmanager
def together(trainer: Trainer) -> Iterator[None]:
    """Inside, the first rank writes a checkpoint; where it cannot, all ranks raise its sentence, and none waits for it.

    Raises:
        Unwritten: The checkpoint cannot be written.
    """
    error = ""
    try:
        yield
    except Unwritten as exception:
        if trainer.world_size == 1:
            raise
        error = str(exception)
        trainer.strategy.barrier()  # at which the others are
    if trainer.world_size > 1 and (error := trainer.strategy.broadcast(error)):
        raise Unwritten(error)
