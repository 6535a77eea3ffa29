"""How good is super-resolution? PSNR, SSIM, grids and sharpness of bicubic interpolation and of trained models.

    python tests/benchmarks/super_resolution.py [--data_dir data/sr/Set5] [--scale 4] [--checkpoints A.ckpt B.ckpt ...]

Every image is cut to a multiple of the scale and reduced by it bicubically, with antialiasing as in MATLAB's imresize.
A row of the table is bicubic interpolation or a checkpoint of SRResNet or SRGAN: for each image, and on average, the
PSNR in dB and the SSIM of luminance, without as many pixels as the scale at the borders. Papers find 28.42 dB and
0.8104 for bicubic interpolation by 4, with MATLAB's resizing. Then, over all images, the energy at periods of 2 and 4
pixels where the original is flat, in squares of a 256th, which a regular grid raises; and the sharpness, the energy of
differences between neighbours, as a share of the original's. A picture an image shows bicubic interpolation, each
checkpoint and the original side by side.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, read_image
from torchvision.utils import make_grid
from training import positive

import gans
from callbacks.pictures.images import to_uint8, write_image
from callbacks.quality import compare
from gans.training.checkpoints import read as read_checkpoint

CLASSES = ("SRResNet", "SRGAN")
FLAT = 4.0  # standard deviation of luminance, of 255, below which a square of 16 pixels is flat

Method = Callable[[Tensor], Tensor]  # from images (1, 3, h, w) to (1, 3, scale h, scale w), in [-1, 1]


def read(path: Path, scale: int, left_half: bool) -> Tensor:
    """An image (1, 3, H, W) in [-1, 1], or its left half, cut to a multiple of the scale at the right and below."""
    image = read_image(str(path), ImageReadMode.RGB)
    image = image[..., : image.shape[-1] // 2] if left_half else image
    height, width = (side // scale * scale for side in image.shape[1:])
    return image[None, :, :height, :width] / 127.5 - 1


def resize(images: Tensor, scale: float) -> Tensor:
    """Images resized bicubically and rounded as in a file, in [-1, 1]."""
    size = [round(side * scale) for side in images.shape[-2:]]
    return to_uint8(interpolate(images, size, mode="bicubic", antialias=True)) / 127.5 - 1


def photographs_in(folder: Path, most: int, multiple: int, left_half: bool) -> dict[str, Tensor]:
    """The images of a folder by name, see ``read``."""
    files = sorted(path for path in folder.glob("*") if path.suffix in (".png", ".jpg"))[:most]
    if not files:
        sys.exit(f"error: --data_dir={folder} holds no .png or .jpg files")
    return {file.stem: read(file, multiple, left_half) for file in files}


def method_of(path: Path, scale: int | None = None, classes: tuple[str, ...] = CLASSES) -> Method:
    """What the model in a checkpoint, of one of some classes and enlarging by this, does with an image."""
    try:
        name = read_checkpoint(path)["gan"]["class"].rpartition(".")[2]
    except MisconfigurationException as error:
        sys.exit(f"error: --checkpoints={error}")
    if name not in classes:
        sys.exit(f"error: --checkpoints={path} holds a {name}, but should hold {' or '.join(classes)}")
    model = getattr(gans, name).load_to_sample(path)
    if scale is not None and model.scale != scale:
        sys.exit(f"error: --checkpoints={path} enlarges by {model.scale}: give --scale={model.scale}")
    return model.translate


def quality(image: Tensor, original: Tensor, border: int) -> Tensor:
    """PSNR and SSIM of an image's luminance, (2,)."""
    return torch.cat([compare(image, original, metric, luminance=True, border=border) for metric in ("psnr", "ssim")])


def luminance(images: Tensor) -> Tensor:
    """Of images (N, 3, H, W) in [-1, 1], from 0 to 255, (N, H, W)."""
    return (images + 1).mul(127.5).mul(torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)


def blocks(image: Tensor) -> Tensor:
    """The luminance of an image (1, 3, H, W) in squares of 16 pixels, (n, 16, 16), a new one every eight pixels."""
    return luminance(image)[0].unfold(0, 16, 8).unfold(1, 16, 8).flatten(0, 1)


