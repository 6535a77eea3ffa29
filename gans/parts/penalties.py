"""Penalties on the discriminator's gradient with respect to images, added to its loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from gans.training.module import uncompiled
from gans.training.precision import full_precision


class Penalty(ABC):
    """What every penalty provides.

    Args:
        weight: Factor of the penalty.

    Raises:
        MisconfigurationException: The weight is not positive.
    """

    def __init__(self, weight: Annotated[float, "(0, inf)"] = 10.0) -> None:
        if weight <= 0:
            raise MisconfigurationException(f"--model.penalty.weight must be positive; got {weight}")
        self.weight = weight

    @abstractmethod
    def __call__(self, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        """The penalty, a scalar, for real and generated images (N, C, H, W) with no gradient of their own."""


class GradientPenalty(Penalty):
    """Two-sided gradient penalty between real and generated images (WGAN-GP; Gulrajani et al. 1704.00028, equation 3).

    ``weight * E (|grad D(x)| - 1)^2`` for x drawn evenly on the line between a real and a generated image, one point a
    pair; the norm is taken over all pixels and channels of an image.
    """

    def __call__(self, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
        gradient = _gradient(discriminator, torch.lerp(real, fake.to(real.dtype), share))
        return self.weight * (gradient.norm(dim=1) - 1).square().mean()


class R1(Penalty):
    """Gradient penalty on real images (Mescheder et al. 1801.04406, equation 9): ``weight / 2 * E |grad D(x)|^2``."""

    def __call__(self, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        return self.weight / 2 * _gradient(discriminator, real).square().sum(1).mean()


def _gradient(discriminator: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Gradient of every image's score with respect to its pixels, (N, C * H * W), itself differentiable.

    In full precision, since half of it underflows in the gradient of a gradient, and uncompiled, since torch.compile
    cannot differentiate twice.
    """
    images = images.detach().requires_grad_()
    with torch.autocast(images.device.type, enabled=False), uncompiled():
        (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return full_precision(gradient.flatten(1))
