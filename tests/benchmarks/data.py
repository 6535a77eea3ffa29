"""Images a second of our loaders beside torchvision's data sets in a DataLoader.

    python tests/benchmarks/data.py [--data_dir data] [--workers 2] [--seconds 2] [--turns 5] [--jpegs 2000]

All give shuffled training batches of 64 float images in [-1, 1], as a model gets them. "Resident" keeps the resized
images in memory and scales a batch at a time, in the main process; "streamed" does so with what threads read from the
cached file; "torchvision-style" opens and transforms one image at a time in worker processes, as torchvision's
tutorials do. Data are MNIST and CIFAR-10 at 32 px, left out where they are missing and cannot be downloaded, and a
folder of 256 px JPEG files, random cuts of scikit-learn's two photographs, made in a temporary folder. All is done on
the CPU, and PyTorch has one thread in every process.

Loaders take turns; figures are medians over the turns, of speeds and of ratios. "One core" is torchvision-style without
workers: one process with one thread, as the resident loader is. That is fairer than its speed with workers over their
number, which also pays for sending batches between processes.

A first epoch of the JPEG folder is all that happens from the files to its last batch: ours decodes them into a new
cache, in as many threads as torchvision-style has workers. The later epoch is the one after it. Every loader finds the
files in the system's memory.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from machine import machine
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets
from torchvision.transforms import v2
from tqdm import tqdm

from datamodules import CIFAR10, MNIST, ImageFolder
from datamodules.images.module import ImageDataModule

BATCH = 64
REST = 1.0  # seconds before a turn, in which the workers of the others fill their queues and fall silent
COLUMNS = ("Data", "Loader", "Images/s", "Beside torchvision-style, same workers", "Beside it on one core")

Epoch = Callable[[], Iterator[Tensor]]  # begins an epoch of batches
Speeds = dict[str, list[float]]  # images a second by loader, in each turn


class Source(NamedTuple):
    """A data set as ours, as torchvision's, and the transforms that give torchvision's images their size."""

    name: str
    ours: Callable[..., ImageDataModule]
    torchvisions: Callable[..., Dataset]
    resize: tuple[v2.Transform, ...] = ()


def ours(source: Source, workers: int, **settings: Any) -> Epoch:
    """Batches as a model gets them from our data module."""
    data = source.ours(batch_size=BATCH, num_workers=workers, **settings)
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    return lambda: (data.on_after_batch_transfer(batch, 0).image for batch in loader)


def torchvisions(source: Source, workers: int) -> Epoch:
    """The same as torchvision's tutorials would write it."""
    to_float = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.5])]
    data = source.torchvisions(transform=v2.Compose([*source.resize, *to_float]))
    loader = DataLoader(data, BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0)
    return lambda: (images for images, _ in loader)


def contenders(source: Source, workers: int, **settings: Any) -> dict[str, Callable[[], Epoch]]:
    """What prepares each loader; the settings are for our data module."""
    return {
        "resident": partial(ours, source, workers, **settings),
        f"streamed, {workers} workers": partial(ours, source, workers, resident_bytes=0, **settings),
        f"torchvision-style, {workers} workers": partial(torchvisions, source, workers),
    }


def speed(batches: Iterator[Tensor], workers: int, seconds: float) -> float:
    """Images a second over the given time, after the batches, two a worker, that were made before it."""
    time.sleep(REST)
    for _ in islice(batches, 2 * workers):
        pass
    began, images = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        images += len(next(batches))
    return images / (time.perf_counter() - began)


def steady(source: Source, options: argparse.Namespace) -> Speeds:
    """The speeds of all loaders with their workers running and their files open."""
    starts = contenders(source, options.workers)
    starts["torchvision-style, no workers"] = partial(torchvisions, source, 0)
    loaders = {name: chain.from_iterable(iter(start(), None)) for name, start in starts.items()}  # epoch after epoch
    for name, batches in loaders.items():
        image = next(batches)
        low, high = image.aminmax()
        assert image.shape == (BATCH, *source.ours().image_shape), name
        assert image.dtype == torch.float32, name
        assert -1 <= low < -0.9 < 0.9 < high <= 1, name
    speeds: Speeds = {name: [] for name in loaders}
    for _ in range(options.turns):
        for name, batches in loaders.items():
            speeds[name].append(speed(batches, options.workers, options.seconds))
    return speeds


