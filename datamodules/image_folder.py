"""Any folder of images."""

from functools import cache
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.base import ImageDataModule

EXTENSIONS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class ImageFolder(ImageDataModule):
    """Your own images, of any size: the shorter side is resized to image_size and the centre cut out.

    Sub-folders are classes, in alphabetical order; a folder without sub-folders has no labels. Where data_dir holds
    ``train`` and ``test`` (or ``val``) folders, these are the splits; otherwise all images are trained on, and scores
    compare with the training images.

    Args:
        data_dir: The folder.
        channels: 3 for colour, 1 for grey; images are converted.
        **kwargs: See ImageDataModule.

    Raises:
        MisconfigurationException: The folder is missing, holds no images, or mixes images with folders of images.
    """

    def __init__(self, data_dir: str = "data", channels: Literal[1, 3] = 3, **kwargs: Any) -> None:
        super().__init__(data_dir=data_dir, **kwargs)
        self.channels = channels
        if not self.data_dir.is_dir():
            raise MisconfigurationException(f"--data.data_dir={data_dir} is not a folder: give one that holds images")
        self.folders = {"train": self.data_dir}
        self.val_split = "train"
        for test in ("test", "val"):
            if (self.data_dir / "train").is_dir() and (self.data_dir / test).is_dir():
                self.folders = {"train": self.data_dir / "train", "test": self.data_dir / test}
                self.val_split = "test"
                break
        self.items("train")

    @property
    def num_classes(self) -> int:
        return len(self._classes(self.folders["train"]))

    def _classes(self, folder: Path) -> list[str]:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))

    @cache  # noqa: B019  (a data module lives as long as the program)
    def items(self, split: str) -> tuple[list[Path], list[int] | None]:
        folder = self.folders[split]
        classes = self._classes(folder)
        flat = _pictures(folder.iterdir())
        if flat and classes:
            raise MisconfigurationException(
                f"{folder} holds both images ({flat[0].name}) and folders ({classes[0]}): --data.data_dir must hold "
                "images only, or one folder a class"
            )
        paths, labels = flat, None
        if classes:
            of_class = [_pictures((folder / name).rglob("*")) for name in classes]
            paths = [path for pictures in of_class for path in pictures]
            labels = [label for label, pictures in enumerate(of_class) for _ in pictures]
        if not paths:
            raise MisconfigurationException(
                f"{folder} holds no images ({', '.join(sorted(EXTENSIONS))}): set --data.data_dir to a folder that does"
            )
        return paths, labels

    def open(self, item: Path) -> Any:
        from PIL import Image

        return Image.open(item)

    def source_files(self, split: str) -> list[Path]:
        return self.items(split)[0]


def _pictures(paths: Any) -> list[Path]:
    return sorted(path for path in paths if path.suffix.lower() in EXTENSIONS and not path.name.startswith("."))
