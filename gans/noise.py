"""What the papers that turn noise into images share."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gans.base import AdversarialModule, Loss, full_precision, images_of
from gans.losses import AdversarialLoss, NonSaturating


class NoiseGAN(AdversarialModule):
    """A GAN that turns noise into images, trained with an adversarial loss on the discriminator's raw outputs.

    Args:
        latent_dim: Size of the noise vector z.
        loss: Adversarial loss; any of ``gans.losses``.
        predict_images: Images that ``predict`` draws.
        **kwargs: See AdversarialModule.
    """

    def __init__(
        self,
        latent_dim: int = 100,
        loss: AdversarialLoss = NonSaturating(),  # noqa: B008
        predict_images: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.latent_dim = latent_dim
        self.loss = loss
        self.predict_images = predict_images

    def noise(self, n: int) -> Tensor:
        """n noise vectors, (n, latent_dim), standard normal."""
        return torch.randn(n, self.latent_dim, device=self.device, dtype=self.dtype)

    def discriminator_loss(self, batch: Any) -> Loss:
        real = images_of(batch)
        with torch.no_grad():
            fake = self.generator(self.noise(len(real)))
        # Two passes: batch norm must see real and generated images apart (DCGAN's recipe).
        real_score, fake_score = (full_precision(self.discriminator(images)) for images in (real, fake))
        loss = self.loss.discriminator(real_score, fake_score)
        logs = {"loss/discriminator": loss, "score/real": real_score.mean(), "score/fake": fake_score.mean()}
        return loss, logs

    def generator_loss(self, batch: Any) -> Loss:
        fake = self.generator(self.noise(len(images_of(batch))))
        loss = self.loss.generator(full_precision(self.discriminator(fake)))
        return loss, {"loss/generator": loss}

    def generate(self, batch: Any) -> Tensor:
        return self.sample(len(images_of(batch)))

    def sample(self, n: int) -> Tensor:
        """Draw n images, (n, C, H, W) in [-1, 1], from the averaged generator if there is one, in eval mode."""
        return self.sample_from(self.noise(n))

    def sample_from(self, noise: Tensor) -> Tensor:
        """The images of given noise (n, latent_dim); same noise, same images."""
        with self.sampling() as generator:
            return generator(noise).float()

    def predict_dataloader(self) -> DataLoader:
        return DataLoader(range(self.predict_images), batch_size=64)  # type: ignore[arg-type]

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Images for the image numbers in the batch."""
        return self.sample(len(batch))
