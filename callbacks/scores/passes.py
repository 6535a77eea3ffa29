"""One pass over the batches of a data set: which of their images count, and how many are generated of which batch."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks.pictures.randomness import isolated_rng
from callbacks.scores.collect import Collector, before, share, spread


class Extent(NamedTuple):
    """What a pass goes through: images in all, those of them that are distinct real ones, and images a batch."""

    total: int
    distinct: int
    batch_size: int


@dataclass
class Pass:
    """Sums over real and generated images, from the batches that a loader gives.

    A loader that can ``restrict`` itself gives the batches of ``plan`` only: those to generate from, then those whose
    real images count. They are the same whether real images are wanted or not, and so is the noise.
    """

    # Makes images of a batch, (N, C, H, W) in [-1, 1], and says what each was asked to be, (N,), if anything.
    draw: Callable[[Any], tuple[Tensor, Tensor | None]]
    real: Callable[[Any], Tensor]  # the real images of a batch, of the same range
    of_fake: Collector
    of_real: Collector | None  # None where they are known or not wanted
    extent: Extent
    loader: Any
    seed: int  # of the noise; each batch has its own
    rank: int = 0  # the ranks get the loader's batches in turn
    world_size: int = 1

    def __post_init__(self) -> None:
        self.plan: list[Tensor] = []
        if hasattr(self.loader, "restrict"):
            total, distinct, size = self.extent
            fakes = spread(self.of_fake.count, total).split(size)
            reals = spread(self.of_real.count, distinct).split(size) if self.of_real else ()
            self._fakes, self.plan = len(fakes), [*fakes, *reals]

    def go_through(self, to_device: Callable[[Any], Any], shown: Callable[[Any], Iterable[Any]] = iter) -> None:
        """Take all batches that count; ``shown`` may draw a progress bar of them."""
        if self.plan:
            self.loader.restrict(self.plan)
        try:
            for number, batch in enumerate(shown(self.loader)):
                self.take(to_device(batch), number)
        finally:
            if self.plan:
                self.loader.restrict(None)

    @torch.no_grad()
    def take(self, batch: Any, number: int) -> None:
        """Take the real images, and the share of generated ones, of a batch after ``number`` others on this rank."""
        # Loaders deal whole batches to the ranks in turn, so this is where the batch stands among all.
        number = number * self.world_size + self.rank
        images = self.real(batch)
        first, n = number * self.extent.batch_size, len(images)
        if not self.plan:
            if self.of_real is not None:
                self.of_real.add_share(images, first, self.extent.distinct)
            count, total = self.of_fake.count, self.extent.total
            self._draw(batch, number, before(first, count, total), share(first, n, count, total), images.device)
        elif number < self._fakes:
            self._draw(batch, number, first, n, images.device)
        else:
            assert self.of_real is not None
            self.of_real.add(images, first - self._fakes * self.extent.batch_size)

    def _draw(self, batch: Any, number: int, start: int, count: int, device: torch.device) -> None:
        """Generate as many images of a batch, which are numbers start, start + 1, ... of all."""
        with isolated_rng(self.seed + number, device):
            made = 0
            while made < count:
                images, asked = self.draw(_first(batch, count - made))
                self.of_fake.add(images, start + made, asked)
                made += len(images)


def _first(batch: Any, n: int) -> Any:
    """The first n elements of a batch (the batch itself if it has no more)."""
    if isinstance(batch, Tensor):
        return batch[:n]
    parts = [part[:n] if isinstance(part, Tensor) else part for part in batch]
    return type(batch)(*parts) if hasattr(batch, "_fields") else parts


def drawing(model: Any) -> Callable[[Any], tuple[Tensor, Tensor | None]]:
    """A model's ``generate_asked``, or its ``generate`` where it is asked for nothing."""
    return getattr(model, "generate_asked", lambda batch: (model.generate(batch), None))


def extent_of(loader: Any, seen: int | None = None) -> Extent:
    """What there is in a loader, or in the batches of it that are seen: so many images.

    Raises:
        MisconfigurationException: It is none, several loaders, or one that does not know how many images it has.
    """
    check_loader(loader)
    every = getattr(loader, "total", None) or len(loader.dataset)
    total = every if seen is None else min(every, seen)
    # Unpaired data goes through the domain with fewer images again; each real image counts once.
    return Extent(total, min(getattr(loader, "distinct", every), total), loader.batch_size)


def check_loader(loader: Any) -> None:
    """Refuse validation data whose images cannot be counted, and shared out, before they come.

    Raises:
        MisconfigurationException: It is none, several loaders, or one that does not know how many images it has.
    """
    counted = hasattr(loader, "total") or hasattr(getattr(loader, "dataset", None), "__len__")
    if counted and isinstance(getattr(loader, "batch_size", None), int):
        return
    found = "there is none" if loader is None else f"got a {type(loader).__name__}"
    if isinstance(loader, list | tuple | dict):
        found = f"got {len(loader)} in a {type(loader).__name__}"
    elif hasattr(loader, "dataset"):
        found += f" of {type(loader.dataset).__name__} with " + ("a batch_sampler" if counted else "no length")
    raise MisconfigurationException(
        "Score compares with the images of one validation DataLoader that has a batch_size and a sized dataset; "
        f"{found}: give such a one, or leave scores out with --score.num_images=0"
    )


def check_count(available: int) -> None:
    """Raise MisconfigurationException where there are fewer than two real images: one has no spread to compare."""
    if available < 2:
        raise MisconfigurationException(
            f"--score needs at least 2 real images to compare with, and there is {available}: give more, or leave "
            "scores out with --score.num_images=0"
        )
