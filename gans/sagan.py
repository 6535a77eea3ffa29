"""SAGAN: Self-Attention Generative Adversarial Networks (Zhang et al., 2018, arXiv 1805.08318)."""

from itertools import pairwise
from typing import Annotated, Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, relu
from torch.nn.utils import parametrize

from gans.parts.initialisation import normalise_spectrally
from gans.parts.losses import AdversarialLoss, Hinge
from gans.parts.penalties import Judged
from gans.training.noise import NoiseGAN, channels_and_size
from gans.training.optimizers import Adam


class SelfAttention(nn.Module):
    """Every position of feature maps (N, C, H, W) looks at every other one (section 3, figure 2).

    Queries and keys have C/8 channels and values C/2, which a last convolution maps back to C; keys and values are
    max-pooled to half the size (official code). The result is added with a learned scale that starts at 0 (equation 3).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        self.query = nn.Conv2d(channels, narrow, 1, bias=False)
        self.key = nn.Conv2d(channels, narrow, 1, bias=False)
        self.value = nn.Conv2d(channels, half, 1, bias=False)
        self.output = nn.Conv2d(half, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2).transpose(1, 2)
        key, value = (max_pool2d(conv(x), 2).flatten(2).transpose(1, 2) for conv in (self.key, self.value))
        # Spelled out, since gradient penalties cannot differentiate fused kernels twice. The paper does not scale.
        attended = (query @ key.transpose(1, 2)).softmax(2) @ value
        return x + self.gamma * self.output(attended.transpose(1, 2).unflatten(2, x.shape[2:]))


class ConditionalNorm(nn.Module):
    """Batch norm of (N, C, H, W) with a gain and bias for each class; ordinary batch norm without classes."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=not num_classes)
        self.affine = nn.Embedding(num_classes, 2 * channels) if num_classes else None
        if self.affine is not None:
            nn.init.ones_(self.affine.weight[:, :channels])
            nn.init.zeros_(self.affine.weight[:, channels:])

    def forward(self, x: Tensor, *label: Tensor) -> Tensor:
        x = self.norm(x)
        if self.affine is None:
            return x
        gain, bias = self.affine(*label)[:, :, None, None].chunk(2, 1)
        return (gain * x + bias).to(x.dtype)  # in mixed precision gains are float32, and features would be from here on


class GeneratorBlock(nn.Module):
    """Residual block (N, before, S, S) to (N, after, 2S, 2S)."""

    def __init__(self, before: int, after: int, num_classes: int) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(before, num_classes)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.norm2 = ConditionalNorm(after, num_classes)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.skip = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, x: Tensor, *label: Tensor) -> Tensor:
        y = self.conv1(interpolate(relu(self.norm1(x, *label)), scale_factor=2))
        y = self.conv2(relu(self.norm2(y, *label)))
        return y + interpolate(self.skip(x), scale_factor=2)  # a 1x1 convolution is the same before it, and cheaper


