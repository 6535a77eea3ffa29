"""What GANs with styles are made of: layers with equalised learning rates, growing, the mapping network and AdaIN.

Where no other is named the paper is StyleGAN's (Karras et al., 2018, arXiv 1812.04948); "official code" is
NVlabs/stylegan.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import sqrt

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, group_norm, interpolate, rms_norm
from torch.nn.utils.parametrize import register_parametrization


class Scale(nn.Module):
    """Multiply by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def equalised(layer: nn.Linear | nn.Conv2d, gain: float = sqrt(2), rate: float = 1.0) -> nn.Module:
    """Give a layer an equalised learning rate (Karras et al. 1710.10196, section 4.1; official code's ``get_weight``).

    The trained weight starts as N(0, 1 / rate^2) and is multiplied in use by ``rate * gain / sqrt(inputs)``, He's
    standard deviation; the bias starts at 0 and is multiplied by ``rate``. Adam's steps do not depend on the size of
    gradients, so all layers learn at one speed, and those with a smaller rate that much slower.
    """
    nn.init.normal_(layer.weight, 0.0, 1 / rate)
    register_parametrization(layer, "weight", Scale(rate * gain / sqrt(layer.weight[0].numel())))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
        if rate != 1:
            register_parametrization(layer, "bias", Scale(rate))
    return layer


