"""Scores without a Trainer: of two sets of images, two folders, or a model and a data set."""

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from tqdm import tqdm

from callbacks.pictures.randomness import isolated_rng
from callbacks.scores.classifier import check_classes, classifier_of
from callbacks.scores.collect import OF_REAL, Collector, check_sizes
from callbacks.scores.features import Extractor, create, text_of
from callbacks.scores.metrics import Metric, compute, needs, possible, select
from callbacks.scores.passes import Pass, drawing, extent_of

BAR: dict[str, Any] = {"leave": False, "delay": 5, "file": sys.stdout}  # after so many seconds


@torch.no_grad()
def score(
    real: Any,
    fake: Any,
    metrics: Sequence[Metric | str] = ("all",),
    features: str | nn.Module = "inception",
    weights: str | None = None,
    num_images: int | None = None,
    num_real: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    device: torch.device | str | None = None,
    cache_dir: str = "~/.cache/gan-lab",
) -> dict[str, float]:
    """The scores of generated images, as the callback Score computes them; the caller's random state is left alone.

    Images are a tensor (N, C, H, W) in [-1, 1], an iterable of such batches or of tuples that begin with one, a data
    module, whose validation images are taken, or a folder of pictures, which are looked for in its sub-folders too.

    Args:
        real: Real images; of no importance where no metric needs any.
        fake: Generated ones, or a model: its ``generate(batch)`` makes them of the batches of ``real``, a data module
            or DataLoader, of which its ``real(batch)``, if it has one, gives the images to compare with.
        metrics: As in Score, as are the others but for:
        features: A name or an nn.Module.
        weights: File with the extractor's weights.
        num_images: Generated images, spread evenly over those that there are; by default all of them, or as many as
            there are real ones. Of an iterable that does not know its length they are the first.
        num_real: Real images, likewise.
        batch_size: Images the extractor takes at a time.
        seed: Seed of the generated images and of KID's subsets.
        device: Where it is done; by default where the model is, or on a GPU where there is one.
        cache_dir: Folder that keeps the classifier of a data module ("classifier").

    Returns:
        The scores by name, such as "fid", or "frechet_pixels" of other features than Inception's.

    Raises:
        MisconfigurationException: An image cannot be read, there are too few, or features or a metric cannot be had.
    """
    model = fake if hasattr(fake, "generate") else None
    weight = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    where = weight.device if weight is not None else "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(where if device is None else device)
    chosen = select(metrics, features, seed)
    wanted, compares = needs(chosen), any(metric.needs_real for metric in chosen)
    with isolated_rng(seed, device):  # a DataLoader draws a random number when it starts
        if features == "classifier":
            check_classes(real)
            real.prepare_data()
            extractor: Extractor = classifier_of(real, Path(cache_dir).expanduser(), device).to(device)
        else:
            extractor = create(features, weights).to(device)
        reals: Collector | None = None
        if model is not None:
            loader, to_device = _opened(real, device)
            extent = extent_of(loader)
            coded = getattr(model, "asks", "") == "code"
            fakes = Collector(extractor, num_images or extent.distinct, batch_size, wanted, coded)
            if compares:
                reals = Collector(extractor, min(num_real or extent.distinct, extent.distinct), batch_size)
            done = Pass(drawing(model), getattr(model, "real", _images_of), fakes, reals, extent, loader, seed)
            with _in_eval_mode(model):
                done.go_through(to_device, lambda batches: tqdm(batches, desc="Scoring", unit="batch", **BAR))
        else:

            def filled(images: Any, kind: str, number: int | None, needed: Collection[str]) -> Collector:
                total, batches = _stream(images, device)
                total = total or number or 0
                collector = Collector(extractor, min(number or total, total), batch_size, needed)
                _fill(collector, batches, total, kind)
                return collector

            reals = filled(real, "real", num_real, OF_REAL) if compares else None
            fakes = filled(fake, "generated", num_images, wanted)
        of_real, of_fake = reals.collected() if reals else None, fakes.collected()
        check_sizes({collector.size for collector in (reals, fakes) if collector})
    blind = f"features={text_of(features)} tells no classes apart"
    lacking = {"classes": blind} if of_fake.classes is None else {}
    if of_fake.asked is None:
        lacking["asked"] = "nothing says of which class these images were to be"
    return compute(possible(chosen, features, lacking), of_real, of_fake, features)


