"""Any folder of images."""

from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.images.folders import held_out, splits_among
from datamodules.images.splits import SplitFolders


class ImageFolder(SplitFolders):
    """Your own images, of any size: the shorter side is resized to image_size and the centre cut out.

    Sub-folders with images are classes, in alphabetical order; a folder without them has no labels. Where data_dir
    holds a folder ``train`` (or Training, train2017, train_set and the like), that is trained on, and ``val`` or else
    ``test`` (or valid, Validation, Testing and so on) held out; without these, scores compare with the training images.
    A ``train`` with images of its own beside folders that are no splits is a class like them. A single sub-folder, as
    archives have it, is looked into.

    Args:
        data_dir: The folder.
        channels: 3 for colour, 1 for grey; images are converted.
        labels: Whether sub-folders are classes; ``false`` takes all images, in whatever folders, without labels.
        **kwargs: See ImageDataModule.

    Raises:
        MisconfigurationException: The folder is missing, holds no images, mixes images with folders of images, has
            images to test with but not to train on, or classes to test that are not trained on. Raised when the files
            are first asked for.
    """

    def __init__(self, data_dir: str = "data", channels: Literal[1, 3] = 3, labels: bool = True, **kwargs: Any) -> None:
        super().__init__(data_dir=data_dir, **kwargs)
        self.channels = channels
        self.labels = labels

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the sub-folders that hold images to train on."""
        return tuple(name for name in self._by_class("train") if name)

    def _folders(self) -> dict[str, Path]:
        """The folders "train" and, if any, "val" and "test"."""
        folder = self.data_dir
        while True:
            inside = self._sub_folders(folder)
            splits = splits_among(folder / name for name in inside if name and name not in (self.classes or ()))
            if "train" in splits:
                others = inside.keys() - {path.name for path in splits.values()} - {""}
                if held_out(splits) or not others or "" not in self._sub_folders(splits["train"]):
                    return splits
            elif splits and self.labels:
                (name, *_) = (path.name for path in splits.values())
                raise MisconfigurationException(
                    f"{folder} holds a folder {name}, but none with images that is called train: --data.data_dir must "
                    f"hold both, or else say that {name} is a class, with --data.classes, or take all images without "
                    "labels, with --data.labels=false"
                )
            (first, *more) = inside
            if more or not first or first in (self.classes or ()) or "" in self._sub_folders(folder / first):
                return {"train": folder}
            folder /= first  # the only one, with folders inside

    def _sub_folders(self, folder: Path) -> dict[str, list[Path]]:
        """The pictures below a folder by the sub-folder that they are in, in alphabetical order; "" for its own."""
        if folder not in self._inside:
            found: dict[str, list[Path]] = {}
            depth = len(folder.parts)
            for path in self.pictures_in(self.data_dir):
                if path.parts[:depth] == folder.parts:
                    found.setdefault(path.parts[depth] if len(path.parts) > depth + 1 else "", []).append(path)
            self._inside[folder] = dict(sorted(found.items()))
        return self._inside[folder]

    def _forget(self) -> None:
        super()._forget()
        self._inside: dict[Path, dict[str, list[Path]]] = {}

    def _say_others(self) -> None:
        super()._say_others()
        if self.data_dir not in self._walks:
            return
        folders = self._folders()
        used = {folders["train"], held_out(folders) or folders["train"]}
        unused = [path for path in self._walks[self.data_dir].pictures if not any(map(path.is_relative_to, used))]
        if unused:
            where = " and ".join(sorted(folder.name for folder in used))
            self._say(f"{len(unused)} images outside of {where} were left out, such as {unused[0]}")

    def _all(self, split: str) -> list[Path]:
        """The pictures of a split in alphabetical order, in whatever folders."""
        return sorted(path for paths in self._sub_folders(self._folder(split)).values() for path in paths)

    def _by_class(self, split: str) -> dict[str, list[Path]]:
        """The pictures of every class, in alphabetical order; without classes, all under an empty name."""
        folder = self._folder(split)
        found = self._sub_folders(folder)
        if not self.labels:
            return {"": self._all(split)}
        if "" in found and len(found) > 1:
            raise MisconfigurationException(
                f"{folder} holds both images ({found[''][0].name}) and folders of images ({list(found)[1]}): "
                "--data.data_dir must hold images only, or one folder a class, unless --data.labels=false takes all "
                "images without labels"
            )
        return found

    def items(self, split: str) -> tuple[list[Path], list[int] | None]:
        pictures, classes = self._by_class(split), list(self._by_class("train"))
        for name in pictures:
            if name not in classes:
                raise MisconfigurationException(
                    f"{self._folder(split) / name} has no counterpart in {self._folder('train')}: --data.data_dir must "
                    "hold the same class folders in both, or none in both; --data.labels=false takes all images "
                    "without labels"
                )
        paths = [path for paths in pictures.values() for path in paths]
        labels = [classes.index(name) for name, paths in pictures.items() for _ in paths]
        return paths, None if classes == [""] else labels
