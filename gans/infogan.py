"""InfoGAN: Interpretable Representation Learning by Information Maximizing GANs (Chen et al., 2016, 1606.03657)."""

from math import log, pi
from typing import Annotated, Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from gans.dcgan import doublings
from gans.export.portable import Portable, numbered, uniform
from gans.parts.initialisation import initialise
from gans.training.batches import images_of
from gans.training.noise import NoiseGAN
from gans.training.optimizers import Adam
from gans.training.update import Loss


class Generator(nn.Sequential):
    """Noise and codes (N, inputs) to images (N, C, S, S) in [-1, 1] (table 1).

    A hidden layer of 1024, a linear map to feature maps of a quarter of the size, and transposed convolutions.
    """

    def __init__(self, channels: int, size: int, inputs: int, width: int) -> None:
        times = times_halved(size)
        start, widths = size >> times, [width * 2**i for i in range(times)][::-1]
        layers: list[nn.Module] = [
            nn.Linear(inputs, 16 * width, bias=False),
            nn.BatchNorm1d(16 * width),
            nn.ReLU(),
            nn.Linear(16 * width, widths[0] * start**2, bias=False),
            nn.BatchNorm1d(widths[0] * start**2),
            nn.ReLU(),
            nn.Unflatten(1, (widths[0], start, start)),
            *doublings(widths),
        ]
        super().__init__(*layers, nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1), nn.Tanh())


class Discriminator(nn.Module):
    """Images (N, C, S, S) to logits (N,), or (N, outcomes), category logits (N, categories) and code means (N, codes).

    D and Q share all layers but the last; Q has one more hidden layer, of 128 (table 1).
    """

    def __init__(
        self, channels: int, size: int, width: int, categories: int, continuous: int, outcomes: int = 1
    ) -> None:
        super().__init__()
        times = times_halved(size)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.1)]
        for i in range(times - 1):
            layers += [
                nn.Conv2d(width * 2**i, width * 2 ** (i + 1), 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width * 2 ** (i + 1)),
                nn.LeakyReLU(0.1),
            ]
        self.trunk = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(width * 2 ** (times - 1) * (size >> times) ** 2, 16 * width, bias=False),
            nn.BatchNorm1d(16 * width),
            nn.LeakyReLU(0.1),
        )
        self.source = nn.Sequential(nn.Linear(16 * width, outcomes), nn.Flatten(0 if outcomes == 1 else 1))
        self.codes = nn.Sequential(
            nn.Linear(16 * width, 128, bias=False),
            nn.BatchNorm1d(128),
            nn.LeakyReLU(0.1),
            nn.Linear(128, categories + continuous),
        )
        self.categories = categories

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.trunk(images)
        codes = self.codes(features)
        return self.source(features), codes[:, : self.categories], codes[:, self.categories :]


