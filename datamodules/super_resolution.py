"""Pictures to be enlarged: high-resolution images, and the same reduced."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from datamodules.images.broken import fault, named_if_broken
from datamodules.images.cache import digest, fingerprint
from datamodules.images.folders import held_out, splits_in
from datamodules.images.loader import ImageBatch, PairBatch
from datamodules.images.module import ImageDataModule
from datamodules.images.pictures import is_see_through, open_picture, pixels, upright

SMALL = " is smaller than --data.image_size="
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
    whole, one a batch, of any size, cropped to multiples of the scale. Folders ``train`` and ``val`` (or ``test``) in
    data_dir are splits, as in ImageFolder.

    Batches are ``PairBatch(source, target)`` in [-1, 1]: target (N, 3, S, S), and source, the target reduced with
    antialiasing and rounded as a file would be, (N, 3, S / scale, S / scale).

    Args:
        data_dir: The folder of training images; sub-folders are searched too.
        test_dir: The folder of test images; without one, and without a split, the training images, whole, are tested
            with.
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
    offers = {"pairs of two sizes": ""}

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
        self._test_dir = test_dir
        self.scale = scale
        self._tested: list[Path] | None = None

    @property
    def train_dir(self) -> Path:
        """The folder of training images."""
        return splits_in(self.data_dir).get("train", self.data_dir)

    @property
    def test_dir(self) -> Path:
        """The folder of test images."""
        return Path(self._test_dir) if self._test_dir else held_out(splits_in(self.data_dir)) or self.train_dir

    @property
    def val_split(self) -> str:  # type: ignore[override]
        """ "test", the whole pictures; "train" where they are the training pictures."""
        return "train" if self.test_dir in (self.data_dir, self.train_dir) else "test"

    def splits(self) -> set[str]:
        return {"train"}  # whole pictures are not kept

    def _forget(self) -> None:
        super()._forget()
        self._measured: tuple[dict[Path, tuple[int, int]], dict[Any, str], int] | None = None

    def _sizes(self) -> tuple[dict[Path, tuple[int, int]], dict[Any, str], int]:
        """Width and height of the training pictures, why others cannot be cut, and the size of tiles; read once."""
        if self._measured is None:
            sizes, faults = {}, {}
            for path in self.pictures_in(self.train_dir):
                try:
                    with open_picture(path) as picture:
                        # Looked for in vain, it would make Pillow decode a whole PNG file.
                        turned = "exif" in picture.info and picture.getexif().get(ORIENTATION, 1) > 4
                        size = picture.size[::-1] if turned else picture.size
                except Exception as error:  # whatever PIL raises on bytes that are no picture
                    faults[path] = fault(path, error)
                    continue
                if min(size) < self.image_size:
                    faults[path] = f"{path}{SMALL}{self.image_size}"
                else:
                    sizes[path] = size
            self._measured = sizes, faults, min([self._load_size or 2 * self.image_size, *map(min, sizes.values())])
        return self._measured

    def files_of(self, items: Sequence[Tile]) -> list[Path]:
        return list(self._sizes()[0])

    def identity(self, split: str) -> Any:
        return super().identity(split), self.image_size  # by which tiles are apart

    def _keep(self, split: str) -> dict[Any, str]:
        return self._sizes()[1] | super()._keep(split)

    @property
    def load_size(self) -> int:
        """Height and width of the tiles; see the argument."""
        return self._sizes()[2]

    def items(self, split: str) -> tuple[list[Tile], None]:
        sizes, faults, size = self._sizes()
        if not sizes:
            self.leave_out(faults)
            self._require([])
        return [
            Tile(path, left, top, size)
            for path, (width, height) in sizes.items()
            for top in _starts(height, size, self.image_size)
            for left in _starts(width, size, self.image_size)
        ], None

    def leave_out(self, faults: Mapping[Any, str], *words: str) -> None:
        """See ImageDataModule; small images are not broken."""
        small = [SMALL in text for text in faults.values()]
        if any(small):
            words = ("", "remove {it} or take a smaller size")
        if not all(small):
            words = ("Broken image ", "mend or remove {it}" + ", take a smaller size" * any(small))
        super().leave_out(faults, *words)

    def open(self, item: Tile, split: str) -> Any:
        return self._picture(item.path).crop((item.left, item.top, item.left + item.size, item.top + item.size))

    def _picture(self, path: Path) -> Any:
        """A picture in RGB."""
        found, see_through = _read(path, self.background)
        if see_through:
            self._see_through.add(str(path))
        return found

    def _number(self, part: str) -> str:
        paths = {tile.path for tile in self._split("train").items} if part == "train" else self._pictures()
        return f"{len(paths):,}" if part == self.val_split or part == "train" else "0"

    def reference(self, split: str) -> str:
        key = digest(fingerprint(self._pictures(), self.test_dir), self.background)
        return f"{super().reference('train')}-{split}-{key}-x{self.scale}"

    def _pictures(self) -> list[Path]:
        """The test images; where broken ones may be left out, the whole of them."""
        if self.val_split == "train":
            return list(dict.fromkeys(tile.path for tile in self._split("train").items))
        if self.skip_broken and self._tested is None:
            self._look()
        return self.pictures_in(self.test_dir, "test_dir") if self._tested is None else self._tested

    def _look(self) -> None:
        """Read all test images once; they are not kept, and in the middle of a training it would be too late."""

        def look(_: int, path: Path) -> None:
            width, height = self._picture(path).size
            if min(width, height) < self.scale:
                raise ValueError(f"{width}x{height} pixels are less than --data.scale={self.scale}")

        self._tested = self._usable(self.pictures_in(self.test_dir, "test_dir"), look)

    def prepare_data(self) -> None:
        """Cut the training images into tiles, once and for all; look at the test images."""
        self._tested = None
        _read.cache_clear()
        self.pictures_in(self.test_dir, "test_dir")
        super().prepare_data()
        if self.val_split == "test" and self._tested is None:
            self._look()

    def val_dataloader(self) -> DataLoader:
        """The whole test images, one a batch."""
        return DataLoader(self._pictures(), batch_size=1, collate_fn=self._whole)  # type: ignore[arg-type]

    def _whole(self, paths: list[Path]) -> ImageBatch:
        """A picture as a batch of one, uint8, cropped at the right and the bottom to multiples of the scale."""
        with named_if_broken(paths[0]):
            image = torch.tensor(pixels(self._picture(paths[0])))[None]
        height, width = (side // self.scale * self.scale for side in image.shape[-2:])
        return ImageBatch(image[..., :height, :width], None)

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
def _read(path: Path, background: str) -> tuple[Any, bool]:
    """A picture in RGB, and whether it is transparent in part."""
    picture = open_picture(path)
    return upright(picture, 3, background), is_see_through(picture)
