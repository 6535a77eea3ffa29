"""What a batch is: its images, the kinds of data that GANs take, and the mistakes that loaders of one's own make."""

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

RARE = 1000  # epochs for one update, from which on nobody can have meant it
IMAGES = ("images", "images with classes", "images with attributes")


def images_of(batch: Any, part: int = 0) -> Tensor:
    """The images of a batch: the batch itself or its first element. (N, C, H, W), float in [-1, 1].

    Args:
        batch: The batch.
        part: 1 for the second element, such as the target of a pair.

    Raises:
        MisconfigurationException: There are none.
    """
    parts = batch if isinstance(batch, tuple | list) else [batch]
    if len(parts) <= part or not isinstance(parts[part], Tensor):
        wanted = "images (N, C, H, W), or a tuple that begins with them" if part == 0 else "a tuple of two images"
        raise MisconfigurationException(f"A batch must be {wanted}; the data gives {_described(batch)}")
    return parts[part]


def check_kind(model: Any, data: Any, fitting: str = "other data") -> None:
    """Refuse data whose batches are not what a GAN is trained on.

    Args:
        model: The GAN or its class.
        data: The data module, which says what its batches are and could be, or not.
        fitting: Names of data that would do.

    Raises:
        MisconfigurationException: They are of another kind.
    """
    gives = getattr(data, "gives", None)
    if not model.takes or gives is None or gives in model.takes:
        return
    name = getattr(model, "__name__", type(model).__name__)
    wanted = " or ".join(model.takes if len(model.takes) < 3 else model.takes[:1])
    settings = [data.offers[kind] for kind in model.takes if data.offers.get(kind)]
    other = model.settings_for.get(gives) or " or ".join(settings) or fitting
    raise MisconfigurationException(
        f"--model={name} takes {wanted}, and --data={type(data).__name__} gives {gives}: take {other}"
    )


def check_images(module: Any, batch: Any) -> None:
    """Look at a batch's images before a module is trained on it.

    Raises:
        MisconfigurationException: They are of another shape, type or range than the module takes.
    """
    name = type(module).__name__
    for number, shape in enumerate(map(tuple, module.shapes)):
        # What a class of one's own makes of a batch is not known here.
        images = images_of(batch, number) if module.takes else module.real(batch)
        found = tuple(images.shape)
        if found[1:] != shape:
            what = "image_shape=" if shape == tuple(module.image_shape) else "sources of "
            turned = len(found) == 4 and (found[3], *found[1:3]) == shape
            raise MisconfigurationException(
                f"The data's images are {found[1:]}, but {name} was built for {what}{shape} (channels, height, "
                f"width): {'permute(0, 3, 1, 2) puts the channels first' if turned else 'make the two equal'}."
            )
        if images.dtype != module.dtype:
            raise MisconfigurationException(
                f"The data's images are {_named(images.dtype)}; {name} takes {_named(module.dtype)} in [-1, 1] "
                "(x / 127.5 - 1 for bytes)."
            )
        low, high = (pixel.item() for pixel in images.aminmax())
        if not (low >= -1.01 and high <= 1.01):  # nor for numbers that are none
            raise MisconfigurationException(
                f"The data's pixels go from {low:.3g} to {high:.3g}; images must be float in [-1, 1] (x / 127.5 - 1)."
            )
        if low >= 0 and getattr(module.trainer.datamodule, "gives", None) is None:  # the lab's own data is right
            rank_zero_warn(
                f"No pixel of the first batch is negative (they go from {low:.3g} to {high:.3g}): images must be "
                "in [-1, 1], black being -1; those in [0, 1] become so by x * 2 - 1"
            )


def check_labels(module: Any, batch: Any) -> None:
    """Look at a batch's labels before a module that needs them is trained on it.

    Raises:
        MisconfigurationException: There are none, or they are of another shape, type or range.
    """
    count, attributes = module.labels
    if not count:
        return
    name, n = type(module).__name__, len(images_of(batch))
    label = batch[1] if isinstance(batch, tuple | list) and len(batch) > 1 else None
    wanted = f"(N, {count}), 0 or 1 each" if attributes else f"(N,), from 0 to {count - 1}"
    shape = (n, count) if attributes else (n,)
    right = isinstance(label, Tensor) and label.dtype == torch.int64 and tuple(label.shape) == shape
    if not right:
        kind = IMAGES[2 if isinstance(label, Tensor) and label.ndim > 1 else 1]
        hint = f": take {module.settings_for[kind]}" if kind in module.settings_for and kind not in module.takes else ""
        raise MisconfigurationException(
            f"{name} takes images with labels, int64 {wanted}; the data's labels are {_described(label)}{hint}"
        )
    low, high = (number.item() for number in label.aminmax())
    if low < 0 or high > (1 if attributes else count - 1):
        raise MisconfigurationException(
            f"{name} takes images with labels, int64 {wanted}; the data's go from {low} to {high}"
        )


def check_updates(module: Any) -> None:
    """Say so when epochs go by without an update.

    Raises:
        MisconfigurationException: Nobody can have meant to wait so long.
    """
    batches = module.trainer.num_training_batches
    needed = (getattr(module, "n_critic", 1) + module.own_batch) * module.accumulate_grad_batches
    if needed <= batches or not batches or module.trainer.fast_dev_run:
        return
    epochs = -(-needed // int(batches))
    said = (
        f"With --model.n_critic={getattr(module, 'n_critic', 1)} and "
        f"--model.accumulate_grad_batches={module.accumulate_grad_batches} "
        f"the generator is updated once in {needed:,} batches, and an epoch has {int(batches):,}: that is "
    )
    if epochs > RARE:
        raise MisconfigurationException(f"{said}once in {epochs:,} epochs; make their product {int(batches):,} or less")
    rank_zero_warn(f"{said}once in {epochs:,} epochs")


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _described(value: Any) -> str:
    """What a batch of the wrong type is, for its owner to read."""
    if isinstance(value, Tensor):
        return f"{_named(value.dtype)} {tuple(value.shape)}"
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(str, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {', '.join(map(_described, value[:4])) or 'nothing'}"
    return "None" if value is None else f"of type {type(value).__name__}"
