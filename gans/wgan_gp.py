"""WGAN-GP: Improved Training of Wasserstein GANs (Gulrajani et al., 2017, arXiv 1704.00028)."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from gans.parts.losses import AdversarialLoss, Wasserstein
from gans.parts.penalties import GradientPenalty, Penalty
from gans.training.optimizers import Adam
from gans.wgan import WGAN


class WGANGP(WGAN):
    """WGAN whose critic is kept Lipschitz by a gradient penalty in place of clipping (algorithm 1).

    The critic has layer norm: batch norm would make the penalty of one image depend on the others (section 4). Five
    critic updates precede a generator update; Adam with 1e-4, beta1 0 and beta2 0.9. The official code for CIFAR-10 has
    residual networks where these are DCGAN's, generates twice as many images for a generator update as for a critic's,
    and lets the learning rate fall to 0, as ``configs/wgan_gp/cifar10.yaml`` does with both networks' ``_scheduler``.

    Args:
        **kwargs: See WGAN.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        loss: AdversarialLoss = Wasserstein(),  # noqa: B008
        penalty: Penalty | list[Penalty] | None = GradientPenalty(),  # noqa: B008
        weight_clip: float | None = None,
        generator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=1e-4, beta1=0.0, beta2=0.9),
        discriminator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=1e-4, beta1=0.0, beta2=0.9),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_shape,
            loss=loss,
            penalty=penalty,
            weight_clip=weight_clip,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **kwargs,
        )

    def discriminator_norm(self) -> Callable[[int], nn.Module]:
        """Layer norm over channels and positions, with a gain and bias a channel."""
        return nn.Identity if self.spectral_norm else lambda channels: nn.GroupNorm(1, channels)
