"""R3GAN: The GAN is dead; long live the GAN! A Modern GAN Baseline (Huang et al., 2024, arXiv 2501.05441)."""

from math import cos, pi, sqrt
from typing import Annotated, Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from gans.parts.losses import AdversarialLoss, RelativisticPairs
from gans.parts.penalties import R1, R2, Penalty
from gans.parts.style import Blur
from gans.training.batches import images_of
from gans.training.module import at_least
from gans.training.noise import NoiseGAN, channels_and_size
from gans.training.optimizers import Adam

GROUP = 16  # channels of a group in the grouped convolutions


def scaled(layer: Any, gain: float = 1.0) -> Any:
    """Let a layer's weights start as N(0, gain^2 / inputs), and its bias, if it has one, at 0; returns the layer."""
    nn.init.normal_(layer.weight, 0.0, gain / sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv1x1(before: int, after: int) -> nn.Conv2d:
    """A linear layer at every position, without bias."""
    return scaled(nn.Conv2d(before, after, 1, bias=False))


class Block(nn.Module):
    """Features (N, width, S, S) plus what three convolutions make of them: 1x1, 3x3 in groups, and 1x1 (section 3).

    The inner ones have twice the channels, and bias and leaky ReLU. Nothing is normalised: as in Fixup (Zhang et al.
    1901.09321) the last weights start at 0, and the others are the smaller the more blocks a network has.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        inner = 2 * width
        gain = sqrt(2 / (1 + 0.2**2)) * blocks ** (-1 / 4)  # He's for leaky ReLU; L^(-1 / (2m - 2)) for m = 3 layers
        self.layers = nn.Sequential(
            scaled(nn.Conv2d(width, inner, 1), gain),
            nn.LeakyReLU(0.2),
            scaled(nn.Conv2d(inner, inner, 3, padding=1, groups=inner // GROUP), gain),
            nn.LeakyReLU(0.2),
            scaled(nn.Conv2d(inner, width, 1, bias=False), 0.0),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


class Basis(nn.Module):
    """Vectors (N, inputs) to features (N, width, 4, 4): a learned picture for every channel, scaled by a number."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.pictures = nn.Parameter(torch.randn(width, 4, 4))
        self.linear = scaled(nn.Linear(inputs, width, bias=False))

    def forward(self, z: Tensor) -> Tensor:
        return self.pictures * self.linear(z)[:, :, None, None]


class Generator(nn.Module):
    """Noise (N, latent_dim), and classes (N,) if there are any, to images (N, C, S, S), about in [-1, 1].

    The class's embedding is appended to the noise. Enlarging is bilinear.
    """

    def __init__(
        self, channels: int, widths: list[int], blocks: int, latent_dim: int, num_classes: int, tanh: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [Basis(latent_dim * (2 if num_classes else 1), widths[0])]
        before = widths[0]
        for i, width in enumerate(widths):
            if width != before:
                layers.append(conv1x1(before, width))
            if i > 0:
                layers += [nn.Upsample(scale_factor=2), Blur(width)]
            layers += [Block(width, blocks * len(widths)) for _ in range(blocks)]
            before = width
        self.body = nn.Sequential(*layers, conv1x1(before, channels), *([nn.Tanh()] if tanh else []))
        self.embedding = embedding(num_classes, latent_dim) if num_classes else None

    def forward(self, z: Tensor, *label: Tensor) -> Tensor:
        return self.body(z if self.embedding is None else torch.cat([z, self.embedding(*label)], 1))


class Discriminator(nn.Module):
    """Images (N, C, S, S), and classes (N,) if there are any, to logits (N,): the generator's mirror image.

    At the end every 4x4 channel becomes a number by a convolution of its own. With classes the logit is the inner
    product of what a linear layer makes of these with the class's embedding.
    """

    def __init__(self, channels: int, widths: list[int], blocks: int, num_classes: int) -> None:
        super().__init__()
        last = widths[0]
        before = widths[-1]
        layers: list[nn.Module] = [conv1x1(channels, before)]
        for i, width in enumerate(widths[::-1]):
            if i > 0:
                layers += [Blur(before), nn.AvgPool2d(2)]
            if width != before:
                layers.append(conv1x1(before, width))
            layers += [Block(width, blocks * len(widths)) for _ in range(blocks)]
            before = width
        reduce = scaled(nn.Conv2d(last, last, 4, groups=last, bias=False))
        self.body = nn.Sequential(*layers, reduce, nn.Flatten())
        self.end = scaled(nn.Linear(last, last if num_classes else 1, bias=False))
        self.embedding = embedding(num_classes, last, 1 / sqrt(last)) if num_classes else None

    def forward(self, images: Tensor, *label: Tensor) -> Tensor:
        found = self.end(self.body(images))
        return (found if self.embedding is None else found * self.embedding(*label)).sum(1)


def embedding(num_classes: int, size: int, gain: float = 1.0) -> nn.Embedding:
    """A vector a class, which starts like the weights of a linear layer of one-hot classes (official code)."""
    layer = nn.Embedding(num_classes, size)
    nn.init.normal_(layer.weight, 0.0, gain / sqrt(num_classes))
    return layer


class R3GAN(NoiseGAN):
    """A relativistic loss of pairs with R1 and R2 (section 2), and residual networks without tricks (section 3).

    No normalisation, mapping network, noise inputs or minibatch deviation. A generated image has the class of the real
    one that it is paired with, and the generator's loss compares with real images that the discriminator has not just
    been trained on. The defaults are the official code's (brownvc/R3GAN) for CIFAR-10.

    While images are seen, on a cosine, the rates fall to a quarter, beta2 rises from 0.9 to 0.99 and the penalties'
    weights fall to a tenth (the code's schedules). A schedule that is given takes the place of the rate's.
    The official augmentation, which becomes more frequent on such a cosine, is left out: take ``diff_augment``.

    Args:
        image_shape: Channels, height and width of the images: square, a power of two from 16 to 256.
        width: Channels of the layers nearest the image, a multiple of 8 (768 in the official code at 32 px, 384 at 64
            px and 96 at 256 px); doubled at every halving of the size.
        max_width: Most channels of a layer, a multiple of 8.
        blocks: Residual blocks at every size from 4x4 on.
        latent_dim: Size of z, and of the class's embedding in the generator.
        tanh: End the generator with a tanh, which the official code does not: most pixels of digits are exactly black,
            and where a linear output cannot be, the discriminator wins by the background.
        anneal_images: Images after which the schedules end, of which both networks see half each (the official code's
            20M are the discriminator's); 0 leaves everything as it is at first.
        gamma: Weight of both penalties at first, 0.05 by default (official code: 2 for FFHQ at 64 px, 150 at 256 px).
        penalty: One or several in the place of R1 and R2, whose weights fall likewise.
        **kwargs: See NoiseGAN.

    Raises:
        MisconfigurationException: The images are not square or their size is not such a power of two; or an argument is
            out of range.
    """

    conditional = True
    several_outcomes = False
    own_batch = True
    smallest = {"width": 8, "max_width": 8, "blocks": 1, "num_classes": 3}

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: Annotated[int, "[8, inf)"] = 768,
        max_width: Annotated[int, "[8, inf)"] = 768,
        blocks: Annotated[int, "[1, inf)"] = 2,
        latent_dim: int = 64,
        tanh: bool = False,
        anneal_images: Annotated[int, "[0, inf)"] = 40_000_000,
        loss: AdversarialLoss = RelativisticPairs(),  # noqa: B008
        gamma: Annotated[float, "(0, inf)"] | None = None,
        penalty: Penalty | list[Penalty] | None = None,
        generator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=2e-4, beta1=0.0, beta2=0.9),
        discriminator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=2e-4, beta1=0.0, beta2=0.9),
        **kwargs: Any,
    ) -> None:
        if gamma is not None and gamma <= 0:
            raise MisconfigurationException(f"--model.gamma must be positive; got {gamma}")
        if gamma is not None and penalty is not None:
            raise MisconfigurationException(
                f"--model.gamma={gamma} has no effect beside --model.penalty, whose weights are its own: leave it out"
            )
        gamma = 0.05 if gamma is None else gamma
        super().__init__(
            image_shape,
            latent_dim=latent_dim,
            loss=loss,
            penalty=[R1(gamma), R2(gamma)] if penalty is None else penalty,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **kwargs,
        )
        channels, size = channels_and_size(self)
        at_least(8, width=width, max_width=max_width)
        at_least(1, blocks=blocks)
        at_least(0, anneal_images=anneal_images)
        for name, value in (("width", width), ("max_width", max_width)):
            if value % (GROUP // 2):
                raise MisconfigurationException(f"--model.{name} must be a multiple of {GROUP // 2}; got {value}")
        self.anneal_images = anneal_images
        widths = [min(width * size // at, max_width) for at in (2**i for i in range(2, size.bit_length()))]
        self.build(
            Generator(channels, widths, blocks, latent_dim, self.num_classes, tanh),
            Discriminator(channels, widths, blocks, self.num_classes),
        )

    def fakes(self, batch: Any) -> tuple[Tensor, ...]:
        """Generated images, each of the class of the batch's image that it is paired with."""
        classes = self.classes_of(batch)
        return self.generator(self.noise(len(images_of(batch))), *classes), *classes

    def begin_update(self, batches: list[Any]) -> None:
        """Set rates, beta2 and the penalties' weights by the images seen before this update."""
        if not self.anneal_images:
            return
        seen = self.images_seen - self.trainer.world_size * sum(len(images_of(batch)) for batch in batches)
        share = (1 - cos(pi * min(1.0, seen / self.anneal_images))) / 2  # of the way from the first to the last value
        self.penalty_factor = 1 - 0.9 * share
        for player, optimizer in zip(self.players, self.trainer.optimizers, strict=True):
            for group, settings in zip(
                optimizer.param_groups, self._built[player]["optimizer"]["settings"], strict=True
            ):
                if getattr(self, f"{player}_scheduler") is None:
                    group["lr"] = settings["lr"] * (1 - 0.75 * share)
                if "betas" in group:
                    beta1, beta2 = settings["betas"]
                    group["betas"] = beta1, 1 - (1 - beta2) * (1 - 0.9 * share)
