"""BEGAN: Boundary Equilibrium Generative Adversarial Networks (Berthelot et al., 2017, arXiv 1703.10717)."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from gans.dcgan import Generator, halvings
from gans.training import AdversarialModule, Loss, Sampler, images_of


class AutoEncoder(nn.Sequential):
    """Images (N, C, S, S) to images: what cannot be reconstructed is not real (section 3.1)."""

    def __init__(self, channels: int, size: int, code: int, width: int) -> None:
        features = halvings(channels, size, width)
        super().__init__(*features, nn.LazyConv2d(code, 4), nn.Flatten(), Generator(channels, size, code, width))
        self(torch.zeros(2, channels, size, size))  # which tells the lazy layer its size


class BEGAN(AdversarialModule, Sampler):
    """The discriminator is an autoencoder, and k balances it against the generator (section 3.4).

    Args:
        image_shape: Channels, height and width of the images: square, a power of two.
        width: Channels of the layers nearest the image.
        gamma: Wanted ratio of the generated images' error to the real ones'.
        k_rate: lambda_k, how fast k follows.
        **kwargs: See AdversarialModule and Sampler.
    """

    smallest = {"width": 4}

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: Annotated[int, "[1, inf)"] = 64,
        gamma: Annotated[float, "[0, 1]"] = 0.5,
        k_rate: Annotated[float, "[0, inf)"] = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, **kwargs)
        channels, size, _ = image_shape
        self.gamma, self.k_rate = gamma, k_rate
        self.generator = Generator(channels, size, self.latent_dim, width)
        self.discriminator = AutoEncoder(channels, size, self.latent_dim, width)
        self.shared_state = {"k": torch.zeros(())}

    def noise(self, n: int) -> Tensor:
        """n noise vectors, (n, latent_dim), from U(-1, 1)."""
        return torch.rand(n, self.latent_dim, device=self.device, dtype=self.dtype) * 2 - 1

    def error(self, images: Tensor) -> Tensor:
        """L, the mean absolute error of the reconstruction (equation 1)."""
        return (images - self.discriminator(images)).float().abs().mean()

    def discriminator_loss(self, batch: Any) -> Loss:
        real = images_of(batch)
        with torch.no_grad():
            fake = self.generator(self.noise(len(real)))
        of_real, of_fake = self.error(real), self.error(fake)
        loss = of_real - self.shared_state["k"] * of_fake
        return loss, {"loss/discriminator": loss, "error/real": of_real, "error/fake": of_fake}

    def generator_loss(self, batch: Any) -> Loss:
        loss = self.error(self.generator(self.noise(len(images_of(batch)))))
        return loss, {"loss/generator": loss}

    def after_update(self, players: tuple[str, ...], logs: dict[str, Tensor]) -> None:
        if "discriminator" in players:
            balance = self.mean_over_ranks(self.gamma * logs["error/real"] - logs["error/fake"])
            self.shared_state["k"] = (self.shared_state["k"] + self.k_rate * balance).clamp(0, 1)
