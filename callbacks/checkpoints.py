"""Checkpoints: the last state, from which a run goes on, and the best by score; both written whole or not at all."""

import os
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException


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


class LastCheckpoint(Checkpoint):
    """``checkpoints/last.ckpt``, from which ``--ckpt_path last`` goes on: the newest state, also after SIGTERM.

    Args:
        every_n_steps: Generator updates between two writes; the end of training is written in any case.

    Raises:
        MisconfigurationException: every_n_steps is not positive.
    """

    def __init__(self, every_n_steps: int = 1000) -> None:
        if every_n_steps < 1:
            raise MisconfigurationException(f"--last.every_n_steps must be at least 1; got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self._written = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._path = Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints" / "last.ckpt"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._written = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step != self._written and trainer.global_step % self.every_n_steps == 0:
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step != self._written:
            self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # SIGTERM is raised between two batches, so the state is whole; after other exceptions it may not be.
        if isinstance(exception, SIGTERMException):
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if not trainer.fast_dev_run:
            self._written = trainer.global_step
            trainer.save_checkpoint(self._path, weights_only=False)


class BestCheckpoint(ModelCheckpoint):
    """``checkpoints/best.ckpt``: the state with the best score so far.

    Args:
        monitor: Name of the score.
    """

    def __init__(self, monitor: str) -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode_of(monitor),
            save_on_train_epoch_end=False,  # scores are new after validation
            enable_version_counter=False,
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.monitor in trainer.callback_metrics:  # not with --score.num_images=0
            super().on_validation_end(trainer, pl_module)


def mode_of(name: str) -> Literal["min", "max"]:
    """Whether a score's smallest or largest value is the best: similarities grow, distances shrink."""
    return "max" if name.startswith(("quality/psnr", "quality/ssim", "quality/ms_ssim")) else "min"
