"""What every data set shares: resized once, kept in memory or streamed, scaled and mirrored on the device."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from datamodules.cache import build, fingerprint, fit_image
from datamodules.loader import ImageBatch, Loader


class Split(NamedTuple):
    """What a split is made of: one item an image, the class of each (None without classes), and a name for them."""

    items: Sequence[Any]
    labels: list[int] | None
    name: str


class ImageDataModule(LightningDataModule, ABC):
    """Images, with class labels if the data has them.

    Batches are ``ImageBatch(image, label)``: images (N, C, H, W), uint8 from the loaders and float in [-1, 1] after
    the transfer to the device; labels int64 (N,), or None.

    Args:
        data_dir: Folder of the data set.
        image_size: Height and width of the images.
        batch_size: Images a batch, on each device.
        num_workers: Processes that stream images, and threads that decode them the first time.
        resident_bytes: Resized images up to this size are kept in memory (on the GPU where they fit), larger sets are
            streamed from disk.
        cache_dir: Folder for the resized images; by default ``.cache`` in data_dir.
        horizontal_flip: Mirror every second training image; wrong for digits and letters.
        seed: Seed of the order of the training images.

    Raises:
        MisconfigurationException: An argument is out of range.
    """

    channels: int
    val_split: str = "test"
    """The split that scores compare with: "test", or "train" where there is no test set."""

    def __init__(
        self,
        data_dir: str = "data",
        image_size: int = 32,
        batch_size: int = 64,
        num_workers: int = 2,
        resident_bytes: int = 2 * 2**30,
        cache_dir: str | None = None,
        horizontal_flip: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("image_size", image_size, 1),
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
        ):
            if value < least:
                raise MisconfigurationException(f"--data.{name} must be at least {least}; got {value}")
        self.data_dir = Path(data_dir)
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.resident_bytes = resident_bytes
        self.cache_dir = Path(cache_dir) if cache_dir else self.data_dir / ".cache"
        self.horizontal_flip = horizontal_flip
        self.seed = seed
        self._splits: dict[str, Split] = {}
        self._resident: dict[tuple[Path, torch.device], Tensor] = {}  # shared by training and validation loaders
        self._train_loader: Loader | None = None
        self._resume: dict[str, int] | None = None

    # What a data set provides

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """How many classes the labels tell apart; 0 when there are no labels."""

    @abstractmethod
    def items(self, split: str) -> tuple[Sequence[Any], list[int] | None, list[Path]]:
        """What "train" or "test" is made of.

        Returns:
            What ``open`` makes pictures of, one item an image; their labels, if any; the files under data_dir that
            they come from.
        """

    @abstractmethod
    def open(self, item: Any) -> Any:
        """The PIL picture of an item."""

    # What follows

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.image_size, self.image_size

    def reference(self, split: str) -> str:
        """A name for exactly these images: data set, split, size, channels and the state of the source files."""
        return self._split(split).name

    def _split(self, split: str) -> Split:
        if split not in self._splits:
            items, labels, files = self.items(split)
            key = fingerprint(files, self.data_dir, self.image_shape)
            size = f"{self.image_size}x{self.image_size}x{self.channels}"
            self._splits[split] = Split(items, labels, f"{type(self).__name__.lower()}-{split}-{size}-{key}")
        return self._splits[split]

    def prepare_data(self) -> None:
        """Decode and resize, once and for all."""
        self._splits.clear()  # look at the files anew
        for split in sorted({"train", self.val_split}):
            build(self._cache(split), self._split(split).items, self._decode, self.image_shape, self.num_workers)

    def _cache(self, split: str) -> Path:
        return self.cache_dir / f"{self.reference(split)}.npy"

    def _decode(self, item: Any) -> np.ndarray:
        return fit_image(self.open(item), self.channels, self.image_size)

    def setup(self, stage: str) -> None:
        """Check that there is a batch in the data before anything is trained."""
        world_size = self.trainer.world_size if self.trainer else 1
        count = len(self._split("train").items)
        if stage == "fit" and self.batch_size * world_size > count:
            devices = f" on each of {world_size} devices" if world_size > 1 else ""
            raise MisconfigurationException(
                f"--data.batch_size={self.batch_size}{devices} is more than the {count} training images: "
                f"set it to {max(1, count // world_size)} or less"
            )

    def train_dataloader(self) -> Loader:
        """Shuffled batches of the training images."""
        self._train_loader = self._loader("train", shuffle=True)
        if self._resume:
            self._train_loader.load_state_dict(self._resume)
            self._resume = None
        return self._train_loader

    def val_dataloader(self) -> Loader:
        """All images of ``val_split``, in order."""
        return self._loader(self.val_split, shuffle=False)

    def test_dataloader(self) -> Loader:
        """The same as the validation batches."""
        return self.val_dataloader()

    def ordered(self, split: str) -> Loader:
        """All images of "train" or ``val_split``, in order, on every rank; training's own loader is left alone."""
        return self._loader(split, shuffle=False, ranks=(0, 1))

    def state_dict(self) -> dict[str, int]:
        """The training loader's state, for checkpoints.

        Lightning restores the state of a loader by itself, but not at the end of an epoch (without max_steps) nor
        when the loader was made early; the data module's own state it always restores.
        """
        return self._train_loader.state_dict() if self._train_loader else {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next training loader go on where ``state_dict`` was taken."""
        if self.trainer is None or self.trainer.state.fn == "fit":  # scoring a checkpoint resumes nothing
            self._resume = state

    def _loader(self, split: str, shuffle: bool, ranks: tuple[int, int] | None = None) -> Loader:
        rank, world_size = ranks or ((self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1))
        images, labels = self._images(split), self._split(split).labels
        device = images.device if isinstance(images, Tensor) else None
        return Loader(
            images,
            None if labels is None else torch.tensor(labels, device=device),
            self.batch_size,
            shuffle,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            num_workers=self.num_workers,
        )

    def _images(self, split: str) -> Tensor | Path:
        path = self._cache(split)
        size = path.stat().st_size
        if size > self.resident_bytes:
            return path
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if device.type != "cuda" or torch.cuda.mem_get_info(device)[0] < 4 * size:  # the networks need most of it
            device = torch.device("cpu")
        if (path, device) not in self._resident:
            self._resident[path, device] = torch.from_numpy(np.load(path)).to(device)
        return self._resident[path, device]

    def on_after_batch_transfer(self, batch: ImageBatch, dataloader_idx: int) -> ImageBatch:
        """uint8 to float in [-1, 1], and mirrored at random in training; on the device, a batch at a time.

        The images are float32, or what the model computes in where that is another type (``precision=64-true``).
        """
        image = batch.image.float().div_(127.5).sub_(1)
        if self.horizontal_flip and self.trainer and self.trainer.training:
            mirrored = torch.rand(len(image), 1, 1, 1, device=image.device) < 0.5
            image = torch.where(mirrored, image.flip(-1), image)
        module = self.trainer.lightning_module if self.trainer else None
        return ImageBatch(image.to(module.dtype) if module else image, batch.label)
