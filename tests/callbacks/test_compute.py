"""What a run costs."""

import json

import pytest
import torch
from conftest import batch_for, fit, small
from torch import nn

from callbacks import Compute
from gans import DCGAN, GAN, WGANGP
from gans.training.noise import NoiseGAN


class Linear(NoiseGAN):
    """Two linear networks: of 3 numbers 4 pixels, and of these one number."""

    def __init__(self, **kwargs):
        super().__init__(image_shape=(1, 2, 2), latent_dim=3, **kwargs)
        self.generator = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Unflatten(1, (1, 2, 2)))
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False), nn.Flatten(0))


def test_multiply_adds_of_linear_layers_by_hand(tmp_path):
    images = torch.rand(8, 1, 2, 2) * 2 - 1
    fit(Linear(), images, max_steps=2, callbacks=[Compute()], default_root_dir=tmp_path)
    found = json.loads((tmp_path / "compute.json").read_text())
    assert found["parameters of the generator"] == 12
    assert found["parameters of the discriminator"] == 4
    # The discriminator's: an image is generated (12), two are judged (4 each), each with a gradient to the weights (4).
    assert found["multiply-adds an image of an update of the discriminator"] == 12 + 2 * (4 + 4)
    # The generator's: generated (12), judged (4), back to the image (4) and to the weights (12).
    assert found["multiply-adds an image of an update of the generator"] == 12 + 4 + 4 + 12
    assert found["peak memory, MiB"] > 10


@pytest.mark.parametrize("cls", [GAN, DCGAN, WGANGP])
def test_counting_changes_nothing(cls, tmp_path):
    trained = []
    for callbacks in ([], [Compute()]):
        torch.manual_seed(0)
        module = small(cls)
        fit(module, batch_for(module, 12), max_steps=2, callbacks=callbacks, default_root_dir=tmp_path)
        assert "update" not in vars(module)
        trained.append(module)
    for a, b in zip(*(module.parameters() for module in trained), strict=True):
        assert torch.equal(a, b)
