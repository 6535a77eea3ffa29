"""Pictures: a grid of samples through training."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import pad

from callbacks.command_line.annotations import check_ranges
from callbacks.pictures.images import folder_of, grid, plain, show, try_png, validation_batches
from callbacks.pictures.randomness import isolated_rng


class Samples(Callback):
    """Draw the same grid every few steps: what the model makes of one fixed batch and fixed noise.

    A model that turns images into images shows each beside what it was made of (``module.shown``).

    Writes ``samples/step_NNNNNNN.png`` into the run folder, ``samples/real.png`` once, and sends each picture to
    loggers that take images. The training's random state is left alone.

    Args:
        every_n_steps: Generator updates between pictures; 0 draws none.
        count: Images in the grid.
        seed: Seed of the fixed noise.
    """

    def __init__(
        self,
        every_n_steps: Annotated[int, "[0, inf)"] = 500,
        count: Annotated[int, "[1, 10000]"] = 64,
        seed: Annotated[int, "[0, 4294967295]"] = 0,
    ) -> None:
        self.every_n_steps = every_n_steps
        self.count = count
        self.seed = seed
        check_ranges("samples", Samples, self)
        self.latest: Path | None = None
        self._batches: list[Any] = []
        self._trained_on: list[Any] = []  # those of them that are training batches
        self._began = -1  # training, at this step
        self._drawn = -1  # at this step

    def state_dict(self) -> dict[str, Any]:
        """Training batches, which a resumed run does not see again."""
        return {"batches": [plain(batch) for batch in self._trained_on]} if self._trained_on else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._trained_on = state_dict["batches"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began, self._drawn = trainer.global_step, -1
        if not self.every_n_steps or not trainer.is_global_zero:
            return
        earlier = move_data_to_device(self._trained_on, pl_module.device)
        self._batches, self._trained_on = [], []
        if trainer.val_dataloaders is not None:
            with isolated_rng(self.seed, pl_module.device):  # a DataLoader draws a random number when it starts
                for batch in validation_batches(trainer):
                    self._keep(batch, trainer, pl_module)
                    if self._missing(pl_module) <= 0:
                        break
        for batch in earlier:
            self._keep_training(batch, trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.every_n_steps or not trainer.is_global_zero:
            return
        self._keep_training(batch, trainer, pl_module)
        step = trainer.global_step
        if step not in (self._began, self._drawn) and step % self.every_n_steps == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        if not self.every_n_steps or not trainer.is_global_zero or not self._batches or step == self._drawn:
            return
        # A run that was killed before its last picture goes on at the step of it.
        if step == self._began and self._path(trainer).exists():
            self.latest = self._path(trainer)
        else:
            self._draw(trainer, pl_module)

    rehearse = on_train_end  # see Budget

    def _missing(self, module: Any) -> int:
        return self.count - sum(len(module.real(batch)) for batch in self._batches)

    def _keep(self, batch: Any, trainer: Trainer, module: LightningModule) -> None:
        self._batches.append(batch)
        path = folder_of(trainer) / "samples" / "real.png"
        if self._missing(module) <= 0 and not path.exists():
            try_png(grid(self._joined(module.real(b) for b in self._batches)), path)

    def _keep_training(self, batch: Any, trainer: Trainer, module: LightningModule) -> None:
        """Without (enough) validation data, the first training batches serve."""
        if self._missing(module) > 0:
            self._trained_on.append(batch)
            self._keep(batch, trainer, module)

    def _path(self, trainer: Trainer) -> Path:
        return folder_of(trainer) / "samples" / f"step_{trainer.global_step:07d}.png"

    def _draw(self, trainer: Trainer, module: LightningModule) -> None:
        self._drawn = trainer.global_step
        with isolated_rng(self.seed, module.device), torch.no_grad():
            shown = self._joined(module.shown(batch) for batch in self._batches)
        columns = max(1, round((len(shown) / shown.shape[1]) ** 0.5))
        picture = grid(shown.flatten(0, 1), columns * shown.shape[1])
        if show(trainer, "samples", picture, self._path(trainer), trainer.global_step):
            self.latest = self._path(trainer)

    def _joined(self, images: Iterable[Tensor]) -> Tensor:
        """The first images of all, (count, ..., C, H, W), the smaller ones on a white ground."""
        parts = list(images)
        height, width = (max(part.shape[side] for part in parts) for side in (-2, -1))
        padded = [pad(p, (0, width - p.shape[-1], 0, height - p.shape[-2]), value=1.0) for p in parts]
        return torch.cat(padded)[: self.count]
