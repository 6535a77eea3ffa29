"""How good is super-resolution? PSNR and SSIM of bicubic interpolation and of trained models on Set5.

    python tests/benchmarks/super_resolution.py [--data_dir data/sr/Set5] [--scale 4] [--checkpoints A.ckpt B.ckpt ...]

Every image is cut to a multiple of the scale and reduced by it bicubically, with antialiasing as in MATLAB's imresize.
A row of the table is bicubic interpolation or a checkpoint of SRResNet or SRGAN: for each image, and on average, the
PSNR in dB and the SSIM of luminance, without as many pixels as the scale at the borders. Papers find 28.42 dB and
0.8104 for bicubic interpolation by 4, with MATLAB's resizing. A picture an image shows bicubic interpolation, each
checkpoint and the original side by side.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, read_image
from torchvision.utils import make_grid

import gans
from callbacks.pictures.images import to_uint8, write_png
from callbacks.quality import compare

CLASSES = ("SRResNet", "SRGAN")

Method = Callable[[Tensor], Tensor]  # from images (1, 3, h, w) to (1, 3, scale h, scale w), in [-1, 1]


def read(path: Path, scale: int) -> Tensor:
    """An image (1, 3, H, W) in [-1, 1], cut to a multiple of the scale at the right and below."""
    image = read_image(str(path), ImageReadMode.RGB)
    height, width = (side // scale * scale for side in image.shape[1:])
    return image[None, :, :height, :width] / 127.5 - 1


def resize(images: Tensor, scale: float) -> Tensor:
    """Images resized bicubically and rounded as in a file, in [-1, 1]."""
    size = [round(side * scale) for side in images.shape[-2:]]
    return to_uint8(interpolate(images, size, mode="bicubic", antialias=True)) / 127.5 - 1


def method_of(path: Path) -> Method:
    """What the model in a checkpoint does with a small image."""
    if not path.is_file():
        sys.exit(f"error: --checkpoints={path} does not exist")
    name = torch.load(path, map_location="cpu", weights_only=True).get("gan", {}).get("class", "")
    if name.rpartition(".")[2] not in CLASSES:
        sys.exit(f"error: --checkpoints={path} holds {name or 'no GAN'}, but should hold {' or '.join(CLASSES)}")
    return getattr(gans, name.rpartition(".")[2]).load_to_sample(path).translate


def quality(image: Tensor, original: Tensor, border: int) -> Tensor:
    """PSNR and SSIM of an image's luminance, (2,)."""
    return torch.cat([compare(image, original, metric, luminance=True, border=border) for metric in ("psnr", "ssim")])


def line_of(name: str, cells: list[str]) -> str:
    """A row of the table as text."""
    return f"{name:<40}" + "".join(f"{cell:>18}" for cell in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="data/sr/Set5", type=Path, help="folder of images")
    parser.add_argument("--scale", default=4, type=int)
    parser.add_argument("--checkpoints", nargs="*", default=[], type=Path)
    parser.add_argument("--out", default="runs/super_resolution", type=Path, help="folder for the pictures")
    options = parser.parse_args()
    files = sorted(options.data_dir.glob("*.png"))
    if not files:
        sys.exit(f"error: --data_dir={options.data_dir} holds no .png files")
    originals = [read(file, options.scale) for file in files]
    small = [resize(image, 1 / options.scale) for image in originals]
    methods: dict[str, Method] = {"bicubic": lambda image: resize(image, options.scale)}
    methods |= {str(path): method_of(path) for path in options.checkpoints}
    print(line_of("", [*(file.stem for file in files), "mean"]), flush=True)
    rows: list[list[Tensor]] = []
    for name, enlarge in methods.items():
        with torch.no_grad():
            rows.append([enlarge(image) for image in small])
        values = torch.stack([quality(*pair, options.scale) for pair in zip(rows[-1], originals, strict=True)])
        cells = [f"{psnr:.2f} / {ssim:.4f}" for psnr, ssim in [*values.tolist(), values.mean(0).tolist()]]
        print(line_of(name[-39:], cells), flush=True)
    for file, *images in zip(files, *rows, originals, strict=True):
        picture = make_grid(to_uint8(torch.cat(images)), nrow=len(images), pad_value=255)
        write_png(picture, options.out / file.name)
    print(f"{options.out}/*.png")


if __name__ == "__main__":
    try:
        main()
    except MisconfigurationException as error:
        sys.exit(f"error: {error}")
