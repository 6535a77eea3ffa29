"""Runs that were stopped somewhere around a validation or at their end, and what they make up when they go on."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from datamodules import Digits
from gans.training.noise import NoiseGAN

EVERY, STEPS = 3, 8


class Tiny(NoiseGAN):
    """Small networks with batch norm, on the digits."""

    def __init__(self, **kwargs):
        super().__init__(image_shape=(1, 16, 16), latent_dim=3, **kwargs)
        self.generator = nn.Sequential(nn.Linear(3, 256), nn.BatchNorm1d(256), nn.Unflatten(1, (1, 16, 16)))
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(256, 1), nn.Flatten(0))


class Drawing:
    """A loader that draws a random number when it starts, as PyTorch's own does."""

    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        torch.rand(())
        return iter(self.loader)


class Stop(Exception):
    """The process ends here."""


class Score(Callback):
    """Validates and asks for a last validation as this project's scores do; draws random numbers meanwhile."""

    def __init__(self, last=True):
        self.last, self.steps, self.batches, self.ends, self.starts = last, [], 0, 0, 0

    def on_train_start(self, trainer, pl_module):
        self.starts += 1

    def setup(self, trainer, pl_module, stage):
        pl_module.validates_last = self.last

    def on_validation_epoch_start(self, trainer, pl_module):
        self.batches = 0

    def on_validation_batch_end(self, *_):
        self.batches += 1
        torch.rand(())

    def on_validation_epoch_end(self, trainer, pl_module):
        assert self.batches == 4  # all of them
        assert not trainer.sanity_checking
        self.steps.append(trainer.global_step)

    def on_train_end(self, trainer, pl_module):
        self.ends += 1


class Interrupt(Checkpoint):
    """Write a checkpoint in a hook at a step, and stop there; a Checkpoint, so that it comes after other callbacks."""

    def __init__(self, hook, step, path):
        self.step, self.path = step, path
        setattr(
            self, hook, self.interrupt if hook != "on_exception" else lambda trainer, *_: trainer.save_checkpoint(path)
        )
        if hook == "on_exception":
            self.on_train_batch_end = self.terminate

    def terminate(self, trainer, *_):
        """What a signal leads to: Lightning raises when it is between two batches, be it of the validation."""
        trainer._signal_connector.received_sigterm = trainer.global_step == self.step

    def interrupt(self, trainer, *_, **__):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise Stop


def run(folder, callbacks, resume=None, steps=STEPS, batch_size=256, settings=None, **kwargs):
    """Train the tiny GAN on digits, seven batches an epoch; returns the module and the trainer."""
    torch.manual_seed(1)
    module = Tiny(generator_scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 2), **settings or {})
    options = {"check_val_every_n_epoch": None, "val_check_interval": EVERY, "num_sanity_val_steps": 0, "min_epochs": 0}
    options |= {"limit_val_batches": 4}
    quiet = {"logger": False, "enable_checkpointing": True, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(
        max_steps=steps,
        callbacks=callbacks,
        enable_model_summary=False,
        default_root_dir=folder,
        **options | quiet | kwargs,
    )
    data = Digits(data_dir=str(folder), image_size=16, batch_size=batch_size)
    loader = data.val_dataloader
    data.val_dataloader = lambda: Drawing(loader())
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return module, trainer


WHOLE = {}


def left_alone(folder, **kwargs):
    """A run that nothing stops, made once: what ``run`` gives, when it validated, and random numbers afterwards."""
    if str(kwargs) not in WHOLE:
        score = Score()
        WHOLE[str(kwargs)] = run(folder, [score], **kwargs), score.steps, torch.get_rng_state()
    return WHOLE[str(kwargs)]


def stopped(folder, hook, step, **kwargs):
    """The checkpoint of a run that was stopped in a hook, and the steps at which it validated."""
    score, path = Score(kwargs.pop("last", True)), folder / "stopped.ckpt"
    with pytest.raises((Stop, SIGTERMException)):
        run(folder, [score, Interrupt(hook, step, path)], **kwargs)
    return path, score.steps


def assert_same(first, second):
    (a, first_trainer), (b, second_trainer) = first, second
    assert first_trainer.global_step == second_trainer.global_step
    for key, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[key]), key
    assert a.generator.training
    assert b.generator.training
    for one, other in zip(first_trainer.optimizers, second_trainer.optimizers, strict=True):
        assert str(one.state_dict()) == str(other.state_dict())


