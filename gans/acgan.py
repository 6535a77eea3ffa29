"""ACGAN: Conditional Image Synthesis with Auxiliary Classifier GANs (Odena et al., 2016, arXiv 1610.09585)."""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gans.cgan import ConvolutionalGenerator, require_classes
from gans.dcgan import DCGAN, halvings
from gans.parts.layers import widths_of
from gans.training.batches import images_of
from gans.training.update import Loss


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

    smallest = {"num_classes": 3}
    conditional = True

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        class_weight: Annotated[float, "[0, inf)"] = 1.0,
        dropout: Annotated[float, "[0, 1)"] = 0.5,
        **kwargs: Any,
    ) -> None:
        self.dropout = dropout
        super().__init__(image_shape, **kwargs)
        self.class_weight = class_weight

    def networks(self, channels: int, size: int, width: int) -> tuple[nn.Module, nn.Module]:
        require_classes(self)
        generator = ConvolutionalGenerator(channels, size, self.latent_dim, width, self.num_classes)
        return generator, Discriminator(
            channels, size, width, self.num_classes, self.loss.outcomes, self.discriminator_norm(), self.dropout
        )

    def ask(self, network: nn.Module, images: Tensor, *given: Tensor) -> Any:
        """What the discriminator says of images, whose class it is not told."""
        return network(images)

    def discriminator_loss(self, batch: Any) -> Loss:
        with torch.no_grad():
            fakes = self.fakes(batch)
        reals = self.reals(batch)
        real, fake = self.compare(reals, fakes)
        source, logs = self.tell_apart(real, fake)
        (_, label), (_, asked) = reals, fakes
        of_classes = [cross_entropy(judged.rest[0], wanted) for judged, wanted in ((real, label), (fake, asked))]
        return source + sum(of_classes), logs | {
            "loss/class": sum(of_classes),
            "accuracy/real": (real.rest[0].argmax(1) == label).float().mean(),
            "accuracy/fake": (fake.rest[0].argmax(1) == asked).float().mean(),
        }

    def generator_loss(self, batch: Any) -> Loss:
        images, asked = self.fakes(batch)
        fake = self.judge(images)
        source, label = self.fool(fake, images_of(batch)), cross_entropy(fake.rest[0], asked)
        return source + self.class_weight * label, {"loss/generator": source, "loss/generator_class": label}
