"""How well are photographs restored? PSNR and sharpness of damaged photographs and of what trained models make of them.

    python tests/benchmarks/restoration.py [--data_dir data/sr/Set5] [--checkpoints PRETRAINED.ckpt GAN.ckpt ...]

The photographs should be others than those that the models were trained on. Each is reduced by 3, enlarged again and
compressed as JPEG of quality 40, the middle of what ``datamodules.Restoration`` trains with. A row of the table is the
damaged photographs or a checkpoint of RestorationGAN or Pix2Pix: the PSNR in dB of each and on average; the sharpness,
the energy of differences between neighbours as a share of the original's; and, as in super_resolution.py, the energy
of regular grids in flat parts. A picture a photograph shows the damaged, each checkpoint's and the original side by
side.
"""

import argparse
import sys
from pathlib import Path

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from super_resolution import line_of, mean_grid, method_of, photographs_in, sharpness, write_strips
from torch import Tensor
from training import positive

from callbacks.pictures.images import to_uint8
from callbacks.quality import compare
from datamodules.restoration import blurred, compressed


def damaged(image: Tensor) -> Tensor:
    """An image (1, 3, H, W) in [-1, 1], blurred and compressed."""
    return compressed(blurred(image, [3.0]), torch.tensor([40.0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="data/sr/Set5", type=Path, help="folder of photographs")
    parser.add_argument("--images", default=8, type=positive, help="at most so many of them, in alphabetical order")
    parser.add_argument("--left_half", action="store_true", help="of each, as where photograph and labels are a file")
    parser.add_argument("--checkpoints", nargs="*", default=[], type=Path)
    parser.add_argument("--out", default="runs/restoration", type=Path, help="folder for the pictures")
    options = parser.parse_args()
    photographs = photographs_in(options.data_dir, options.images, 16, options.left_half)
    originals = list(photographs.values())
    sources = [damaged(image) for image in originals]
    rows = {"damaged": sources}
    print(line_of("PSNR in dB", [*photographs, "mean", "sharpness", "grid"]), flush=True)
    for path in options.checkpoints:
        restore = method_of(path, classes=("RestorationGAN", "Pix2Pix"))
        rows[str(path)] = [to_uint8(restore(image)) / 127.5 - 1 for image in sources]
    rows["original"] = originals
    for name, images in rows.items():
        psnr = torch.cat([compare(*pair, "psnr") for pair in zip(images, originals, strict=True)])
        figures = sharpness(images, originals), mean_grid(images, originals)
        cells = [f"{value:.2f}" for value in [*psnr.tolist(), psnr.mean().item()]]
        print(line_of(name[-39:], [*cells, *(f"{figure:.3f}" for figure in figures)]), flush=True)
    write_strips(photographs, rows.values(), options.out)


if __name__ == "__main__":
    try:
        main()
    except MisconfigurationException as error:
        sys.exit(f"error: {error}")
