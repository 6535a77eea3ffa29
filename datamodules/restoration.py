"""Damaged pictures to be restored: any images, and the same made small and compressed."""

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn.functional import interpolate

from datamodules.image_folder import ImageFolder
from datamodules.images.loader import PairBatch


class Restoration(ImageFolder):
    """Your own images, and what is to be restored, made of them: reduced, enlarged again and compressed as JPEG.

    This is how DeOldify and fastai's lesson on restoration ("crappify") train. Every training image is damaged anew
    whenever it comes, by amounts drawn from the ranges; images to evaluate with are always damaged by the middle of
    these. Folders are as in ImageFolder; classes are ignored.

    Batches are ``PairBatch(source, target)``, (N, C, S, S) in [-1, 1] each, source being the damaged target.

    Args:
        data_dir: The folder; sub-folders are searched too.
        channels: 3 for colour, 1 for grey; images are converted.
        quality: Lowest and highest quality of the compression, from 1 to 100.
        reduction: Least and largest factor by which images are made smaller, from 1 on.
        **kwargs: See ImageDataModule.

    Raises:
        MisconfigurationException: The folder is missing or holds no images, or a range is none.
    """

    offers = {"pairs": ""}

    def __init__(
        self,
        data_dir: str = "data",
        channels: Literal[1, 3] = 3,
        quality: tuple[int, int] = (10, 70),
        reduction: tuple[float, float] = (2.0, 4.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(data_dir=data_dir, channels=channels, **kwargs)
        for name, (low, high), least, most in (
            ("quality", quality, 1, 100),
            ("reduction", reduction, 1, self.image_size),
        ):
            if not least <= low <= high <= most:
                raise MisconfigurationException(
                    f"--data.{name} must be two numbers from {least} to {most}, the smaller first; got {[low, high]}"
                )
        self.quality = quality
        self.reduction = reduction

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return ()

    def items(self, split: str) -> tuple[list[Path], None]:
        return self._all(split), None

    def assemble(self, image: Tensor, label: Tensor | None) -> PairBatch:
        # Drawn on the CPU, where they are needed: sizes of images are no numbers on a device.
        place = torch.rand(2, len(image)) if self._training else torch.full((2, len(image)), 0.5)
        factors, quality = (
            low + (high - low) * part for part, (low, high) in zip(place, (self.reduction, self.quality), strict=True)
        )
        return PairBatch(compressed(blurred(image, factors.tolist()), quality.round()), image)


def blurred(images: Tensor, factors: list[float]) -> Tensor:
    """Images (N, C, H, W), each made smaller by a factor of its own, with antialiasing, and enlarged again."""
    shape = images.shape[-2:]
    damaged = []
    for image, factor in zip(images.split(1), factors, strict=True):
        size = [max(1, round(side / factor)) for side in shape]
        small = interpolate(image, size, mode="bilinear", antialias=True)
        damaged.append(interpolate(small, shape, mode="bilinear"))
    return torch.cat(damaged)


@torch.no_grad()
def compressed(images: Tensor, quality: Tensor) -> Tensor:
    """Images (N, C, H, W) in [-1, 1], C being 1 or 3, as a JPEG file of some quality (N,) shows them."""
    from kornia.enhance import jpeg_codec_differentiable

    coded = images.float().add(1).div(2).expand(-1, 3, -1, -1)
    # Kornia's codec rounds softly, to be differentiable, so that its pictures still hold a trace of what a file has
    # lost, which a network would learn to amplify. The second time, nothing is left of that.
    for _ in range(2):
        coded = jpeg_codec_differentiable(coded, quality).mul(255).round().clamp(0, 255).div(255)
    return coded[:, : images.shape[1]].mul(2).sub(1).to(images.dtype)  # grey stays grey
