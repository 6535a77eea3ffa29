"""Digits: scikit-learn's 1,797 handwritten digits, grey, 8x8, which need no download (Alpaydin and Kaynak, 1998)."""

from functools import cache
from typing import Any

import numpy as np

from datamodules.images.module import ImageDataModule


@cache
def _loaded() -> Any:
    """What scikit-learn reads from a text file, slowly."""
    from sklearn.datasets import load_digits

    return load_digits()


class Digits(ImageDataModule):
    """The small data set that comes with the installation, enlarged from 8x8 to image_size."""

    channels = 1
    val_split = "train"  # too few to hold any back
    class_names = tuple("0123456789")

    def items(self, split: str) -> tuple[Any, list[int]]:
        digits = _loaded()  # 17 grey levels, 0 to 16
        return (digits.images * (255 / 16)).round().astype(np.uint8), digits.target.tolist()
