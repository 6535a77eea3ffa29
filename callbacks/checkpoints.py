"""Checkpoints: the last state, from which a run goes on, and the best by score; both written whole or not at all."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its final name and move it there when it is safely on disk.

    A process killed in between leaves the previous checkpoint as it was.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


class LastCheckpoint(ModelCheckpoint):
    """``checkpoints/last.ckpt``, from which ``--ckpt_path last`` goes on: the newest state, also after SIGTERM.

    Args:
        every_n_steps: Generator updates between two writes.
    """

    def __init__(self, every_n_steps: int = 1000) -> None:
        super().__init__(filename="last", every_n_train_steps=every_n_steps, enable_version_counter=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._last_global_step_saved != trainer.global_step:
            self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # SIGTERM is raised between two batches, so the state is whole; after other exceptions it may not be.
        if isinstance(exception, SIGTERMException):
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if not trainer.fast_dev_run:
            self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))


class BestCheckpoint(ModelCheckpoint):
    """``checkpoints/best.ckpt``: the state with the lowest score so far.

    Args:
        monitor: Name of the score; the smaller the better.
    """

    def __init__(self, monitor: str) -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode="min",
            save_on_train_epoch_end=False,  # scores are new after validation
            enable_version_counter=False,
        )
