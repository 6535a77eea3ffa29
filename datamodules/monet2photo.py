"""Monet's paintings and photographs of landscapes, 256x256, without pairs (Zhu et al. 2017, 1703.10593)."""

from typing import Any

from datamodules.archives import fetch
from datamodules.unpaired import UnpairedFolder

URL = "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/monet2photo.zip"
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

    def __init__(self, data_dir: str = "data/monet2photo", **kwargs: Any) -> None:
        super().__init__(data_dir=data_dir, **kwargs)

    @property
    def folders(self) -> tuple[tuple[str, str], ...]:  # type: ignore[override]
        """Kaggle's sub-folders where they are there, else CycleGAN's."""
        kaggle = "monet_jpg", "photo_jpg"
        return (kaggle,) if (self.data_dir / kaggle[0]).is_dir() else UnpairedFolder.folders

    def prepare_data(self) -> None:
        """Download if need be; decode and resize, once and for all."""
        if not any((self.data_dir / folder).is_dir() for folder in ("monet_jpg", "trainA")):
            fetch(URL, SHA256, self.data_dir)
        super().prepare_data()
