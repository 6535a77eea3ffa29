"""Random numbers apart from training's, on any device (of which this stands in for those that are missing)."""

import pytest
import torch
from conftest import pretend_generator

from callbacks.pictures.randomness import isolated_rng


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_the_training_device_goes_on_as_if_nothing_was_drawn(kind, monkeypatch):
    generator = pretend_generator(kind, monkeypatch)
    torch.manual_seed(1)
    with isolated_rng(7, torch.device(kind, 0)):
        assert generator.state.item() == 7
        drawn = torch.rand(3)
    assert generator.state.item() == 1
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(3))
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3))
