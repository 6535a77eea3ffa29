"""What people bring along: data and networks that know nothing of this lab."""

import os
import time
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from callbacks.scores import Metric
from datamodules import ImageDataModule, ImageFolder
from gans.training.noise import NoiseGAN


class Arrays(ImageDataModule):
    """Grey images of one level, which no file tells."""

    channels = 1
    val_split = "train"

    def __init__(self, level: int = 0, count: int = 8, **kwargs: Any) -> None:
        super().__init__(**{"image_size": 8} | kwargs)
        self.arrays = np.full((count, 8, 8), level, np.uint8)

    def items(self, split: str) -> tuple[Any, None]:
        return self.arrays, None


class Numbered(Arrays):
    """The same by number, so that the items tell nothing either."""

    def items(self, split: str) -> tuple[Any, None]:
        return range(len(self.arrays)), None

    def open(self, item: Any, split: str) -> Any:
        return Image.fromarray(self.arrays[item])


class Turned(ImageFolder):
    """Files, opened in a way of one's own."""

    def __init__(self, degrees: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.degrees = degrees

    def open(self, item: Any, split: str) -> Any:
        return super().open(item, split).rotate(self.degrees)


class Slow(ImageFolder):
    """Files that take their time."""

    def open(self, item: Any, split: str) -> Any:
        if os.environ.get("SLOW"):
            time.sleep(0.02)
        return super().open(item, split)


class Means(nn.Module):
    """Images (N, 3, H, W) to features (N, 3): their mean colours."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean((2, 3))


class Viewed(nn.Module):
    """Images (N, C, S, S) to logits (N,), flattened as many tutorials do."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, 4, 3, padding=1)
        self.head = nn.Linear(4 * size * size, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.layer(images)
        return self.head(features.view(len(features), -1)).view(-1)


class Mine(NoiseGAN):
    """A GAN that flattens features by ``.view``."""

    def __init__(self, image_shape: tuple[int, int, int], **kwargs: Any) -> None:
        super().__init__(image_shape=image_shape, **kwargs)
        channels, size, _ = image_shape
        start = nn.Sequential(nn.Linear(self.latent_dim, 4 * size * size), nn.Unflatten(1, (4, size, size)))
        self.generator = nn.Sequential(start, nn.Conv2d(4, channels, 3, padding=1), nn.Tanh())
        self.discriminator = Viewed(channels, size)


class Varied(Metric):
    """How far apart generated images are, in some power; real ones do not matter."""

    name, higher_is_better, needs_real = "varied", True, False

    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def compute(self, real: Any, fake: Any) -> Tensor:
        assert real is None
        return torch.pdist(fake.features.double()).mean() ** self.power
