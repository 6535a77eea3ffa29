"""Going on from a checkpoint: what the user changed wins, and everything else is as if nothing had happened."""

import copy
import warnings

import lightning
import pytest
import torch
from conftest import images, pretend_generator, sgd, small, small_translator, state, translator_batch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.optim import SGD, RMSprop
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    OneCycleLR,
    SequentialLR,
    StepLR,
)
from torch.utils.data import DataLoader

from callbacks import EMA
from gans import DCGAN, WGAN, CycleGAN, StyleGAN
from gans.training.noise import NoiseGAN
from gans.training.optimizers import Adam, LinearDecay

SHAPE = (1, 2, 2)


class Tiny(NoiseGAN):
    """Two linear networks."""

    def __init__(self, **kwargs):
        super().__init__(**{"image_shape": SHAPE, "latent_dim": 3} | kwargs)
        self.generator = nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, SHAPE))
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.Flatten(0))


def settings_of(trainer):
    return [{k: v for k, v in group.items() if k != "params"} for o in trainer.optimizers for group in o.param_groups]


def train(module, steps, resume=None, data=None, batch_size=4, **kwargs):
    """Train on the same batches in each epoch, without validation, and return the trainer."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_steps=steps, enable_model_summary=False, **quiet | {"max_epochs": -1} | kwargs)
    data = images(4 * batch_size, module.image_shape) if data is None else data
    loader = DataLoader(data, batch_size=batch_size, generator=torch.Generator())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the loader does not go on in the middle of an epoch
        trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
    return trainer


@pytest.fixture
def saved(tmp_path):
    """Train a new model for some steps and give the checkpoint's path, and the trainer."""

    def save(module, steps=4, **kwargs):
        trainer = train(module, steps, **kwargs)
        trainer.save_checkpoint(tmp_path / "saved.ckpt")
        return tmp_path / "saved.ckpt", trainer

    return save


def said(caplog):
    return " ".join(record.getMessage() for record in caplog.records if "gans" in record.pathname)


# Optimizers and schedules


def schedule(cls, **kwargs):
    return lambda optimizer: cls(optimizer, **kwargs)


def sequence(optimizer):
    return SequentialLR(optimizer, [ConstantLR(optimizer, 0.5, 2), ExponentialLR(optimizer, 0.9)], [3])


def chain(optimizer):
    return ChainedScheduler([ConstantLR(optimizer, 0.5, 2), ExponentialLR(optimizer, 0.9)])


