"""Every GAN beside the plain PyTorch that tests/benchmarks/by_hand.py spells its training out in."""

import sys
from pathlib import Path

import pytest
import torch
from conftest import ALL_GANS, EVERY, batch_for, fit, sgd, smallest, state
from lightning import seed_everything

from gans.training.module import GANModule

sys.path.append(str(Path(__file__).parent / "benchmarks"))
from by_hand import LOOPS, by_hand


@pytest.mark.parametrize("cls", [cls for cls in EVERY if cls in LOOPS], ids=lambda cls: cls.__name__)
def test_training_equals_plain_pytorch(cls, monkeypatch):
    """Two generator updates from the same weights, batches and random numbers end in the same weights.

    In one memory order, in which dropout draws; and without spectral normalisation, whose vectors a hand-written loop
    lets move in the other network's step too.
    """

    def model():
        seed_everything(0, verbose=False)
        plain = {"channels_last": False} | ({"spectral_norm": False} if cls in ALL_GANS else {})
        optimizers = {f"{player}_optimizer": sgd(1e-3) for player in smallest(cls).players}
        return smallest(cls, **plain, **optimizers)

    # The loop draws from one stream; that a module's steps draw from places of their own is tested for itself.
    monkeypatch.setattr(GANModule, "seed_by_place", lambda _: None)
    module, other = model(), model()
    before = state(module)
    steps = 2 * (getattr(module, "n_critic", 1) + module.own_batch)
    data = batch_for(module, 4 * steps)
    seed_everything(1, verbose=False)
    fit(module, data)
    seed_everything(1, verbose=False)
    torch.empty((), dtype=torch.int64).random_()  # what a DataLoader draws when it starts
    loop = by_hand(other)
    for images in zip(*(part.split(4) for part in data), strict=True):
        loop.step(*images)
    assert loop.updates == 2
    expected = dict(module.named_parameters())
    for key, value in other.named_parameters():
        learned, off = (expected[key] - before[key]).abs().max(), (expected[key] - value).abs().max()
        assert off <= 1e-3 * learned + 1e-7, key
