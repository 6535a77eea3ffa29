"""What it saves that R1 and R2 differentiate the forward pass which the loss has made.

    python tests/benchmarks/penalties.py [--turns 7] [--batch_size 64] [--width 32] [--image_size 32]

Prints the time of the discriminator's loss and backward pass in float32, with that pass used again and with one of its
own, taken in turns: medians, and the median of the ratios of neighbours. WGAN-GP's penalty is at other images than the
loss is, so there is no pass to use again.
"""

import argparse
import copy
import statistics
import time
from typing import Any

import torch
from machine import machine
from tqdm import tqdm

from gans import DCGAN, WGANGP, StyleGAN
from gans.parts.penalties import R1, R2
from gans.training import NoiseGAN, frozen
from gans.training.randomness import seed_from

CASES: dict[str, tuple[type[NoiseGAN], dict[str, Any]]] = {
    "StyleGAN, R1": (StyleGAN, {}),
    "StyleGAN, R1 and R2": (StyleGAN, {"penalty": [R1(), R2()]}),
    "DCGAN, R1": (DCGAN, {"penalty": R1()}),
    "WGAN-GP": (WGANGP, {}),
}


def alone(module: NoiseGAN) -> None:
    """Let penalties make forward passes of their own."""
    module.penalties = copy.deepcopy(module.penalties)
    for penalty in module.penalties:
        penalty.differentiates = ""


def seconds(module: NoiseGAN, images: torch.Tensor) -> float:
    """Of one loss and its backward pass."""
    module.zero_grad()
    start = time.perf_counter()
    with frozen(module.generator):
        module.discriminator_loss(images)[0].backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"turns": 7, "batch_size": 64, "width": 32, "image_size": 32}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(1)
    shape = 3, args.image_size, args.image_size
    images = torch.rand(args.batch_size, *shape) * 2 - 1
    print(f"{args.image_size} px, width {args.width}, batch {args.batch_size}; {machine()}\n")
    print("| Discriminator | Used again, s | Of its own, s | Ratio |\n|---|---|---|---|")
    for title, (cls, settings) in tqdm(CASES.items(), leave=False):
        again, own = (cls(shape, width=args.width, **settings) for _ in range(2))
        alone(own)
        times = [(seconds(again, images), seconds(own, images)) for _ in range(args.turns + 1)][1:]
        medians = [statistics.median(each) for each in zip(*times, strict=True)]
        ratio = statistics.median(a / b for a, b in times)
        tqdm.write(f"| {title} | {medians[0]:.3f} | {medians[1]:.3f} | {ratio:.2f} |")
    start = time.perf_counter()
    for number in range(1000):
        seed_from(torch.device("cpu"), 0, 0, 1, number)
    print(f"\nSeeding a step takes {(time.perf_counter() - start) * 1000:.0f} us.")


if __name__ == "__main__":
    main()
