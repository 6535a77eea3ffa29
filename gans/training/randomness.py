"""Random numbers by place: they follow from the seed, the rank and the images seen, and from nothing before."""

import os

import numpy as np
import torch


def seed_of_user() -> int | None:
    """The seed that the user gave, if any."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    return None if seed is None else int(seed)


def seed_from(*numbers: int) -> None:
    """Let all that is drawn next follow from these numbers, each 0 or more (as NVIDIA's EDM2 seeds its steps)."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))
