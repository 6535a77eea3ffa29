"""Random numbers for pictures and scores that leave the training's own random state untouched."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def isolated_rng(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch draws from a generator seeded with ``seed``; outside, training goes on as if nothing was drawn."""
    # Seeding reaches all devices, so that whatever device trains has its state put back.
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        torch.manual_seed(seed)
        yield
