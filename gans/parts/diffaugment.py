"""DiffAugment: Differentiable Augmentation for Data-Efficient GAN Training (Zhao et al., 2020, arXiv 2006.10738)."""

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.functional import pad

# Every function draws anew for each item of a batch (N, P, K, H, W): P pictures of K channels, which are changed alike.


def brightness(images: Tensor) -> Tensor:
    """Add a number from [-0.5, 0.5]."""
    return images + _uniform(images, -0.5, 0.5)


def saturation(images: Tensor) -> Tensor:
    """Stretch the distance of every pixel's channels from their mean 0 to 2 times; nothing happens to grey images."""
    mean = images.mean(2, keepdim=True)
    return mean + (images - mean) * _uniform(images, 0, 2)


def contrast(images: Tensor) -> Tensor:
    """Stretch the distance of all values from the picture's mean 0.5 to 1.5 times."""
    mean = images.mean((2, 3, 4), keepdim=True)
    return mean + (images - mean) * _uniform(images, 0.5, 1.5)


def translation(images: Tensor) -> Tensor:
    """Move by up to an eighth of height and width, in whole pixels; what comes in from outside is 0."""
    height, width = images.shape[-2:]
    down, right = (int(side / 8 + 0.5) for side in (height, width))
    rows = _integers(images, 2 * down + 1) + torch.arange(height, device=images.device)  # (N, H)
    columns = _integers(images, 2 * right + 1) + torch.arange(width, device=images.device)
    number = torch.arange(len(images), device=images.device)[:, None, None]
    padded = pad(images.flatten(1, 2), (right, right, down, down))
    moved = padded[number, :, rows[:, :, None], columns[:, None, :]]  # (N, H, W, P * K)
    return moved.permute(0, 3, 1, 2).unflatten(1, images.shape[1:3])


def cutout(images: Tensor) -> Tensor:
    """Set a part to 0, of half the height and width, whose centre lies anywhere in the image."""
    inside = []
    for side in images.shape[-2:]:
        size = int(side / 2 + 0.5)
        start = _integers(images, side + 1 - size % 2) - size // 2
        place = torch.arange(side, device=images.device)
        inside.append((place >= start) & (place < start + size))
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return images.masked_fill(hole[:, None, None], 0)


POLICY = {"color": (brightness, saturation, contrast), "translation": (translation,), "cutout": (cutout,)}


class DiffAugment(nn.Module):
    """Images as the discriminator is to see them, real and generated alike, at random; gradients flow through.

    Strengths and the order are those of the paper's section 3.3 and its official code. Images are (N, C, H, W) in
    [-1, 1], and may leave this range. C is 1 or 3, or a multiple for pictures stacked in channels (a pair of pix2pix),
    which are then all changed alike.

    Args:
        policy: Words out of color, translation and cutout, with commas between them.

    Raises:
        MisconfigurationException: There is no such word.
    """

    def __init__(self, policy: str = "color,translation,cutout") -> None:
        super().__init__()
        self.words = [word.strip() for word in policy.split(",")]
        for word in self.words:
            if word not in POLICY:
                raise MisconfigurationException(
                    f"--model.diff_augment={policy} must be made of {', '.join(POLICY)}, with commas between them; "
                    f"{word or 'an empty word'} is none of them"
                )

    def forward(self, images: Tensor) -> Tensor:
        """Augmented images (N, C, H, W), in float32 where they come in half precision."""
        channels = images.shape[1]
        each = 3 if channels % 3 == 0 else 1
        pictures = images.to(torch.promote_types(images.dtype, torch.float32)).unflatten(1, (channels // each, each))
        for word in self.words:
            for change in POLICY[word]:
                pictures = change(pictures)
        return pictures.flatten(1, 2)

    def before(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """A forward pre-hook for networks whose first argument is images."""
        return self(inputs[0]), *inputs[1:]


def _uniform(images: Tensor, low: float, high: float) -> Tensor:
    return torch.empty(len(images), 1, 1, 1, 1, dtype=images.dtype, device=images.device).uniform_(low, high)


def _integers(images: Tensor, count: int) -> Tensor:
    """A number from 0 to count - 1 for each item, (N, 1)."""
    return torch.randint(count, (len(images), 1), device=images.device)
