"""Data sets that torchvision downloads."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.images.module import ImageDataModule


class TorchvisionDataModule(ImageDataModule):
    """A data set of torchvision's: found in data_dir in torchvision's layout, or downloaded into it.

    Raises:
        MisconfigurationException: The files are not in data_dir and cannot be downloaded.
    """

    source: str  # class in torchvision.datasets
    pattern: str  # where torchvision keeps them, under data_dir
    archive: str  # what to fetch by hand where there is no network
    url: str

    def prepare_data(self) -> None:
        """Download if need be; decode and resize, once and for all."""
        self._dataset("train", download=True)  # fetches both splits
        super().prepare_data()

    def _dataset(self, split: str, download: bool = False) -> Any:
        from torchvision import datasets

        folder = (self.data_dir / self.pattern).parent
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            return getattr(datasets, self.source)(self.data_dir, train=split == "train", download=download)
        except Exception as error:  # no network, no write permission, or whatever a damaged file leads to
            for path in missing:  # torchvision makes the folders before it asks for the files
                with suppress(OSError):
                    path.rmdir()
            raise MisconfigurationException(
                f"{self.source} is missing or damaged in {folder} and was not downloaded: put {self.archive} (from "
                f"{self.url}) there, or set --data.data_dir to the folder that holds {Path(self.pattern).parent}"
            ) from error

    def items(self, split: str) -> tuple[Any, list[int]]:
        dataset = self._dataset(split)
        return np.asarray(dataset.data), [int(label) for label in dataset.targets]

    def files_of(self, items: Any) -> list[Path]:
        return sorted(self.data_dir.glob(self.pattern))
