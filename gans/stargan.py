"""StarGAN: Unified GANs for Multi-Domain Image-to-Image Translation (Choi et al., 2017, arXiv 1711.09020)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, l1_loss, one_hot

from gans.export.portable import Input, Portable
from gans.parts.layers import ResidualGenerator
from gans.parts.losses import AdversarialLoss, Wasserstein
from gans.parts.penalties import GradientPenalty, Penalty
from gans.parts.precision import full_precision
from gans.training.adversarial import AnyLoss
from gans.training.batches import IMAGES, images_of
from gans.training.optimizers import Adam
from gans.training.translation import Translator
from gans.training.update import Loss


class Generator(ResidualGenerator):
    """Images (N, C, H, W) and the domains they are to be of (N, domains), 0 or 1, to images in [-1, 1] (table 4).

    Domains are planes stacked on the image. Borders are padded with zeros: reflected, they would hide the planes' level
    (official code). The last convolution has a bias, which begins at 0; the official one has none.
    """

    def __init__(self, channels: int, domains: int, width: int, blocks: int) -> None:
        super().__init__(channels + domains, channels, width, blocks)
        nn.init.zeros_(self[-2].bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor, domains: Tensor) -> Tensor:  # type: ignore[override]
        planes = domains[:, :, None, None].expand(-1, -1, *images.shape[-2:])
        return super().forward(torch.cat([images, planes.to(images.dtype)], 1))


class Discriminator(nn.Module):
    """Images (N, C, S, S) to logits for patches (N, 1, 2, 2), and logits of domains (N, domains) (table 5).

    4x4 convolutions halve the size down to 2x2, with LeakyReLU(0.01) and no norm.
    """

    def __init__(self, channels: int, size: int, domains: int, width: int) -> None:
        super().__init__()
        widths = [channels, *(width * 2**i for i in range(size.bit_length() - 2))]
        layers = [(nn.Conv2d(b, a, 4, 2, 1), nn.LeakyReLU(0.01)) for b, a in pairwise(widths)]
        self.body = nn.Sequential(*(layer for pair in layers for layer in pair))
        self.source = nn.Conv2d(widths[-1], 1, 3, padding=1, bias=False)
        self.domain = nn.Sequential(nn.Conv2d(widths[-1], domains, 2, bias=False), nn.Flatten())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images)
        return self.source(features), self.domain(features)


class StarGAN(AnyLoss, Translator):
    """One generator for all domains, and a discriminator that tells the domain too (equations 5, 6 and 8).

    Section 5's settings are the defaults: WGAN-GP's loss, lambda_cls 1, lambda_rec 10, five discriminator updates for
    one of the generator, Adam 1e-4 with beta1 0.5. Domains to translate into are the batch's own, shuffled. Instance
    norm goes by each image alone, in training and afterwards (the official code never switches its networks to eval).

    Batches are images with labels: a domain each (N,), or attributes (N, A) of which an image may have several; these
    have the binary cross-entropy, summed over attributes.

    Args:
        image_shape: Channels, height and width of the images: square, a power of two from 8 on.
        domains: Names of the domains (or attributes); given by the data set.
        attributes: Whether labels are attributes.
        width: Channels of the first layers.
        blocks: Residual blocks of the generator.
        class_weight: lambda_cls, the factor of the domain's cross-entropy.
        reconstruction_weight: lambda_rec, the factor of the L1 loss between an image and what comes back.
        predict_domains: Names of the domains that ``predict`` translates into; by default all.
        **kwargs: See AnyLoss.

    Raises:
        MisconfigurationException: There are fewer than two domains (or one attribute), a name is unknown, or the images
            are of another shape.
    """

    smallest = {"width": 4, "blocks": 1, "domains": ("a", "b", "c")}
    takes: tuple[str, ...] = IMAGES
    settings_for = {IMAGES[1]: "--model.attributes=false", IMAGES[2]: "--model.attributes=true"}
    multiple = 4
    least = 8  # instance norm needs more than one pixel

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        domains: Sequence[str],
        attributes: bool = False,
        width: Annotated[int, "[1, inf)"] = 64,
        blocks: Annotated[int, "[1, 1000]"] = 6,
        class_weight: Annotated[float, "[0, inf)"] = 1.0,
        reconstruction_weight: Annotated[float, "[0, inf)"] = 10.0,
        loss: AdversarialLoss = Wasserstein(),  # noqa: B008
        penalty: Penalty | list[Penalty] | None = GradientPenalty(),  # noqa: B008
        n_critic: int = 5,
        predict_domains: list[str] | None = None,
        generator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=1e-4),
        discriminator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=1e-4),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_shape,
            loss=loss,
            penalty=penalty,
            n_critic=n_critic,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **kwargs,
        )
        channels, height, size = image_shape
        if height != size or size < 8 or size & (size - 1):
            raise MisconfigurationException(
                f"StarGAN needs square images whose size is a power of two from 8 on; got {height}x{size}: "
                "set --data.image_size to 32, 64 or 128"
            )
        if len(domains) < 2 - attributes:
            raise MisconfigurationException(
                f"StarGAN needs images of at least two domains; {len(domains)} in the data: give --data one folder a "
                "domain, or a data set with classes or attributes"
            )
        for name in predict_domains or []:
            if name not in domains:
                raise MisconfigurationException(f"--model.predict_domains={name} must be of {', '.join(domains)}")
        self.domains = list(domains)
        self.attributes = attributes
        self.takes = ("images with attributes",) if attributes else ("images with classes",)
        self.class_weight = class_weight
        self.reconstruction_weight = reconstruction_weight
        self.predict_domains = predict_domains or self.domains
        self.generator = Generator(channels, len(domains), width, blocks)
        self.discriminator = Discriminator(channels, size, len(domains), width)

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        return (self.image_shape,)

    @property
    def labels(self) -> tuple[int, bool]:
        return len(self.domains), self.attributes

    # Training

    def vector(self, label: Tensor) -> Tensor:
        """Labels as the generator takes them, (N, domains), 0 or 1."""
        if (label.ndim == 2) != self.attributes:
            kind = "attributes (N, A)" if label.ndim == 2 else "one domain an image (N,)"
            raise MisconfigurationException(
                f"The data's labels are {kind}: set --model.attributes={str(label.ndim == 2).lower()}"
            )
        return label.float() if self.attributes else one_hot(label, len(self.domains)).float()

    def fakes(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The labels that the batch's images are to get, and the images with them."""
        image, label = batch
        asked = label[torch.randperm(len(label), device=label.device)]
        return asked, self.generator(image, self.vector(asked))

    def class_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Cross-entropy of labels, in the mean over images."""
        if not self.attributes:
            return cross_entropy(logits, label)
        return binary_cross_entropy_with_logits(logits, label.to(logits.dtype), reduction="sum") / len(label)

    def discriminator_loss(self, batch: Any) -> Loss:
        image, label = batch
        real, fake = self.compare((image,), (self.made(batch)[1].detach(),))
        loss, logs = self.tell_apart(real, fake)
        (domain,) = real.rest
        classes = self.class_loss(domain, label)
        more = {"loss/discriminator_class": classes, "accuracy/real": self.accuracy(domain, label)}
        return loss + self.class_weight * classes, logs | more

    def generator_loss(self, batch: Any) -> Loss:
        image, label = batch
        asked, images = self.made(batch)
        fake = self.judge(images)
        (domain,) = fake.rest
        source, classes = self.fool(fake, image), self.class_loss(domain, asked)
        back = l1_loss(full_precision(self.generator(images, self.vector(label))), image)
        loss = source + self.class_weight * classes + self.reconstruction_weight * back
        return loss, {
            "loss/generator": source,
            "loss/generator_class": classes,
            "loss/cycle": back,
            "accuracy/fake": self.accuracy(domain, asked),
        }

    def accuracy(self, logits: Tensor, label: Tensor) -> Tensor:
        """Share of labels that the logits agree with."""
        found = (logits > 0).long() if self.attributes else logits.argmax(1)
        return (found == label).float().mean()

    # Pictures and scores

    def real(self, batch: Any) -> Tensor:
        return images_of(batch)

    def generate(self, batch: Any) -> Tensor:
        """The images in a random other domain each, or with a random attribute changed."""
        image, label = batch
        drawn = torch.randint(len(self.domains) - (not self.attributes), (len(label),), device=label.device)
        if self.attributes:
            changed = label.scatter(1, drawn[:, None], 1 - label.gather(1, drawn[:, None]))
        else:
            changed = (label + 1 + drawn) % len(self.domains)
        return self.translate(image, self.vector(changed))

    def translate(self, images: Tensor, domains: Tensor) -> Tensor:  # type: ignore[override]
        """Images (N, C, H, W) in [-1, 1] of any size, in domains (N, D), 0 or 1, by the averaged generator if any."""
        with self.sampling() as generator:
            return self.at_any_size(lambda x: generator(x, domains), images)

    def portable(self) -> dict[str, Portable]:
        """See GANModule: ``translate``, with the domains."""
        kind = "attribute that the translations are to have" if self.attributes else "domain that they are to be of"
        about, count = f"1 for each {kind} and 0 for the others: {', '.join(self.domains)}", len(self.domains)
        values: Any = "numbers" if self.attributes else "one"
        domains = Input(
            ("batch", count),
            about,
            lambda at: torch.eye(count)[torch.arange(at["batch"]) % count],
            values,
            self.domains,
        )
        return {"generator": self.translated(self.translate, domains=domains)}

    def shown(self, batch: Any) -> Tensor:
        """The image, then the image in each domain, or with each attribute changed."""
        image, label = batch
        return torch.stack([image, *(self.translate(image, v) for v in self.each(self.vector(label)))], 1)

    def each(self, vector: Tensor) -> list[Tensor]:
        """What images of some domains (N, D) are translated into: each domain in turn, or each attribute changed."""
        if not self.attributes:
            return [
                torch.eye(len(self.domains), device=vector.device)[i].expand_as(vector)
                for i in range(len(self.domains))
            ]
        return [
            torch.cat([vector[:, :i], 1 - vector[:, i : i + 1], vector[:, i + 1 :]], 1)
            for i in range(len(self.domains))
        ]

    def predict_names(self, name: str) -> list[str]:
        return [f"{name}_{domain}" for domain in self.domains if domain in self.predict_domains]

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Translations (C, H, W) of one image (C, H, W) by its name and that of the domain.

        Which attributes it has already is what the discriminator finds in it.
        """
        image, name = batch
        vector = torch.zeros(1, len(self.domains), device=image.device)
        if self.attributes:
            size = self.image_shape[-2:]
            small = nn.functional.interpolate(image[None], size, mode="bilinear", antialias=True)
            with torch.no_grad():
                vector = (self.judge(small).rest[0] > 0).float()
        return {
            f"{name}_{domain}": self.translate(image[None], wanted)[0]
            for domain, wanted in zip(self.domains, self.each(vector), strict=True)
            if domain in self.predict_domains
        }
