"""Images a second of ``Trainer.fit`` for every GAN, beside plain PyTorch and beside the bare networks.

    python tests/benchmarks/step.py [--gans DCGAN StyleGAN] [--batch_size 64] [--width 32] [--image_size 32]

Three contenders take turns in one process, a few batches each, on networks of the same size:

- ``Trainer.fit`` with a data module whose images are in memory;
- the training spelled out in plain PyTorch (``by_hand.py``), with a permutation of images in memory;
- the bare forward and backward passes and optimizer steps of that, on one and the same random batch over and over,
  which is the most that these networks and this machine have in them.

All of it in float32 and, where the machine does not emulate it, under bf16-mixed, in both memory orders of
convolutions, and compiled. Images a second are ``Trainer.fit``'s and count real images; medians over all turns, and
medians of the ratios of neighbouring turns. Images are random, and networks are narrower than the papers'
(``--width``), which leaves less time to hide anything in.
"""

import argparse
import copy
import inspect
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from by_hand import by_hand
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from machine import machine, synchronise
from tqdm import tqdm

import gans
from datamodules import ImageFolder, PairedFolder, SuperResolution, UnpairedFolder
from datamodules.super_resolution import reduced
from gans.parts.precision import native_precision
from gans.srgan import SRResNet
from gans.training.module import GANModule
from gans.training.translation import CyclicTranslator, Translator

CLASSES = 10


class Mode(NamedTuple):
    """One way to compute."""

    precision: str = "32-true"
    channels_last: bool = False
    compile: bool = False

    def __str__(self) -> str:
        words = [self.precision.removesuffix("-true").replace("32", "float32")]
        return ", ".join([*words, *(name for name in ("channels_last", "compile") if getattr(self, name))])


PRECISIONS = "32-true", "bf16-mixed"
MODES = [Mode(precision, last) for precision in PRECISIONS for last in (False, True)]
MODES += [Mode(precision, True, compile=True) for precision in PRECISIONS]


class TakeTurns(Callback):
    """Measures blocks of ``Trainer.fit``'s batches, and lets the others take as many after each.

    Args:
        others: What takes one batch, by the contender's name.
        block: Batches a turn.
        turns: Turns of each.
        warm_up: Turns before these that are not counted.
    """

    def __init__(self, others: dict[str, Callable[[], None]], block: int, turns: int, warm_up: int) -> None:
        self.others, self.block, self.turns, self.warm_up = others, block, turns, warm_up
        self.seconds: dict[str, list[float]] = {name: [] for name in ("fit", *others)}
        self.batches = 0

    def on_train_start(self, *_: Any) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.batches += 1
        if self.batches % self.block:
            return
        self._take("fit")
        for name, batch in self.others.items():
            for _ in range(self.block):
                batch()
            self._take(name)
        trainer.should_stop = len(self.seconds["fit"]) == self.warm_up + self.turns

    def _take(self, name: str) -> None:
        synchronise()
        now = time.perf_counter()
        self.seconds[name].append((now - self.began) / self.block)
        self.began = time.perf_counter()

    def counted(self) -> dict[str, list[float]]:
        """Seconds a batch in every turn that counts."""
        return {name: seconds[self.warm_up :] for name, seconds in self.seconds.items()}


def model(cls: type[GANModule], size: int, width: int, **kwargs: Any) -> GANModule:
    """A model for RGB images of a size; its other settings are the class's own."""
    wanted = {"width": width, "num_classes": CLASSES, "domains": tuple("abcdefghij"), "content": "mse"}
    wanted |= {"discriminator_width": width}
    known = {name for c in cls.__mro__ for name in inspect.signature(c.__init__).parameters}
    return cls(image_shape=(3, size, size), **{k: v for k, v in wanted.items() if k in known}, **kwargs)


