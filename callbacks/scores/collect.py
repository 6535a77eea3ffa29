"""What is remembered of real and generated images for the scores: sums, some features, and files of them."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks.pictures.images import to_uint8
from callbacks.runs.files import unwritten, whole
from callbacks.runs.ranks import gathered
from callbacks.scores.distances import ClassSums, Moments, frechet_distance
from callbacks.scores.features import Extractor

SPLITS = 10  # of the inception score
KEPT = 10_000  # features of each kind that KID and MiFID keep, spread evenly over the images
OF_REAL = ("moments", "features")  # of the real images, whatever is asked for: a file of them serves all scores


@dataclass(eq=False)
class Collected:
    """What a pass has collected of a set of images; None is what no score asks for, or what is not known.

    Attributes:
        count: Number of images.
        mu: Mean feature (D,), float64.
        sigma: Covariance (D, D), float64.
        features: Up to KEPT features (M, D), spread evenly over the images, in order.
        classes: Sums of the probabilities of classes.
        wrong: "pixels" or "features", if any of these were not finite numbers.
        asked: What each image was asked to be, and the class that the features' classifier tells, (2, count).
        coded: Whether that is a code, and no class.
    """

    count: int
    mu: Any = None  # a Tensor for whoever asks for it
    sigma: Any = None
    features: Any = None
    classes: Any = None
    wrong: str = ""
    asked: Any = None
    coded: bool = False

    def __post_init__(self) -> None:
        self._distances: WeakKeyDictionary[Collected, Tensor] = WeakKeyDictionary()

    def frechet_to(self, real: "Collected") -> Tensor:
        """The Fréchet distance; the roots of large matrices, which two scores ask for, are taken once."""
        if real not in self._distances:
            self._distances[real] = frechet_distance(real.mu, real.sigma, self.mu, self.sigma)
        return self._distances[real]

    def save(self, path: Path | None) -> None:
        """Write to a file, whole or not at all; a folder that cannot be written to costs time, not the run."""
        if path is None or self.wrong:
            return
        try:
            write_statistics(path, self.mu, self.sigma, features=self.features, count=torch.tensor(self.count))
        except OSError as error:
            unwritten("statistics", path, error)

    @classmethod
    def load(cls, path: Path | None, dim: int) -> "Collected | None":
        """Read a file that ``save`` wrote; None where there is none of features of size ``dim``, or a damaged one."""
        if path is None or not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                mu, sigma, features = (torch.from_numpy(file[key]) for key in ("mu", "sigma", "features"))
                count = int(file["count"])
        except Exception:  # numpy raises many kinds for files that are not its own
            return None
        fits = mu.shape == (dim,) and sigma.shape == (dim, dim) and features.shape[1:] == (dim,)
        numbers = all(part.is_floating_point() and part.isfinite().all() for part in (mu, sigma, features))
        return cls(count, mu, sigma, features) if fits and numbers else None


class Collector:
    """Features of a stream of images, summed up; some of them kept.

    Args:
        extractor: Turns images into features.
        count: Number of images to come, over all ranks.
        batch_size: Images the extractor takes at a time.
        needs: What is wanted of them, as in ``Metric.needs``.
        coded: Whether what they are asked to be is a code, and no class.
    """

    def __init__(
        self,
        extractor: Extractor,
        count: int,
        batch_size: int,
        needs: Collection[str] = OF_REAL,
        coded: bool = False,
    ) -> None:
        self.extractor = extractor
        self.count = count
        self.batch_size = batch_size
        self.needs = needs
        self.coded = coded
        self.extracted = 0
        self.size = 0  # of a feature
        self._waiting: list[Tensor] = []
        self._numbers: list[int] = []
        self._finite: dict[str, Tensor] = {}  # pixels and features
        self._moments: Moments | None = None
        self._classes: ClassSums | None = None
        self._waiting_asked: list[Tensor] = []
        self._asked: list[Tensor] = []  # (2, n), what was asked for and what was read
        # One tensor for all that is kept: small ones, made between a network's large ones, would keep the memory of the
        # latter from being used again.
        self._kept: Tensor | None = None
        self._rows: list[int] = []  # of it that are there

    def add(self, images: Tensor, start: int, asked: Tensor | None = None) -> None:
        """Take images (N, C, H, W) in [-1, 1], numbers start, start + 1, ... of all; they were ``asked`` to be (N,)."""
        if self._waiting and self._waiting[0].shape[1:] != images.shape[1:]:
            self._extract(len(self._numbers))
        self._check("pixels", images)
        self._waiting.append(to_uint8(images))
        if asked is not None and "asked" in self.needs:
            self._waiting_asked.append(asked)
        self._numbers += range(start, start + len(images))
        while len(self._numbers) >= self.batch_size:
            self._extract(self.batch_size)

    def add_share(self, images: Tensor, first: int, total: int) -> None:
        """Take those of images (N, C, H, W), which are numbers first, first + 1, ... of ``total``, that count."""
        chosen = [i for i in range(len(images)) if share(first + i, 1, self.count, total)]
        if chosen:
            self.add(images[chosen], before(first, self.count, total))

    def _check(self, what: str, numbers: Tensor) -> None:
        finite = numbers.isfinite().all()  # not fetched from the device before the end
        self._finite[what] = self._finite[what] & finite if what in self._finite else finite

    def _extract(self, n: int) -> None:
        images = torch.cat(self._waiting)
        numbers, self._numbers = self._numbers[:n], self._numbers[n:]
        images, self._waiting = images[:n], [images[n:]] if self._numbers else []
        with torch.autocast(images.device.type, enabled=False):
            features, logits = self.extractor(images)
        check_sizes({features.shape[1], self.size or features.shape[1]})
        self.size = features.shape[1]
        self.extracted += len(images)
        self._check("features", features)
        if "moments" in self.needs:
            if self._moments is None:
                self._moments = Moments(features.shape[1], features.device)
            self._moments.update(features)
        if "features" in self.needs:
            chosen = min(KEPT, self.count)
            if self._kept is None:
                self._kept = torch.empty(chosen, features.shape[1])
            kept = [i for i, number in enumerate(numbers) if share(number, 1, chosen, self.count)]
            rows = [before(numbers[i], chosen, self.count) for i in kept]
            self._kept[rows] = features[kept].float().cpu()
            self._rows += rows
        if self._waiting_asked and logits is not None:
            asked = torch.cat(self._waiting_asked)
            self._asked.append(torch.stack([asked[:n], logits.argmax(1)]))
            self._waiting_asked = [asked[n:]] if self._numbers else []
        if "classes" in self.needs and logits is not None:
            if self._classes is None:
                self._classes = ClassSums(logits.shape[1], features.device, SPLITS)
            self._classes.update(logits, torch.tensor(numbers) * SPLITS // self.count)

    def collected(self, trainer: Trainer | None = None) -> Collected:
        """Everything together, over all ranks of a trainer."""
        if self._numbers:
            self._extract(len(self._numbers))
        moments, classes = self._moments, self._classes
        kept = [] if self._kept is None else [(torch.tensor(self._rows), self._kept[self._rows])]
        asked = [part.cpu() for part in self._asked]
        wrong = [what for what, finite in self._finite.items() if not finite]
        if trainer is not None and trainer.world_size > 1:
            # Objects hold the CPU's tensors only: a device's would come on the device that they were sent from.
            sizes = [None if part is None else part.sums.shape[1] for part in (moments, classes)]
            parts = gathered(trainer, (sizes, kept, wrong, asked))
            kept, wrong, asked = ([one for part in parts for one in part[i]] for i in (1, 2, 3))
            dim, columns = (max(part[0][i] or 0 for part in parts) for i in range(2))  # a rank may have had no images
            device = trainer.strategy.root_device
            if dim:
                moments = moments or Moments(dim, device)
                torch.distributed.all_reduce(moments.sums)
            if columns:
                classes = classes or ClassSums(columns - 2, device, SPLITS)
                torch.distributed.all_reduce(classes.sums)
        mu, sigma = (None, None) if moments is None else (part.cpu() for part in moments.compute())
        features = None
        if kept:
            order = torch.cat([rows for rows, _ in kept]).argsort()  # the same for any number of ranks
            features = torch.cat([part for _, part in kept])[order]
        both = torch.cat(asked, 1) if asked else None
        return Collected(self.count, mu, sigma, features, classes, max(wrong, default=""), both, self.coded)


def check_sizes(sizes: set[int]) -> None:
    """Raise MisconfigurationException where features differ in size, as pixels of grey images from coloured ones."""
    if len(sizes) > 1:
        raise MisconfigurationException(
            "images must have as many channels as those that they are compared with: their features have "
            f"{' and '.join(map(str, sorted(sizes)))} numbers"
        )


def before(index: int, chosen: int, total: int) -> int:
    """How many are chosen among the first ``index`` of ``total``, when ``chosen`` are spread evenly over all."""
    return index * chosen // total


def share(first: int, n: int, chosen: int, total: int) -> int:
    """How many of the n from ``first`` on are chosen, when ``chosen`` are spread evenly over ``total``."""
    return before(min(first + n, total), chosen, total) - before(min(first, total), chosen, total)


def spread(chosen: int, total: int) -> Tensor:
    """The numbers of ``chosen`` images spread evenly over ``total``, (chosen,); fewer come again."""
    ends = torch.arange(total + 1) * chosen // total
    return torch.arange(total).repeat_interleave(ends.diff())


def read_statistics(path: str | Path) -> tuple[Tensor, Tensor]:
    """Published statistics of real images: mean ``mu`` (D,) and covariance ``sigma`` (D, D), float64.

    Raises:
        MisconfigurationException: There is no such file or it holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            mu, sigma = (torch.from_numpy(file[key].astype(np.float64)) for key in ("mu", "sigma"))
    except Exception as error:  # numpy raises many kinds for files that are not its own
        raise MisconfigurationException(
            f"--score.real_statistics={path} is not an .npz file with the arrays mu and sigma"
        ) from error
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise MisconfigurationException(
            f"--score.real_statistics={path} must hold mu (D,) and sigma (D, D); got {mu.shape} and {sigma.shape}"
        )
    if not (mu.isfinite().all() and sigma.isfinite().all()):
        raise MisconfigurationException(f"--score.real_statistics={path} holds numbers that are not finite")
    return mu, sigma


def write_statistics(path: str | Path, mu: Tensor, sigma: Tensor, **more: Tensor) -> None:
    """Write mean ``mu`` (D,) and covariance ``sigma`` (D, D) as the .npz file that other FID programs read."""
    arrays = {"mu": mu, "sigma": sigma} | more
    with whole(path) as partial, partial.open("wb") as file:
        np.savez(file, **{name: tensor.cpu().numpy() for name, tensor in arrays.items()})  # type: ignore[arg-type]
