"""Folders of images that are splits."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from datamodules.images.folders import held_out
from datamodules.images.module import ImageDataModule


class SplitFolders(ImageDataModule):
    """Images to train on and, where there are any, to validate or else to test with, in folders of their own."""

    @abstractmethod
    def _folders(self) -> Mapping[str, Any]:
        """What is there: the folder, or the folders of two domains, of "train" and, if any, "val" and "test"."""

    def _folder(self, split: str) -> Any:
        """Of "train" or "test"; None where there is none."""
        folders = self._folders()
        return folders.get("train") if split == "train" else held_out(folders)

    @property
    def val_split(self) -> str:  # type: ignore[override]
        """ "test" where there is something to validate or test with, else "train"."""
        return "test" if self._folder("test") else "train"