class Generator(nn.Module):
    """Noise (N, latent_dim), and classes (N,) if there are any, to images (N, C, S, S) in [-1, 1]."""

    def __init__(self, channels: int, size: int, latent_dim: int, width: int, num_classes: int) -> None:
        super().__init__()
        sizes = [2**i for i in range(2, size.bit_length())]  # 4 to S
        widths = [width * min(size // s, 16) for s in sizes]
        self.start = nn.Linear(latent_dim, widths[0] * 16)
        self.blocks = nn.ModuleList(GeneratorBlock(a, b, num_classes) for a, b in pairwise(widths))
        self.attention = SelfAttention(widths[sizes.index(attention_size(size))])
        self.attention_after = sizes.index(attention_size(size)) - 1
        self.end = nn.Sequential(
            nn.BatchNorm2d(widths[-1]), nn.ReLU(), nn.Conv2d(widths[-1], channels, 3, padding=1), nn.Tanh()
        )

    def forward(self, noise: Tensor, *label: Tensor) -> Tensor:
        x = self.start(noise).unflatten(1, (-1, 4, 4))
        for i, block in enumerate(self.blocks):
            x = block(x, *label)
            if i == self.attention_after:
                x = self.attention(x)
        return self.end(x)


class DiscriminatorBlock(nn.Module):
    """Residual block (N, before, S, S) to (N, after, S/2, S/2), or of the same size."""

    def __init__(self, before: int, after: int, first: bool = False, halve: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1) if before != after or halve else nn.Identity()
        self.first = first
        self.pool = 2 if halve else 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(relu(self.conv1(x if self.first else relu(x))))
        return avg_pool2d(y, self.pool) + self.skip(avg_pool2d(x, self.pool))


class Discriminator(nn.Module):
    """Images (N, C, S, S), and classes (N,) if there are any, to logits (N,), or (N, outcomes).

    The class adds the inner product of its embedding with the features, summed over positions (projection
    discriminator, Miyato and Koyama 1802.05637).
    """

    def __init__(self, channels: int, size: int, width: int, num_classes: int, outcomes: int = 1) -> None:
        super().__init__()
        sizes = [size >> i for i in range(1, size.bit_length() - 2)]  # S/2 to 4, after each block
        widths = [channels, *(width * min(size // (2 * s), 16) for s in sizes)]
        self.blocks = nn.ModuleList(DiscriminatorBlock(a, b, first=i == 0) for i, (a, b) in enumerate(pairwise(widths)))
        self.blocks.append(DiscriminatorBlock(widths[-1], widths[-1], halve=False))
        self.attention_after = sizes.index(min(attention_size(size), sizes[0]))
        self.attention = SelfAttention(widths[self.attention_after + 1])
        self.end = nn.Linear(widths[-1], outcomes)
        self.embedding = nn.Embedding(num_classes, widths[-1]) if num_classes else None
        self.outcomes = outcomes

    def forward(self, images: Tensor, *label: Tensor) -> Tensor:
        x = images
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == self.attention_after:
                x = self.attention(x)
        features = relu(x).sum((2, 3))
        scores = self.end(features)
        if self.embedding is not None:
            scores = scores + (self.embedding(*label) * features).sum(1, keepdim=True)
        return scores.flatten(0 if self.outcomes == 1 else 1)


def attention_size(size: int) -> int:
    """Attention works on feature maps of 32x32, where the paper found it best (table 1), or half of smaller images."""
    return min(32, size // 2)


class SAGAN(NoiseGAN):
    """Residual networks with self-attention and spectral normalisation in both, and the hinge loss (section 4).

    Classes, where the data has them, choose the gains and biases of the generator's batch norm and are projected in the
    discriminator. Two time-scale updates: Adam with 4e-4 for D and 1e-4 for G, beta1 0; beta2 is the paper's 0.9 (the
    official code leaves TensorFlow's 0.999, and lets G begin with 4e-4, which it divides by up to 4 between 100,000 and
    250,000 steps). Weights begin as Xavier's and biases as 0. Pictures and scores are made with batch norm's running
    statistics, as in the official evaluation.

    Args:
        image_shape: Channels, height and width of the images: square, a power of two from 16 to 256.
        width: Channels of the layers nearest the image (64 in the official code for 128 px).
        latent_dim: Size of the noise vector z.
        **kwargs: See NoiseGAN.

    Raises:
        MisconfigurationException: The images are not square or their size is not such a power of two.
    """

    smallest = {"width": 4, "num_classes": 3}
    conditional = True

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: Annotated[int, "[1, inf)"] = 64,
        latent_dim: int = 128,
        loss: AdversarialLoss = Hinge(),  # noqa: B008
        spectral_norm: bool = True,
        generator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=1e-4, beta1=0.0, beta2=0.9),
        discriminator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=4e-4, beta1=0.0, beta2=0.9),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_shape,
            latent_dim=latent_dim,
            loss=loss,
            spectral_norm=spectral_norm,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **kwargs,
        )
        channels, size = channels_and_size(self)
        generator = Generator(channels, size, latent_dim, width, self.num_classes)
        discriminator = Discriminator(channels, size, width, self.num_classes, self.loss.outcomes)
        for layer in [*generator.modules(), *discriminator.modules()]:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        if discriminator.embedding is not None:  # one of N(0, 1) would hardly move: Adam's steps do not grow with it
            nn.init.xavier_uniform_(discriminator.embedding.weight)
        if self.spectral_norm:
            normalise_spectrally(generator, nn.Linear | nn.Conv2d)  # not the class's gains and biases
        self.build(generator, discriminator)

    def compare(self, real: Any, fake: Any, by: nn.Module | None = None) -> tuple[Judged, Judged]:
        """See AnyLoss. Spectral norms are estimated for the real images and kept for the others (official code)."""
        with parametrize.cached():
            return super().compare(real, fake, by)
