"""The one place where images leave the training range: pictures and scores are made from what these helpers return."""

import os
from pathlib import Path

import torch
from torch import Tensor


def to_uint8(images: Tensor) -> Tensor:
    """Float images (N, C, H, W) in [-1, 1] as uint8 in [0, 255], rounded to nearest; values outside are clipped.

    The input is never changed in place.
    """
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def write_png(image: Tensor, path: str | Path) -> None:
    """Write one uint8 image (C, H, W), grey or RGB, to ``path``; the file appears whole or not at all."""
    from torchvision.io import encode_png

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(encode_png(image.cpu().contiguous()).numpy().tobytes())
    partial.replace(path)


def grid(images: Tensor, columns: int | None = None) -> Tensor:
    """Lay float images (N, C, H, W) in [-1, 1] out on one uint8 picture (C, H', W'), row by row, square by default."""
    from torchvision.utils import make_grid

    columns = columns or max(1, round(len(images) ** 0.5))
    return make_grid(to_uint8(images), nrow=columns, padding=2, pad_value=255)[: images.shape[1]]