SCHEDULES = {
    "none": None,
    "step": schedule(StepLR, step_size=2),
    "linear": schedule(LinearLR, start_factor=1.0, end_factor=0.1, total_iters=5),
    "longer": schedule(LinearLR, start_factor=1.0, end_factor=0.1, total_iters=50),
    "decay": schedule(LinearDecay, constant_steps=2, decay_steps=4),
    "later": schedule(LinearDecay, constant_steps=5, decay_steps=4),
    "cosine": schedule(CosineAnnealingLR, T_max=7),
    "cycle": schedule(OneCycleLR, max_lr=0.1, total_steps=20),
    "sequence": sequence,
    "chain": chain,
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_same_settings_go_on_bit_for_bit(name, saved, caplog):
    def module():
        torch.manual_seed(1)
        return Tiny(generator_scheduler=SCHEDULES[name])

    whole = module()
    expected = train(whole, 8)
    path, _ = saved(module())
    resumed = module()
    trainer = train(resumed, 8, path)
    assert settings_of(trainer) == settings_of(expected)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert not said(caplog)


@pytest.mark.parametrize("before", SCHEDULES)
@pytest.mark.parametrize("after", ["none", "linear", "longer", "later", "sequence"])
def test_a_changed_schedule_is_as_if_it_had_always_been_so(before, after, saved, caplog):
    path, _ = saved(Tiny(generator_scheduler=SCHEDULES[before]))
    caplog.clear()
    expected = train(Tiny(generator_scheduler=SCHEDULES[after]), 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        resumed = Tiny(generator_scheduler=SCHEDULES[after])
    trainer = train(resumed, 6, path)
    generator, reference = settings_of(trainer)[1], settings_of(expected)[1]
    assert generator["lr"] == pytest.approx(reference["lr"], rel=1e-12)
    assert ("initial_lr" in generator) == ("initial_lr" in reference) == (after != "none")
    assert generator["betas"] == reference["betas"]  # which OneCycleLR changes too
    assert ("schedule was" in said(caplog)) == (before != after)
    # The moments were carried over.
    (step,) = {float(s["step"]) for s in trainer.optimizers[1].state.values()}
    assert step == 6


@pytest.mark.parametrize("name", ["none", "step", "longer", "decay", "sequence"])
def test_a_changed_rate_is_as_if_it_had_always_been_so(name, saved, caplog):
    path, _ = saved(Tiny(generator_scheduler=SCHEDULES[name], discriminator_scheduler=SCHEDULES[name]))
    changed = {"generator_scheduler": SCHEDULES[name], "discriminator_scheduler": SCHEDULES[name]}
    changed |= {"generator_optimizer": lambda p: Adam(p, lr=0.01)}
    expected = train(Tiny(**changed), 6)
    trainer = train(Tiny(**changed), 6, path)
    for group, reference in zip(settings_of(trainer), settings_of(expected), strict=True):
        assert group.keys() == reference.keys()
        assert group["lr"] == pytest.approx(reference["lr"], rel=1e-12)
        assert group.get("initial_lr") == reference.get("initial_lr")
    assert "generator's optimizer was Adam(lr=0.0002" in said(caplog)
    assert "is now Adam(lr=0.01" in said(caplog)
    assert {float(s["step"]) for s in trainer.optimizers[1].state.values()} == {6}


def test_other_hyperparameters_win_and_the_rest_is_kept(saved):
    def module(**kwargs):
        torch.manual_seed(1)
        return Tiny(generator_optimizer=lambda p: Adam(p, **kwargs), generator_scheduler=SCHEDULES["step"])

    path, first = saved(module())
    moments = {k: v["exp_avg"].clone() for k, v in enumerate(first.optimizers[1].state.values())}
    seen = []

    class See(Callback):
        def on_train_start(self, trainer, pl_module):
            seen.append([s["exp_avg"].clone() for s in trainer.optimizers[1].state.values()])

    trainer = train(module(beta1=0.1, weight_decay=0.5), 6, path, callbacks=[See()])
    group = settings_of(trainer)[1]
    assert group["betas"] == (0.1, 0.999)
    assert group["weight_decay"] == 0.5
    assert group["lr"] == pytest.approx(2e-4 * 0.1**3)
    assert all(torch.equal(moments[k], v) for k, v in enumerate(seen[0]))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda p: Adam(p), lambda p: RMSprop(p, momentum=0.5)),
        (lambda p: Adam(p), sgd(0.1)),
        (sgd(0.1), lambda p: Adam(p)),
        (lambda p: torch.optim.Adam(p), lambda p: torch.optim.Adam(p, amsgrad=True)),  # needs another moment
        (lambda p: RMSprop(p), lambda p: RMSprop(p, momentum=0.9, centered=True)),
        (lambda p: SGD(p, 0.1, momentum=0.9), lambda p: SGD(p, 0.1)),
        (lambda p: Adam(p), lambda p: Adam([{"params": [w]} for w in p])),
    ],
)
@pytest.mark.parametrize("name", ["none", "longer"])
def test_state_that_does_not_fit_starts_anew_and_says_so(before, after, name, saved, caplog):
    path, _ = saved(Tiny(generator_optimizer=before, generator_scheduler=SCHEDULES[name]))
    caplog.clear()
    trainer = train(Tiny(generator_optimizer=after, generator_scheduler=SCHEDULES[name]), 6, path)
    expected = train(Tiny(generator_optimizer=after, generator_scheduler=SCHEDULES[name]), 6)
    for group, reference in zip(settings_of(trainer), settings_of(expected), strict=True):
        assert group.pop("lr") == pytest.approx(reference.pop("lr"), rel=1e-12)
        assert group == reference
    assert "generator's optimizer starts anew" in said(caplog)
    assert "discriminator" not in said(caplog)


