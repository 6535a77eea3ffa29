"""CMP Facades: photographs of facades and maps of their parts, 256x256 (Tyleček and Šára, 2013)."""

from pathlib import Path
from typing import Any

from datamodules.images.archives import fetch
from datamodules.pairs import PairedFolder

URL = "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/facades.zip"
SHA256 = "9a31ebf3a31b9b5cd195dd5bf62e9308e00cb94604d1019e3889ac84248695c0"


class Facades(PairedFolder):
    """Facades as pix2pix's authors distribute them: photographs (A) and label maps (B).

    Found in data_dir in pix2pix's layout (``train/*.jpg``, photograph left and label map right, ``val``) or CycleGAN's
    (``trainA/1_A.jpg``, ``trainB/1_B.jpg``, ``testA``, ``testB``), or downloaded in the latter, of which alone a
    checksum was published.

    Args:
        **kwargs: See PairedFolder.

    Raises:
        MisconfigurationException: The data is not there and cannot be downloaded.
    """

    sides = "photographs", "label maps"
    colours = {
        "background": "#0006d9",
        "wall": "#0d3dfb",
        "window": "#0075ff",
        "door": "#a50000",
        "entrance": "#00c9ff",
        "window head": "#1dffdd",
        "window sill": "#68f898",
        "balcony": "#b8ff38",
        "shutter": "#eeed28",
        "trim": "#ff9204",
        "cornice": "#ff4401",
        "column": "#f60001",
    }

    def __init__(self, data_dir: str = "data/facades", **kwargs: Any) -> None:
        super().__init__(data_dir=data_dir, **kwargs)

    def prepare_data(self) -> None:
        """Download if need be; decode and resize, once and for all."""
        if not self._folder("train"):
            fetch(URL, SHA256, self.data_dir)
        super().prepare_data()

    def name_of(self, path: Path) -> str:
        return path.stem.removesuffix("_A").removesuffix("_B")
