"""The one place where images leave the training range: pictures and scores are made from what these helpers return."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from callbacks.runs.files import unwritten, whole

FORMATS = "png", "jpg", "jpeg"  # that images are written in
_folders: WeakKeyDictionary[Trainer, Path] = WeakKeyDictionary()  # of trainers without a logger


def to_uint8(images: Tensor) -> Tensor:
    """Float images (N, C, H, W) in [-1, 1] as uint8 in [0, 255], rounded to nearest; values outside are clipped.

    The input is never changed in place.
    """
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def write_image(image: Tensor, path: str | Path) -> None:
    """Write one uint8 image (C, H, W), grey or RGB; the file appears whole or not at all.

    It is a PNG file or, if that is how the path ends, a JPEG file of quality 95.
    """
    from torchvision.io import encode_jpeg, encode_png

    image, is_jpeg = image.cpu().contiguous(), Path(path).suffix.lower() in (".jpg", ".jpeg")
    encoded = encode_jpeg(image, quality=95) if is_jpeg else encode_png(image)
    with whole(path) as partial:
        partial.write_bytes(encoded.numpy().tobytes())


def grid(images: Tensor, columns: int | None = None) -> Tensor:
    """Lay float images (N, C, H, W) in [-1, 1] out on one uint8 picture (C, H', W'), row by row, square by default."""
    from torchvision.utils import make_grid

    columns = columns or max(1, round(len(images) ** 0.5))
    return make_grid(to_uint8(images), nrow=columns, padding=2, pad_value=255)[: images.shape[1]]


def folder_of(trainer: Trainer) -> Path:
    """Where all that a trainer writes goes; only the first rank's answer counts, and it waits for no other.

    With a logger that is the logger's own, of this version, where Lightning has its checkpoints. Without one it is
    ``default_root_dir`` or, if an earlier trainer wrote there, the first free ``version_N`` in it; a training goes on
    in the folder of its checkpoint.
    """
    if trainer.loggers:
        logger = trainer.loggers[0]
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        return Path(logger.save_dir or trainer.default_root_dir, str(logger.name or ""), version)
    if trainer not in _folders:
        root = Path(trainer.default_root_dir)
        folders = itertools.chain([root], (root / f"version_{n}" for n in itertools.count(1)))
        last = Path(trainer.ckpt_path or "") if trainer.state.fn == TrainerFn.FITTING else Path()
        goes_on = last.parent.name == "checkpoints"
        written = ("samples", "views", "neighbors", "images", "scores.json", "quality.json", "checkpoints/last.ckpt")
        free = (folder for folder in folders if not any((folder / name).exists() for name in written))
        _folders[trainer] = last.parent.parent if goes_on else next(free)
    return _folders[trainer]


def labelled(picture: Tensor, labels: Sequence[str], most: int = 24) -> Tensor:
    """A grid (C, H, W) with a label at the left of each of its rows, of which it shows so many characters at most."""
    from PIL import Image, ImageDraw, ImageFont

    if not labels:
        return picture
    channels, height, _ = picture.shape
    row = height / len(labels)
    font = ImageFont.load_default(size=min(max(row / 4, 10), 24))
    texts = [label if len(label) <= most else f"{label[: most - 1]}…" for label in labels]
    boxes = [font.getbbox(text) for text in texts]
    strip = Image.new("L", (int(max(box[2] for box in boxes)) + 8, height), 255)
    for number, (text, box) in enumerate(zip(texts, boxes, strict=True)):
        middle = (number + 0.5) * row - (box[1] + box[3]) / 2
        ImageDraw.Draw(strip).text((4, round(middle)), text, fill=0, font=font)
    pixels = torch.frombuffer(bytearray(strip.tobytes()), dtype=torch.uint8).view(1, height, -1)
    return torch.cat([pixels.expand(channels, -1, -1).to(picture.device), picture], 2)


def step_of(trainer: Trainer, module: LightningModule) -> int:
    """Generator updates behind the module, also where it is only validated or tested (``module.trained_steps``)."""
    return trainer.global_step or getattr(module, "trained_steps", 0)


def try_png(image: Tensor, path: Path) -> bool:
    """``write_image`` for pictures that training can do without; whether the file could be written."""
    try:
        write_image(image, path)
    except OSError as error:
        unwritten("picture", path, error)
        return False
    return True


def show(trainer: Trainer, name: str, picture: Tensor, path: Path, step: int) -> bool:
    """Write a uint8 picture (C, H, W) to ``path`` and send it, under a name, to the loggers that take images.

    Returns:
        Whether the file could be written.
    """
    written = try_png(picture, path)
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):  # Weights & Biases, which takes the file
            if written:
                logger.log_image(name, [str(path)], step=step)
        elif hasattr(logger.experiment, "add_image"):  # TensorBoard
            logger.experiment.add_image(name, picture, step)
    return written


def plain(batch: Any) -> Any:
    """A copy of a batch on the CPU for a checkpoint, in types that weights_only=True reads back."""
    if isinstance(batch, Tensor):
        return batch.detach().to("cpu", copy=True)  # a view would bring all that it is a view of
    return tuple(map(plain, batch)) if isinstance(batch, tuple | list) else batch


def validation_batches(trainer: Trainer) -> Iterator[Any]:
    """In training, the validation batches on the device: as in validation, not cut out, mirrored or augmented."""
    for batch in trainer.val_dataloaders:  # type: ignore[union-attr]
        trainer.validating = True
        try:
            batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        finally:
            trainer.training = True
        yield batch
