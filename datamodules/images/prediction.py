"""Pictures of any size, one by one, for models to translate."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.images.broken import named_if_broken
from datamodules.images.folders import by_name
from datamodules.images.pictures import as_float, open_picture, pixels, upright


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
        named = by_name(
            paths,
            lambda path: path.relative_to(folder).with_suffix("").as_posix(),
            "have results of one name",
        )
        self.pictures = list(named.items())

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> tuple[Tensor, str]:
        name, path = self.pictures[number]
        with named_if_broken(path):
            found = pixels(upright(open_picture(path), self.channels, self.background))
        return as_float(torch.tensor(found)), name
