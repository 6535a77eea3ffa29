"""Generated images beside the training images nearest to them: whether the generator invents or remembers."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from callbacks.command_line.annotations import check_ranges
from callbacks.pictures.images import folder_of, grid, show, step_of, to_uint8
from callbacks.pictures.randomness import isolated_rng
from callbacks.runs.files import unwritten, whole
from callbacks.scores.classifier import check_classes, extractor_of
from callbacks.scores.collect import share
from callbacks.scores.features import Extractor, create, name_of

NEAREST = 8


class Neighbors(Callback):
    """Draw the training images nearest to generated ones, at the end of training and when a checkpoint is tested.

    Writes ``neighbors/pixels_step_NNNNNNN.png``, by Euclidean distance of the pixels, and
    ``neighbors/FEATURES_step_NNNNNNN.png``, by that of an extractor's features. A row is a generated image, then the
    training images, nearest first. All training images are looked at as the model sees them, but not mirrored. Beside
    each picture of images that are made of noise lies a ``.npz``, from which ``train.py explore`` draws them again: the
    ``images`` (count, 1 + nearest, C, H, W), uint8, their ``noise`` (count, D) and ``label`` (count,).

    Args:
        count: Generated images, one row each; 0 draws none.
        features: As in Score; "pixels" draws the first picture only.
        weights: As in Score.
        num_real: Training images to look at, spread evenly; by default all of them.
        cache_dir: As in Score.
        seed: Seed of the generated images.

    Raises:
        MisconfigurationException: An argument is out of range, or (before training) features are missing.
    """

    def __init__(
        self,
        count: Annotated[int, "[0, 1000]"] = 0,
        features: str = "pixels",
        weights: str | None = None,
        num_real: Annotated[int, "[1, inf)"] | None = None,
        cache_dir: str = "~/.cache/gan-lab",
        seed: Annotated[int, "[0, 4294967295]"] = 0,
    ) -> None:
        self.count = count
        self.features = features
        self.weights = weights
        self.num_real = num_real
        self.cache_dir = Path(cache_dir).expanduser()
        self.seed = seed
        check_ranges("neighbors", Neighbors, self)
        self._extractor: Extractor | None = None

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the extractor before anything is trained, so that what is missing is missed at once."""
        if self.count and self.features != "pixels" and stage != "predict":
            extractor = extractor_of(trainer, self.features, self.weights, self.cache_dir, self._extractor)
            self._extractor = extractor if trainer.is_global_zero else None

    def prepare(self, trainer: Trainer, data: Any) -> None:
        """As in Score."""
        if self.count and self.features == "classifier":
            check_classes(data)
        elif self.count and self.features != "pixels" and trainer.is_global_zero:
            self._extractor = create(self.features, self.weights)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module)

    rehearse = on_train_end  # see Budget

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:  # not in the middle of training
            self._draw(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module)

    # What they do

    def _draw(self, trainer: Trainer, module: LightningModule) -> None:
        if not self.count or not trainer.is_global_zero:
            return
        loader = training_images(trainer)
        if loader is None:
            rank_zero_warn("--neighbors.count draws nothing: there is no set of training images to go through in order")
            return
        stage, trainer.state.stage = trainer.state.stage, RunningStage.VALIDATING  # training images would be mirrored
        try:
            with isolated_rng(self.seed, module.device), torch.no_grad():
                generated, noise = self._generate(trainer, module, loader)
                rows = self._rows(trainer, module, loader, generated)
        finally:
            trainer.state.stage = stage
        step = step_of(trainer, module)
        for name, images in rows.items():
            path = folder_of(trainer) / "neighbors" / f"{name}_step_{step:07d}.png"
            show(trainer, f"neighbors/{name}", grid(images.flatten(0, 1), columns=1 + NEAREST), path, step)
            if noise and not trainer.fast_dev_run:
                self._keep(
                    path.with_suffix(".npz"),
                    {"images": to_uint8(images.flatten(0, 1)).unflatten(0, images.shape[:2]), **noise},
                )

    def _keep(self, path: Path, arrays: dict[str, Tensor]) -> None:
        try:
            with whole(path) as partial, partial.open("wb") as file:
                np.savez_compressed(file, **{name: value.cpu().numpy() for name, value in arrays.items()})  # type: ignore[arg-type]
        except OSError as error:
            unwritten("picture", path, error)

    def _rows(self, trainer: Trainer, module: LightningModule, loader: Any, generated: Tensor) -> dict[str, Tensor]:
        """Images (count, 1 + NEAREST, C, H, W) by the name of the space in which distances are measured."""
        spaces: dict[str, Callable[[Tensor], Tensor]] = {"pixels": lambda images: images.float().flatten(1)}
        if self._extractor is not None:
            extractor = self._extractor.to(module.device)
            spaces[name_of(self.features)] = lambda images: extractor(to_uint8(images)).features.float()
        found = {name: Nearest(space(generated), NEAREST, generated.shape[1:]) for name, space in spaces.items()}
        total = getattr(loader, "distinct", None) or getattr(loader, "total", None) or len(loader.dataset)
        wanted = min(self.num_real or total, total)
        first = seen = 0
        began = time.perf_counter()
        for batch in tqdm(
            loader,
            desc="Finding neighbours",
            unit="batch",
            leave=False,
            delay=5,  # seconds
            file=sys.stdout,
            disable=trainer.progress_bar_callback is None,
        ):
            images = module.real(trainer.strategy.batch_to_device(batch, dataloader_idx=0)).float()
            chosen = [i for i in range(len(images)) if share(first + i, 1, wanted, total)]
            if chosen:
                numbers = torch.tensor(chosen, device=images.device) + first
                for name, space in spaces.items():
                    found[name].add(space(images[chosen]), images[chosen], numbers)
                if not seen:
                    self._estimate((time.perf_counter() - began) / len(chosen) * wanted / 60, wanted, module)
            first, seen = first + len(images), seen + len(chosen)
        return {name: torch.cat([generated[:, None], nearest.images], 1) for name, nearest in found.items()}

    def _generate(self, trainer: Trainer, module: Any, loader: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The images of the rows, (count, C, H, W), made from held-out batches where there are any.

        Beside them the noise and the labels that they are made of, where these are known.
        """
        given = (trainer.test_dataloaders, trainer.val_dataloaders, loader)
        images: list[Tensor] = []
        labels: list[Tensor] = []
        with noted(module) as noise:
            for batch in next(batches for batches in given if batches is not None):
                batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
                images.append(module.generate(batch).float())
                labels += module.classes_of(batch) if hasattr(module, "classes_of") else ()
                if sum(map(len, images)) >= self.count:
                    break
        found = torch.cat(images)[: self.count]
        if sum(map(len, noise)) != sum(map(len, images)):
            return found, {}
        label = torch.cat(labels) if labels else torch.zeros(len(found), dtype=torch.long)
        return found, {"noise": torch.cat(noise)[: self.count], "label": label[: self.count]}

    def _estimate(self, minutes: float, images: int, module: LightningModule) -> None:
        if module.device.type == "cpu" and minutes > 0.5:
            rank_zero_info(
                f"looking for neighbours among {images:,} training images in {self.features} features takes about "
                f"{minutes:.0f} min here; --neighbors.num_real changes that"
            )


@contextmanager
def noted(module: Any) -> Iterator[list[Tensor]]:
    """The noise that a model draws meanwhile, (N, D) each time; nothing of a model that has none."""
    drawn: list[Tensor] = []
    if not hasattr(module, "noise"):
        yield drawn
        return
    noise = module.noise

    def note(n: int) -> Tensor:
        drawn.append(noise(n))
        return drawn[-1]

    module.noise = note
    try:
        yield drawn
    finally:
        del module.noise


class Nearest:
    """The nearest of a stream of images to some points; only these are kept.

    Args:
        points: (Q, D).
        k: How many are kept for each.
        image_shape: Shape of an image.

    Attributes:
        distances: (Q, k), ascending; infinite where there were fewer than k images.
        numbers: What the images were numbered by, (Q, k).
        images: (Q, k, C, H, W); white where there were fewer than k.
    """

    def __init__(self, points: Tensor, k: int, image_shape: torch.Size) -> None:
        self.points = points
        self.distances = points.new_full((len(points), k), torch.inf)
        self.numbers = torch.full((len(points), k), -1, device=points.device)
        self.images = points.new_ones(len(points), k, *image_shape)

    def add(self, points: Tensor, images: Tensor, numbers: Tensor) -> None:
        """Look at images (N, C, H, W) with their points (N, D) and numbers (N,)."""
        k = self.distances.shape[1]
        # Not by a matrix product, in which near-duplicates drown in rounding.
        distances = torch.cdist(self.points, points, compute_mode="donot_use_mm_for_euclid_dist")
        self.distances, chosen = torch.cat([self.distances, distances], 1).topk(k, largest=False)
        old, new = chosen.clamp(max=k - 1), (chosen - k).clamp(min=0)
        row = torch.arange(len(chosen), device=chosen.device)[:, None]
        self.numbers = torch.where(chosen < k, self.numbers[row, old], numbers[new])
        self.images = torch.where((chosen < k)[..., None, None, None], self.images[row, old], images[new])


def training_images(trainer: Trainer) -> Any:
    """All training images once, in order, without the training loader's taking part; None where that cannot be had."""
    if hasattr(trainer.datamodule, "ordered"):
        return trainer.datamodule.ordered("train")
    loader = trainer.train_dataloader
    if not hasattr(getattr(loader, "dataset", None), "__len__"):
        return None
    return DataLoader(loader.dataset, batch_size=loader.batch_size, collate_fn=loader.collate_fn)
