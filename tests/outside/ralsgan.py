"""In the manner of RaLSGAN: The relativistic discriminator (Jolicoeur-Martineau, 2018, arXiv 1807.00734)."""

from typing import Annotated, Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from gans.parts.losses import AdversarialLoss
from gans.parts.penalties import R1, R2, Penalty
from gans.training import Adam, NoiseGAN, OptimizerCallable


class RelativisticLeastSquares(AdversarialLoss):
    """Every image is compared with the average image of the other kind (section 4.2, with least squares)."""

    compares = True

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return (real - fake.mean() - 1).square().mean() + (fake - real.mean() + 1).square().mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        assert real is not None
        return self.discriminator(fake, real)


class Block(nn.Module):
    """A residual block without norm (N, W, S, S), whose last layer starts at 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2)
        )
        self.outer = nn.Conv2d(width, width, 1, bias=False)
        nn.init.normal_(self.outer.weight, std=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(self.inner(x))


class Generator(nn.Module):
    """Noise (N, latent_dim) and classes (N,) to images (N, C, S, S)."""

    def __init__(self, channels: int, size: int, latent_dim: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.classes = nn.Embedding(num_classes, latent_dim) if num_classes else None
        self.start = nn.Linear(latent_dim, width * 16)
        self.blocks = nn.ModuleList(Block(width) for _ in range(size.bit_length() - 3))
        self.end = nn.Conv2d(width, channels, 1)

    def forward(self, z: Tensor, *label: Tensor) -> Tensor:
        z = z if self.classes is None else z + self.classes(*label)
        x = self.start(z).unflatten(1, (-1, 4, 4))
        for block in self.blocks:
            x = block(interpolate(x, scale_factor=2))
        return self.end(x)


class Discriminator(nn.Module):
    """Images (N, C, S, S) and classes (N,) to logits (N,)."""

    def __init__(self, channels: int, size: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.start = nn.Conv2d(channels, width, 1)
        self.blocks = nn.Sequential(
            *(layer for _ in range(size.bit_length() - 3) for layer in (Block(width), nn.AvgPool2d(2)))
        )
        self.end = nn.Linear(width * 16, 1)
        self.classes = nn.Embedding(num_classes, width * 16) if num_classes else None

    def forward(self, images: Tensor, *label: Tensor) -> Tensor:
        features = self.blocks(self.start(images)).flatten(1)
        scores = self.end(features).flatten()
        return scores if self.classes is None else scores + (self.classes(*label) * features).sum(1)


class RaLSGAN(NoiseGAN):
    """A relativistic loss, with R1 and R2, and networks without norms.

    Args:
        image_shape: Channels, height and width of the images: square, a power of two.
        width: Channels of all layers.
        **kwargs: See NoiseGAN.
    """

    conditional = True
    several_outcomes = False
    smallest = {"width": 4, "num_classes": 3}

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: Annotated[int, "[1, inf)"] = 64,
        loss: AdversarialLoss = RelativisticLeastSquares(),  # noqa: B008
        penalty: Penalty | list[Penalty] | None = [R1(1.0), R2(1.0)],  # noqa: B006, B008
        generator_optimizer: OptimizerCallable = lambda p: Adam(p, beta1=0.0, beta2=0.99),
        discriminator_optimizer: OptimizerCallable = lambda p: Adam(p, beta1=0.0, beta2=0.99),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_shape,
            loss=loss,
            penalty=penalty,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **kwargs,
        )
        channels, size, _ = image_shape
        self.build(
            Generator(channels, size, self.latent_dim, width, self.num_classes),
            Discriminator(channels, size, width, self.num_classes),
        )