def times_halved(size: int) -> int:
    """How often the size is halved, at least twice and down to 8 (7 from 28 px)."""
    return max(2, (size // 8).bit_length() - 1)


class InfoGAN(NoiseGAN):
    """A GAN whose noise begins with codes that the discriminator has to find again in the image (equation 6).

    The noise vector is a one-hot category, then continuous codes and ``latent_dim`` numbers from U(-1, 1). Q gives the
    category's logits and the continuous codes' means; the negative log-likelihoods of the codes bound the mutual
    information (equation 5), with a fixed standard deviation of 1 for the continuous ones. As in the official code the
    bound is in both losses: Q and the layers it shares with D learn in D's step, G in its own. Both terms count 1, as
    there (section 6 would have the continuous one smaller), and weights begin as DCGAN's. D's learning rate is 2e-4,
    G's 1e-3 (appendix C). Labels are never used.

    Args:
        image_shape: Channels, height and width of the images: square, of 16, 28, 32, 64 or 128 px.
        width: Channels of the layers nearest the image.
        categories: Values of the categorical code.
        continuous: Number of continuous codes.
        category_weight: Factor of the categorical code's term (lambda).
        continuous_weight: Factor of the continuous codes' term.
        **kwargs: See NoiseGAN.

    Raises:
        MisconfigurationException: The images are of another size, or an argument is out of range.
    """

    smallest = {"width": 4}

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: Annotated[int, "[1, inf)"] = 64,
        latent_dim: int = 62,
        categories: Annotated[int, "[2, inf)"] = 10,
        continuous: Annotated[int, "[0, inf)"] = 2,
        category_weight: Annotated[float, "[0, inf)"] = 1.0,
        continuous_weight: Annotated[float, "[0, inf)"] = 1.0,
        generator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=1e-3),
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, latent_dim=latent_dim, generator_optimizer=generator_optimizer, **kwargs)
        channels, height, size = image_shape
        if height != size or size not in (16, 28, 32, 64, 128):
            raise MisconfigurationException(
                f"InfoGAN needs square images of 16, 28, 32, 64 or 128 px; got {height}x{size}: set --data.image_size"
            )
        if categories < 2 or continuous < 0:
            raise MisconfigurationException(
                "--model.categories must be at least 2 and --model.continuous at least 0; "
                f"got {categories} and {continuous}"
            )
        self.categories = categories
        self.continuous = continuous
        self.category_weight = category_weight
        self.continuous_weight = continuous_weight
        inputs = categories + continuous + latent_dim
        self.build(
            Generator(channels, size, inputs, width).apply(initialise),
            Discriminator(channels, size, width, categories, continuous, self.loss.outcomes).apply(initialise),
        )

    def noise(self, n: int) -> Tensor:
        """n inputs of the generator, (n, categories + continuous + latent_dim): codes first."""
        category = one_hot(torch.randint(self.categories, (n,), device=self.device), self.categories).to(self.dtype)
        uniform = torch.rand(n, self.continuous + self.latent_dim, device=self.device, dtype=self.dtype) * 2 - 1
        return torch.cat([category, uniform], 1)

    @property
    def asks(self) -> str:
        return "code"

    def generate_asked(self, batch: Any) -> tuple[Tensor, Tensor]:
        """See NoiseGAN: the images' categories."""
        noise = self.noise(len(images_of(batch)))
        return self.sample_from(noise), noise[:, : self.categories].argmax(1)

    def information(self, noise: Tensor, category: Tensor, continuous: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted negative log-likelihoods of the noise's codes under Q."""
        wanted = noise[:, : self.categories].argmax(1)
        codes = noise[:, self.categories : self.categories + self.continuous]
        of_category = cross_entropy(category, wanted)
        of_continuous = ((continuous - codes).square() + log(2 * pi)).sum(1).mean() / 2
        logs = {
            "loss/category": of_category,
            "loss/continuous": of_continuous,
            "accuracy/category": (category.argmax(1) == wanted).float().mean(),
        }
        return self.category_weight * of_category + self.continuous_weight * of_continuous, logs

    def discriminator_loss(self, batch: Any) -> Loss:
        noise = self.noise(len(images_of(batch)))
        with torch.no_grad():
            images = self.generator(noise)
        real, fake = self.compare((images_of(batch),), (images,))
        source, logs = self.tell_apart(real, fake)
        information, more = self.information(noise, *fake.rest)
        return source + information, logs | more

    def generator_loss(self, batch: Any) -> Loss:
        noise = self.noise(len(images_of(batch)))
        fake = self.judge(self.generator(noise))
        source = self.fool(fake, images_of(batch))
        information, _ = self.information(noise, *fake.rest)
        return source + information, {"loss/generator": source, "loss/generator_information": information}

    def portable(self) -> dict[str, Portable]:
        """See GANModule: ``sample_from``, with the codes apart from the rest of the noise."""

        def sample(category: Tensor, *rest: Tensor) -> Tensor:
            return self.sample_from(torch.cat([torch.eye(self.categories)[category], *rest], 1))

        codes, size = self.continuous, self.latent_dim
        names = [str(number) for number in range(self.categories)]
        inputs = {"category": numbered(names, f"categorical code, a number from 0 to {self.categories - 1}")}
        if codes:
            inputs["codes"] = uniform(codes, "continuous codes, trained with values in [-1, 1]")
        return {"generator": self.sampled(sample, inputs | {"noise": uniform(size, "noise, uniform in [-1, 1]")})}

    def view_labels(self, view: str) -> list[str]:
        """See NoiseGAN."""
        if view == "codes_category":
            return [f"category {i}" for i in range(self.categories)]
        return [f"{value:+g}" for value in torch.linspace(-2, 2, 9).tolist()] if view.startswith("codes") else []

    def views(self, columns: int) -> dict[str, Tensor]:
        """See NoiseGAN. A row a value of the code (figure 2), and the rest of the noise the same in a column.

        "codes_category" goes through the categories; "codes_continuous_1" and so on go from -2 to 2, twice as far as
        the codes that were trained with.
        """
        views = super().views(columns)
        noise = self.noise(columns)
        every = one_hot(torch.arange(self.categories, device=self.device)).to(self.dtype)
        rows = noise.repeat(self.categories, 1, 1)
        rows[..., : self.categories] = every[:, None]
        views["codes_category"] = self.sheet(rows)
        for i in range(self.continuous):
            rows = noise.repeat(9, 1, 1)
            values = torch.linspace(-2, 2, 9, device=self.device, dtype=self.dtype)
            rows[..., self.categories + i] = values[:, None]
            views[f"codes_continuous_{i + 1}"] = self.sheet(rows)
        return views