def _fill(collector: Collector, batches: Iterable[Tensor], total: int, kind: str) -> None:
    """Give a collector its share of so many images."""
    if collector.count < 2:
        raise MisconfigurationException(
            f"score needs at least 2 {kind} images, and there is {collector.count}: give more, and num_images and "
            "num_real of iterators, which do not know how many they have"
        )
    first = 0
    with tqdm(total=total, desc=f"Scoring {kind} images", unit="img", **BAR) as bar:
        for images in batches:
            if images.ndim != 4 or not images.is_floating_point():
                raise MisconfigurationException(
                    f"the {kind} images must be floats (N, C, H, W) in [-1, 1]; got {tuple(images.shape)}, "
                    f"{str(images.dtype).removeprefix('torch.')}"
                )
            collector.add_share(images[: total - first], first, total)
            first += len(images)
            bar.update(len(images))
            if first >= total:
                return
    raise MisconfigurationException(f"there are {first} {kind} images, and not {total}: ask for fewer")


def _stream(images: Any, device: torch.device) -> tuple[int | None, Iterator[Tensor]]:
    """How many images there are, if that can be known, and batches of them on the device."""
    total: int | None = None
    batches = images
    to_device: Callable[[Any], Any] = partial(move_data_to_device, device=device)
    if isinstance(images, Tensor):
        total, batches = len(images), images.split(64)
    elif isinstance(images, str | Path):
        files = _pictures_in(Path(images))
        total, batches = len(files), map(_read, files)
    elif isinstance(images, list | tuple):
        total = sum(len(_images_of(batch)) for batch in images)
    else:
        batches, to_device = _opened(images, device)
        if hasattr(batches, "total") or hasattr(batches, "dataset"):
            total = extent_of(batches).total
    return total, (_checked(_images_of(to_device(batch))) for batch in batches)


def _opened(data: Any, device: torch.device) -> tuple[Any, Callable[[Any], Any]]:
    """The loader of a data module's validation images, or what is one, and what brings its batches to the device."""
    if not hasattr(data, "val_dataloader"):
        return data, partial(move_data_to_device, device=device)
    data.prepare_data()
    data.setup("validate")

    def to_device(batch: Any) -> Any:
        return data.on_after_batch_transfer(data.transfer_batch_to_device(batch, device, 0), 0)

    return data.val_dataloader(), to_device


def _checked(images: Tensor) -> Tensor:
    if images.is_floating_point() and images.numel() and images.abs().amax() > 1.01:
        low, high = images.aminmax()
        raise MisconfigurationException(
            f"images must be in [-1, 1] (x / 127.5 - 1 for bytes); these go from {low:.3g} to {high:.3g}"
        )
    return images


def _images_of(batch: Any) -> Tensor:
    return batch if isinstance(batch, Tensor) else batch[0]


@contextmanager
def _in_eval_mode(model: Any) -> Iterator[None]:
    modes = {part: part.training for part in model.modules()} if isinstance(model, nn.Module) else {}
    for part in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder and its sub-folders, in alphabetical order."""
    from PIL import Image

    endings = Image.registered_extensions()
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.name[0] != ".")
    if not files:
        raise MisconfigurationException(f"{folder} is no folder that holds images: give one that does")
    return files


def _read(path: Path) -> Tensor:
    """A picture (1, C, H, W) in [-1, 1], grey or RGB, upright; white where it is transparent."""
    from PIL import Image, ImageOps
    from torchvision.transforms.functional import pil_to_tensor

    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture)
            if upright.has_transparency_data:
                ground = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(ground, upright.convert("RGBA"))
            pixels = pil_to_tensor(upright.convert("L" if upright.mode in ("1", "L") else "RGB"))
    except Exception as error:  # PIL raises many kinds for files that are not pictures
        raise MisconfigurationException(f"{path} cannot be read as an image ({error}): mend or remove it") from error
    return pixels[None].float() / 127.5 - 1
