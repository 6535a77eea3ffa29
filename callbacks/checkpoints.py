"""Checkpoints: the last state, from which a run goes on, and the best by score."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from callbacks.command_line.annotations import check_ranges
from callbacks.pictures.images import folder_of
from callbacks.runs.ranks import together
from callbacks.scores.history import Mode, mode_of

OF_CALLBACKS = ("score/", "quality/", "health/")  # names that no model logs


class LastCheckpoint(Checkpoint):
    """``checkpoints/last.ckpt``, from which ``--ckpt_path last`` goes on: the newest state, also after SIGTERM.

    A state that is validated after it was written is written again, so that whoever goes on from it need not validate
    again; what chooses the best checkpoint must therefore stand before this in the list of callbacks.

    Args:
        every_n_steps: Generator updates between two writes; the end of training is written in any case.
        every_n_minutes: Write at the next generator update after so many minutes, too; 0 for every_n_steps alone.

    Raises:
        MisconfigurationException: every_n_steps is not positive, or every_n_minutes negative.
    """

    def __init__(
        self, every_n_steps: Annotated[int, "[1, inf)"] = 1000, every_n_minutes: Annotated[float, "[0, inf)"] = 10
    ) -> None:
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        check_ranges("last", LastCheckpoint, self)
        self._step = 0
        self._written = 0  # at this step
        self._time = 0.0  # of the last write
        self._asked = False  # to write after the next update

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._path = Path(trainer.strategy.broadcast(str(folder_of(trainer)))) / "checkpoints" / "last.ckpt"
        self._step = self._written = trainer.global_step
        self._time = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        if step % self.every_n_steps == 0 or self._asked or self._is_late(trainer):
            self._asked = False
            self._write(trainer)

    def rehearse(self, *_: Any) -> None:
        """See Budget; written when the other callbacks are done with the batch."""
        self._asked = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if fitting and self._written == trainer.global_step:
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # SIGTERM is raised between two batches, so the state is whole, and so it is in a validation, where a score of
        # somebody's own may fail; after other exceptions it may not be, and other ranks may not come along.
        alone = trainer.validating and trainer.world_size == 1 and trainer.global_step > 0
        if isinstance(exception, SIGTERMException) or alone:
            self._write(trainer)

    def _is_late(self, trainer: Trainer) -> bool:
        """Whether the last write is too many minutes ago, by the first rank's clock."""
        if not self.every_n_minutes:
            return False
        late = time.monotonic() - self._time >= 60 * self.every_n_minutes
        if trainer.world_size == 1:
            return late
        # Seldom, because it lets all ranks wait for the first.
        return trainer.global_step % (trainer.log_every_n_steps or 50) == 0 and trainer.strategy.broadcast(late)

    def _write(self, trainer: Trainer) -> None:
        if not trainer.fast_dev_run:
            self._written, self._time = trainer.global_step, time.monotonic()
            with together(trainer):
                trainer.save_checkpoint(self._path, weights_only=False)


class BestCheckpoint(ModelCheckpoint):
    """``checkpoints/best.ckpt``: the state with the best score so far.

    A resumed run, also one whose folder was moved, remembers the best score as long as the file is there.

    Callbacks tell by their ``directions`` which scores they compute, and whether the smallest or largest is the best.

    Args:
        monitor: Name of a score, or of a loss, of which the smallest is the best; by default the first metric of
            Quality or, without any, the first of Score.

    Raises:
        MisconfigurationException: (Before training, or with the first losses) nobody logs such a number.
    """

    def __init__(self, monitor: str | None = None) -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode_of(monitor or ""),
            save_on_train_epoch_end=False,  # scores are new after validation
            enable_version_counter=False,
        )
        self._directions: dict[str, Mode] = {}  # of scores that callbacks compute
        self._unsure = False  # whether anybody logs it
        self._found = False  # whether the file is there, and training goes on
        self._remembered = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        telling = [c.directions for c in trainer.callbacks if hasattr(c, "directions")]
        self._directions = {name: mode for directions in telling for name, mode in directions.items()}
        if self.monitor is None:
            self.monitor = next((name for directions in reversed(telling) for name in directions), None)
        elif telling and stage == "fit" and ("/" not in self.monitor or self.monitor.startswith(OF_CALLBACKS)):
            self._check(("what the model logs, such as loss/generator",))
        self._unsure = bool(telling) and self.monitor not in (None, *self._directions)
        if mode := self._directions.get(self.monitor or ""):
            self.mode, self.kth_value = mode, torch.tensor(torch.inf if mode == "min" else -torch.inf)
        super().setup(trainer, pl_module, stage)

    def _check(self, others: Iterable[str]) -> None:
        if self.monitor not in (*self._directions, *others):
            raise MisconfigurationException(
                f"--best.monitor={self.monitor} is logged by nobody: there are "
                f"{', '.join(dict.fromkeys((*self._directions, *others)))}"
            )

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        super().on_train_batch_end(trainer, *args, **kwargs)
        if self._unsure and any(name.startswith("loss/") for name in trainer.callback_metrics):
            self._unsure = False
            self._check(trainer.callback_metrics)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        step = trainer.strategy.broadcast(_step_in(Path(self._best_path)))  # others may see the file later
        self._found = step is not None and step <= checkpoint["global_step"]
        # What a killed run found after the checkpoint is found again, or other settings lead elsewhere.
        self._remembered = step is not None and not self._found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self._found:
            return

        def here(path: str) -> str:
            return str(Path(self.dirpath or "") / Path(path).name) if path else path

        self._remembered = True
        moved = {key: here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        models = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | moved | {"dirpath": self.dirpath, "best_k_models": models})
        self.current_score = state_dict["current_score"]  # which Lightning saves and does not take up

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if not self._remembered and Path(self._best_path).exists():
            rank_zero_warn(
                f"{self._best_path} was not chosen by this run's {self.monitor}: the first checkpoint that has one "
                "replaces it"
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.monitor in trainer.callback_metrics:  # not with --score.num_images=0
            super().on_validation_end(trainer, pl_module)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        with together(trainer):
            super()._save_checkpoint(trainer, filepath)

    @property
    def _best_path(self) -> str:
        return self.format_checkpoint_name({})


def _step_in(path: Path) -> int | None:
    """The step that a checkpoint was written at; None where there is none, or a damaged one."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    except Exception:  # whatever a file that is cut or holds something else leads to
        return None
