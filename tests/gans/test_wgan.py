"""WGAN and WGAN-GP against their papers."""

from pathlib import Path

import pytest
import torch
import yaml
from conftest import batch, fit, small
from lightning.pytorch import Callback
from torch import nn

from gans import WGAN, WGANGP


class Watch(Callback):
    """The critic's largest weight after, and the generator's step at, every batch."""

    def __init__(self):
        self.largest, self.steps = [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.largest.append(max(p.abs().max().item() for p in pl_module.discriminator.parameters()))
        self.steps.append(trainer.global_step)


def test_every_critic_update_is_clipped_with_all_its_weights():
    """Batch norm's gains, which begin at 1, too."""
    watch = Watch()
    fit(small(WGAN), max_steps=2, callbacks=[watch])
    assert len(watch.largest) == 10
    assert watch.largest == pytest.approx([0.01] * 10)


def test_five_critic_updates_come_before_a_generator_update():
    watch = Watch()
    fit(small(WGAN), max_steps=3, callbacks=[watch])
    assert watch.steps == [0] * 4 + [1] * 5 + [2] * 5 + [3]


def test_warm_up_trains_the_critic_longer_at_first_and_now_and_then():
    module = small(WGAN, warm_up=True)
    steps = {0: 100, 24: 100, 25: 5, 499: 5, 500: 100, 501: 5, 1000: 100}

    class Counter:
        global_step = 0

    module._trainer = Counter
    for step, expected in steps.items():
        Counter.global_step = step
        assert module.critic_steps() == expected
    assert small(WGAN).critic_steps() == 5


def test_the_wasserstein_estimate_is_logged_with_its_sign_right():
    """Real scores above generated ones: a positive distance, which is the negative of the critic's loss."""
    loss, logs = small(WGAN).discriminator_loss(batch(8))
    torch.testing.assert_close(logs["critic/wasserstein"], logs["critic/real"] - logs["critic/fake"])
    torch.testing.assert_close(loss, -logs["critic/wasserstein"])


def test_optimizers():
    for cls, kind in ((WGAN, torch.optim.RMSprop), (WGANGP, torch.optim.Adam)):
        for optimizer in small(cls).configure_optimizers()[0]:
            assert isinstance(optimizer, kind)
    assert optimizer.defaults["lr"] == 1e-4
    assert optimizer.defaults["betas"] == (0.0, 0.9)
    assert small(WGAN).configure_optimizers()[0][0].defaults["lr"] == 5e-5


@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist"])
def test_the_configs_let_both_rates_fall_to_0_at_the_end(name):
    config = yaml.safe_load((Path(__file__).parents[2] / f"configs/wgan_gp/{name}.yaml").read_text())
    for player in ("generator", "discriminator"):
        decay = config["model"]["init_args"][f"{player}_scheduler"]["init_args"]
        assert decay["constant_steps"] + decay["decay_steps"] == config["trainer"]["max_steps"]


def test_the_penalised_critic_has_no_batch_norm_and_treats_images_alone():
    critic = small(WGANGP).discriminator
    assert not [layer for layer in critic.modules() if isinstance(layer, nn.BatchNorm2d)]
    images, _ = batch(4)
    torch.testing.assert_close(critic(images), torch.cat([critic(image[None]) for image in images]))


def test_the_penalised_loss_is_equation_3():
    module = small(WGANGP).double()
    real, _ = batch(8)
    torch.manual_seed(1)
    loss, logs = module.discriminator_loss((real.double(), None))
    torch.manual_seed(1)
    with torch.no_grad():
        fake = module.generator(torch.randn(8, 8, dtype=torch.float64))
    share = torch.rand(8, 1, 1, 1, dtype=torch.float64)
    between = (real + share * (fake - real)).requires_grad_()
    (gradient,) = torch.autograd.grad(module.discriminator(between).sum(), between)
    penalty = 10 * ((gradient**2).sum((1, 2, 3)).sqrt() - 1).square().mean()
    torch.testing.assert_close(logs["loss/penalty"], penalty)
    torch.testing.assert_close(
        loss, module.discriminator(fake).mean() - module.discriminator(real.double()).mean() + penalty
    )