class Blur(nn.Module):
    """Convolve every channel of (N, C, H, W) with [1, 2, 1] / 4 both ways, zeros around the image (section 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", line.outer(line).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.kernel, padding=1, groups=len(self.kernel))


class UpConv2d(nn.Conv2d):
    """Repeat every pixel 2x2, then convolve 3x3: (N, before, S, S) to (N, after, 2S, 2S), no bias.

    Done as one transposed convolution, whose kernel is the mirrored 3x3 one spread to 4x4 (official code, fused_scale).
    """

    def forward(self, x: Tensor) -> Tensor:
        kernel = 4 * avg_pool2d(self.weight, 2, stride=1, padding=1)
        return conv_transpose2d(x, kernel.transpose(0, 1), stride=2, padding=1)


class DownConv2d(nn.Conv2d):
    """Convolve 3x3, then average 2x2 pixels: (N, before, S, S) to (N, after, S/2, S/2).

    Done as one convolution with stride 2, whose kernel is the 3x3 one spread to 4x4 (official code, fused_scale).
    """

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, avg_pool2d(self.weight, 2, stride=1, padding=1), self.bias, stride=2, padding=1)


class Growth:
    """How far progressive growing has come: plain numbers, because the host decides with them which layers run.

    Args:
        size: Height and width of the images.
        grow_images: See StyleGAN.
    """

    def __init__(self, size: int, grow_images: int) -> None:
        self.sizes = [2**i for i in range(2, size.bit_length())]  # 4 to S
        self.grow_images = grow_images
        self.seen = 0  # images seen so far

    def level(self) -> tuple[int, float]:
        """How many of ``sizes`` are in use, and the share in the picture, [0, 1), that the last but one still has.

        Growing starts with two, 4x4 and 8x8. Every size is trained on ``grow_images`` images, and then on as many while
        the next one fades in (Karras et al. 1710.10196, figure 2; official code's ``training_schedule``).
        """
        if not self.grow_images:
            return len(self.sizes), 0.0
        phase, images = divmod(self.seen, 2 * self.grow_images)
        missing = len(self.sizes) - 2 - phase - max(0.0, images / self.grow_images - 1)
        return (len(self.sizes) - int(missing), missing % 1) if missing > 0 else (len(self.sizes), 0.0)

    def stage(self) -> tuple[int, bool]:
        """How many of ``sizes`` are in use, and whether the last one is still fading in."""
        count, fade = self.level()
        return count, fade > 0

    def converters(self, make: Callable[[int], nn.Module]) -> nn.ModuleList:
        """The layers between features and pictures, made for every size that is ever the last in use."""
        return nn.ModuleList(make(size) for size in (self.sizes if self.grow_images else self.sizes[-1:]))


def enlarged(images: Tensor, factor: int = 2) -> Tensor:
    """Repeat every pixel."""
    return interpolate(images, scale_factor=factor) if factor > 1 else images


def averaged(images: Tensor, factor: int = 2) -> Tensor:
    """Average squares of pixels."""
    return avg_pool2d(images, factor) if factor > 1 else images


class Mapping(nn.Sequential):
    """The mapping network f: z (N, latent_dim), brought to length sqrt(latent_dim), to w of the same shape (figure 1b).

    It learns 100 times slower than the rest (appendix C).
    """

    def __init__(self, latent_dim: int, depth: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [equalised(nn.Linear(latent_dim, latent_dim), rate=0.01), nn.LeakyReLU(0.2)]
        super().__init__(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(rms_norm(z, z.shape[1:], eps=1e-8))


class AdaIN(nn.Module):
    """Adaptive instance normalisation of (N, C, H, W) by w (N, latent_dim) (equation 1).

    Every channel of every image gets mean 0 and deviation 1, and then the scale and shift that a learned affine map
    finds in w; the scale is what it says plus 1, so that w = 0 changes nothing (official code).
    """

    def __init__(self, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.style = equalised(nn.Linear(latent_dim, 2 * channels), gain=1.0)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        scale, shift = self.style(w)[:, :, None, None].chunk(2, 1)
        # On a CPU, groups of one channel take ten times as long in the channels-last order.
        return torch.addcmul(shift, group_norm(x.contiguous(), x.shape[1], eps=1e-8), scale + 1)


class StyleGenerator(nn.Module, ABC):
    """Noise z (N, latent_dim) to images (N, C, S, S): a mapping network, and a synthesis network that w steers.

    In training the mean of w is tracked (decay 0.995) and styles are mixed (section 3.1): with some probability the
    layers after a random one get the w of another z, the same layer for the whole batch. In evaluation w may be
    truncated (appendix B).

    Args:
        layers: Layers of the synthesis network that take a w.
        latent_dim: Size of z and w.
        mapping_layers: Layers of the mapping network.
        style_mixing: Probability of mixing.
        truncation: See StyleGAN.
    """

    w_mean: Tensor
    coarse: int
    """Layers that make up the coarse styles of figure 3: those at 4x4 and 8x8, but at most half of all."""

    def __init__(
        self, layers: int, latent_dim: int, mapping_layers: int, style_mixing: float = 0.0, truncation: float = 1.0
    ) -> None:
        super().__init__()
        self.layers = layers
        self.style_mixing = style_mixing
        self.truncation = truncation
        self.mapping = Mapping(latent_dim, mapping_layers)
        self.register_buffer("w_mean", torch.zeros(latent_dim))

    @abstractmethod
    def synthesis(self, w: Tensor) -> Tensor:
        """Images of styles w (N, latent_dim), or of one w for every layer (N, layers, latent_dim)."""

    def forward(self, z: Tensor) -> Tensor:
        w = self.mapping(z)
        if not self.training:
            return self.synthesis(w if self.truncation == 1 else self.truncate(w, self.truncation))
        self.w_mean.lerp_(w.detach().mean(0).to(self.w_mean.dtype), 1 - 0.995)
        if not self.style_mixing:
            return self.synthesis(w)
        # Drawn on the CPU and not branched on, so that the device need not be waited for and the network compiles.
        mixed = torch.rand(()) < self.style_mixing
        cutoff = torch.where(mixed, torch.randint(1, self.active_layers(), ()), self.layers)
        return self.synthesis(self.mix(w, self.mapping(torch.randn_like(z)), cutoff))

    def active_layers(self) -> int:
        """Layers in use; fewer than all while the networks grow."""
        return self.layers

    def mix(self, first: Tensor, second: Tensor, cutoff: int | Tensor) -> Tensor:
        """One w for every layer, (N, layers, latent_dim): ``first`` for so many layers, ``second`` for the others."""
        return torch.where(self._below(cutoff), first[:, None], second[:, None])

    def truncate(self, w: Tensor, psi: float) -> Tensor:
        """Move w (N, latent_dim) towards its mean, ``mean + psi * (w - mean)``, for the first 8 layers (appendix B).

        Returns one w for every layer, (N, layers, latent_dim).
        """
        return torch.where(self._below(8), (self.w_mean + psi * (w - self.w_mean))[:, None], w[:, None])

    def _below(self, cutoff: int | Tensor) -> Tensor:
        return torch.arange(self.layers, device=self.w_mean.device)[:, None] < cutoff

    def for_every_layer(self, w: Tensor) -> Tensor:
        """Styles (N, layers, latent_dim), from these or from one w (N, latent_dim) for all layers."""
        return w[:, None].expand(-1, self.layers, -1) if w.ndim == 2 else w


def check_mapping_layers(mapping_layers: int) -> None:
    """Raise MisconfigurationException if there is no mapping network."""
    if mapping_layers < 1:
        raise MisconfigurationException(f"--model.mapping_layers must be at least 1; got {mapping_layers}")