def test_a_schedule_that_does_not_go_so_far_is_named(saved):
    path, _ = saved(Tiny())
    with pytest.raises(MisconfigurationException, match=r"--model\.generator_scheduler does not go as far as"):
        train(Tiny(generator_scheduler=schedule(OneCycleLR, max_lr=0.1, total_steps=3)), 6, path)


def test_changed_twice_and_back(saved):
    """The record is of the run that wrote the checkpoint, not of the first one."""
    path, _ = saved(Tiny())
    path, _ = saved(Tiny(generator_optimizer=lambda p: Adam(p, lr=0.01)), 6, resume=path)
    trainer = train(Tiny(), 8, path)
    assert settings_of(trainer)[1]["lr"] == 2e-4


def test_checkpoints_without_what_is_kept_now_go_on_as_before(saved):
    path, _ = saved(Tiny(generator_scheduler=SCHEDULES["step"], accumulate_grad_batches=2))
    old = torch.load(path, weights_only=True)
    new = {"validation_due", "seed", "parts", "optimizers"}
    old["gan"] = {k: v for k, v in old["gan"].items() if k not in new} | {"waiting": [images(4, SHAPE)]}
    for rank in old["gan"]["ranks"]:
        del rank["waiting"]
    torch.save(old, path)
    resumed = Tiny(generator_scheduler=SCHEDULES["step"], accumulate_grad_batches=2)
    seen = []
    resumed.begin_update = seen.extend
    assert settings_of(train(resumed, 6, path))[1]["lr"] == pytest.approx(2e-4 * 0.1**3)
    assert torch.equal(seen[0], images(4, SHAPE))
    assert Tiny.load_to_sample(path).trained_steps == 4


def test_a_checkpoint_of_weights_alone_trains_with_new_optimizers(saved, caplog, tmp_path):
    _, trainer = saved(Tiny())
    trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    assert train(Tiny(), 6, tmp_path / "weights.ckpt").global_step == 6
    assert said(caplog).count("starts anew") == 2


@pytest.mark.parametrize("player", ["generator", "discriminator"])
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("optimizer", lambda p: Adam(p, lr=-1)),
        ("optimizer", lambda p: SGD(p, rate=1)),
        ("scheduler", lambda o: StepLR(o)),
        ("scheduler", lambda o: LinearLR(o, start_factor=7)),
        ("scheduler", lambda o: OneCycleLR(o, max_lr=1)),
    ],
)
def test_bad_optimizers_and_schedules_are_named(player, kind, make):
    with pytest.raises(MisconfigurationException, match=rf"--model\.{player}_{kind}: "):
        train(Tiny(**{f"{player}_{kind}": make}), 1)


# Other settings that are changed


def test_fewer_batches_an_update(saved):
    module = Tiny(accumulate_grad_batches=4)
    path, _ = saved(module, -1, max_epochs=1, data=images(16 * 4 - 4, SHAPE))  # three updates, three batches left
    assert len(torch.load(path, weights_only=True)["gan"]["ranks"][0]["waiting"]) == 3
    resumed, sizes = Tiny(accumulate_grad_batches=2), []
    resumed.begin_update = lambda batches: sizes.append(len(batches))
    assert train(resumed, 6, path).global_step == 6
    assert sizes == [2, 2, 2]


@pytest.mark.parametrize(("before", "after"), [(5, 2), (2, 5)])
def test_another_number_of_critic_updates(before, after, saved):
    module = Tiny(n_critic=before)
    path, _ = saved(module, -1, max_epochs=1, data=images(4 * 9, SHAPE))
    trainer = train(Tiny(n_critic=after), 8, path)
    assert trainer.global_step == 8


