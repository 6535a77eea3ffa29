"""CGAN: Conditional Generative Adversarial Nets (Mirza and Osindero, 2014, arXiv 1411.1784)."""

from collections.abc import Callable
from math import prod
from typing import Annotated, Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from gans import dcgan
from gans.training.noise import NoiseGAN


class Maxout(nn.Module):
    """The largest of several linear maps, (N, inputs) to (N, outputs) (Goodfellow et al. 1302.4389)."""

    def __init__(self, inputs: int, outputs: int, pieces: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs * pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, (-1, self.pieces)).amax(2)


class Generator(nn.Module):
    """Noise (N, latent_dim) and classes (N,) to images (N, C, H, W) in [-1, 1] (section 4.1).

    Both are mapped to hidden layers, of 200 and 1000 rectifiers, which are joined in one of 1200.
    """

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, num_classes: int) -> None:
        super().__init__()
        self.noise = nn.Sequential(nn.Linear(latent_dim, 200), nn.ReLU())
        self.label = nn.Sequential(nn.Linear(num_classes, 1000), nn.ReLU())
        self.joint = nn.Sequential(
            nn.Linear(1200, 1200),
            nn.ReLU(),
            nn.Linear(1200, prod(image_shape)),
            nn.Tanh(),
            nn.Unflatten(1, image_shape),
        )

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        return self.joint(
            torch.cat([self.noise(noise), self.label(one_hot(label, self.label[0].in_features, noise))], 1)
        )


class Discriminator(nn.Module):
    """Images (N, C, H, W) and classes (N,) to logits (N,), or (N, outcomes) (section 4.1).

    The image goes through maxout of 240 units and 5 pieces, the class through one of 50 and 5, and both through one of
    240 and 4; units are dropped after each. The weights of the class begin as for one input, since of a one-hot vector
    only one is not 0: as for ``num_classes`` inputs they would hardly be heard beside the image's.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int, outcomes: int = 1, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Flatten(), Maxout(prod(image_shape), 240, 5), nn.Dropout(dropout))
        self.label = nn.Sequential(Maxout(num_classes, 50, 5), nn.Dropout(dropout))
        nn.init.uniform_(self.label[0].linear.weight, -1.0, 1.0)  # PyTorch's default, 1 / sqrt(inputs), for one input
        self.joint = nn.Sequential(
            Maxout(290, 240, 4), nn.Dropout(dropout), nn.Linear(240, outcomes), nn.Flatten(0 if outcomes == 1 else 1)
        )

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        classes = self.label(one_hot(label, self.label[0].linear.in_features, images))
        return self.joint(torch.cat([self.image(images), classes], 1))


class ConvolutionalGenerator(nn.Module):
    """DCGAN's generator for the noise with the class appended to it as a one-hot vector."""

    def __init__(self, channels: int, size: int, latent_dim: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.body = dcgan.Generator(channels, size, latent_dim + num_classes, width)

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        return self.body(torch.cat([noise, one_hot(label, self.num_classes, noise)], 1))


class ConvolutionalDiscriminator(nn.Module):
    """DCGAN's discriminator for the image with one more plane a class, of ones for its own and zeros for the others."""

    def __init__(
        self,
        channels: int,
        size: int,
        width: int,
        num_classes: int,
        outcomes: int = 1,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.body = dcgan.Discriminator(channels + num_classes, size, width, outcomes, norm)

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        planes = one_hot(label, self.num_classes, images)[:, :, None, None].expand(-1, -1, *images.shape[2:])
        return self.body(torch.cat([images, planes], 1))


def one_hot(label: Tensor, num_classes: int, like: Tensor) -> Tensor:
    """Classes (N,) as vectors (N, num_classes) of another tensor's type."""
    return nn.functional.one_hot(label, num_classes).to(like.dtype)


class CGAN(NoiseGAN):
    """Generator and discriminator are both told the class: the multilayer perceptrons of the paper.

    Generated classes are drawn evenly, and the discriminator judges an image together with its class (equation 2). The
    paper's uniform noise and momentum SGD are replaced by what the field settled on, normal noise and Adam, and its
    dropout is in the discriminator only.

    Args:
        image_shape: Channels, height and width of the images; any size.
        dropout: Share of the discriminator's hidden units dropped in training.
        **kwargs: See NoiseGAN.

    Raises:
        MisconfigurationException: The data has no classes.
    """

    smallest = {"num_classes": 3}
    conditional = True

    def __init__(
        self, image_shape: tuple[int, int, int], dropout: Annotated[float, "[0, 1)"] = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(image_shape, **kwargs)
        require_classes(self)
        self.build(
            Generator(image_shape, self.latent_dim, self.num_classes),
            Discriminator(image_shape, self.num_classes, self.loss.outcomes, dropout),
        )


class ConvolutionalCGAN(dcgan.DCGAN):
    """The same game between DCGAN's networks, which draw better pictures than the perceptrons do.

    Args:
        **kwargs: See DCGAN.

    Raises:
        MisconfigurationException: The data has no classes.
    """

    smallest = {"num_classes": 3}
    conditional = True

    def networks(self, channels: int, size: int, width: int) -> tuple[nn.Module, nn.Module]:
        require_classes(self)
        generator = ConvolutionalGenerator(channels, size, self.latent_dim, width, self.num_classes)
        return generator, ConvolutionalDiscriminator(
            channels, size, width, self.num_classes, self.loss.outcomes, self.discriminator_norm()
        )


def require_classes(module: NoiseGAN) -> None:
    """Refuse data without classes.

    Raises:
        MisconfigurationException: There are fewer than two.
    """
    if module.num_classes < 2:
        raise MisconfigurationException(
            f"{type(module).__name__} needs images of at least two classes: take labelled --data, such as a folder "
            "with one sub-folder a class"
        )
