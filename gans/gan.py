"""GAN: Generative Adversarial Networks (Goodfellow et al., 2014, arXiv 1406.2661)."""

from math import prod
from typing import Annotated, Any

from torch import nn

from gans.training.noise import NoiseGAN


class Generator(nn.Sequential):
    """Multilayer perceptron from noise (N, latent_dim) to images (N, C, H, W) in [-1, 1] (section 5)."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, hidden: int) -> None:
        super().__init__(
            nn.Linear(latent_dim, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, prod(image_shape)),
            nn.Tanh(),
            nn.Unflatten(1, image_shape),
        )


class Discriminator(nn.Sequential):
    """Multilayer perceptron from images (N, C, H, W) to logits (N,), positive for real, or (N, outcomes)."""

    def __init__(self, image_shape: tuple[int, int, int], hidden: int, dropout: float, outcomes: int = 1) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(prod(image_shape), hidden),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Linear(hidden, outcomes),
            nn.Flatten(0 if outcomes == 1 else 1),
        )


class GAN(NoiseGAN):
    """The original GAN: two multilayer perceptrons and the non-saturating loss (section 3).

    ``loss: gans.losses.Minimax`` plays the game of equation 1 instead. As in the paper the generator mixes rectifiers
    with a squashing output and the discriminator uses dropout. Its maxout units, uniform noise and momentum SGD are
    replaced by what the field settled on: leaky rectifiers, normal noise and Adam (2e-4, beta1 0.5).

    Args:
        image_shape: Channels, height and width of the images; any size.
        hidden: Width of both hidden layers of both networks.
        dropout: Share of the discriminator's hidden units dropped in training.
        **kwargs: See NoiseGAN.
    """

    smallest = {"hidden": 16}

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        hidden: Annotated[int, "[1, inf)"] = 512,
        dropout: Annotated[float, "[0, 1)"] = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, **kwargs)
        self.build(
            Generator(image_shape, self.latent_dim, hidden),
            Discriminator(image_shape, hidden, dropout, self.loss.outcomes),
        )
