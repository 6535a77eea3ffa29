"""Monet's paintings and photographs of landscapes, 256x256, without pairs (Zhu et al. 2017, 1703.10593)."""

from pathlib import Path
from typing import Any

from datamodules.images.archives import fetch
from datamodules.images.folders import is_folder
from datamodules.unpaired import UnpairedFolder

URL = "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/monet2photo.zip"
KAGGLE = "monet_jpg", "photo_jpg"
SHA256 = "88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04"


class Monet2Photo(UnpairedFolder):
    """Paintings (A) and photographs (B).

    Found in data_dir in the layout of Kaggle's competition "I'm Something of a Painter Myself" (``monet_jpg/*.jpg``,
    ``photo_jpg/*.jpg``; nothing to test with) or CycleGAN's (``trainA``, ``trainB``, ``testA``, ``testB``), or
    downloaded in the latter. ``direction="BtoA"`` paints photographs.

    Args:
        **kwargs: See UnpairedFolder.

    Raises:
        MisconfigurationException: The data is not there and cannot be downloaded.
    """

    sides = "paintings", "photographs"

    def __init__(self, data_dir: str = "data/monet2photo", **kwargs: Any) -> None:
        super().__init__(data_dir=data_dir, **kwargs)

    def _folders(self) -> dict[str, list[Path]]:
        """Kaggle's sub-folders where they are there, else CycleGAN's."""
        found = [self.data_dir / name for name in self.names]
        if self.names != KAGGLE:
            return super()._folders()
        return {"train": found} if all(map(is_folder, found)) else {}

    @property
    def names(self) -> tuple[str, str]:  # type: ignore[override]
        """The sub-folders to train on."""
        return KAGGLE if is_folder(self.data_dir / KAGGLE[0]) else UnpairedFolder.names

    def prepare_data(self) -> None:
        """Download if need be; decode and resize, once and for all."""
        if not any(is_folder(self.data_dir / name) for name in (KAGGLE[0], "trainA")) and not self._folders():
            fetch(URL, SHA256, self.data_dir)
        super().prepare_data()
