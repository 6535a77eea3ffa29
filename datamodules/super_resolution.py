"""Pictures to be enlarged: high-resolution images, and the same reduced."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset

from datamodules.base import ImageDataModule
from datamodules.cache import fingerprint
from datamodules.loader import ImageBatch, PairBatch
from datamodules.pictures import named_if_broken, open_picture, pictures_in, upright

ORIENTATION = 0x0112  # in EXIF, how the camera was held; by a quarter turn from 5 on


class Tile(NamedTuple):
    """A square part of a picture, at its own resolution."""

    path: Path
    left: int
    top: int
    size: int

    def __str__(self) -> str:
        return str(self.path)


class SuperResolution(ImageDataModule):
    """Any folder of high-resolution images; what is to be enlarged is made of them by bicubic reduction.

    Training images are cut out of the pictures at random, never resized. Test images (Set5, Set14 and the like) are
    whole, one a batch, of any size, cropped to multiples of the scale.

    Batches are ``PairBatch(source, target)`` in [-1, 1]: target (N, 3, S, S), and source, the target reduced with
    antialiasing and rounded as a file would be, (N, 3, S / scale, S / scale).

    Args:
        data_dir: The folder of training images; sub-folders are searched too.
        test_dir: The folder of test images; without one, the training images, whole, are tested with.
        scale: How many times smaller the source is.
        image_size: Size of the target in training, a multiple of the scale; 96 in SRGAN's paper.
        load_size: Size of the tiles that the pictures are kept as and the targets are cut out of; by default twice
            image_size, or as much of it as the smallest picture has.
        **kwargs: See ImageDataModule.

    Raises:
        MisconfigurationException: A folder is missing or holds no images, a picture is smaller than a target, or
            image_size is no multiple of the scale.
    """

    channels = 3

    def __init__(
        self,
        data_dir: str = "data",
        test_dir: str | None = None,
        scale: Annotated[int, "[2, 8]"] = 4,
        image_size: int = 96,
        load_size: int | None = None,
        horizontal_flip: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            data_dir=data_dir, image_size=image_size, load_size=load_size, horizontal_flip=horizontal_flip, **kwargs
        )
        if scale < 2 or image_size % scale:
            raise MisconfigurationException(
                f"--data.image_size must be a multiple of --data.scale, and that at least 2; "
                f"got {image_size} and {scale}"
            )
        self.test_dir = Path(test_dir) if test_dir else self.data_dir
        self.scale = scale
        self._wanted_size = load_size or 2 * image_size

    @property
    def val_split(self) -> str:  # type: ignore[override]
        """ "test", the whole pictures; "train" where they are the training pictures."""
        return "train" if self.test_dir == self.data_dir else "test"

    def splits(self) -> set[str]:
        return {"train"}  # whole pictures are not kept

    def items(self, split: str) -> tuple[Sequence[Any], None, list[Path]]:
        paths = pictures_in(self.data_dir)
        sizes = {}
        for path in paths:
            with named_if_broken(path), open_picture(path) as picture:
                # Looked for in vain, it would make Pillow decode a whole PNG file.
                turned = "exif" in picture.info and picture.getexif().get(ORIENTATION, 1) > 4
                sizes[path] = picture.size[::-1] if turned else picture.size
        smallest = min(sizes, key=lambda path: min(sizes[path]))
        least = min(sizes[smallest])
        if least < self.image_size:
            raise MisconfigurationException(
                f"{smallest} is smaller than --data.image_size={self.image_size}: remove it or take a smaller size"
            )
        self._load_size = size = min(self._wanted_size, least)
        tiles = [
            Tile(path, left, top, size)
            for path, (width, height) in sizes.items()
            for top in _starts(height, size, self.image_size)
            for left in _starts(width, size, self.image_size)
        ]
        return tiles, None, paths

    def open(self, item: Tile) -> Any:
        return _open(item.path).crop((item.left, item.top, item.left + item.size, item.top + item.size))

    def reference(self, split: str) -> str:
        key = fingerprint(pictures_in(self.test_dir, "test_dir"), self.test_dir)
        return f"{super().reference('train')}-{split}-{key}-x{self.scale}"

    def prepare_data(self) -> None:
        pictures_in(self.test_dir, "test_dir")
        super().prepare_data()

    def val_dataloader(self) -> DataLoader:
        """The whole test images, one a batch."""
        pictures = _Whole(pictures_in(self.test_dir, "test_dir"), self.scale)
        return DataLoader(pictures, batch_size=1, collate_fn=lambda batch: batch[0])

    def _finished(self, image: Tensor) -> Tensor:
        return super()._finished(image) if self._training else self._as_float(image)  # test images stay whole

    def assemble(self, image: Tensor, label: Tensor | None) -> PairBatch:
        return PairBatch(reduced(image, self.scale), image)


def reduced(images: Tensor, scale: int) -> Tensor:
    """Images (N, C, H, W) in [-1, 1], ``scale`` times smaller: bicubic with antialiasing, in the 256 steps of a file.

    PyTorch's kernel is Pillow's (a = -0.5, widened by the scale), which is that of MATLAB's ``imresize``.
    """
    small = interpolate(images, scale_factor=1 / scale, mode="bicubic", antialias=True)
    return small.add(1).mul(127.5).round().clamp(0, 255).div(127.5).sub(1)


def _starts(side: int, size: int, stride: int) -> list[int]:
    """Where tiles of a size begin on a side, overlapping, so that no part is left out."""
    return sorted({min(start, side - size) for start in range(0, side - size + stride, stride)})


@lru_cache(maxsize=16)  # all tiles of a picture follow each other
def _open(path: Path) -> Any:
    return upright(open_picture(path), 3)


class _Whole(Dataset):
    """Whole pictures as batches of one, uint8, cropped at the right and the bottom to multiples of the scale."""

    def __init__(self, paths: list[Path], scale: int) -> None:
        self.paths = paths
        self.scale = scale

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> ImageBatch:
        with named_if_broken(self.paths[number]):
            pixels = torch.from_numpy(np.array(_open(self.paths[number]))).permute(2, 0, 1)[None]
        height, width = (side // self.scale * self.scale for side in pixels.shape[-2:])
        return ImageBatch(pixels[..., :height, :width], None)