def grid_energy(image: Tensor, original: Tensor) -> Tensor:
    """The energy at periods of 2 and 4 pixels, across, down or both, in squares where the original is flat, (n,)."""
    flat = blocks(original).flatten(1).std(1) < FLAT
    parts = blocks(image)[flat]
    window = torch.hann_window(16)[:, None] * torch.hann_window(16)
    # What a Fourier transform finds there is in the sums over all pixels that are a multiple of 4 apart.
    sums = ((parts - parts.mean((1, 2), keepdim=True)) * window).view(-1, 4, 4, 4, 4).sum((1, 3))
    return (16 * sums.square().sum((1, 2)) - sums.sum((1, 2)).square()) / window.sum().square()


def gradient_energy(image: Tensor) -> float:
    """The mean square of the differences between neighbours in luminance."""
    across, down = (luminance(image).diff(dim=dim).square().mean().item() for dim in (1, 2))
    return across + down


def sharpness(images: list[Tensor], originals: list[Tensor]) -> float:
    """The gradient energy of images as a share of that of their originals."""
    return sum(map(gradient_energy, images)) / sum(map(gradient_energy, originals))


def mean_grid(images: list[Tensor], originals: list[Tensor]) -> float:
    """The energy of grids, the mean over all squares where the originals are flat."""
    return torch.cat([grid_energy(*pair) for pair in zip(images, originals, strict=True)]).mean().item()


def write_strips(names: Iterable[str], rows: Iterable[list[Tensor]], folder: Path) -> None:
    """A picture a name: its image of every row, side by side."""
    for name, *images in zip(names, *rows, strict=True):
        picture = make_grid(to_uint8(torch.cat(images)), nrow=len(images), pad_value=255)
        write_image(picture, folder / f"{name}.png")
    print(f"{folder}/*.png")


def line_of(name: str, cells: list[str]) -> str:
    """A row of the table as text."""
    return f"{name:<40}" + "".join(f"{cell:>18}" for cell in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="data/sr/Set5", type=Path, help="folder of images")
    parser.add_argument("--images", default=8, type=positive, help="at most so many of them, in alphabetical order")
    parser.add_argument("--left_half", action="store_true", help="of each, as where photograph and labels are a file")
    parser.add_argument("--scale", default=4, type=int, choices=(2, 4, 8))
    parser.add_argument("--checkpoints", nargs="*", default=[], type=Path)
    parser.add_argument("--out", default="runs/super_resolution", type=Path, help="folder for the pictures")
    options = parser.parse_args()
    photographs = photographs_in(options.data_dir, options.images, options.scale, options.left_half)
    originals = list(photographs.values())
    small = [resize(image, 1 / options.scale) for image in originals]
    methods: dict[str, Method] = {"bicubic": lambda image: resize(image, options.scale)}
    methods |= {str(path): method_of(path, options.scale) for path in options.checkpoints}
    print(line_of("", [*photographs, "mean"]), flush=True)
    rows: list[list[Tensor]] = []
    for name, enlarge in methods.items():
        with torch.no_grad():
            rows.append([enlarge(image) for image in small])
        values = torch.stack([quality(*pair, options.scale) for pair in zip(rows[-1], originals, strict=True)])
        cells = [f"{psnr:.2f} / {ssim:.4f}" for psnr, ssim in [*values.tolist(), values.mean(0).tolist()]]
        print(line_of(name[-39:], cells), flush=True)
    print(line_of("", ["grid, periods 2, 4", "sharpness"]))
    for name, images in [*zip(methods, rows, strict=True), ("original", originals)]:
        figures = mean_grid(images, originals), sharpness(images, originals)
        print(line_of(name[-39:], [f"{figure:.3f}" for figure in figures]), flush=True)
    write_strips(photographs, [*rows, originals], options.out)


if __name__ == "__main__":
    try:
        main()
    except MisconfigurationException as error:
        sys.exit(f"error: {error}")
