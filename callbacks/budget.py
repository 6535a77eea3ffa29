"""How much a run may take, in images or minutes."""

import time
from typing import Annotated, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException


class Budget(Callback):
    """End training when the run, over all its parts, has seen so many images or taken so many minutes.

    Args:
        images: Real images, those that were seen several times counted as often; 0 sets no limit.
        minutes: Minutes of training, validation included, without the time for which it was interrupted; 0 sets no
            limit.

    Raises:
        MisconfigurationException: One of them is negative.
    """

    def __init__(self, images: Annotated[int, "[0, inf)"] = 0, minutes: Annotated[float, "[0, inf)"] = 0.0) -> None:
        for name, value in (("images", images), ("minutes", minutes)):
            if value < 0:
                raise MisconfigurationException(f"--budget.{name} must be 0 or more; got {value}")
        self.images, self.minutes = images, minutes
        self._began, self._before = 0.0, 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict["seconds"]

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self._before + (time.monotonic() - self._began if self._began else 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.monotonic()
        trainer.should_stop = trainer.should_stop or self._is_spent(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        spent = (
            trainer.strategy.reduce_boolean_decision(self._is_spent(pl_module), all=False)
            if self.minutes
            else (self._is_spent(pl_module))
        )
        trainer.should_stop = trainer.should_stop or spent

    def _is_spent(self, module: LightningModule) -> bool:
        seen = getattr(module, "images_seen", 0)
        return bool((self.images and seen >= self.images) or (self.minutes and self.seconds >= 60 * self.minutes))
