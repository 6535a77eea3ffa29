"""Augmentation of training images on the device, a batch at a time: any modules, such as those of Kornia."""

from collections.abc import Sequence

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

MIXES = {"RandomCutMixV2", "RandomMixUpV2"}  # by name, because Kornia is slow to import and seldom used


class Augmentation:
    """Modules that are applied one after the other to images (N, C, H, W), which they get and give back in [0, 1].

    They draw from torch's global generators, so that a resumed run goes on exactly. Kornia's draw on the CPU, a few
    numbers an image, and work on the images' device.

    Args:
        modules: Any modules. Kornia's that mix images of a batch come last, wherever they stand.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.changes = [module for module in modules if type(module).__name__ not in MIXES]
        self.mixes = [module for module in modules if type(module).__name__ in MIXES]

    def check(self, channels: int, size: int, labelled: bool) -> None:
        """Find out before training whether all modules take such images; draws nothing.

        Raises:
            MisconfigurationException: One of them does not, gives back another shape, or needs labels.
        """
        if self.mixes and not labelled:
            raise MisconfigurationException(
                f"--data.augment={type(self.mixes[0]).__name__} mixes images and needs their labels, which this data "
                "has not: leave it out"
            )
        images = torch.zeros(2, channels, size, size)
        for module in self.changes:
            name = f"--data.augment={type(module).__name__}"
            try:
                with torch.random.fork_rng([]):
                    shape = tuple(_applied(module, images).shape)
            except Exception as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise MisconfigurationException(
                    f"{name} does not take images of {channels} channels and {size} px: {reason}"
                ) from error
            if shape != tuple(images.shape):
                raise MisconfigurationException(
                    f"{name} must keep the size of images; of {tuple(images.shape)} it makes {shape}"
                )

    def __call__(self, images: Tensor, layers: int = 1) -> Tensor:
        """Images (N, layers * C, H, W) in [-1, 1], changed; the pictures of an item with the same random numbers."""
        if not self.changes:
            return images
        # In float32, so that all precisions are changed alike.
        pictures = images.float().add(1).div(2).chunk(layers, 1)
        device = images.device
        for module in self.changes:
            changed = []
            for picture in pictures[:-1]:
                # The next one draws the same once more.
                with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
                    changed.append(_applied(module, picture))
            pictures = *changed, _applied(module, pictures[-1])
        return torch.cat(pictures, 1).mul(2).sub(1).to(images.dtype)

    def mixed(self, images: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Images (N, C, H, W) in [-1, 1] with parts of others of the batch, and the labels (N, ...) of these images.

        An image takes over the label of another that makes up more than half of it.
        """
        for mix in self.mixes:
            number = torch.arange(len(images), device=images.device)
            images, shares = mix(images, number, data_keys=["input", "class"])
            # Rows of (number of the image, number of the other, share of the other), (N, 3), for each of num_mix mixes.
            for rows in shares.view(-1, len(number), 3):
                _, other, share = rows.unbind(1)
                if getattr(mix, "use_correct_lambda", False):  # then it is the image's own share
                    share = 1 - share
                number = torch.where(share > 0.5, other.long(), number)
            label = None if label is None else label.index_select(0, number)
        return images, label


@torch.no_grad()
def _applied(module: nn.Module, images: Tensor) -> Tensor:
    """What a module makes of images in [0, 1]."""
    if module.state_dict():
        module.to(images.device)
    return module(images).clamp(0, 1)
