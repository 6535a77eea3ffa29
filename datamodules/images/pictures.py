"""Files of pictures, read one by one."""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.images.broken import named_if_broken

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # to PIL, MPO of some phones is JPEG
THIN = 4  # times as long as wide


@cache
def formats() -> tuple[str, ...]:
    """Those of FORMATS that the installed PIL can read."""
    from PIL import Image

    known = set(Image.registered_extensions().values())  # of AVIF and WebP only where PIL was built with them
    return tuple(kind for kind in FORMATS if kind in known and kind in Image.OPEN)


@cache
def endings() -> tuple[str, ...]:
    """What the names of pictures end in, in alphabetical order."""
    from PIL import Image

    return tuple(sorted(ending for ending, kind in Image.registered_extensions().items() if kind in formats()))


def open_picture(source: Any) -> Any:
    """The PIL picture in a file, given by its path or opened: of ``formats``, and no other.

    PIL goes by the content, and would start Ghostscript for PostScript under the name of a JPEG file.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(source, formats=formats())
    except UnidentifiedImageError:  # which repeats the file's name
        raise ValueError("it cannot be identified as an image") from None


def is_see_through(picture: Any) -> bool:
    """Whether a part of a PIL picture is transparent."""
    return _has_alpha(picture) and picture.convert("RGBA").getextrema()[3][0] < 255


def _has_alpha(picture: Any) -> bool:
    return picture.has_transparency_data and picture.mode[0] not in "IF"


def upright(picture: Any, channels: int, background: str = "white") -> Any:
    """A PIL picture in 8 bits, grey or RGB, turned as the camera was held, on a ground where it is transparent.

    Integers of 16 bits are divided by 256, unless none is above 255; floats are multiplied by 255.

    Raises:
        ValueError: Its pixels are of another range.
    """
    from PIL import Image, ImageCms, ImageColor, ImageOps

    picture = ImageOps.exif_transpose(picture)
    if _has_alpha(picture):
        ground = Image.new("RGBA", picture.size, (*ImageColor.getrgb(background)[:3], 255))
        picture = Image.alpha_composite(ground, picture.convert("RGBA"))
    elif picture.mode[0] in "IF":
        picture = Image.fromarray(_in_8_bits(np.asarray(picture), picture.mode))  # PIL would clip at 255
    elif picture.mode == "LAB":
        spaces = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        picture = ImageCms.profileToProfile(picture, *spaces, outputMode="RGB")
    return picture.convert("L" if channels == 1 else "RGB")


def _in_8_bits(pixels: np.ndarray, mode: str) -> np.ndarray:
    low, high = pixels.min(), pixels.max()
    if not 0 <= low <= high <= (1 if mode == "F" else 65535):  # nor NaN
        right = "8 or 16 bits" if mode != "F" else "8 or 16 bits, or to floats from 0 to 1"
        raise ValueError(f"its pixels, of PIL's mode {mode}, go from {low:.5g} to {high:.5g}: convert it to {right}")
    if mode == "F":
        return (pixels * 255).round().astype(np.uint8)
    return (pixels >> 8 if high > 255 else pixels).astype(np.uint8)


def pixels(picture: Any) -> np.ndarray:
    """The pixels of an upright picture, uint8 (C, H, W)."""
    found = np.asarray(picture)
    return found[None] if found.ndim == 2 else found.transpose(2, 0, 1)


def fit_image(picture: Any, channels: int, size: int, background: str = "white") -> np.ndarray:
    """A PIL picture as uint8 (C, S, S): upright, grey or RGB, shorter side resized to S, the centre cut out.

    Lanczos resampling with antialiasing, as the data sets of the StyleGAN papers were made.
    """
    from PIL import Image

    picture = upright(picture, channels, background)
    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    if max(width, height) > THIN * size:  # the centre alone is resized: the whole would have gigabytes
        x, y = picture.width / width, picture.height / height
        right, bottom = min((left + size) * x, picture.width), min((top + size) * y, picture.height)
        picture = picture.resize((size, size), Image.Resampling.LANCZOS, box=(left * x, top * y, right, bottom))
    else:
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        picture = picture.crop((left, top, left + size, top + size))
    return pixels(picture)


def as_float(images: Tensor) -> Tensor:
    """uint8 images (..., H, W) as float32 in [-1, 1]."""
    if images.device.type == "cpu":  # NumPy takes memory in large pages, which is faster for large images
        images = torch.from_numpy(np.empty(images.shape, np.float32)).copy_(images)
    return images.float().div_(127.5).sub_(1)


def by_name(paths: Iterable[Path], name_of: Callable[[Path], Any], what: str) -> dict[Any, Path]:
    """Pictures by a name that goes without the ending.

    Raises:
        MisconfigurationException: Two of them have one name.
    """
    found: dict[Any, Path] = {}
    for path in paths:
        name = name_of(path)
        if name in found:
            raise MisconfigurationException(f"{path} and {found[name]} would {what}: rename one of them")
        found[name] = path
    return found


class NamedPictures(Dataset):
    """Pictures at their own sizes: float (C, H, W) in [-1, 1], and the path in their folder without the ending.

    Args:
        folder: The folder that their names begin in.
        paths: The pictures.
        channels: 3 for colour, 1 for grey; images are converted.
        background: Colour behind what is transparent.

    Raises:
        MisconfigurationException: There are two whose paths differ in the ending only.
    """

    def __init__(self, folder: Path, paths: Iterable[Path], channels: int, background: str = "white") -> None:
        self.channels = channels
        self.background = background
        names = by_name(paths, lambda path: path.relative_to(folder).with_suffix(""), "have results of one name")
        self.pictures = [(name.as_posix(), path) for name, path in names.items()]
        self.names = [name for name, _ in self.pictures]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> tuple[Tensor, str]:
        name, path = self.pictures[number]
        with named_if_broken(path):
            found = pixels(upright(open_picture(path), self.channels, self.background))
        return as_float(torch.tensor(found)), name
