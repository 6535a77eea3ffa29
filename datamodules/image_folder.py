"""Any folder of images."""

from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.base import ImageDataModule
from datamodules.pictures import EXTENSIONS, is_picture, pictures_of


class ImageFolder(ImageDataModule):
    """Your own images, of any size: the shorter side is resized to image_size and the centre cut out.

    Sub-folders with images are classes, in alphabetical order; a folder without them has no labels. Where data_dir
    holds ``train`` and ``test`` (or ``val``) folders, these are the splits; otherwise all images are trained on, and
    scores compare with the training images.

    Args:
        data_dir: The folder.
        channels: 3 for colour, 1 for grey; images are converted.
        **kwargs: See ImageDataModule.

    Raises:
        MisconfigurationException: The folder is missing, holds no images, mixes images with folders of images, or has
            classes to test that are not trained on. Raised when the files are first asked for.
    """

    def __init__(self, data_dir: str = "data", channels: Literal[1, 3] = 3, **kwargs: Any) -> None:
        super().__init__(data_dir=data_dir, **kwargs)
        self.channels = channels

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the sub-folders that hold images to train on."""
        self._require_folder()
        folders = sorted(path for path in self._folder("train").iterdir() if path.is_dir())
        return tuple(path.name for path in folders if path.name[0] != "." and any(map(is_picture, path.rglob("*"))))

    def _require_folder(self) -> None:
        if not self.data_dir.is_dir():
            raise MisconfigurationException(
                f"--data.data_dir={self.data_dir} is not a folder: give one that holds images"
            )

    @property
    def val_split(self) -> str:  # type: ignore[override]
        """ "test" where there is a test (or val) folder beside train, else "train"."""
        return "train" if self._folder("test") == self.data_dir else "test"

    def _folder(self, split: str) -> Path:
        for test in ("test", "val"):
            if (self.data_dir / "train").is_dir() and (self.data_dir / test).is_dir():
                return self.data_dir / ("train" if split == "train" else test)
        return self.data_dir

    def items(self, split: str) -> tuple[list[Path], list[int] | None, list[Path]]:
        self._require_folder()
        pictures = _pictures_by_class(self._folder(split))
        classes = list(self.class_names) or [""]
        for name in pictures:
            if name not in classes:
                raise MisconfigurationException(
                    f"{self._folder(split) / name} has no counterpart in {self._folder('train')}: --data.data_dir must "
                    "hold the same class folders in both, or none in both"
                )
        paths = [path for paths in pictures.values() for path in paths]
        labels = [classes.index(name) for name, paths in pictures.items() for _ in paths]
        return paths, None if classes == [""] else labels, paths


def _pictures_by_class(folder: Path) -> dict[str, list[Path]]:
    """The image files of every class folder, in alphabetical order; those of a flat folder under an empty name."""
    found = {"": pictures_of(folder.iterdir())}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            found[path.name] = pictures_of(path.rglob("*"))
    found = {name: paths for name, paths in found.items() if paths}
    if not found:
        raise MisconfigurationException(
            f"{folder} holds no images ({', '.join(sorted(EXTENSIONS))}): set --data.data_dir to a folder that does"
        )
    if "" in found and len(found) > 1:
        raise MisconfigurationException(
            f"{folder} holds both images ({found[''][0].name}) and folders of images ({list(found)[1]}): "
            "--data.data_dir must hold images only, or one folder a class"
        )
    return found
