"""What every data set shares: resized once, kept in memory or streamed, scaled and mirrored on the device."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from datamodules.cache import build, fingerprint, fit_image
from datamodules.loader import ImageBatch, Loader


class ImageDataModule(LightningDataModule, ABC):
    """Images, with class labels if the data has them.

    Batches are ``ImageBatch(image, label)``: images (N, C, H, W), float in [-1, 1] on the device.

    Args:
        data_dir: Folder of the data set.
        image_size: Height and width of the images.
        batch_size: Images a batch, on each device.
        num_workers: Processes that decode images the first time and stream them where they do not fit in memory.
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

    # What a data set provides

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """How many classes the labels tell apart; 0 when there are no labels."""

    @abstractmethod
    def items(self, split: str) -> tuple[Sequence[Any], list[int] | None]:
        """What ``open`` makes pictures of, one item an image, and their labels, for "train" or "test"."""

    @abstractmethod
    def open(self, item: Any) -> Any:
        """The PIL picture of an item."""

    @abstractmethod
    def source_files(self, split: str) -> list[Path]:
        """The files that a split is made of; when they change, so does its name."""

    # What follows

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.image_size, self.image_size

    def reference(self, split: str) -> str:
        """A name for exactly these images: data set, split, size, channels and the state of the source files."""
        key = fingerprint(self.source_files(split), self.image_shape)
        return f"{type(self).__name__.lower()}-{split}-{self.image_size}x{self.image_size}x{self.channels}-{key}"

    def prepare_data(self) -> None:
        """Decode and resize, once and for all."""
        for split in {"train", self.val_split}:
            items, _ = self.items(split)
            build(self._cache(split), items, self._decode, self.image_shape, self.num_workers)

    def _cache(self, split: str) -> Path:
        return self.cache_dir / f"{self.reference(split)}.npy"

    def _decode(self, item: Any) -> np.ndarray:
        return fit_image(self.open(item), self.channels, self.image_size)

    def setup(self, stage: str) -> None:
        """Check that there is a batch in the data before anything is trained."""
        world_size = self.trainer.world_size if self.trainer else 1
        count = len(self.items("train")[0])
        if stage == "fit" and self.batch_size * world_size > count:
            devices = f" on each of {world_size} devices" if world_size > 1 else ""
            raise MisconfigurationException(
                f"--data.batch_size={self.batch_size}{devices} is more than the {count} training images: "
                f"set it to {max(1, count // world_size)} or less"
            )

    def train_dataloader(self) -> Loader:
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> Loader:
        return self._loader(self.val_split, shuffle=False)

    def test_dataloader(self) -> Loader:
        return self._loader(self.val_split, shuffle=False)

    def _loader(self, split: str, shuffle: bool) -> Loader:
        labels = self.items(split)[1]
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        images, targets = self._images(split), None if labels is None else torch.tensor(labels)
        if isinstance(images, Tensor) and targets is not None:
            targets = targets.to(images.device)
        return Loader(
            images, targets, self.batch_size, shuffle, self.seed, rank, world_size, num_workers=self.num_workers
        )

    def _images(self, split: str) -> Tensor | Path:
        path = self._cache(split)
        size = path.stat().st_size
        if size > self.resident_bytes:
            return path
        images = torch.from_numpy(np.load(path))
        if self.trainer and self.trainer.strategy.root_device.type == "cuda":
            device = self.trainer.strategy.root_device
            if torch.cuda.mem_get_info(device)[0] > 4 * size:  # the networks need most of it
                return images.to(device)
        return images

    def on_after_batch_transfer(self, batch: ImageBatch, dataloader_idx: int) -> ImageBatch:
        """uint8 to float in [-1, 1], and mirrored at random in training; on the device, a batch at a time."""
        module = self.trainer.lightning_module if self.trainer else None
        image = batch.image.to(module.dtype if module else torch.float32).div_(127.5).sub_(1)
        if self.horizontal_flip and self.trainer and self.trainer.training:
            mirrored = torch.rand(len(image), 1, 1, 1, device=image.device) < 0.5
            image = torch.where(mirrored, image.flip(-1), image)
        return ImageBatch(image, batch.label)