def data_for(
    cls: type[GANModule], folder: Path, size: int, batch_size: int
) -> tuple[LightningDataModule, list[torch.Tensor]]:
    """The data module that fits a class, and its training images as uint8 tensors, with labels where there are any.

    Random pictures are written to the folder first, four batches of them.
    """
    from PIL import Image

    def write(part: str, count: int, width: int = size) -> torch.Tensor:
        pixels = np.random.default_rng(0).integers(256, size=(count, size, width, 3), dtype=np.uint8)
        (folder / part).mkdir(parents=True)
        for number, picture in enumerate(pixels):
            Image.fromarray(picture).save(folder / part / f"{number:06}.png")
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    count, options = 4 * batch_size, {"image_size": size, "batch_size": batch_size}
    if issubclass(cls, SRResNet):
        pixels = write("train", count)
        data = SuperResolution(str(folder / "train"), load_size=size, horizontal_flip=False, **options)
        return data, [pixels]
    if issubclass(cls, CyclicTranslator):
        return UnpairedFolder(str(folder), **options), [write("trainA", count), write("trainB", count)]
    if issubclass(cls, Translator) and cls is not gans.StarGAN:
        pixels = write("train", count, 2 * size)
        return PairedFolder(str(folder), **options), list(pixels.split(size, 3))
    each = -(-count // CLASSES)
    pixels = torch.cat([write(f"train/{label}", each) for label in range(CLASSES)])
    return ImageFolder(str(folder / "train"), **options), [pixels, torch.arange(CLASSES).repeat_interleave(each)]


def batches_by_hand(
    cls: type[GANModule], parts: list[torch.Tensor], batch_size: int, device: str
) -> Iterator[list[torch.Tensor]]:
    """Shuffled batches for ever, as one would write it by hand: everything on the device, scaled a batch at a time."""
    parts = [part.to(device) for part in parts]
    while True:
        orders = [torch.randperm(len(parts[0]), device=device) for _ in parts]
        if not issubclass(cls, CyclicTranslator):
            orders = orders[:1] * len(parts)
        for start in range(0, len(parts[0]) - batch_size + 1, batch_size):
            batch = [part[order[start : start + batch_size]] for part, order in zip(parts, orders, strict=True)]
            batch = [part.float() / 127.5 - 1 if part.dtype == torch.uint8 else part for part in batch]
            yield [reduced(batch[0], 4), batch[0]] if issubclass(cls, SRResNet) else batch


def by_trainer(module: LightningModule, data: LightningDataModule, mode: Mode, turns: TakeTurns) -> None:
    """``Trainer.fit``, with nothing that writes or draws."""
    trainer = Trainer(
        max_epochs=-1,
        precision=mode.precision,  # type: ignore[arg-type]
        callbacks=[turns],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, data)


def measure(
    cls: type[GANModule],
    mode: Mode,
    data: LightningDataModule,
    parts: list[torch.Tensor],
    options: argparse.Namespace,
) -> dict[str, list[float]]:
    """Seconds a batch of each contender, in every turn."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, batch_size = options.image_size, options.batch_size
    module = model(cls, size, options.width, channels_last=mode.channels_last, compile=mode.compile)
    others = {}
    for name in ("loop", "bare"):
        copied = copy.deepcopy(module)
        if mode.channels_last:
            copied.to(memory_format=torch.channels_last)
        if mode.compile:
            copied.compile_networks()
        loop = by_hand(copied, device, half=mode.precision == "bf16-mixed")
        batches = batches_by_hand(cls, parts, batch_size, device)
        same = [torch.rand_like(part) * 2 - 1 if part.is_floating_point() else part for part in next(batches)]
        others[name] = (
            (lambda loop=loop, batches=batches: loop.step(*next(batches)))
            if name == "loop"
            else (lambda loop=loop, same=same: loop.step(*same))
        )
    # A turn is a whole number of rounds of the critic, so that every turn has as many generator updates.
    block = -(-options.block // module.n_critic) * module.n_critic
    turns = TakeTurns(others, block, options.turns, warm_up=1)
    by_trainer(module, data, mode, turns)
    return turns.counted()


def ratio(numerator: list[float], denominator: list[float]) -> float:
    """The median over turns."""
    return statistics.median(n / d for n, d in zip(numerator, denominator, strict=True))


def main() -> None:
    native = [str(m) for m in MODES if m.precision in ("32-true", native_precision())]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gans", nargs="+", default=gans.__all__, choices=gans.__all__, metavar="GAN")
    parser.add_argument("--modes", nargs="+", default=native, choices=[str(m) for m in MODES])
    parser.add_argument("--image_size", default=32, type=int)
    parser.add_argument("--width", default=32, type=int, help="of the networks")
    parser.add_argument("--batch_size", default=64, type=int)
    parser.add_argument("--block", default=4, type=int, help="batches a turn, at least")
    parser.add_argument("--turns", default=7, type=int)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_float32_matmul_precision("high")  # as train.py does: TF32 where there is any

    print(f"{options.image_size} px, width {options.width}, batch {options.batch_size}; {machine()}\n")
    modes = [mode for mode in MODES if str(mode) in options.modes]
    print("| GAN | " + " | ".join(map(str, modes)) + " | Fastest | fit / loop | fit / bare |")
    print("|---" * (len(modes) + 4) + "|")
    ratios = []
    for name in tqdm(options.gans, desc="GANs", leave=False):
        cls, speeds, best = getattr(gans, name), {}, {}
        with tempfile.TemporaryDirectory() as folder:
            data = data_for(cls, Path(folder), options.image_size, options.batch_size)
            for mode in modes:
                torch.compiler.reset()
                seconds = measure(cls, mode, *data, options)
                speeds[mode] = options.batch_size / statistics.median(seconds["fit"])
                best[mode] = ratio(seconds["loop"], seconds["fit"]), ratio(seconds["bare"], seconds["fit"])
        fastest = max(speeds, key=speeds.__getitem__)
        ratios.append(best[fastest])
        cells = [f"{speed:,.0f}" for speed in speeds.values()] + [str(fastest), *(f"{r:.2f}" for r in best[fastest])]
        tqdm.write(f"| {name} | " + " | ".join(cells) + " |")
    loop, bare = (min(column) for column in zip(*ratios, strict=True))
    print(f"\nleast fit / loop {loop:.3f} (the bar is 0.97), least fit / bare {bare:.3f} (the bar is 0.90)")


if __name__ == "__main__":
    main()