@pytest.mark.parametrize("batch_size", [256, 479])  # 3 batches an epoch, so that validations come at its end
@pytest.mark.parametrize(
    ("hook", "step", "validated"),
    [
        ("on_train_batch_end", 2, []),
        ("on_train_batch_end", 3, []),
        ("on_train_batch_end", 6, [3]),
        ("on_train_batch_end", 8, [3, 6]),
        ("on_validation_start", 3, []),
        ("on_validation_batch_start", 3, []),
        ("on_validation_batch_end", 6, [3]),
        ("on_validation_batch_end", 8, [3, 6]),
        ("on_validation_end", 3, [3]),
        ("on_validation_end", 8, [3, 6, 8]),
        ("on_exception", 2, []),
        ("on_exception", 3, []),
        ("on_exception", 6, [3]),
        ("on_train_end", 8, [3, 6, 8]),
    ],
)
def test_an_interrupted_run_validates_and_ends_as_a_whole_one(hook, step, validated, batch_size, tmp_path):
    whole, steps, rng = left_alone(tmp_path, batch_size=batch_size)
    assert steps == [3, 6, 8]
    path, before = stopped(tmp_path, hook, step, batch_size=batch_size)
    assert before == validated
    score = Score()
    resumed = run(tmp_path, [score], path, batch_size=batch_size)
    assert before + score.steps == steps
    assert_same(whole, resumed)
    assert torch.equal(torch.get_rng_state(), rng)
    assert (score.starts, score.ends) == (1, 1)
    assert not resumed[0].validation_due
    if step < STEPS:
        assert resumed[1].current_epoch == whole[1].current_epoch


def test_a_made_up_validation_that_is_interrupted_is_made_up_again(tmp_path):
    whole, _, rng = left_alone(tmp_path)
    path, before = stopped(tmp_path, "on_train_batch_end", 6)
    for hook in ("on_validation_batch_end", "on_validation_start"):
        path, again = stopped(tmp_path, hook, 6, resume=path)
        assert again == []
    score = Score()
    resumed = run(tmp_path, [score], path)
    assert before + score.steps == [3, 6, 8]
    assert_same(whole, resumed)
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize("settings", [{"n_critic": 2}, {"accumulate_grad_batches": 3}])
@pytest.mark.parametrize(("hook", "step"), [("on_validation_batch_end", 3), ("on_validation_end", 6)])
def test_several_batches_an_update(hook, step, settings, tmp_path):
    """Validations come at other batches than those at which Lightning expects them."""
    whole, _, _ = left_alone(tmp_path, settings=settings)
    path, before = stopped(tmp_path, hook, step, settings=settings)
    score = Score()
    resumed = run(tmp_path, [score], path, settings=settings)
    assert before + score.steps == [3, 6, 8]
    assert_same(whole, resumed)


def test_without_a_last_validation_there_is_none_to_make_up(tmp_path):
    path, before = stopped(tmp_path, "on_train_end", 8, last=False)
    assert before == [3, 6]
    score = Score(last=False)
    run(tmp_path, [score], path)
    assert score.steps == []
    assert (score.starts, score.ends) == (1, 1)
    score = Score(last=False)
    assert run(tmp_path, [score], path, steps=10)[1].global_step == 10
    assert score.steps == [9]


def test_validation_that_is_switched_off_is_not_made_up(tmp_path):
    path, _ = stopped(tmp_path, "on_train_batch_end", 3)
    score = Score()
    _, trainer = run(tmp_path, [score], path, limit_val_batches=0)
    assert trainer.global_step == 8
    assert score.steps == []


