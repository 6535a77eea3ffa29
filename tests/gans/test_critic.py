"""When the discriminator has had enough updates: a fixed number, a warm-up, or a loss below a threshold."""

import pytest
import torch
from conftest import batch_for, fit, images, sgd
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader

from gans.training.noise import NoiseGAN

SHAPE = (1, 2, 2)


class Told(NoiseGAN):
    """Two linear networks, and a discriminator that says what it is told to of its loss."""

    def __init__(self, said=(), own_batch=False, **kwargs):
        super().__init__(image_shape=SHAPE, latent_dim=3, **kwargs)
        self.generator = nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, SHAPE))
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.Flatten(0))
        self.said, self.own_batch = iter(said), own_batch

    def discriminator_loss(self, batch):
        loss, logs = super().discriminator_loss(batch)
        said = next(self.said, None)
        return loss, logs if said is None else logs | {"loss/discriminator": torch.tensor(said)}


class Steps(Callback):
    """The generator's updates after every batch."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, *_):
        self.steps.append(trainer.global_step)


def steps_of(module, steps):
    see = Steps()
    fit(module, images(16, SHAPE), max_steps=steps, callbacks=[see])
    return see.steps


@pytest.mark.parametrize(
    ("options", "said", "expected"),
    [
        ({}, [0.9, 0.7, 0.4, 0.3, 0.8, 0.2], [0, 0, 1, 2, 2, 3]),
        ({"n_critic": 2}, [0.1, 0.4, 0.1, 0.9, 0.3, 0.1, 0.1], [0, 1, 1, 1, 2, 2, 3]),
        ({"own_batch": True}, [0.9, 0.4, 0.9, 0.8, 0.1], [0, 0, 1, 1, 1, 1, 2]),
        ({"critic_warm_up": 3}, [0.1, 0.1, 0.1, 0.9, 0.1, 0.1], [0, 0, 1, 1, 2, 3]),
        ({}, [0.5] * 200, [0] * 99 + [1] * 100 + [2]),  # never below: 100 updates, and no more
        ({"accumulate_grad_batches": 2}, [9.0, 0.9, 9.0, 0.1], [0, 0, 0, 1]),  # of the update's last batch
    ],
)
def test_the_critic_is_trained_until_its_loss_is_below_the_threshold(options, said, expected):
    assert steps_of(Told(said, critic_threshold=0.5, **options), expected[-1]) == expected


@pytest.mark.parametrize(("n_critic", "expected"), [(1, [0, 0, 0, 1, 2, 3]), (2, [0, 0, 0, 1, 1, 2, 2, 3])])
def test_the_warm_up_precedes_the_first_generator_update(n_critic, expected, recwarn):
    module = Told(critic_warm_up=4, n_critic=n_critic)
    before = [p.clone() for p in module.generator.parameters()]
    seen = []
    module.generator_loss = lambda batch: (
        seen.append(before[0].equal(module.generator[0].weight)) or (NoiseGAN.generator_loss(module, batch))
    )
    assert steps_of(module, 3) == expected
    assert seen == [True, False, False]
    assert not [warning for warning in recwarn if "is updated once in" in str(warning.message)]


def test_nothing_is_asked_of_the_device_without_a_threshold():
    module = Told()
    module.mean_over_ranks = None
    assert steps_of(module, 2) == [1, 2]


def test_a_threshold_that_is_always_reached_changes_nothing(adversary):
    """Whatever else the GAN does between its updates."""
    trained = []
    for threshold in (None, 1e9):
        torch.manual_seed(0)
        module = adversary(critic_threshold=threshold)
        fit(module, batch_for(module, 12), max_steps=2, callbacks=[])
        trained.append(module)
    for a, b in zip(*(module.parameters() for module in trained), strict=True):
        assert torch.equal(a, b)


def test_a_threshold_that_is_not_reached_is_told_of():
    with pytest.warns(UserWarning, match=r"stayed above --model\.critic_threshold=0\.5 for 100 updates"):
        steps_of(Told([0.9] * 100, critic_threshold=0.5), 1)


def test_a_loss_that_is_not_logged_is_asked_for():
    module = Told(critic_threshold=0.5)
    module.discriminator_loss = lambda batch: (NoiseGAN.discriminator_loss(module, batch)[0], {})
    with pytest.raises(MisconfigurationException, match=r"--model\.critic_threshold=0\.5 .*loss/discriminator"):
        fit(module, images(8, SHAPE), max_steps=1)


@pytest.mark.parametrize(
    "options",
    [{"critic_warm_up": 7}, {"critic_threshold": 1.38}, {"critic_threshold": 1.38, "own_batch": True}],
)
@pytest.mark.parametrize("batches", [4, 5, 6])
def test_a_run_goes_on_between_two_critic_updates_bit_for_bit(options, batches, tmp_path):
    """In the middle of the warm-up and after it, and while the loss is above the threshold."""

    def module():
        torch.manual_seed(1)
        return Told(discriminator_optimizer=sgd(0.1), **options)

    def train(gan, resume=None, **kwargs):
        see = Steps()
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
        trainer = Trainer(enable_model_summary=False, callbacks=[see], **quiet | {"max_epochs": -1} | kwargs)
        trainer.fit(gan, DataLoader(images(4 * batches, SHAPE), 4, generator=torch.Generator()), ckpt_path=resume)
        return trainer, see.steps

    whole = module()
    _, steps = train(whole, max_steps=5)
    assert len(steps) > 8  # the critic takes its time
    first, before = train(module(), max_epochs=1)
    first.save_checkpoint(tmp_path / "saved.ckpt")
    resumed = module()
    _, after = train(resumed, tmp_path / "saved.ckpt", max_steps=5)
    assert before + after == steps
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
