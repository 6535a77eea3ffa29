"""Digits: scikit-learn's 1,797 handwritten digits, grey, 8x8, which need no download (Alpaydin and Kaynak, 1998)."""

from typing import Any

import numpy as np

from datamodules.images.module import ImageDataModule


class Digits(ImageDataModule):
    """The small data set that comes with the installation, enlarged from 8x8 to image_size."""

    channels = 1
    val_split = "train"  # too few to hold any back
    class_names = tuple("0123456789")

    def items(self, split: str) -> tuple[Any, list[int]]:
        from sklearn.datasets import load_digits

        digits = load_digits()  # 17 grey levels, 0 to 16
        return (digits.images * (255 / 16)).round().astype(np.uint8), digits.target.tolist()
