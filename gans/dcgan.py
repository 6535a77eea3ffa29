"""DCGAN: Unsupervised Representation Learning with Deep Convolutional GANs (Radford et al., 2015, arXiv 1511.06434)."""

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any

from torch import nn

from gans.parts.initialisation import initialise
from gans.parts.layers import widths_of
from gans.training.noise import NoiseGAN, channels_and_size


class Generator(nn.Sequential):
    """Noise (N, latent_dim) to images (N, C, S, S) in [-1, 1]: project to 4x4, then double the size up to S (figure 1).

    Transposed convolutions with stride 2, batch norm and ReLU everywhere but the output, which is a Tanh (section 3).
    """

    def __init__(self, channels: int, size: int, latent_dim: int, width: int) -> None:
        widths = widths_of(size, width)[::-1]
        layers: list[nn.Module] = [
            nn.Unflatten(1, (latent_dim, 1, 1)),
            nn.ConvTranspose2d(latent_dim, widths[0], 4, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        layers += doublings(widths)
        super().__init__(*layers, nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1), nn.Tanh())


class Discriminator(nn.Sequential):
    """Images (N, C, S, S) to logits (N,), or (N, outcomes): halve the size down to 4x4, then one convolution.

    Strided convolutions and LeakyReLU(0.2), batch norm everywhere but the first layer and the output (section 3).
    """

    def __init__(
        self, channels: int, size: int, width: int, outcomes: int = 1, norm: Callable[[int], nn.Module] = nn.BatchNorm2d
    ) -> None:
        head = nn.Conv2d(widths_of(size, width)[-1], outcomes, 4)
        super().__init__(*halvings(channels, size, width, norm), head, nn.Flatten(0 if outcomes == 1 else 1))


def doublings(widths: list[int]) -> list[nn.Module]:
    """The layers that double the size of features again and again, with so many channels before and after each."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return layers


def halvings(
    channels: int, size: int, width: int, norm: Callable[[int], nn.Module] = nn.BatchNorm2d
) -> list[nn.Module]:
    """The layers that turn images (N, C, S, S) into features (N, widths_of(size, width)[-1], 4, 4)."""
    widths = widths_of(size, width)
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    for before, after in pairwise(widths):
        layers += [
            nn.Conv2d(before, after, 4, stride=2, padding=1, bias=norm is nn.Identity),
            norm(after),
            nn.LeakyReLU(0.2),
        ]
    return layers


class DCGAN(NoiseGAN):
    """Deep convolutional GAN with the non-saturating loss.

    Section 4's settings are the defaults: Adam 2e-4, beta1 0.5, z of 100. Noise is normal and kernels are 4x4, as in
    the PyTorch example most work builds on; the official code draws z from U(-1, 1), uses 5x5 kernels and has no biases
    at images, where these begin at 0.

    Args:
        image_shape: Channels, height and width of the images: square, a power of two from 16 to 256.
        width: Channels of the layer nearest the image (128 in figure 1); layers further in have up to eight times more.
        **kwargs: See NoiseGAN.

    Raises:
        MisconfigurationException: The images are not square or their size is not such a power of two.
    """

    smallest = {"width": 4}

    def __init__(
        self, image_shape: tuple[int, int, int], width: Annotated[int, "[1, inf)"] = 128, **kwargs: Any
    ) -> None:
        super().__init__(image_shape, **kwargs)
        channels, size = channels_and_size(self)
        self.build(*(network.apply(initialise) for network in self.networks(channels, size, width)))

    def networks(self, channels: int, size: int, width: int) -> tuple[nn.Module, nn.Module]:
        """The generator and the discriminator."""
        generator = Generator(channels, size, self.latent_dim, width)
        return generator, Discriminator(channels, size, width, self.loss.outcomes, self.discriminator_norm())

    def discriminator_norm(self) -> Callable[[int], nn.Module]:
        """Batch norm, which would undo spectral normalisation and is left out beside it (1802.05957)."""
        return nn.Identity if self.spectral_norm else nn.BatchNorm2d
