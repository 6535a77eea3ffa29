"""Cityscapes: photographs of streets and maps of what is in them (Cordts et al. 2016, 1604.01685)."""

from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.pairs import Pair, PairedFolder


class Cityscapes(PairedFolder):
    """Street scenes in pix2pix's layout: photograph (A, left) and label map (B, right), ``train/*.jpg``, ``val/*.jpg``.

    The licence allows no download by others: pix2pix's instructions make these files from the publisher's.

    Args:
        **kwargs: See PairedFolder.

    Raises:
        MisconfigurationException: The files are not there.
    """

    sides = "photographs", "label maps"
    colours = {
        "road": "#804080",
        "sidewalk": "#f423e8",
        "building": "#464646",
        "wall": "#66669c",
        "fence": "#be9999",
        "pole": "#999999",
        "traffic light": "#faaa1e",
        "traffic sign": "#dcdc00",
        "vegetation": "#6b8e23",
        "terrain": "#98fb98",
        "sky": "#4682b4",
        "person": "#dc143c",
        "rider": "#ff0000",
        "car": "#00008e",
        "truck": "#000046",
        "bus": "#003c64",
        "train": "#005064",
        "motorcycle": "#0000e6",
        "bicycle": "#770b20",
    }

    def __init__(self, data_dir: str = "data/cityscapes", **kwargs: Any) -> None:
        super().__init__(data_dir=data_dir, **kwargs)

    def items(self, split: str) -> tuple[list[Pair], None]:
        if not self._folder("train"):
            raise MisconfigurationException(
                f"Cityscapes is missing in --data.data_dir={self.data_dir}: fetch gtFine_trainvaltest.zip and "
                "leftImg8bit_trainvaltest.zip from https://www.cityscapes-dataset.com, and put train/*.jpg and "
                "val/*.jpg there, with the photograph left and the label map right (prepare_cityscapes_dataset.py of "
                "pytorch-CycleGAN-and-pix2pix makes them)"
            )
        return super().items(split)
