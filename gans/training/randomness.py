"""Random numbers by place: they follow from the seed, the rank and the images seen, and from nothing before."""

import os

import numpy as np
import torch


def seed_of_user() -> int | None:
    """The seed that the user gave, if any."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    return None if seed is None else int(seed)


def seed_from(device: torch.device, *numbers: int) -> None:
    """Let all that is drawn next on the CPU and a device follow from these numbers, each 0 or more.

    As NVIDIA's EDM2 seeds its steps; ``torch.manual_seed``, which asks after every kind of device, takes ten times as
    long.
    """
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
