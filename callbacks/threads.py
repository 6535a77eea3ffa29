"""How many threads a process computes with: as many as it has cores to itself and work to share."""

import os
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

PIXELS = 8192  # of a batch that a thread should have: with fewer, two cores gain a fifth where they are idle


class Threads(Callback):
    """Set the number of PyTorch's threads before anything is computed, unless OMP_NUM_THREADS says it.

    Never more than the cores that this process may use, shared with the ranks beside it; on a CPU also no more than the
    batches of the data have use for.
    """

    def __init__(self) -> None:
        self.given = "OMP_NUM_THREADS" in os.environ  # Lightning sets it later, from the count of all cores

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.given:
            return
        threads = int(cores()) // trainer.num_devices
        data = trainer.datamodule
        if trainer.strategy.root_device.type == "cpu" and data is not None:
            height, width = data.image_shape[-2:]
            threads = min(threads, data.batch_size * height * width // PIXELS)
        torch.set_num_threads(max(1, threads))


def cores() -> float:
    """The cores that this process may use: those it may run on, and of these no more than its control groups grant."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        count = os.process_cpu_count()
    else:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(float(count or 1), quota())


def quota(root: Path = Path("/"), process: str = "self") -> float:
    """The cores that the control groups of a process, Linux's second or first kind, grant; infinite without a limit."""
    granted = float("inf")
    try:
        groups = [line.split(":", 2)[1:] for line in (root / "proc" / process / "cgroup").read_text().splitlines()]
    except OSError:  # no Linux
        return granted
    for controllers, path in groups:
        if controllers and "cpu" not in controllers.split(","):
            continue
        tops = [root / "sys/fs/cgroup" / name for name in ((controllers, "cpu") if controllers else ("",))]
        for top in tops:
            own = top / path.lstrip("/")
            for folder in (own, *own.parents):  # every group above grants no more than it has
                if not folder.is_relative_to(top):
                    break
                granted = min(granted, _granted(folder))
    return granted


def _granted(folder: Path) -> float:
    """What one group says, in cores."""
    try:
        if (folder / "cpu.max").exists():
            used, period = (folder / "cpu.max").read_text().split()
        else:
            used, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float("inf") if used == "max" or float(used) <= 0 else float(used) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return float("inf")
