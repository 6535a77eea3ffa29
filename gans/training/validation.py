"""When Lightning validates: counted in generator updates, once at the end, and made up where a run was interrupted."""

import sys
from typing import Any

from lightning.pytorch import LightningModule

NEVER = sys.maxsize  # batches


class Validated(LightningModule):
    """What of a GANModule has to do with validation during training."""

    validates_last: bool
    """Whether somebody wants the last weights validated, however training ends; asked for in ``setup`` before a fit."""
    validation_due: bool
    """Whether a validation is to follow the last update, which a resumed run makes up before it trains."""
    validated: bool
    """Whether no update came after the last validation."""

    def __init__(self) -> None:
        super().__init__()
        self.validates_last = self.validation_due = self.validated = False

    def validates_after(self, updates: bool) -> None:
        """Decide whether Lightning validates after this batch; ``updates`` says whether the generator was updated.

        ``val_check_interval`` counts generator updates, where Lightning counts batches (over all epochs).
        """
        trainer, loop = self.trainer, self.trainer.fit_loop
        if self._validates_in_steps():
            due = updates and trainer.global_step % trainer.val_check_interval == 0
            trainer.val_check_batch = 1 if due else NEVER
        else:
            due = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
        last = updates and trainer.global_step == trainer.max_steps and self.validates_last
        self.validated = self.validated and not updates
        self.validation_due = (due or last) and trainer.enable_validation

    def validate_soon(self) -> None:
        """Validate after this batch, whatever is said of when; called when the batch ends."""
        loop = self.trainer.fit_loop.epoch_loop

        def asked(_: Any) -> bool:
            del loop._should_check_val_fx
            return True

        self.validation_due = True
        loop._should_check_val_fx = asked  # type: ignore[assignment,method-assign]

    def _validates_in_steps(self) -> bool:
        trainer = self.trainer
        every = getattr(trainer, "val_check_interval", None)  # which Lightning leaves out where it is a time
        return trainer.check_val_every_n_epoch is None and isinstance(every, int)

    def make_up_validation(self) -> None:
        """Run a validation that the checkpoint was written before or during, all of it.

        It must neither come again nor go on from the middle.
        """
        if self._validates_in_steps():
            self.trainer.val_check_batch = NEVER
        if self.validation_due:
            self._validate()

    def _validate(self) -> None:
        """Validate as Lightning does in training."""
        trainer, loop = self.trainer, self.trainer.fit_loop.epoch_loop.val_loop
        if not trainer.enable_validation:
            self.validation_due = False
            return
        loop.restarting = False
        loop.reset_restart_stage()
        first = trainer._logger_connector._first_loop_iter
        trainer.validating = True
        self.on_validation_model_zero_grad()
        loop.run()
        trainer.training = True
        trainer._logger_connector._first_loop_iter = first

    def leave_finished_batch(self) -> None:
        """Let Lightning go on with the next batch, or epoch, when the last one with its validation is over.

        It would look for that validation again, and at the end of an epoch train on a batch more if it found none.
        """
        loop = self.trainer.fit_loop
        batches, epochs = loop.epoch_loop, loop.epoch_progress
        if batches.restarted_on_train_batch_end:
            batches.batch_progress.increment_completed()
            batches._batches_that_stepped += 1
            batches.update_restart_stage()
            batches.val_loop.reset_restart_stage()
        if batches.restarted_on_last and batches._num_ready_batches_reached():
            if epochs.current.processed < epochs.current.started:
                epochs.increment_processed()
            if epochs.current.completed < epochs.current.processed:
                epochs.increment_completed()
            loop.reset_restart_stage()
            batches.restarting = False

    def on_validation_model_zero_grad(self) -> None:
        """Called before a validation during training, and before it draws random numbers."""
        self.validation_due = True  # until it is done
        super().on_validation_model_zero_grad()

    def on_validation_epoch_end(self) -> None:
        """Called after the callbacks' hooks of this name, and before those that write checkpoints."""
        if not self.trainer.sanity_checking:
            self.validation_due = False
            self.validated = True

    def validate_last(self) -> None:
        """Let the last weights be validated before training ends, by whichever limit, callback or checkpoint it does.

        That is before Lightning's hooks for the end, so that a signal still finds a training that can be gone on with.
        """
        loop = self.trainer.fit_loop

        def validated_first() -> None:
            del loop.on_run_end
            if self.validates_last and not self.validated:
                self._validate()
            loop.on_run_end()

        loop.on_run_end = validated_first  # type: ignore[method-assign]
