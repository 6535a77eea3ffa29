"""Networks that several papers turn images into images with."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, dropout, pad, pixel_shuffle

Norm = Callable[[int], nn.Module]


def widths_of(size: int, width: int) -> list[int]:
    """Channels after each halving of the size down to 4: doubled every time, up to eight times the first."""
    return [width * min(2**i, 8) for i in range(size.bit_length() - 3)]


def instance_norm(channels: int) -> nn.Module:
    """Instance normalisation with a gain and a bias a channel: batch norm by the statistics of each image alone."""
    return nn.InstanceNorm2d(channels, affine=True)


class SmoothShuffle(nn.Module):
    """Features (N, 4 * C, H, W) to (N, C, 2 * H, 2 * W), each the mean of itself and its neighbours above and left.

    Without the mean, four features that differ in a flat part of an image are a regular grid there; with it, none
    remains, whatever the weights (Sugawara et al. 1806.02658; fastai).
    """

    def forward(self, features: Tensor) -> Tensor:
        # At the border the mean is of those that there are; torch.compile fails on replicated ones.
        means = avg_pool2d(pixel_shuffle(features, 2), 2, stride=1, padding=1, count_include_pad=False)
        return means[..., :-1, :-1]


class PatchGAN(nn.Sequential):
    """Images (N, C, H, W) to a map of logits (N, 1, H', W'), one for every patch (Isola et al. 1611.07004, 6.1.2).

    C64-C128-C256-C512 and one output channel, all convolutions 4x4, the last two with stride 1: patches are 70x70. No
    norm in the first layer, LeakyReLU(0.2) everywhere.

    Args:
        channels: Of the images; those that are judged together are stacked.
        width: Channels of the first layer.
        norm: From a number of channels to a normalisation.
        halvings: Convolutions with stride 2: patches are 16x16 with one of them, 34x34 with two and 70x70 with three.
    """

    def __init__(self, channels: int, width: int = 64, norm: Norm = instance_norm, halvings: int = 3) -> None:
        widths = [width * 2**i for i in range(halvings + 1)]
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i, (before, after) in enumerate(pairwise(widths), start=1):
            stride = 2 if i < halvings else 1
            layers += [nn.Conv2d(before, after, 4, stride, 1, bias=False), norm(after), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))


class UNet(nn.Module):
    """Images (N, C, H, W) to images in [-1, 1]: an encoder down to 1x1 and a decoder with skips (1611.07004, 6.1.1).

    The encoder is C64-C128-C256-C512-...-C512, without norm in its first and last layer, with LeakyReLU(0.2). The
    decoder mirrors it with ReLUs; each of its layers also gets the encoder's features of the same size. Its first three
    layers drop half of their features, also when pictures are made: this is all the noise there is (section 3.2).

    Args:
        channels: Of the images on both sides.
        size: Height and width that are halved down to 1, a power of two; other multiples of it fit as well.
        width: Channels of the first layer; layers further in have up to eight times more.
        norm: From a number of channels to a normalisation.
    """

    def __init__(self, channels: int, size: int, width: int = 64, norm: Norm = instance_norm) -> None:
        super().__init__()
        depth = size.bit_length() - 1
        widths = [width * min(2**i, 8) for i in range(depth)]
        self.encoder = nn.ModuleList([nn.Conv2d(channels, width, 4, 2, 1)])
        for i, (before, after) in enumerate(pairwise(widths), start=1):
            last = i == depth - 1
            layers: list[nn.Module] = [nn.LeakyReLU(0.2), nn.Conv2d(before, after, 4, 2, 1, bias=last)]
            self.encoder.append(nn.Sequential(*layers, *([] if last else [norm(after)])))
        self.decoder = nn.ModuleList()
        for i, (before, after) in enumerate(pairwise(widths[::-1])):
            before = before * (1 if i == 0 else 2)  # features and the skip
            layers = [nn.ReLU(), nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), norm(after)]
            self.decoder.append(nn.Sequential(*layers, *([Dropout()] if i < 3 else [])))
        self.decoder.append(nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * width, channels, 4, 2, 1), nn.Tanh()))

    def forward(self, images: Tensor) -> Tensor:
        features, skips = images, []
        for layer in self.encoder:
            features = layer(features)
            skips.append(features)
        features = self.decoder[0](skips.pop())
        for layer in list(self.decoder)[1:]:
            features = layer(torch.cat([features, skips.pop()], 1))
        return features


class Dropout(nn.Module):
    """Drops half of the features, in training and afterwards alike: others each time, or the same for a ``seed``."""

    seed: Tensor | None = None
    """A whole number, on which it depends which features are dropped; none for random ones."""

    def forward(self, features: Tensor) -> Tensor:
        if self.seed is None:
            return dropout(features, 0.5, training=True)
        kept = coins(features.numel(), self.seed).reshape(features.shape)
        return torch.where(kept, 2 * features, 0.0)


def coins(count: int, seed: Tensor) -> Tensor:
    """Heads or tails, (count,), as likely and the same for a seed on any machine and in any runtime.

    Whole numbers are mixed by products modulo the prime 2^31 - 1, none of which leaves 64 bits.
    """
    prime = 2**31 - 1
    number = (torch.arange(count, device=seed.device) * 48271 + (seed * 69621 + 1) % prime) % prime
    for factor in (16807, 39373):
        number = (number * number % prime + number * factor + 1) % prime
    return number % 1024 < 512


class ResidualGenerator(nn.Sequential):
    """Images (N, C, H, W) to images in [-1, 1] of the same size (Johnson et al. 1603.08155; CycleGAN; StarGAN).

    A 7x7 convolution, two that halve the size, residual blocks of two 3x3 convolutions, two that double the size, and a
    7x7 convolution. ReLUs, and a norm after every convolution but the last.

    Args:
        channels_in: Of the input.
        channels_out: Of the output.
        width: Channels of the first layer.
        blocks: How many residual blocks.
        norm: From a number of channels to a normalisation.
        padding_mode: How the borders of 7x7 convolutions and residual blocks are padded.
        sampling: Kernel of the convolutions that halve and double.
        blurred: Whether the size is halved after convolutions, and doubled before them, by fixed blurs that keep fine
            patterns from becoming coarse ones (Zhang 1904.11486; CUT); these convolutions are 3x3 with stride 1 then.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        width: int = 64,
        blocks: int = 9,
        norm: Norm = instance_norm,
        padding_mode: str = "zeros",
        sampling: int = 4,
        blurred: bool = False,
    ) -> None:
        ends = {"padding": 3, "padding_mode": padding_mode}
        layers: list[nn.Module] = [nn.Conv2d(channels_in, width, 7, bias=False, **ends), norm(width), nn.ReLU()]
        for before in (width, 2 * width):
            down = nn.Conv2d(before, 2 * before, *((3, 1) if blurred else (sampling, 2)), 1, bias=False)
            layers += [down, norm(2 * before), nn.ReLU(), *([Halve()] if blurred else [])]
        layers += [ResidualBlock(4 * width, norm, padding_mode) for _ in range(blocks)]
        for before in (4 * width, 2 * width):
            if blurred:
                layers += [nn.Upsample(scale_factor=2, mode="bilinear")]
                up: nn.Module = nn.Conv2d(before, before // 2, 3, 1, 1, bias=False)
            else:
                up = nn.ConvTranspose2d(before, before // 2, sampling, 2, 1, output_padding=sampling % 2, bias=False)
            layers += [up, norm(before // 2), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(width, channels_out, 7, **ends), nn.Tanh())


class Halve(nn.Module):
    """Blur (N, C, H, W) with [1, 2, 1] / 4 both ways, its border reflected, and take every second pixel."""

    def forward(self, features: Tensor) -> Tensor:
        # Means of two pixels, and again: the pad behind the last pixel would not be reached.
        return avg_pool2d(avg_pool2d(pad(features, (1, 0, 1, 0), mode="reflect"), 2, 1), 2)


class ResidualBlock(nn.Module):
    """Features plus what two 3x3 convolutions make of them, with no activation after the sum."""

    def __init__(
        self, channels: int, norm: Norm, padding_mode: str = "zeros", activation: Callable[[], nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        first, second = (
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode=padding_mode, bias=False) for _ in range(2)
        )
        self.layers = nn.Sequential(first, norm(channels), activation(), second, norm(channels))

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)