class SeePools(Callback):
    """What the pools hold before the first batch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not hasattr(self, "pools"):
            size = pl_module.pool_size
            self.pools = {domain: pool[:size].clone() for domain, pool in pl_module.rank_state.items()}


def test_a_smaller_pool_keeps_what_fits_and_a_larger_one_all(saved):
    first = small_translator(CycleGAN, pool_size=6)
    data = torch.utils.data.TensorDataset(*translator_batch(first, 16))
    path, _ = saved(first, data=data)
    for size, kept in ((2, 2), (0, 0), (9, 6)):
        second, see = small_translator(CycleGAN, pool_size=size), SeePools()
        train(second, 5, path, data=data, callbacks=[see])
        for domain in "ab":
            assert len(see.pools.get(domain, ())) == kept
            assert kept == 0 or torch.equal(see.pools[domain], first.rank_state[domain][:kept])
            assert len(second.rank_state[domain]) == min(size, 10)


def test_a_pool_of_images_of_another_size_is_left(saved):
    first = small_translator(CycleGAN)
    path, _ = saved(first, data=torch.utils.data.TensorDataset(*translator_batch(first, 16)))
    second = small_translator(CycleGAN, image_shape=(1, 64, 64))
    train(second, 5, path, data=torch.utils.data.TensorDataset(*translator_batch(second, 16)))
    assert second.rank_state["a"].shape == (4, 1, 64, 64)


def test_waiting_batches_of_another_size_are_left(saved):
    first = small_translator(CycleGAN, accumulate_grad_batches=2)
    data = torch.utils.data.TensorDataset(*translator_batch(first, 12))
    path, _ = saved(first, -1, max_epochs=1, data=data)  # three batches
    assert len(torch.load(path, weights_only=True)["gan"]["ranks"][0]["waiting"]) == 1
    second, seen = small_translator(CycleGAN, image_shape=(1, 64, 64), accumulate_grad_batches=2), []
    begin = second.begin_update
    second.begin_update = lambda batches: seen.extend(batches) or begin(batches)
    train(second, 2, path, data=torch.utils.data.TensorDataset(*translator_batch(second, 16)))
    assert {tuple(a.shape) for a, _ in seen} == {(4, 1, 64, 64)}


def test_growth_goes_by_the_images_seen_and_the_new_setting(saved):
    path, _ = saved(small(StyleGAN, grow_images=8))
    resumed = small(StyleGAN, grow_images=1000)
    train(resumed, 5, path)
    assert resumed.discriminator.growth.seen == 20
    assert resumed.discriminator.growth.level()[0] == 2
    with pytest.raises(MisconfigurationException, match="does not fit this StyleGAN"):
        train(small(StyleGAN), 5, path)


def test_a_smaller_clip_is_in_force_from_the_first_update(saved):
    path, _ = saved(small(WGAN, n_critic=1))
    resumed = small(WGAN, n_critic=1, weight_clip=1e-3)
    train(resumed, 5, path)
    assert all(p.abs().max() <= 1e-3 + 1e-9 for p in resumed.discriminator.parameters())


def test_augmentation_begins_and_spectral_norm_is_named(saved):
    path, _ = saved(small(DCGAN))
    assert train(small(DCGAN, diff_augment="color"), 5, path).global_step == 5
    with pytest.raises(MisconfigurationException, match="does not fit this DCGAN"):
        train(small(DCGAN, spectral_norm=True), 5, path)


@pytest.mark.parametrize(
    ("before", "after"), [("64-true", "32-true"), ("32-true", "64-true"), ("32-true", "bf16-mixed")]
)
def test_another_precision(before, after, saved):
    first = small_translator(CycleGAN, pool_size=3)
    data = torch.utils.data.TensorDataset(*translator_batch(first, 16))
    path, _ = saved(first, precision=before, data=data)
    second = small_translator(CycleGAN, pool_size=3)
    assert train(second, 6, path, precision=after, data=data).global_step == 6


# Averages


def test_an_average_that_nothing_updates_is_dropped(saved, caplog, tmp_path):
    path, _ = saved(Tiny(), callbacks=[EMA()])
    resumed = Tiny()
    trainer = train(resumed, 6, path, callbacks=[EMA(half_life=0)])
    assert resumed.averaged_generator is None
    assert "averaged generator" in said(caplog)
    trainer.save_checkpoint(tmp_path / "raw.ckpt")
    caplog.clear()
    again = Tiny()
    train(again, 8, tmp_path / "raw.ckpt", callbacks=[EMA()])  # and averaging may begin again
    assert again.averaged_generator is not None
    assert not said(caplog)


def test_an_average_goes_on(saved):
    path, _ = saved(Tiny(), callbacks=[EMA()])
    resumed, seen = Tiny(), []

    class See(Callback):
        def on_train_start(self, trainer, pl_module):
            seen.append(state(pl_module.averaged_generator))

    train(resumed, 6, path, callbacks=[EMA(), See()])
    weights = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(weights[f"averaged_generator.{key}"], value) for key, value in seen[0].items())


# The seed


def drawn_after(path, monkeypatch, seed):
    if seed is None:
        monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    else:
        lightning.seed_everything(seed, verbose=False)
    module, drawn = Tiny(), []
    noise = module.noise
    module.noise = lambda n: drawn.append(noise(n)) or drawn[-1]
    train(module, 5, path)
    return drawn[0]


def test_a_seed_that_the_user_changes_wins(saved, monkeypatch, caplog):
    lightning.seed_everything(3, verbose=False)
    path, _ = saved(Tiny())
    assert torch.load(path, weights_only=True)["gan"]["seed"] == 3
    as_before = drawn_after(path, monkeypatch, 3)
    assert not said(caplog)
    assert torch.equal(drawn_after(path, monkeypatch, None), as_before)
    assert not said(caplog)
    other = drawn_after(path, monkeypatch, 4)
    assert not torch.equal(other, as_before)
    assert "seed was 3 in the checkpoint and is now 4" in said(caplog)
    assert torch.equal(drawn_after(path, monkeypatch, 4), other)
    first_noise = torch.randn(4, 3, generator=torch.Generator().manual_seed(4))
    assert not torch.equal(other, first_noise)


# Devices


def test_what_several_devices_remember_is_dealt_out(saved, caplog):
    first = small_translator(CycleGAN, pool_size=4)
    data = torch.utils.data.TensorDataset(*translator_batch(first, 16))
    path, _ = saved(first, data=data)
    checkpoint = torch.load(path, weights_only=True)
    (rank,) = checkpoint["gan"]["ranks"]
    ranks = [copy.deepcopy(rank) for _ in range(3)]
    for number, each in enumerate(ranks):
        for pool in each["memory"].values():
            pool.fill_(number / 10)
    checkpoint["gan"]["ranks"] = ranks
    torch.save(checkpoint, path)
    see = SeePools()
    train(small_translator(CycleGAN, pool_size=8), 5, path, data=data, callbacks=[see])
    for pool in see.pools.values():
        assert torch.equal(pool[:, 0, 0, 0], torch.tensor([0.0, 0.1, 0.2, 0.0, 0.1, 0.2, 0.0, 0.1]))
    assert "of 3 devices and this run has 1" in said(caplog)


# Devices that this machine lacks


def test_ranks_tell_each_other_what_is_on_the_cpu_and_take_it_up_on_their_device(monkeypatch):
    """A tensor of a device would come to another rank on the device that it was sent from."""
    told = []
    module = small_translator(CycleGAN)
    module._device, module._trainer = torch.device("cuda", 0), Trainer(logger=False, accelerator="cpu")
    pretend_generator("cuda", monkeypatch)
    monkeypatch.setattr(torch.distributed, "all_gather_object", lambda _, mine: told.append(mine))
    monkeypatch.setattr(Trainer, "world_size", 2)
    with FakeTensorMode():
        batch = torch.ones(2, 1, 32, 32, device="cuda"), torch.ones(2, 1, 32, 32, device="cuda")
        module._waiting, module.rank_state["a"] = [batch], batch[0]
        module.on_save_checkpoint({})
        (mine,) = told
        (waiting,) = mine["waiting"]
        assert {part.device.type for part in (*waiting, mine["memory"]["a"])} == {"cpu"}
        assert {part.device.type for part in module._taken_up(waiting)} == {"cuda"}
        module._share([mine["memory"]])
        assert module.rank_state["a"].device.type == "cuda"
