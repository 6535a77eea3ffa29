"""What the benchmarks share: the machine they run on, and its clock."""

import os
import platform
import re
from pathlib import Path

import torch


def machine() -> str:
    """The processor or the accelerators, and PyTorch's version, to be printed above a table."""
    if torch.cuda.is_available():
        name = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    else:
        text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
        found = re.search(r"model name\s*: (.*)", text)
        processor = found[1] if found else platform.processor()
        name = f"{processor} ({torch.backends.cpu.get_cpu_capability()}), {os.cpu_count()} cores"
    return f"{name}, torch {torch.__version__.partition('+')[0]}"


def synchronise() -> None:
    """Wait for the accelerator, if there is one, before a clock is read."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def resident(which: str) -> float:
    """MiB that the process has in memory ("VmRSS") or has had at most ("VmHWM"), on Linux."""
    found = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 2**10 if found else 0.0
