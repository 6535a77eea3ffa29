"""How much a run may take."""

from datetime import timedelta

import pytest
import torch
from conftest import images, small
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from callbacks import Budget, LastCheckpoint
from gans import DCGAN, WGAN
from gans.training.optimizers import LinearDecay


def fit(module, budget, path=None):
    loader = DataLoader(images(12), batch_size=4)
    trainer = Trainer(
        accelerator="cpu", max_steps=1000, max_epochs=-1, callbacks=[budget], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader, ckpt_path=path, weights_only=None if path is None else True)
    return trainer


@pytest.mark.parametrize(("cls", "steps"), [(DCGAN, 5), (WGAN, 1)])
def test_training_ends_after_so_many_images(cls, steps, tmp_path):
    """WGAN's generator is updated once in five batches."""
    trainer = fit(small(cls), Budget(images=20))
    assert (trainer.lightning_module.images_seen, trainer.global_step) == (20, steps)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert fit(small(cls), Budget(images=30), tmp_path / "a.ckpt").lightning_module.images_seen == 32
    assert fit(small(cls), Budget(images=20), tmp_path / "a.ckpt").lightning_module.images_seen == 20


def test_training_ends_after_so_many_minutes_over_all_parts(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("callbacks.budget.time.monotonic", lambda: clock[0])

    class Slow(DCGAN):
        def on_train_batch_end(self, *_):
            clock[0] += 30.0

    clock[0] = 1.0
    trainer = fit(small(Slow), Budget(minutes=2))
    assert trainer.global_step == 5  # the callback looks before the module's own clock goes on
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert fit(small(Slow), Budget(minutes=3), tmp_path / "a.ckpt").global_step <= 7


def test_without_limits_nothing_ends(clock):
    module = timed(clock)
    assert train(module, Budget(), clock, max_steps=30).global_step == 30
    assert module.spent is None


# Time, with the end inside


STEP, VALIDATION, PICTURES = 2.0, 20.0, 5.0  # seconds of the tests' clock


@pytest.fixture
def clock(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    now = [1000.0]
    monkeypatch.setattr("callbacks.budget.time.monotonic", lambda: now[0])
    return now


class Timed(DCGAN):
    """A step takes two seconds, and rates fall in the second half."""

    clock: list[float]

    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        self.clock[0] += STEP
        self.rates = [*getattr(self, "rates", ()), self.trainer.optimizers[0].param_groups[0]["lr"]]


def timed(clock):
    decay = {f"{player}_scheduler": LinearDecay for player in ("generator", "discriminator")}
    module = small(Timed, **decay if clock else {})
    module.clock = clock
    return module


class Slow(Callback):
    """Stands in for scores and pictures."""

    def __init__(self, clock, validation=VALIDATION):
        self.clock, self.validation, self.validated, self.drawn = clock, validation, [], []

    def setup(self, trainer, pl_module, stage):
        pl_module.validates_last = True

    def on_validation_epoch_start(self, trainer, pl_module):
        self.clock[0] += self.validation
        self.validated.append(trainer.global_step)

    def on_train_end(self, trainer, pl_module):
        self.clock[0] += PICTURES
        self.drawn.append(trainer.global_step)

    rehearse = on_train_end


def train(module, budget, clock, path=None, slow=None, **kwargs):
    settings = {"max_steps": -1, "max_epochs": -1} if kwargs else {}
    trainer = Trainer(
        accelerator="cpu", callbacks=[slow or Slow(clock), budget, LastCheckpoint()], logger=False,
        enable_progress_bar=False, enable_model_summary=False, **settings | {"val_check_interval": 10**6} | kwargs,
        num_sanity_val_steps=0, check_val_every_n_epoch=None, default_root_dir=getattr(budget, "root", None),
    )  # fmt: skip
    loader = DataLoader(images(40), batch_size=4)
    trainer.fit(module, loader, loader, ckpt_path=path, weights_only=None if path is None else True)
    return trainer


@pytest.mark.parametrize(
    ("limit", "interval"), [("max_time", 10**6), ("max_time", 4), ("max_time", 18), ("minutes", 30)]
)
def test_the_last_validation_and_pictures_are_within_the_time(limit, interval, clock, tmp_path):
    """Getting ready took ten seconds, which are a part of max_time only."""
    budget, slow = Budget(minutes=200 / 60 if limit == "minutes" else 0), Slow(clock)
    budget.root = str(tmp_path)
    module = timed(clock)
    began, ready = clock[0], 10 if limit == "max_time" else 0

    def on_fit_start():
        clock[0] += 10
        Timed.on_fit_start(module)

    module.on_fit_start = on_fit_start
    time = {"max_time": timedelta(seconds=210)} if limit == "max_time" else {"max_steps": 1000}
    trainer = train(module, budget, clock, slow=slow, val_check_interval=interval, **time)
    end, step = clock[0] - began - (10 - ready), trainer.global_step
    validations = len(slow.validated) * VALIDATION + 2 * PICTURES
    assert 200 - 2 * VALIDATION - 15 < end <= 210 - (10 - ready)
    assert end == ready + step * STEP + validations
    assert slow.validated == sorted({min(10, interval), *range(interval, step, interval), step})
    assert slow.drawn == [5 if interval == 4 else 10, step]  # after a tenth of the time
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == step
    rates = module.rates
    assert rates[len(rates) // 4] == rates[0] == 2e-4
    assert rates[-1] < 0.2 * rates[0]
    assert 0.3 < sum(rate < 2e-4 for rate in rates) / len(rates) < 0.7


def test_a_run_that_had_its_time_is_over_when_it_is_resumed_and_goes_on_with_more(clock, tmp_path):
    def run(seconds, path=None):
        budget, slow, module = Budget(), Slow(clock), timed(clock)
        budget.root = str(tmp_path)
        trainer = train(module, budget, clock, path, slow, max_time=timedelta(seconds=seconds))
        return trainer.global_step, slow.validated, module

    step, validated, _ = run(100)
    last = tmp_path / "checkpoints/last.ckpt"
    assert run(100, last)[:2] == (step, [])
    more, validated, module = run(200, last)
    assert more > step + 30
    assert validated == [more]  # how long it takes is known
    assert module.rates[0] < 2e-4  # more than half of the time is over
    assert module.rates[0] > module.rates[-1]


def test_whichever_limit_comes_first_says_how_far_a_training_is(clock):
    for limits in ({"max_steps": 40}, {"max_epochs": 4}, {"max_steps": 40, "max_time": timedelta(days=1)}):
        module = timed(clock)
        train(module, Budget(images=10**6), clock, **limits)
        assert module.rates == pytest.approx([2e-4 * min(1, 2 * (1 - n / 40)) for n in range(1, 41)])
    module = timed(clock)
    train(module, Budget(images=160), clock, max_steps=1000)  # which is known after a batch
    assert module.rates == pytest.approx([2e-4 * min(1, 2 * (1 - n / 40)) for n in range(40)])
    with pytest.raises(MisconfigurationException, match=r"LinearDecay .* nothing says when this one ends"):
        train(timed(clock), Budget(), clock, max_epochs=-1)


def test_a_time_that_is_too_short_is_said(clock):
    with pytest.warns(UserWarning, match=r"a validation takes 0:01:20, and .* of --trainer\.max_time=0:01:00 are left"):
        trainer = train(timed(clock), Budget(), clock, slow=Slow(clock, 80), max_time=timedelta(seconds=60))
    assert trainer.global_step < 10
    scores = Slow(clock)
    scores.shortest = lambda *_: 61.0
    with pytest.raises(MisconfigurationException, match=r"max_time=0:01:00 is too short: a validation alone takes"):
        train(timed(clock), Budget(), clock, slow=scores, max_time=timedelta(seconds=60))
    budget = Budget()
    budget.before_fit = 70
    with pytest.raises(MisconfigurationException, match=r"is over before training begins: getting ready took 0:01:10"):
        train(timed(clock), budget, clock, max_time=timedelta(seconds=60))


@pytest.mark.parametrize("option", [{"images": -1}, {"minutes": -0.5}])
def test_less_than_nothing_is_refused(option):
    (name,) = option
    with pytest.raises(MisconfigurationException, match=rf"--budget\.{name} must be 0 or more"):
        Budget(**option)
