"""The averaged generator."""

import copy

import pytest
import torch
from conftest import batch, fit, images, small
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import EMA
from gans import DCGAN, SAGAN, StyleGAN


class History(Callback):
    """The raw generator after every update."""

    def __init__(self):
        self.states = []

    def on_train_start(self, trainer, pl_module):
        self.states.append(copy.deepcopy(pl_module.generator.state_dict()))

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step > len(self.states) - 1:
            self.states.append(copy.deepcopy(pl_module.generator.state_dict()))


@pytest.mark.parametrize("n_critic", [1, 2])
def test_average_follows_its_formula(n_critic):
    """Weights and running statistics: a + (1 - d) (g - a), d = 0.5^(batch / half-life), once a generator update."""
    module, history = small(DCGAN, n_critic=n_critic), History()
    ema = EMA(half_life=20, ramp_up=0.5)
    fit(module, images(40), callbacks=[ema, history])
    expected = history.states[0]
    assert len(history.states) == 1 + 10 // n_critic
    for step, now in enumerate(history.states[1:], start=1):
        keep = 0.5 ** (4 / min(20, 0.5 * 4 * step))
        for name, value in now.items():
            if value.is_floating_point():
                expected[name] = keep * expected[name] + (1 - keep) * value
    for name, value in module.averaged_generator.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


def test_buffers_that_are_no_statistics_are_copied():
    """Averaged, spectral norm's vectors are shorter than 1, and the layers that they divide grow beyond 1."""
    module = small(SAGAN, image_shape=(1, 16, 16))
    fit(module, batch(40), callbacks=[EMA(half_life=20, ramp_up=0.5)])
    raw, average = (dict(network.named_buffers()) for network in (module.generator, module.averaged_generator))
    copied = {name for name in raw if torch.equal(raw[name], average[name])}
    assert copied == {name for name in raw if not name.endswith(("running_mean", "running_var"))}
    vectors = [value for name, value in average.items() if name.endswith(("_u", "_v"))]
    assert len(vectors) > 4
    assert [v.norm().item() for v in vectors] == pytest.approx([1.0] * len(vectors), abs=1e-5)
    module = small(StyleGAN)
    fit(module, images(8), callbacks=[EMA(half_life=20)])
    assert torch.equal(module.averaged_generator.w_mean, module.generator.w_mean)  # as in the official code
    assert module.generator.w_mean.any()


def test_half_life():
    ema = EMA(half_life=1000, ramp_up=0.05)
    assert ema.decay(seen=10**9, batch=1000) == pytest.approx(0.5)
    assert ema.decay(seen=10**9, batch=100) ** 10 == pytest.approx(0.5)
    assert ema.decay(seen=2000, batch=100) == pytest.approx(0.5)  # ramping up: the half-life is 5% of 2000 images


def test_average_is_never_trained_and_zero_switches_it_off():
    module = small(DCGAN)
    trainer = fit(module, images(8), callbacks=[EMA()])
    trained = {id(p) for o in trainer.optimizers for group in o.param_groups for p in group["params"]}
    assert not trained & {id(p) for p in module.averaged_generator.parameters()}
    module = small(DCGAN)
    fit(module, images(8), callbacks=[EMA(half_life=0)])
    assert module.averaged_generator is None


def test_bad_settings_are_named():
    with pytest.raises(MisconfigurationException, match=r"--ema\.half_life"):
        EMA(half_life=-1)
