"""Pictures that look into a model: walks through its latent space, a row per class or code, and what else it has."""

from typing import Annotated, Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.command_line.annotations import check_ranges
from callbacks.pictures.images import folder_of, grid, labelled, show
from callbacks.pictures.randomness import isolated_rng


class Views(Callback):
    """Draw the pictures that ``module.views(columns)`` offers, now and then, at the end of training and by ``predict``.

    A model gives images (rows, columns, C, H, W) in [-1, 1] by name, and by ``module.view_labels(name)`` what stands at
    the left of their rows; each is written as ``views/NAME_step_NNNNNNN.png`` (``views/NAME.png`` by ``predict``) and
    sent to loggers that take images. Models without such a method draw nothing. The training's random state is left
    alone.

    Args:
        every_n_steps: Generator updates between pictures; 0 draws none, not even at the end.
        columns: Images in a row.
        seed: Seed of the noise, the same for all pictures.

    Raises:
        MisconfigurationException: An argument is out of range.
    """

    def __init__(
        self,
        every_n_steps: Annotated[int, "[0, inf)"] = 5000,
        columns: Annotated[int, "[2, 1000]"] = 10,
        seed: Annotated[int, "[0, 4294967295]"] = 0,
    ) -> None:
        self.every_n_steps = every_n_steps
        self.columns = columns
        self.seed = seed
        check_ranges("views", Views, self)
        self._began = -1  # training, at this step
        self._drawn = -1  # at this step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began, self._drawn = trainer.global_step, -1

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if self.every_n_steps and step % self.every_n_steps == 0 and step != self._began:
            self._draw(trainer, pl_module, f"_step_{step:07d}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module, f"_step_{trainer.global_step:07d}")

    rehearse = on_train_end  # see Budget

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = self._drawn = -1
        self._draw(trainer, pl_module, "")

    def _draw(self, trainer: Trainer, module: LightningModule, suffix: str) -> None:
        step = trainer.global_step
        if not self.every_n_steps or not trainer.is_global_zero or step == self._drawn or not hasattr(module, "views"):
            return
        self._drawn = step
        with isolated_rng(self.seed, module.device):
            views = module.views(self.columns)
        for name, images in views.items():
            path = folder_of(trainer) / "views" / f"{name}{suffix}.png"
            # A run that was killed before its last pictures were complete goes on at their step.
            if step != self._began or not path.exists():
                labels = module.view_labels(name) if hasattr(module, "view_labels") else []
                picture = labelled(grid(images.flatten(0, 1), columns=images.shape[1]), labels)
                show(trainer, f"views/{name}", picture, path, step)
