"""Data sets that torchvision downloads."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.base import ImageDataModule


class TorchvisionDataModule(ImageDataModule):
    """A data set of torchvision's: found in data_dir in torchvision's layout, or downloaded into it.

    Args:
        **kwargs: See ImageDataModule.

    Raises:
        MisconfigurationException: The files are not in data_dir and cannot be downloaded.
    """

    source: str  # class in torchvision.datasets
    folder: str  # where the files lie under data_dir
    url: str

    @property
    def num_classes(self) -> int:
        return 10

    def prepare_data(self) -> None:
        for split in ("train", "test"):
            self._dataset(split, download=True)
        super().prepare_data()

    def _dataset(self, split: str, download: bool = False) -> Any:
        from torchvision import datasets

        try:
            return getattr(datasets, self.source)(self.data_dir, train=split == "train", download=download)
        except (OSError, RuntimeError) as error:
            raise MisconfigurationException(
                f"{self.source} is neither in {self.data_dir / self.folder} nor can it be downloaded here: fetch it "
                f"from {self.url} into that folder, or set --data.data_dir to the folder above it"
            ) from error

    @cache  # noqa: B019  (a data module lives as long as the program)
    def items(self, split: str) -> tuple[np.ndarray, list[int]]:
        dataset = self._dataset(split)
        return np.asarray(dataset.data), [int(label) for label in dataset.targets]

    def open(self, item: np.ndarray) -> Any:
        from PIL import Image

        return Image.fromarray(item)

    def source_files(self, split: str) -> list[Path]:
        return sorted(path for path in (self.data_dir / self.folder).iterdir() if path.is_file())