def two_epochs(start: Callable[[], Epoch]) -> tuple[float, float]:
    """Images a second of the first epoch, with all that comes before it, and of the second."""
    began = time.perf_counter()
    epoch = start()
    images = sum(len(batch) for batch in epoch())
    middle = time.perf_counter()
    assert sum(len(batch) for batch in epoch()) == images
    return images / (middle - began), images / (time.perf_counter() - middle)


def epochs(source: Source, options: argparse.Namespace) -> tuple[Speeds, Speeds]:
    """The speeds of all loaders in their first epoch and in the one after it."""
    first: Speeds = {name: [] for name in contenders(source, options.workers)}
    later: Speeds = {name: [] for name in first}
    for _ in range(options.turns):
        for name in first:
            with TemporaryDirectory() as cache:
                speeds = two_epochs(contenders(source, options.workers, cache_dir=cache)[name])
            first[name].append(speeds[0])
            later[name].append(speeds[1])
    return first, later


def make_jpegs(folder: Path, count: int) -> None:
    """Random squares of scikit-learn's two photographs, of random size, as 256 px JPEG files; a folder a photograph."""
    bundle = load_sample_images()
    random = np.random.default_rng(0)
    for number in tqdm(range(count), desc="Making JPEG files", unit="img", leave=False):
        photograph = Image.fromarray(bundle.images[number % 2])
        side = random.integers(256, min(photograph.size), endpoint=True)
        left, top = (random.integers(length - side, endpoint=True) for length in photograph.size)
        square = photograph.resize((256, 256), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
        path = folder / Path(bundle.filenames[number % 2]).stem / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        square.save(path, quality=90)


def rows(data: str, speeds: Speeds, bar: int, held: tuple[str, ...]) -> Iterator[str]:
    """Table rows of median speeds and ratios; the bar is for the last ratio of loaders whose names begin as in held."""
    bases = [base for name, base in speeds.items() if name.startswith("torchvision-style")]
    for name, values in speeds.items():
        cells = []
        for base in bases:
            ratio = statistics.median(value / other for value, other in zip(values, base, strict=True))
            cells.append(f"{ratio:.3g}" + f" (bar {bar})" * (base is bases[-1] and name.startswith(held)))
        cells += [""] * (2 - len(cells))
        yield f"| {data} | {name} | {statistics.median(values):,.0f} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--workers", default=2, type=int, help="processes of torchvision-style, threads of ours")
    parser.add_argument("--seconds", default=2.0, type=float, help="length of a turn")
    parser.add_argument("--turns", default=5, type=int)
    parser.add_argument("--jpegs", default=2000, type=int, help="files in the folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    small = {"data_dir": options.data_dir, "image_size": 32}
    sources = [
        Source("MNIST, 32 px", partial(MNIST, **small), partial(datasets.MNIST, options.data_dir), (v2.Resize(32),)),
        Source("CIFAR-10, 32 px", partial(CIFAR10, **small), partial(datasets.CIFAR10, options.data_dir)),
    ]
    table = []
    for source in sources:
        try:
            table += rows(source.name, steady(source, options), 50, ("resident",))
        except MisconfigurationException as error:
            print(f"{source.name} is left out: {error}", flush=True)
    with TemporaryDirectory() as folder:
        jpegs, cache = Path(folder) / "jpegs", Path(folder) / "cache"
        make_jpegs(jpegs, options.jpegs)
        source = Source(
            "JPEG files, 256 px",
            partial(ImageFolder, data_dir=str(jpegs), cache_dir=str(cache), image_size=256),
            partial(datasets.ImageFolder, jpegs),
            (v2.Resize(256), v2.CenterCrop(256)),
        )
        table += rows(source.name, steady(source, options), 50, ("resident",))
        first, later = epochs(source, options)
        table += rows(f"{source.name}, first epoch", first, 1, ("resident", "streamed"))
        table += rows(f"{source.name}, later epoch", later, 5, ("resident", "streamed"))
    print(f"{machine()}; {options.workers} workers, one thread a process, medians over {options.turns} turns\n")
    print("\n".join([f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *table]))


if __name__ == "__main__":
    main()
