"""Images a second of ``Trainer.fit`` beside a hand-written PyTorch loop on the same networks and data.

    python tests/benchmarks/step.py [--precision bf16-mixed] [--channels_last false] [--width 32] [--batch_size 64]

The two take turns in one process; the medians over all turns and their ratio are printed. Data are scikit-learn's
digits at 32 px, resident in memory.
"""

import argparse
import logging
import statistics
import time
import warnings

import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from datamodules import Digits
from gans import DCGAN
from gans.optimizers import Adam


class Clock(Callback):
    """Seconds a step, over all steps after the first few."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.warm_up:
            synchronise()
            self.began = time.perf_counter()

    def on_train_end(self, trainer: Trainer, *_: object) -> None:
        synchronise()
        self.seconds = (time.perf_counter() - self.began) / (trainer.global_step - self.warm_up)


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def by_hand(module: DCGAN, pixels: torch.Tensor, options: argparse.Namespace, steps: int, warm_up: int) -> float:
    """DCGAN's training as one would write it in a notebook; returns seconds a step."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator, discriminator = module.generator.to(device), module.discriminator.to(device)
    if options.channels_last:
        generator.to(memory_format=torch.channels_last)
        discriminator.to(memory_format=torch.channels_last)
    optimizer_g, optimizer_d = Adam(generator.parameters()), Adam(discriminator.parameters())
    criterion = nn.BCEWithLogitsLoss()
    pixels = pixels.to(device)
    ones, zeros = torch.ones(options.batch_size, device=device), torch.zeros(options.batch_size, device=device)
    half = options.precision == "bf16-mixed"
    step = 0
    while True:
        order = torch.randperm(len(pixels), device=device)
        for indices in order.split(options.batch_size)[: len(pixels) // options.batch_size]:
            if step == warm_up:
                synchronise()
                began = time.perf_counter()
            real = pixels[indices].float().div(127.5).sub(1)
            with torch.autocast(device, torch.bfloat16, enabled=half):
                with torch.no_grad():
                    fake = generator(torch.randn(len(real), 100, device=device))
                loss_d = criterion(discriminator(real).float(), ones) + criterion(discriminator(fake).float(), zeros)
            optimizer_d.zero_grad()
            loss_d.backward()
            optimizer_d.step()
            discriminator.requires_grad_(False)
            with torch.autocast(device, torch.bfloat16, enabled=half):
                fake = generator(torch.randn(len(real), 100, device=device))
                loss_g = criterion(discriminator(fake).float(), ones)
            optimizer_g.zero_grad()
            loss_g.backward()
            optimizer_g.step()
            discriminator.requires_grad_(True)
            step += 1
            if step == steps:
                synchronise()
                return (time.perf_counter() - began) / (steps - warm_up)


def by_trainer(module: DCGAN, data: Digits, options: argparse.Namespace, steps: int, warm_up: int) -> float:
    """The same by ``Trainer.fit``; returns seconds a step."""
    clock = Clock(warm_up)
    trainer = Trainer(
        max_steps=steps,
        precision=options.precision,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, data)
    return clock.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--channels_last", default=True, type=lambda text: text.lower() == "true")
    parser.add_argument("--width", default=32, type=int)
    parser.add_argument("--batch_size", default=64, type=int)
    parser.add_argument("--steps", default=40, type=int, help="steps a turn")
    parser.add_argument("--turns", default=7, type=int)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    data = Digits(image_size=32, batch_size=options.batch_size)
    data.prepare_data()
    data.setup("fit")
    pixels = torch.cat([batch.image for batch in data.val_dataloader()]).cpu()
    arguments = {"image_shape": (1, 32, 32), "width": options.width, "channels_last": options.channels_last}
    warm_up = 5
    times: dict[str, list[float]] = {"hand": [], "fit": []}
    for turn in range(options.turns + 1):
        pair = {
            "hand": by_hand(DCGAN(**arguments), pixels, options, options.steps, warm_up),
            "fit": by_trainer(DCGAN(**arguments), data, options, options.steps, warm_up),
        }
        if turn:  # the first turn warms up
            for name, seconds in pair.items():
                times[name].append(seconds)
    speed = {name: options.batch_size / statistics.median(seconds) for name, seconds in times.items()}
    ratio = statistics.median(h / f for h, f in zip(times["hand"], times["fit"], strict=True))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"DCGAN 32 px, width {options.width}, batch {options.batch_size}, {options.precision}, "
          f"channels_last={options.channels_last}, {device}")  # fmt: skip
    print(f"hand-written loop  {speed['hand']:9.0f} images/s")
    print(f"Trainer.fit        {speed['fit']:9.0f} images/s")
    print(f"fit / loop         {ratio:9.3f}  (median over {options.turns} turns; the bar is 0.97)")


if __name__ == "__main__":
    main()
