"""Images a second of our MNIST loader beside torchvision's data set in a DataLoader; needs MNIST in --data_dir.

    python tests/benchmarks/data.py [--data_dir data] [--seconds 2] [--turns 5]

Both give shuffled training batches of 64 float images at 32 px in [-1, 1]; ours keeps the resized images in memory and
scales a batch at a time, torchvision's transforms one image at a time in two worker processes. They take turns in one
process; the medians over all turns and their ratio are printed.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterable, Iterator

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import v2

from datamodules import MNIST
from gans.base import images_of


def ours(data_dir: str) -> Iterator[torch.Tensor]:
    """Batches as a model gets them, epoch after epoch."""
    data = MNIST(data_dir=data_dir, image_size=32, batch_size=64)
    data.prepare_data()
    loader = data.train_dataloader()
    while True:
        for batch in loader:
            yield data.on_after_batch_transfer(batch, 0).image


def torchvisions(data_dir: str) -> Iterator[torch.Tensor]:
    """The same as torchvision's tutorials would write it."""
    steps = [v2.Resize(32), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.5])]
    data = datasets.MNIST(data_dir, transform=v2.Compose(steps))
    loader = DataLoader(data, batch_size=64, shuffle=True, num_workers=2, persistent_workers=True)
    while True:
        yield from (images_of(batch) for batch in loader)


def speed(batches: Iterable[torch.Tensor], seconds: float) -> float:
    """Images a second over the given time."""
    began, images = time.perf_counter(), 0
    for batch in batches:
        images += len(batch)
        if time.perf_counter() - began > seconds:
            break
    return images / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--seconds", default=2.0, type=float, help="length of a turn")
    parser.add_argument("--turns", default=5, type=int)
    options = parser.parse_args()
    try:
        loaders = {"ours": ours(options.data_dir), "torchvision's": torchvisions(options.data_dir)}
        for batches in loaders.values():  # start workers and open files outside the measurement
            image = next(batches)
            assert image.shape == (64, 1, 32, 32)
            assert image.min() == -1
    except MisconfigurationException as error:
        sys.exit(f"error: {error}")
    speeds: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(options.turns):
        for name, batches in loaders.items():
            speeds[name].append(speed(batches, options.seconds))
    for name, values in speeds.items():
        print(f"{name:14} {statistics.median(values):10,.0f} images/s")
    ratio = statistics.median(a / b for a, b in zip(*speeds.values(), strict=True))
    print(f"ratio          {ratio:10.0f}  (median over {options.turns} turns; the bar is 50)")


if __name__ == "__main__":
    main()
