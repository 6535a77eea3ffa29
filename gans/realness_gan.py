"""RealnessGAN: Real or Not Real, that is the Question (Xiangli et al., 2020, arXiv 2002.05512)."""

from typing import Any

import torch
from torch import Tensor, nn

from gans.dcgan import DCGAN, Discriminator, Generator
from gans.parts.losses import AdversarialLoss, Realness


class Resampled(nn.Module):
    """Means and log-variances (N, 2 * outcomes) to a sample of each (N, outcomes): feature resampling."""

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = x.chunk(2, 1)
        return mean + torch.randn_like(mean) * (log_variance / 2).exp()


class RealnessGAN(DCGAN):
    """DCGAN's networks, with a discriminator that gives a distribution over outcomes for every image (section 3).

    The distribution is compared with an anchor for real and one for generated images (``gans.losses.Realness``). The
    discriminator is spectrally normalised and the generator has batch norm, as in the official code, whose generator
    has LeakyReLU(0.2) in the place of ReLU, and no layer a bias.

    It draws digits, though a published attempt on MNIST saw only noise. What that depends on, tried one by one on
    scikit-learn's digits (``pytest -m slow tests/gans/test_realness_gan.py -s``): the two anchors must differ, because
    with one anchor for both kinds D has nothing to tell apart and G stays at its noise; and the learning rate must not
    be much lower than 2e-4, because at 2e-5 the same steps lead nowhere. The number of outcomes, the generator's
    objective, the anchors' shift and spectral or batch norm in D change the pace only.

    Args:
        resample: Let the discriminator give a mean and a variance of each outcome's logit, which is drawn from these
            (the official code's re-parameterised head, used on CelebA).
        **kwargs: See DCGAN.
    """

    own_batch = True  # the official code draws one for the generator

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        loss: AdversarialLoss = Realness(),  # noqa: B008
        spectral_norm: bool = True,
        resample: bool = False,
        **kwargs: Any,
    ) -> None:
        self.resample = resample
        super().__init__(image_shape, loss=loss, spectral_norm=spectral_norm, **kwargs)

    def networks(self, channels: int, size: int, width: int) -> tuple[nn.Module, nn.Module]:
        if not self.resample:
            return super().networks(channels, size, width)
        discriminator = Discriminator(channels, size, width, 2 * self.loss.outcomes, self.discriminator_norm())
        return Generator(channels, size, self.latent_dim, width), discriminator.append(Resampled())
