"""How far a training is, as a share of all of it, whichever limit ends it."""

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException


def progress(trainer: Trainer, spent: float | None) -> float:
    """The share of a training that is done, from 0 to 1, by the limit that would end it first.

    Args:
        trainer: The trainer: its updates, of ``max_steps``, and its epochs, of ``max_epochs``.
        spent: The share of a limit in images or in time, if there is one.
    """
    shares = [spent or 0.0]
    if trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    if trainer.max_epochs and trainer.max_epochs > 0:
        batches = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        shares.append(batches / trainer.num_training_batches / trainer.max_epochs)  # 0 of endless epochs
    return min(1.0, max(shares))


def check_end(trainer: Trainer, spent: float | None) -> None:
    """Raise MisconfigurationException where nothing says when a training ends."""
    if spent is None and trainer.max_steps == -1 and trainer.max_epochs in (None, -1):
        raise MisconfigurationException(
            "LinearDecay falls in the last part of a training, and nothing says when this one ends: set "
            "--trainer.max_steps, --trainer.max_time or --budget.images, or its constant_steps and decay_steps"
        )
