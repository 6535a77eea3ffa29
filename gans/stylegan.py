"""StyleGAN: A Style-Based Generator Architecture for GANs (Karras et al., 2018, arXiv 1812.04948).

"Official code" is NVlabs/stylegan; its options are the paper's configuration F at up to 256 px.
"""

from itertools import pairwise
from typing import Annotated, Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from gans.export.portable import Input, Portable, normal
from gans.parts.penalties import R1, Penalty
from gans.parts.precision import full_precision
from gans.parts.style import (
    AdaIN,
    Blur,
    DownConv2d,
    Growth,
    StyleGenerator,
    UpConv2d,
    averaged,
    check_mapping_layers,
    enlarged,
    equalised,
)
from gans.training.batches import images_of
from gans.training.module import at_least
from gans.training.noise import NoiseGAN, channels_and_size
from gans.training.optimizers import Adam
from gans.training.update import Loss


class Layer(nn.Module):
    """A convolution, then noise, bias, leaky ReLU and the style, in this order (figure 1b; official code's epilogue).

    Noise is one value a pixel, with a learned weight a channel that starts at 0. It is fresh in training and fixed in
    evaluation, so that the same z gives the same image.
    """

    fixed_noise: Tensor

    def __init__(self, conv: nn.Module, channels: int, size: int, latent_dim: int) -> None:
        super().__init__()
        self.conv = conv
        self.noise_weight = nn.Parameter(torch.zeros(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.adain = AdaIN(channels, latent_dim)
        self.register_buffer("fixed_noise", torch.randn(1, 1, size, size))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x, noise = self.conv(x), self.fixed_noise
        if self.training:
            noise = torch.randn(len(x), *noise.shape[1:], device=noise.device, dtype=noise.dtype)
        x = x + torch.addcmul(self.bias, noise, self.noise_weight)
        return self.adain(leaky_relu(x, 0.2), w)


class Generator(StyleGenerator):
    """Noise (N, latent_dim) to images (N, C, S, S) in [-1, 1].

    Two layers at every size from 4x4 on; the very first has no convolution but a learned constant. While the networks
    grow, the picture of the sizes in use is enlarged to S.

    The official code has no tanh at the end and a constant of ones at the beginning. Without the tanh no image is as
    flat as MNIST's background, which gives all of them away; the constant is normal, as StyleGAN2's, since the
    normalisation of a flat one divides by 0.0001 and multiplies its gradient by as much.
    """

    def __init__(
        self, channels: int, size: int, latent_dim: int, width: int, grow_images: int = 0, **styles: Any
    ) -> None:
        growth = Growth(size, grow_images)
        super().__init__(2 * len(growth.sizes), latent_dim, **styles)
        self.growth = growth
        self.coarse = min(4, self.layers // 2)
        widths = [width_at(s, size, width) for s in growth.sizes]
        self.const = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        convolutions: list[nn.Module] = [nn.Identity(), equalised(conv3x3(widths[0], widths[0]))]
        for before, after in pairwise(widths):
            up = equalised(UpConv2d(before, after, 3, bias=False))
            convolutions += [nn.Sequential(up, Blur(after)), equalised(conv3x3(after, after))]
        self.body = nn.ModuleList(
            Layer(conv, widths[i // 2], growth.sizes[i // 2], latent_dim) for i, conv in enumerate(convolutions)
        )
        self.to_image = growth.converters(
            lambda s: nn.Sequential(equalised(nn.Conv2d(width_at(s, size, width), channels, 1), gain=1.0), nn.Tanh())
        )

    def active_layers(self) -> int:
        return 2 * self.growth.level()[0]

    def synthesis(self, w: Tensor) -> Tensor:
        w = self.for_every_layer(w)
        count, fade = self.growth.level()
        missing = len(self.growth.sizes) - count
        x = before = self.const.expand(w.shape[0], -1, -1, -1)
        for i, layer in enumerate(self.body[: 2 * count]):
            before = x if i == 2 * count - 2 else before
            x = layer(x, w[:, i])
        image = self.to_image[-1 - missing](x)
        if fade:
            image = torch.lerp(image, enlarged(self.to_image[-2 - missing](before)), fade)
        return enlarged(image, 2**missing)


class MinibatchDeviation(nn.Module):
    """Append to features (N, C, H, W) a channel that says how much the images differ (1710.10196, section 3).

    The batch is divided into groups of so many images, or of the largest smaller number that divides it. In a group,
    the deviation of every feature is averaged over features and positions.
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        group = next(n for n in range(self.group, 0, -1) if len(x) % n == 0)
        groups = full_precision(x).unflatten(0, (group, -1))
        variance = (groups - groups.mean(0)).square().mean(0)
        deviation = (variance + 1e-8).sqrt().mean((1, 2, 3), keepdim=True).repeat(group, 1, *x.shape[2:])
        return torch.cat([x, deviation.to(x.dtype)], 1)


class Discriminator(nn.Module):
    """Images (N, C, S, S) to logits (N,), or (N, outcomes): 1710.10196's, blurred before every halving of the size.

    While the networks grow, it first reduces the images to the largest size in use.
    """

    def __init__(
        self, channels: int, size: int, width: int, outcomes: int = 1, grow_images: int = 0, group: int = 4
    ) -> None:
        super().__init__()
        self.growth = growth = Growth(size, grow_images)
        widths = [width_at(s, size, width) for s in growth.sizes]
        self.from_image = growth.converters(
            lambda s: nn.Sequential(equalised(nn.Conv2d(channels, width_at(s, size, width), 1)), nn.LeakyReLU(0.2))
        )
        self.body = nn.ModuleList(
            nn.Sequential(
                equalised(conv3x3(before, before, bias=True)),
                nn.LeakyReLU(0.2),
                Blur(before),
                equalised(DownConv2d(before, after, 3)),
                nn.LeakyReLU(0.2),
            )
            for after, before in pairwise(widths)
        )
        hidden = width_at(2, size, width)
        self.head = nn.Sequential(
            MinibatchDeviation(group),
            equalised(conv3x3(widths[0] + 1, widths[0], bias=True)),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            equalised(nn.Linear(widths[0] * 16, hidden)),
            nn.LeakyReLU(0.2),
            equalised(nn.Linear(hidden, outcomes), gain=1.0),
            nn.Flatten(0 if outcomes == 1 else 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        count, fade = self.growth.level()
        missing = len(self.growth.sizes) - count
        images = averaged(images, 2**missing)
        x = self.from_image[-1 - missing](images)
        for i in reversed(range(count - 1)):
            x = self.body[i](x)
            if fade and i == count - 2:
                x = torch.lerp(x, self.from_image[-2 - missing](averaged(images)), fade)
        return self.head(x)


def conv3x3(before: int, after: int, bias: bool = False) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(before, after, 3, padding=1, bias=bias)


def width_at(at: int, size: int, width: int) -> int:
    """Channels of the layers at a size: doubled at every halving of the images' size, up to 512 (official code)."""
    return min(width * size // at, 512)


class StyledGAN(NoiseGAN):
    """What a GAN whose generator is a StyleGenerator can show of itself."""

    generator: StyleGenerator

    def pictures(self, w: Tensor) -> Tensor:
        """The images of styles, as ``sample_from`` gives those of noise."""
        with self.sampling() as generator:
            return generator.synthesis(w).float().clamp(-1, 1)

    def views(self, columns: int) -> dict[str, Tensor]:
        """Pictures of the style space, name to images (rows, columns, C, H, W) in [-1, 1]; at least two columns.

        - "interpolation_w": from one w to another one on a straight line.
        - "truncation": the same z with psi from 1 to -1 (figure 8).
        - "style_mixing": images whose coarse styles (at 4x4 and 8x8, but at most half of the layers) are those of the
          image at the left and whose other styles are those of the image above (figure 3); the corner is black.
        """
        with self.sampling() as generator:
            first, last, left = (generator.mapping(self.noise(4)) for _ in range(3))
            top = generator.mapping(self.noise(columns - 1))
            share = torch.linspace(0, 1, columns, device=first.device, dtype=first.dtype)[:, None]
            between = torch.lerp(first[:, None], last[:, None], share)
            truncated = [generator.truncate(first, psi) for psi in torch.linspace(1, -1, columns).tolist()]
            mixed = generator.mix(left.repeat_interleave(columns - 1, 0), top.repeat(4, 1), generator.coarse)
            rows = torch.cat([self.pictures(left)[:, None], self.pictures(mixed).unflatten(0, (4, -1))], 1)
            first_row = torch.cat([torch.full_like(rows[0, :1], -1), self.pictures(top)])
            return super().views(columns) | {
                "interpolation_w": self.pictures(between.flatten(0, 1)).unflatten(0, (4, -1)),
                "truncation": torch.stack([self.pictures(w) for w in truncated], 1),
                "style_mixing": torch.cat([first_row[None], rows]),
            }

    def portable(self) -> dict[str, Portable]:
        """See GANModule: noise to images, and its two halves, noise to styles and styles to images."""

        def styles(noise: Tensor, psi: Tensor) -> Tensor:
            with self.sampling() as generator:
                return generator.truncate(generator.mapping(noise), psi).float()

        layers, size = self.generator.layers, self.latent_dim
        psi = Input((), "truncation psi: 1 for none, 0 for the mean of all styles", lambda _: torch.tensor(0.7))
        first = {"noise": normal(size), "truncation": psi}
        w = Input(("batch", layers, size), "styles", lambda at: torch.randn(at["batch"], layers, size))
        mapping = Portable(styles, first, "styles", w.shape, "the style of each layer")
        return {
            "generator": self.sampled(lambda *given: self.pictures(styles(*given)), first),
            "mapping": mapping,
            "synthesis": self.sampled(self.pictures, {"styles": w}),
        }


class StyleGAN(StyledGAN):
    """Style-based generator, trained with the non-saturating loss and R1 (the paper's configuration F, appendix C).

    Adam with 1e-3 (the official code: 1.5e-3 at 128 px and 2e-3 at 256 px), beta1 0 and beta2 0.99. R1's weight follows
    the size of the images; the paper has 10, for those of 1024 px. The paper truncates (psi 0.7) the pictures that it
    shows and not those that it scores, so the default is not to; ``--model.truncation=0.7`` for pictures.

    Args:
        image_shape: Channels, height and width of the images: square, a power of two from 16 to 256.
        width: Channels of the layers nearest the image (64 in the official code at 256 px, 512 at 32 px); layers
            further in have up to 512.
        latent_dim: Size of z and of w.
        mapping_layers: Layers of the mapping network.
        style_mixing: Probability of mixing two styles in a training batch.
        truncation: Factor psi by which the distance of w from its mean is shortened in evaluation, in the first 8
            layers; 1 for none.
        grow_images: Grow progressively: images that each size is trained on, and then as many again while the next one
            fades in, from 8x8 on (600,000 in the paper); 0 trains the full networks from the beginning (official code's
            structure='fixed').
        deviation_group: Images among which the discriminator sees how much they differ (minibatch deviation).
        **kwargs: See NoiseGAN.

    Raises:
        MisconfigurationException: The images are not square or their size is not such a power of two; or an argument is
            out of range.
    """

    smallest = {"width": 4}

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: Annotated[int, "[1, inf)"] = 64,
        latent_dim: int = 512,
        mapping_layers: Annotated[int, "[1, 1000]"] = 8,
        style_mixing: Annotated[float, "[0, 1]"] = 0.9,
        truncation: Annotated[float, "[-1, 1]"] = 1.0,
        grow_images: Annotated[int, "[0, inf)"] = 0,
        deviation_group: Annotated[int, "[1, inf)"] = 4,
        penalty: Penalty | list[Penalty] | None = R1(),  # noqa: B008
        generator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=1e-3, beta1=0.0, beta2=0.99),
        discriminator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=1e-3, beta1=0.0, beta2=0.99),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_shape,
            latent_dim=latent_dim,
            penalty=penalty,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **kwargs,
        )
        channels, size = channels_and_size(self)
        check_mapping_layers(mapping_layers)
        at_least(1, deviation_group=deviation_group)
        at_least(0, grow_images=grow_images)
        if not 0 <= style_mixing <= 1:
            raise MisconfigurationException(f"--model.style_mixing must be from 0 to 1; got {style_mixing}")
        if grow_images and self.compiles:
            raise MisconfigurationException(
                "--model.compile=true does not go with --model.grow_images, which changes the networks in every step: "
                "leave out one of them"
            )
        styles = {"mapping_layers": mapping_layers, "style_mixing": style_mixing, "truncation": truncation}
        self.build(
            Generator(channels, size, latent_dim, width, grow_images, **styles),
            Discriminator(channels, size, width, self.loss.outcomes, grow_images, deviation_group),
        )

    def generate(self, batch: Any) -> Tensor:
        """See GANModule. The layers' noise is drawn anew, as in the images that the official code scores."""
        with self.sampling() as generator:
            generator.body.train()  # in which nothing but the noise depends on the mode
            return generator(self.noise(len(images_of(batch)))).float()

    # Growing

    def training_step(self, batch: Any, batch_idx: int) -> None:
        before = self.discriminator.growth.stage()
        super().training_step(batch, batch_idx)
        self._grow()
        if self.discriminator.growth.stage() != before:
            for optimizer in self.trainer.optimizers:
                optimizer.state.clear()  # it starts anew (official code's reset_opt_for_new_lod)

    def restored(self) -> None:
        self._grow()

    def _grow(self) -> None:
        for network in (self.generator, self.discriminator, self.averaged_generator):
            if network is not None:
                network.growth.seen = self.images_seen

    def discriminator_loss(self, batch: Any) -> Loss:
        return super().discriminator_loss(self.blended(batch))

    def generator_loss(self, batch: Any) -> Loss:
        return super().generator_loss(self.blended(batch))

    def verdicts(self, batch: Any) -> tuple[Tensor, Tensor]:
        return super().verdicts(self.blended(batch))

    def blended(self, batch: Any) -> Any:
        """The batch with its images faded in like generated ones, between the last size in use and the one before."""
        count, fade = self.discriminator.growth.level()
        if not fade:
            return batch
        missing = len(self.discriminator.growth.sizes) - count
        images = averaged(images_of(batch), 2**missing)
        images = enlarged(torch.lerp(images, enlarged(averaged(images)), fade), 2**missing)
        return images if isinstance(batch, Tensor) else (images, *batch[1:])