@pytest.mark.parametrize(
    ("hook", "step"),
    [
        ("on_train_batch_end", 3),
        ("on_train_batch_end", 7),
        ("on_train_batch_end", 14),
        ("on_validation_start", 7),
        ("on_validation_batch_start", 7),
        ("on_validation_batch_end", 7),
        ("on_validation_batch_end", 14),
        ("on_validation_end", 7),
        ("on_train_epoch_end", 7),
        ("on_exception", 7),
    ],
)
@pytest.mark.parametrize("interval", [1.0, 0.5])
def test_validation_by_epochs(hook, step, interval, tmp_path):
    epochs = {"check_val_every_n_epoch": 1, "val_check_interval": interval, "steps": 16}
    whole, steps, _ = left_alone(tmp_path, **epochs)
    earlier = interval == 0.5 and step % 7 == 0 and hook != "on_train_epoch_end"  # after three batches and after six
    path, before = stopped(tmp_path, hook, step - earlier, **epochs)
    score = Score()
    resumed = run(tmp_path, [score], path, **epochs)
    assert before + score.steps == steps
    assert_same(whole, resumed)
    assert resumed[1].current_epoch == whole[1].current_epoch


class End(Callback):
    """Asks for the end of training, in a hook at a step, as early stopping and time limits do."""

    def __init__(self, hook, step):
        self.step = step
        setattr(self, hook, self.end)

    def end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.should_stop = True


class Skip(Callback):
    """Leaves out the rest of an epoch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pl_module.on_train_batch_start = lambda *_: -1 if trainer.global_step == 5 else None


BY_EPOCHS = {"steps": -1, "max_epochs": 2}


@pytest.mark.parametrize(
    ("options", "validated"),
    [
        (BY_EPOCHS, [3, 6, 9, 12, 14]),
        (BY_EPOCHS | {"max_epochs": 1, "limit_train_batches": 4}, [3, 4]),
        (BY_EPOCHS | {"limit_train_batches": 3}, [3, 6]),
        (BY_EPOCHS | {"settings": {"accumulate_grad_batches": 3}}, [3, 4]),
        (BY_EPOCHS | {"val_check_interval": 1.0, "check_val_every_n_epoch": 1}, [7, 14]),
        ({"steps": -1, "max_epochs": 3, "val_check_interval": 1.0, "check_val_every_n_epoch": 2}, [14, 21]),
        ({"val_check_interval": 1000}, [8]),
        ({"callbacks": [End("on_train_batch_end", 5)]}, [3, 5]),
        ({"callbacks": [End("on_train_batch_start", 5)]}, [3, 6]),
        ({"callbacks": [End("on_train_epoch_end", 7)]}, [3, 6, 7]),
        ({"callbacks": [End("on_validation_end", 3)]}, [3]),
        ({"steps": -1, "max_epochs": 1, "callbacks": [Skip()]}, [3, 5]),
    ],
)
def test_however_training_ends_its_last_weights_are_validated_once(options, validated, tmp_path):
    score = Score()
    callbacks = [score, *options.get("callbacks", [])]
    module, trainer = run(tmp_path, **options | {"callbacks": callbacks})
    assert score.steps == validated
    assert trainer.global_step == validated[-1]
    assert module.validated
    assert score.ends == 1


@pytest.mark.parametrize("options", [BY_EPOCHS, BY_EPOCHS | {"val_check_interval": 1.0, "check_val_every_n_epoch": 1}])
@pytest.mark.parametrize(
    "hook",
    ["on_train_batch_end", "on_validation_start", "on_validation_batch_end", "on_validation_end", "on_train_end"],
)
def test_the_end_by_epochs_is_made_up(hook, options, tmp_path):
    whole, steps, rng = left_alone(tmp_path, **options)
    path, before = stopped(tmp_path, hook, 14, **options)
    score = Score()
    resumed = run(tmp_path, [score], path, **options)
    assert before + score.steps == steps
    assert_same(whole, resumed)
    assert torch.equal(torch.get_rng_state(), rng)
    assert (score.starts, score.ends) == (1, 1)


def test_a_loaded_model_knows_its_step(tmp_path):
    path, _ = stopped(tmp_path, "on_validation_end", 6)
    assert Tiny().trained_steps == 0
    model = Tiny.load_to_sample(path)
    assert (model.trained_steps, model.validation_due) == (6, False)
    assert torch.load(path, weights_only=True)["gan"]["validation_due"] is False
    path, _ = stopped(tmp_path, "on_train_batch_end", 6)
    assert torch.load(path, weights_only=True)["gan"]["validation_due"] is True
