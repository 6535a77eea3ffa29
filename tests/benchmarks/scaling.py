"""Images a second on one and on two ranks, and what two ranks send: our "ddp" beside Lightning's usual way for GANs.

    python tests/benchmarks/scaling.py [--width 32] [--batch_size 64] [--steps 10] [--turns 7]

The usual way is ``DDPStrategy(find_unused_parameters=True)``. All take turns in the same two processes, on two GPUs or
else on the CPU with one thread a rank. One rank trains while the other sleeps; two trainings side by side, each of one
rank, show what the machine itself loses when both are busy. The figures are medians over the turns, of speeds and of
ratios. Every step takes the same batch from memory: this measures no loader.

Bytes are counted a generator step and rank, twice: as handed to collectives by our strategy (but for the integer by
which Lightning tells all ranks before every batch whether to stop), and as the network carried them (Linux's counter of
the loopback interface, on which the CPU's ranks talk; of two ranks gloo lets each send its buffer once; headers add up
to 2 %).
"""

import argparse
import logging
import os
import re
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy
from machine import machine
from torch import distributed
from torch.utils.data import DataLoader

from gans import DCGAN, WGAN
from gans.training.module import GANModule
from gans.training.ranks import DataParallel

ONE, APART, OURS, USUAL = "1 rank", "2 trainings of 1 rank", '2 ranks, "ddp"', "2 ranks, find_unused_parameters"
STRATEGIES = {OURS: DataParallel, USUAL: lambda: DDPStrategy(find_unused_parameters=True)}
ON_GPUS = torch.cuda.device_count() > 1
WARM_UP = 2  # generator steps: DDP builds its buckets anew after the first
LOOPBACK = Path("/proc/net/dev")


class Step(NamedTuple):
    """A generator step on average: the seconds it took and the bytes that each rank sent."""

    seconds: float
    handed: float
    carried: float


class Meter(Callback):
    """Measures all generator steps after the first few."""

    handed = 0  # bytes, by this process in all

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == WARM_UP and not hasattr(self, "before"):
            self.before = self._now(trainer)

    def on_train_end(self, trainer: Trainer, *_: object) -> None:
        steps = trainer.global_step - WARM_UP
        seconds, handed, carried = (b - a for a, b in zip(self.before, self._now(trainer), strict=True))
        self.step = Step(seconds / steps, handed / steps, carried / steps / trainer.world_size)

    def _now(self, trainer: Trainer) -> tuple[float, int, int]:
        trainer.strategy.barrier()
        if ON_GPUS:
            torch.cuda.synchronize()
        carried = re.search(r"lo:\s*(\d+)", LOOPBACK.read_text()) if LOOPBACK.exists() else None
        return time.perf_counter(), Meter.handed, int(carried[1]) if carried else 0


def counted(collective: Callable[..., Any]) -> Callable[..., Any]:
    """The collective, adding the size of the tensor it is given to ``Meter.handed``, unless that holds integers."""

    def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if tensor.is_floating_point():
            Meter.handed += tensor.numel() * tensor.element_size()
        return collective(tensor, *args, **kwargs)

    return call


def train(module: GANModule, way: str, options: argparse.Namespace) -> Step | None:
    """Train a few steps; None where this rank sleeps meanwhile."""
    meter = Meter()
    rank = int(os.environ.get("LOCAL_RANK", 0))  # set when the first training on two ranks starts the second
    trainer = Trainer(
        accelerator="gpu" if ON_GPUS else "cpu",
        devices=2 if way in STRATEGIES else [rank] if ON_GPUS else 1,
        strategy=STRATEGIES[way]() if way in STRATEGIES else "auto",
        max_steps=WARM_UP + max(1, options.steps // module.n_critic),
        callbacks=[meter],
        log_every_n_steps=10**9,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if way != ONE or rank == 0:
        batch = torch.rand(options.batch_size, *module.image_shape, device=trainer.strategy.root_device) * 2 - 1
        batches = DataLoader([batch] * trainer.max_steps * module.n_critic, batch_size=None)
        trainer.fit(module, batches)
    distributed.barrier()
    return getattr(meter, "step", None)


def size(network: torch.nn.Module) -> int:
    """Bytes of its gradient."""
    return sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)


def compare(make: Callable[[], GANModule], options: argparse.Namespace) -> dict[str, str]:
    """The lines of the table for one GAN, by name."""
    turns: dict[str, list[Step]] = {way: [] for way in (OURS, USUAL, ONE, APART)}
    for turn in range(options.turns + 1):
        for way, steps in turns.items():
            step = train(make(), way, options)
            if turn and step:  # the first turn warms up
                steps.append(step)
    if int(os.environ["LOCAL_RANK"]) > 0:
        return {}

    def median(way: str, of: str) -> float:
        return statistics.median(getattr(step, of) for step in turns[way])

    def ratio(way: str, other: str) -> float:
        """Of times, each turn by itself."""
        return statistics.median(a.seconds / b.seconds for a, b in zip(turns[way], turns[other], strict=True))

    module = make()
    images = options.batch_size * module.n_critic
    gradients = module.n_critic * size(module.discriminator) + size(module.generator)
    ranks = {ONE: 1, APART: 2, OURS: 2, USUAL: 2}
    lines = {way: f"{n * images / median(way, 'seconds'):.0f} images/s" for way, n in ranks.items()}
    lines["efficiency: 2 ranks over twice 1 rank"] = f"{ratio(ONE, OURS):.3f}"
    lines["the same over 2 trainings of 1 rank"] = f"{ratio(APART, OURS):.3f}"
    lines["step time, over find_unused_parameters"] = f"{ratio(OURS, USUAL):.3f}"
    lines["gradient of each optimizer's step, once"] = f"{gradients:,} bytes"
    handed = median(OURS, "handed")
    lines["handed to collectives"] = f"{handed:,.0f} bytes"
    lines["equals gradient size"] = "yes" if handed == gradients else "no"
    if not ON_GPUS and LOOPBACK.exists():
        carried = median(OURS, "carried")
        lines["carried by the network"] = f"{carried:,.0f} bytes"
        lines["equals gradient size to 2 %"] = "yes" if 1 <= carried / gradients < 1.02 else "no"
        usual = median(USUAL, "carried")
        lines["carried, find_unused_parameters"] = f"{usual:,.0f} bytes, {usual / gradients:.2f} times the gradients"
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", default=32, type=int)
    parser.add_argument("--batch_size", default=64, type=int, help="images a rank")
    parser.add_argument("--steps", default=10, type=int, help="discriminator updates a turn; GPUs need 200 or so")
    parser.add_argument("--turns", default=7, type=int)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ["OMP_NUM_THREADS"] = "1"  # or Lightning sets another number
    torch.set_num_threads(1)
    for name in ("all_reduce", "broadcast"):
        setattr(distributed, name, counted(getattr(distributed, name)))

    arguments = {"image_shape": (3, 32, 32), "width": options.width}
    columns = {
        "DCGAN": compare(lambda: DCGAN(**arguments), options),
        "WGAN (n_critic 5)": compare(lambda: WGAN(**arguments), options),
    }
    if int(os.environ["LOCAL_RANK"]) == 0:
        print(f"{machine()}; 32 px, width {options.width}, batch {options.batch_size} a rank, "
              f"{'a GPU' if ON_GPUS else 'a thread'} a rank; bytes are a rank's and generator step's\n")  # fmt: skip
        print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
        for name in columns["DCGAN"]:
            print(f"| {name} | {' | '.join(lines[name] for lines in columns.values())} |")


if __name__ == "__main__":
    main()
