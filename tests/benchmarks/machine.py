"""What the benchmarks share: the machine they run on, and its clock."""

from pathlib import Path

import torch


def machine() -> str:
    """The processor or the accelerator, and PyTorch's version, to be printed above a table."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")
        name = f"{name}, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__.partition('+')[0]}"


def synchronise() -> None:
    """Wait for the accelerator, if there is one, before a clock is read."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
