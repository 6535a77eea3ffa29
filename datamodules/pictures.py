"""Files of pictures: finding them, and reading them one by one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import Dataset

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # to PIL, MPO of some phones is JPEG
EXTENSIONS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def is_picture(path: Path) -> bool:
    """Whether a file is one, by its name; hidden files are none."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def pictures_of(paths: Iterable[Path]) -> list[Path]:
    """The pictures among some files, in alphabetical order."""
    return sorted(filter(is_picture, paths))


def pictures_in(folder: Path, key: str = "data_dir") -> list[Path]:
    """The pictures in a folder and its sub-folders, in alphabetical order.

    Args:
        folder: The folder.
        key: The setting under --data that names it or its parent.

    Raises:
        MisconfigurationException: There is no such folder, or there are none in it.
    """
    if not folder.is_dir():
        raise MisconfigurationException(f"{folder} is not a folder: set --data.{key} to one that holds images")
    found = pictures_of(folder.rglob("*"))
    if not found:
        raise MisconfigurationException(
            f"{folder} holds no images ({', '.join(sorted(EXTENSIONS))}): set --data.{key} to a folder that does"
        )
    return found


def open_picture(source: Any) -> Any:
    """The PIL picture in a file, given by its path or opened: of the formats that end in EXTENSIONS, and no other.

    PIL goes by the content, and would start Ghostscript for PostScript under the name of a JPEG file.
    """
    from PIL import Image

    return Image.open(source, formats=FORMATS)


@contextmanager
def named_if_broken(path: Path) -> Iterator[None]:
    """Inside, whatever PIL raises on bytes that are no picture becomes a MisconfigurationException naming the file."""
    try:
        yield
    except Exception as error:
        raise MisconfigurationException(f"Broken image {path} ({error}): mend or remove it") from error


def upright(picture: Any, channels: int) -> Any:
    """A PIL picture in 8 bits, grey or RGB, turned as the camera was held."""
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))  # PIL clips 16-bit grey at 255
    return picture.convert("L" if channels == 1 else "RGB")


class NamedPictures(Dataset):
    """The pictures of a folder at their own sizes: float (C, H, W) in [-1, 1], and the path in it without the ending.

    Args:
        folder: The folder.
        channels: 3 for colour, 1 for grey; images are converted.

    Raises:
        MisconfigurationException: There are no pictures, or two whose paths differ in the ending only.
    """

    def __init__(self, folder: Path, channels: int) -> None:
        self.channels = channels
        pictures: dict[str, Path] = {}
        for path in pictures_in(folder, "predict_dir"):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in pictures:
                raise MisconfigurationException(
                    f"{path} and {pictures[name]} would have results of one name: rename one of them"
                )
            pictures[name] = path
        self.pictures = list(pictures.items())

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> tuple[Tensor, str]:
        name, path = self.pictures[number]
        with named_if_broken(path):
            pixels = np.array(upright(open_picture(path), self.channels))
        image = torch.from_numpy(pixels if pixels.ndim == 3 else pixels[..., None]).permute(2, 0, 1)
        return image.float().div_(127.5).sub_(1), name
