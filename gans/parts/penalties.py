"""Penalties on the discriminator's gradient with respect to images, added to its loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Annotated, Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from gans.parts.precision import full_precision, uncompiled


@dataclass
class Judged:
    """Images that a discriminator has judged, and how to ask it about others.

    Args:
        images: Images (N, C, H, W). Where they require gradients, ``outputs`` can be differentiated twice.
        judge: Raw outputs for as many other images, judged with the same classes (or sources) as these.
        outputs: The raw outputs for these, in full precision.
        rest: What else the discriminator says of them, such as features or logits of classes.
    """

    images: Tensor
    judge: Callable[[Tensor], Tensor]
    outputs: Tensor | None = None
    rest: tuple[Any, ...] = ()

    def gradient(self) -> Tensor:
        """Gradient of every image's score with respect to its pixels, (N, C * H * W), itself differentiable.

        It reuses the forward pass of the outputs where that can be differentiated twice.
        """
        if self.outputs is None or not self.images.requires_grad:
            return gradient_at(self.judge, self.images)
        (gradient,) = torch.autograd.grad(self.outputs.sum(), self.images, create_graph=True)
        return full_precision(gradient.flatten(1))


class Penalty(ABC):
    """What every penalty provides.

    Args:
        weight: Factor of the penalty.
        every: The penalty is added in one of so many updates of the discriminator only, and there so many times (Karras
            et al. 1912.04958, appendix B, "lazy regularization"; the optimizer's rate and betas, which are changed
            along with it there, stay as they are).

    Raises:
        MisconfigurationException: An argument is out of range.
    """

    differentiates: str = ""
    """The images, "real" or "fake", whose own scores it differentiates, so that the loss's forward pass will do."""
    every: int = 1

    def __init__(self, weight: Annotated[float, "(0, inf)"] = 10.0, every: Annotated[int, "[1, inf)"] = 1) -> None:
        if weight <= 0:
            raise MisconfigurationException(f"--model.penalty.weight must be positive; got {weight}")
        if every < 1:
            raise MisconfigurationException(f"--model.penalty.every must be at least 1; got {every}")
        self.weight = weight
        self.every = every

    @abstractmethod
    def __call__(self, real: Judged, fake: Judged) -> Tensor:
        """The penalty, a scalar, for real and generated images."""


class GradientPenalty(Penalty):
    """Two-sided gradient penalty between real and generated images (WGAN-GP; Gulrajani et al. 1704.00028, equation 3).

    ``weight * E (|grad D(x)| - 1)^2`` for x drawn evenly on the line between a real and a generated image, one point a
    pair; the norm is taken over all pixels and channels of an image. x is judged with the real image's class.
    """

    def __call__(self, real: Judged, fake: Judged) -> Tensor:
        images = real.images.detach()
        share = torch.rand(len(images), 1, 1, 1, device=images.device, dtype=images.dtype)
        between = torch.lerp(images, fake.images.detach().to(images.dtype), share)
        return self.weight * (gradient_at(real.judge, between).norm(dim=1) - 1).square().mean()


class R1(Penalty):
    """Gradient penalty on real images (Mescheder et al. 1801.04406, equation 9): ``weight / 2 * E |grad D(x)|^2``.

    Args:
        weight: Factor of the penalty. By default it follows the size of the images, ``0.0002 * pixels / batch`` with
            the batch that StyleGAN2-ADA's ``train.py``, where this rule is from, has at that size on one GPU: 0.0064 at
            32 px, 0.1 at 128 px and 0.8 at 256 px. The 10 of 1801.04406 and of StyleGAN belongs to large images.
        every: See Penalty.

    Raises:
        MisconfigurationException: See Penalty.
    """

    differentiates = "real"

    def __init__(
        self, weight: Annotated[float, "(0, inf)"] | None = None, every: Annotated[int, "[1, inf)"] = 1
    ) -> None:
        super().__init__(1.0 if weight is None else weight, every)
        self.weight = weight  # type: ignore[assignment]

    def __call__(self, real: Judged, fake: Judged) -> Tensor:
        return self.weight_at(real.images) / 2 * real.gradient().square().sum(1).mean()

    def weight_at(self, images: Tensor) -> float:
        """The weight that was given, or that of the rule for images (N, C, H, W)."""
        pixels = images.shape[2:].numel()
        return 0.0002 * pixels / min(32, 4096 / sqrt(pixels)) if self.weight is None else self.weight


class R2(R1):
    """R1's counterpart on generated images, each judged with its own class (1801.04406, equation 10)."""

    differentiates = "fake"

    def __call__(self, real: Judged, fake: Judged) -> Tensor:
        return super().__call__(fake, real)


def gradient_at(judge: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Gradient of every image's score with respect to its pixels, (N, C * H * W), itself differentiable.

    In full precision, since half of it underflows in the gradient of a gradient, and uncompiled, since torch.compile
    cannot differentiate twice.
    """
    images = full_precision(images.detach()).requires_grad_()
    with torch.autocast(images.device.type, enabled=False), uncompiled():
        (gradient,) = torch.autograd.grad(judge(images).sum(), images, create_graph=True)
    return full_precision(gradient.flatten(1))
