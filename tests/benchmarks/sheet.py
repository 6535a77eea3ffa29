"""One picture of what many runs have learned: a row a run, in two columns.

    python tests/benchmarks/sheet.py RUN [RUN ...] [--out sheet.png]

GANs that turn noise into images show samples, with classes one of each in turn; those that turn images into images show
images that are held out (where any are) and what becomes of them, side by side as in the pictures that a run writes.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad
from translates import data_of

import gans
from callbacks.pictures.images import grid, labelled, write_image
from gans.training.noise import Sampler

TILES, SIZE = 10, 64  # images in a row, and their size


def square(images: Tensor) -> Tensor:
    """The middle of images (N, C, H, W), (N, C, SIZE, SIZE)."""
    side = min(images.shape[2:])
    top, left = ((length - side) // 2 for length in images.shape[2:])
    middle = images[..., top : top + side, left : left + side]
    return interpolate(middle, (SIZE, SIZE), mode="bilinear", antialias=True)


def tiles_of(run: Path) -> Tensor:
    """TILES images (N, 3, SIZE, SIZE) of a run, in [-1, 1]."""
    model = gans.load_to_sample(run / "checkpoints/last.ckpt")
    torch.manual_seed(0)
    if isinstance(model, Sampler):
        images = model.sample(TILES)
    else:
        data = data_of(run)
        shown, needed = [], TILES
        for batch in data.val_dataloader():  # a photograph at a time where they are of several sizes
            images = model.shown(data.on_after_batch_transfer(batch, 0))
            shown += [square(tiles)[:needed] for tiles in images[: max(1, needed // images.shape[1])]]
            needed = TILES - sum(map(len, shown))
            if needed < images.shape[1]:
                break
        images = torch.cat(shown)
    images = images.expand(-1, 3, -1, -1)
    if images.shape[-1] < SIZE:
        images = images.repeat_interleave(SIZE // images.shape[-1], 2).repeat_interleave(SIZE // images.shape[-1], 3)
        rest = SIZE - images.shape[-1]
        images = pad(images, (rest // 2, rest - rest // 2) * 2, value=-1)
    images = square(images)
    return pad(images, (0, 0, 0, 0, 0, 0, 0, TILES - len(images)), value=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", default="sheet.png", type=Path)
    options = parser.parse_args()
    for run in options.runs:
        if not (run / "checkpoints/last.ckpt").is_file():
            sys.exit(f"error: {run} is no run with a checkpoints/last.ckpt")
    half = -(-len(options.runs) // 2)
    columns = []
    for runs in (options.runs[:half], options.runs[half:]):
        if runs:
            names = [type(gans.load_to_sample(run / "checkpoints/last.ckpt")).__name__ for run in runs]
            picture = grid(torch.cat([tiles_of(run) for run in runs]), TILES)
            columns.append(labelled(picture, names))
    height = max(column.shape[1] for column in columns)
    write_image(torch.cat([pad(c, (0, 0, 0, height - c.shape[1]), value=255) for c in columns], 2), options.out)
    print(options.out)


if __name__ == "__main__":
    main()
