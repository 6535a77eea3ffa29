"""DiscoGAN: Learning to Discover Cross-Domain Relations with GANs (Kim et al., 2017, arXiv 1703.05192)."""

from itertools import pairwise
from typing import Annotated, Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from gans.parts.precision import full_precision
from gans.training.adversarial import AnyLoss, together
from gans.training.optimizers import Adam
from gans.training.translation import CyclicTranslator
from gans.training.update import Loss


class Generator(nn.Sequential):
    """Images (N, C, H, W) to images in [-1, 1]: four convolutions halve the size, four transposed ones double it.

    LeakyReLU(0.2) on the way in and ReLU on the way out, batch norm everywhere but at the two ends.
    """

    def __init__(self, channels: int, width: int) -> None:
        widths = [width * 2**i for i in range(4)]
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
        for before, after in pairwise(widths[::-1]):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*layers, nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Tanh())


class Discriminator(nn.Module):
    """Images (N, C, S, S) to logits (N,) and the features of the second to fourth layer, each (N, C', S', S')."""

    def __init__(self, channels: int, size: int, width: int) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(4)]
        self.first = nn.Sequential(nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2))
            for before, after in pairwise(widths)
        )
        self.head = nn.Sequential(nn.Conv2d(widths[-1], 1, size // 16, bias=False), nn.Flatten(0))

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, features = self.first(images), []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return self.head(x), features


class DiscoGAN(AnyLoss, CyclicTranslator):
    """Two generators, there and back, that reconstruct what they are given (section 3.3; figure 2c).

    As the official code has it, which goes beyond the paper: to the adversarial loss, with a factor of 0.1, feature
    matching is added with 0.9, the squared distance between the means, over a batch, of the discriminator's features of
    real and generated images (Salimans et al. 1606.03498). Their sum counts (1 - r) and the mean squared error of the
    reconstruction r, first 0.01 and later 0.5. Both generators take part in either reconstruction. Discriminators are
    updated before every second generator update (in the official code, instead of every third). Adam 2e-4 with
    beta1 0.5 and weight decay 1e-5. Images here are in [-1, 1] behind a Tanh, where the official code has [0, 1] and a
    sigmoid; the reconstruction's error is divided by 4, to be that of [0, 1].

    Batches are unpaired images (a, b), (N, C, S, S) each. A is the source: ``generate`` translates to B. Translations
    are made with batch norm's running statistics, so that they do not depend on the other images of a batch.

    Args:
        image_shape: Channels, height and width of the images: square, a multiple of 16.
        width: Channels of the first layers.
        reconstruction_rate: r at the beginning and after ``rate_steps``.
        rate_steps: Updates, the discriminators' counted with the generators' as in the official code, after which the
            second rate is taken.
        generator_optimizer: Optimizer of both generators.
        discriminator_optimizer: Optimizer of both discriminators.
        **kwargs: See AnyLoss.

    Raises:
        MisconfigurationException: The images are not square or their size is no multiple of 16, or a rate is not
            between 0 and 1.
    """

    smallest = {"width": 4}
    takes = ("unpaired images", "pairs")  # which it takes for unpaired
    multiple = 16

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: Annotated[int, "[1, inf)"] = 64,
        reconstruction_rate: tuple[Annotated[float, "[0, 1]"], Annotated[float, "[0, 1]"]] = (0.01, 0.5),
        rate_steps: Annotated[int, "[0, inf)"] = 10_000,
        generator_optimizer: OptimizerCallable = lambda p: Adam(p, weight_decay=1e-5),
        discriminator_optimizer: OptimizerCallable = lambda p: Adam(p, weight_decay=1e-5),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_shape,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **kwargs,
        )
        channels, height, size = image_shape
        if height != size or size % 16:
            raise MisconfigurationException(
                f"DiscoGAN needs square images whose size is a multiple of 16; got {height}x{size}: "
                "set --data.image_size to 64 or 128"
            )
        if not all(0 <= rate <= 1 for rate in reconstruction_rate):
            raise MisconfigurationException(
                f"--model.reconstruction_rate must be two numbers from 0 to 1; got {reconstruction_rate}"
            )
        self.reconstruction_rate = reconstruction_rate
        self.rate_steps = rate_steps
        self.generator = nn.ModuleDict({name: Generator(channels, width) for name in ("a_to_b", "b_to_a")})
        self.discriminator = nn.ModuleDict({domain: Discriminator(channels, size, width) for domain in "ab"})

    def critic_steps(self) -> int:
        return super().critic_steps() if self.global_step % 2 == 0 else 0

    def rate(self) -> float:
        """r, the share of the reconstruction in the generators' loss."""
        return self.reconstruction_rate[self.global_step + self.critic_updates >= self.rate_steps]

    def discriminator_loss(self, batch: Any) -> Loss:
        found = [
            self.tell_apart(*self.compare((real,), (fake.detach(),), by=self.discriminator[domain]))
            for domain, real, fake in zip("ab", batch, self.made(batch), strict=True)
        ]
        of_each = {f"loss/discriminator_{domain}": loss for domain, (loss, _) in zip("ab", found, strict=True)}
        loss, logs = together(found)
        return loss, logs | of_each

    def generator_loss(self, batch: Any) -> Loss:
        a, b = batch
        fake_a, fake_b = self.made(batch)
        back_a, back_b = self.generator["b_to_a"](fake_b), self.generator["a_to_b"](fake_a)
        zero = a.new_zeros(())
        adversarial, matching = zero, zero
        for domain, real, fake in zip("ab", batch, (fake_a, fake_b), strict=True):
            of_fake = self.judge(fake, by=self.discriminator[domain])
            with torch.no_grad():
                of_real = self.judge(real, by=self.discriminator[domain])
            adversarial = adversarial + self.loss.generator(of_fake.outputs, of_real.outputs)
            for f, r in zip(*of_fake.rest, *of_real.rest, strict=True):
                matching = matching + mse_loss(f.mean(0), r.mean(0))
        cycle = (mse_loss(full_precision(back_a), a) + mse_loss(full_precision(back_b), b)) / 4  # as of [0, 1]
        rate = self.rate()
        loss = (0.1 * adversarial + 0.9 * matching) * (1 - rate) + rate * cycle
        return loss, {"loss/generator": adversarial, "loss/features": matching, "loss/cycle": cycle}
