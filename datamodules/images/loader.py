"""Batches of images by index: shuffled anew every epoch for training, in order for evaluation."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class ImageBatch(NamedTuple):
    """Images (N, C, H, W), uint8 from the loader and float in [-1, 1] for the model, with labels, if any.

    Labels are classes, int64 (N,), or attributes that an image has (1) or has not (0), int64 (N, A).
    """

    image: Tensor
    label: Tensor | None


class PairBatch(NamedTuple):
    """Images and what they are to become, float in [-1, 1], (N, C, H, W) each; for super-resolution of two sizes."""

    source: Tensor
    target: Tensor


class UnpairedBatch(NamedTuple):
    """Images of two domains that have nothing to do with each other, (N, C, H, W) each, of the ranges of ImageBatch."""

    a: Tensor
    b: Tensor


@dataclass(eq=False)
class Loader:
    """An epoch of batches, whose order depends on nothing but the seed and the epoch.

    With several ranks, step t of an epoch takes the next ``batch_size * world_size`` images of the shuffled order, of
    which each rank gets its slice: together the ranks see what one process with the joined batch size would see.
    Evaluation goes through the images in order and deals whole batches out in turn: rank r gets batches r,
    r + world_size, and so on, the last of which may be smaller.

    A training epoch that was left in the middle goes on where it was left. The state counts images, so that a run
    resumed with another batch size or number of ranks goes on at the same place of the same order; one resumed with
    another seed goes on at the same place of its own order. The global random
    generators are never drawn from.

    Args:
        images: uint8 images (N, C, H, W) in memory, or the ``.npy`` file that streams them.
        labels: Labels of every image, int64 (N, ...), on the device of the images, if any.
        batch_size: Images a batch and rank.
        shuffle: Training (shuffled, incomplete batches dropped) or evaluation (in order, all images).
        seed: Seed of the order.
        rank: Which of the ranks this is.
        world_size: How many ranks there are.
        num_workers: Threads that read a streamed file ahead; 0 reads a batch when it is asked for.
        chosen: Numbers of the images of an epoch, (M,), with repetitions; by default all, once.

    Attributes:
        total: Images of an epoch, on all ranks.
        repeated: How many of the first epoch's first batches come again in every epoch, though more can be taken in a
            row; 0 for all images, in an order that is new each time.
    """

    images: Tensor | Path
    labels: Tensor | None
    batch_size: int
    shuffle: bool
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    num_workers: int = 0
    chosen: Any = None
    wanted: list[Tensor] | None = field(default=None, init=False)
    epoch: int = field(default=0, init=False)
    position: int = field(default=0, init=False)  # training batches handed out in this epoch
    repeated: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.chosen is None:
            images: Any = self.images if isinstance(self.images, Tensor) else np.load(self.images, mmap_mode="r")
            self.chosen = torch.arange(len(images))
        self.total = len(self.chosen)

    def __len__(self) -> int:
        if self.shuffle:
            return self.total // (self.batch_size * self.world_size)
        count = -(-self.total // self.batch_size) if self.wanted is None else len(self.wanted)
        return len(range(self.rank, count, self.world_size))

    def restrict(self, batches: list[Tensor] | None) -> None:
        """Let evaluation go through these batches, of places in the order, instead of all images; None ends it."""
        self.wanted = batches

    def __iter__(self) -> Iterator[ImageBatch]:
        if self.shuffle and self.position >= (self.repeated or len(self)):
            self.epoch += not self.repeated
            self.position = 0
        return self._batches()

    def _batches(self) -> Iterator[ImageBatch]:
        indices = self._order()[self.position :]
        for batch in self._resident(indices) if isinstance(self.images, Tensor) else self._streamed(indices):
            if self.shuffle:
                self.position += 1
            yield batch

    def _order(self) -> list[Tensor]:
        """The image numbers of every batch that this rank gets in this epoch."""
        if not self.shuffle:
            batches = list(self.chosen.split(self.batch_size)) if self.wanted is None else self.wanted
            batches = batches[self.rank :: self.world_size]
            return batches if self.wanted is None else [self.chosen[batch] for batch in batches]
        seed = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1, np.uint64)[0]
        order = self.chosen[torch.randperm(self.total, generator=torch.Generator().manual_seed(int(seed)))]
        each, steps = self.batch_size * self.world_size, len(self)
        return list(order[: steps * each].view(steps, self.world_size, self.batch_size)[:, self.rank])

    def _resident(self, indices: list[Tensor]) -> Iterator[ImageBatch]:
        assert isinstance(self.images, Tensor)
        if self.images.device.type != "cpu" and indices:
            sizes = [len(part) for part in indices]
            indices = list(torch.cat(indices).to(self.images.device).split(sizes))  # one transfer an epoch
        for part in indices:  # on the CPU, index_select is two to three times as fast as images[part]
            yield ImageBatch(
                self.images.index_select(0, part), None if self.labels is None else self.labels.index_select(0, part)
            )

    def _streamed(self, indices: list[Tensor]) -> Iterator[ImageBatch]:
        """Batches that threads read ahead: copying rows of a mapped file leaves Python's lock alone.

        Worker processes would spend many times as long on sending the images as on reading them.
        """
        assert isinstance(self.images, Path)
        images = np.load(self.images, mmap_mode="r")

        def read(part: Tensor) -> ImageBatch:
            return ImageBatch(
                torch.from_numpy(images[part.numpy()]), None if self.labels is None else self.labels[part]
            )

        pool = ThreadPoolExecutor(max(1, self.num_workers))
        ahead: deque[Future[ImageBatch]] = deque()
        try:
            for part in indices:
                ahead.append(pool.submit(read, part))
                if len(ahead) > 2 * self.num_workers:
                    yield _pinned(ahead.popleft().result())
            while ahead:
                yield _pinned(ahead.popleft().result())
        finally:  # also when the epoch is left in the middle
            pool.shutdown(cancel_futures=True)

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands: the epoch, and the images of it that are done."""
        return {"epoch": self.epoch, "images": self.position * self.batch_size * self.world_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.epoch = state["epoch"]
        self.position = state["images"] // (self.batch_size * self.world_size)


class UnpairedLoader:
    """Two loaders of one batch size, each in an order of its own; an epoch is as long as the longer one's.

    The shorter one begins again whenever it is through, which in training may be anywhere in an epoch. Of how many
    images ``b`` has, ``distinct`` tells where it goes through them more than once.
    """

    def __init__(self, a: Loader, b: Loader, distinct: int | None = None) -> None:
        self.a, self.b = a, b
        self.distinct = distinct or b.total
        self.batch_size = a.batch_size
        self.total = max(a.total, b.total)
        self.position = 0  # training batches handed out in this epoch
        self.repeated = 0  # see Loader

    def __len__(self) -> int:
        return max(len(self.a), len(self.b))

    def restrict(self, batches: list[Tensor] | None) -> None:
        """See Loader; of an evaluation whose domains are equally long."""
        self.a.restrict(batches)
        self.b.restrict(batches)

    def __iter__(self) -> Iterator[UnpairedBatch]:
        if not self.a.shuffle or self.position >= (self.repeated or len(self)):
            self.position = 0
            if self.repeated:
                self.a.epoch = self.b.epoch = self.a.position = self.b.position = 0
        return self._batches()

    def _batches(self) -> Iterator[UnpairedBatch]:
        a, b = _forever(self.a), _forever(self.b)
        while self.position < len(self):
            self.position += 1
            yield UnpairedBatch(next(a).image, next(b).image)

    def state_dict(self) -> dict[str, Any]:
        """Where both loaders stand, and the images of the epoch that are done."""
        done = self.position * self.batch_size * self.a.world_size
        return {"a": self.a.state_dict(), "b": self.b.state_dict(), "images": done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.a.load_state_dict(state["a"])
        self.b.load_state_dict(state["b"])
        self.position = state["images"] // (self.batch_size * self.a.world_size)


def _forever(loader: Loader) -> Iterator[ImageBatch]:
    while True:
        yield from loader


def _pinned(batch: ImageBatch) -> ImageBatch:
    """The batch where a GPU fetches it without making the program wait."""
    if not torch.cuda.is_available():
        return batch
    return ImageBatch(batch.image.pin_memory(), None if batch.label is None else batch.label.pin_memory())
