"""ACGAN: Conditional Image Synthesis with Auxiliary Classifier GANs (Odena et al., 2016, arXiv 1610.09585)."""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gans.cgan import ConvolutionalGenerator, require_classes
from gans.dcgan import DCGAN, halvings, widths_of
from gans.training.module import Loss, images_of
from gans.training.precision import full_precision


class Discriminator(nn.Module):
    """Images (N, C, S, S) to logits (N,), or (N, outcomes), and class logits (N, classes).

    DCGAN's layers with dropout 0.5 after each (appendix A), and one output for either question.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        width: int,
        num_classes: int,
        outcomes: int = 1,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for layer in halvings(channels, size, width, norm):
            layers += [layer, nn.Dropout(dropout)] if isinstance(layer, nn.LeakyReLU) else [layer]
        self.body = nn.Sequential(*layers)
        features = widths_of(size, width)[-1]
        self.source = nn.Sequential(nn.Conv2d(features, outcomes, 4), nn.Flatten(0 if outcomes == 1 else 1))
        self.label = nn.Sequential(nn.Conv2d(features, num_classes, 4), nn.Flatten())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images)
        return self.source(features), self.label(features)


class ACGAN(DCGAN):
    """The generator is told a class, and the discriminator has to find it (section 3).

    D minimises its adversarial loss and the class's cross-entropy on real and on generated images, -(L_S + L_C); G
    minimises its adversarial loss and the cross-entropy of the class it was asked for, -(L_C - L_S). The discriminator
    is never told the class. Classes to generate are drawn evenly.

    Args:
        class_weight: Factor of the cross-entropy in the generator's loss.
        dropout: Share of the discriminator's features dropped after each layer.
        **kwargs: See DCGAN.

    Raises:
        MisconfigurationException: The data has no classes.
    """

    conditional = True

    def __init__(
        self, class_weight: Annotated[float, "[0, inf)"] = 1.0, dropout: Annotated[float, "[0, 1)"] = 0.5, **kwargs: Any
    ) -> None:
        self.dropout = dropout
        super().__init__(**kwargs)
        self.class_weight = class_weight

    def networks(self, channels: int, size: int, width: int) -> tuple[nn.Module, nn.Module]:
        require_classes(self)
        generator = ConvolutionalGenerator(channels, size, self.latent_dim, width, self.num_classes)
        return generator, Discriminator(
            channels, size, width, self.num_classes, self.loss.outcomes, self.discriminator_norm(), self.dropout
        )

    def judge(self, images: Tensor, *classes: Tensor) -> Tensor:
        return full_precision(self.discriminator(images)[0])

    def discriminator_loss(self, batch: Any) -> Loss:
        real, (label,) = images_of(batch), self.classes_of(batch)
        with torch.no_grad():
            (asked,) = self.random_classes(len(real))
            fake = self.generator(self.noise(len(real)), asked)
        (real_score, real_class), (fake_score, fake_class) = (
            map(full_precision, self.discriminator(images)) for images in (real, fake)
        )
        source = self.loss.discriminator(real_score, fake_score)
        classes = cross_entropy(real_class, label) + cross_entropy(fake_class, asked)
        logs = {
            "loss/discriminator": source + classes,
            "critic/real": real_score.mean(),
            "critic/fake": fake_score.mean(),
            "accuracy/real": (real_class.argmax(1) == label).float().mean(),
            "accuracy/fake": (fake_class.argmax(1) == asked).float().mean(),
        }
        return source + classes + self.penalise(batch, real, fake, logs), logs

    def generator_loss(self, batch: Any) -> Loss:
        (asked,) = self.random_classes(len(images_of(batch)))
        fake = self.generator(self.noise(len(asked)), asked)
        score, classes = map(full_precision, self.discriminator(fake))
        source, label = self.loss.generator(score, self.judge_real(batch)), cross_entropy(classes, asked)
        return source + self.class_weight * label, {"loss/generator": source, "loss/generator_class": label}
