"""The adversarial loop: who is trained when, on what, and what is kept. Runs over every registered GAN where it can."""

import copy

import lightning
import pytest
import torch
from conftest import batch, batch_for, changed, double, fit, images, losses, sgd, small, state
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from callbacks import EMA
from datamodules import Digits
from gans import DCGAN, GAN
from gans.parts.losses import (
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Realness,
    RelativisticAverage,
    RelativisticPairs,
    Wasserstein,
)
from gans.parts.penalties import R1, R2, GradientPenalty
from gans.training.noise import NoiseGAN
from gans.training.optimizers import Adam
from gans.training.update import frozen


class Recorder(Callback):
    """What every generator update saw."""

    def __init__(self):
        self.steps, self.rates = [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.steps.append(trainer.global_step)
        self.rates.append([o.param_groups[0]["lr"] for o in trainer.optimizers])


class Linear(NoiseGAN):
    """Two linear networks: no batch norm, so that sums over batches can be compared exactly."""

    def __init__(self, **kwargs):
        super().__init__(**{"image_shape": (1, 2, 2), "latent_dim": 3} | kwargs)
        self.generator = nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (1, 2, 2)))
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.Flatten(0))

    def noise(self, n):
        """Noise that depends on nothing but the number of vectors drawn so far."""
        start = getattr(self, "drawn", 0)
        self.drawn = start + n
        index = torch.arange(start, start + n, dtype=self.dtype)[:, None]
        return torch.sin(index * torch.tensor([1.0, 2.0, 3.0], dtype=self.dtype))


def indifferent(module):
    """Weights that the loss need not depend on, by the player.

    A Wasserstein critic's last bias, where the output has one: only differences of outputs count. So it is with the
    hinge loss while all outputs are within its margin.
    """
    if not isinstance(module, NoiseGAN):
        return {}
    biases = [name for name, p in module.discriminator.named_parameters() if name.endswith("bias") and p.numel() == 1]
    outputs = torch.linspace(-0.2, 0.2, 4)
    if module.loss.outcomes > 1:
        return {}
    value, moved = (module.loss.discriminator(outputs + add, outputs.flip(0) + add) for add in (0.0, 0.1))
    return {"discriminator": set(biases) if torch.isclose(value, moved) else set()}


# Only the trained network changes


def test_a_step_changes_only_the_trained_networks(any_gan):
    for name, trained in any_gan().updates.items():
        # The others' steps are taken, but move nothing; nor does clipping.
        still = {f"{player}_optimizer": sgd(0.0) for player in any_gan().players if player not in trained}
        module = any_gan(**still | ({"weight_clip": None} if hasattr(any_gan(), "weight_clip") else {}))
        before = {player: state(getattr(module, player)) for player in module.players}
        left = indifferent(module)
        fit(module, batch_for(module, 24), max_steps=3)
        for player in module.players:
            network = getattr(module, player)
            parameters = {key for key, _ in network.named_parameters()}
            if player in trained:
                assert parameters - left.get(player, set()) <= changed(before[player], network), name
            else:
                assert not parameters & changed(before[player], network), name


def test_frozen_keeps_weights_gradients_and_buffers():
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.utils.parametrizations.spectral_norm(nn.Conv2d(2, 2, 3))
    )
    network[0].bias.requires_grad_(False)  # frozen by its owner, and to stay so
    before = state(network)
    x = torch.randn(4, 1, 8, 8, requires_grad=True)
    with frozen(network):
        network(x).sum().backward()
    assert not changed(before, network)
    assert x.grad is not None
    assert all(p.grad is None for p in network.parameters())
    assert [p.requires_grad for p in network.parameters()].count(False) == 1
    network(x)  # and outside it changes again
    assert changed(before, network)


def test_every_loss_reaches_the_networks_it_trains_and_no_other(any_gan):
    module = any_gan()
    with torch.no_grad():
        for name, p in module.named_parameters():
            if not p.any() and not name.endswith("bias"):
                p.fill_(0.1)  # a gate that begins closed
    for loss_of, trained, others in losses(module):
        module.zero_grad()
        with frozen(*others.values()):
            loss, _ = loss_of(batch_for(module, 4))
            loss.backward()
        for player, network in trained.items():
            parameters = dict(network.named_parameters())
            reached = {name for name, p in parameters.items() if p.grad is not None and p.grad.abs().sum() > 0}
            assert reached | indifferent(module).get(player, set()) == parameters.keys()
        assert all(p.grad is None for network in others.values() for p in network.parameters())


def test_every_term_that_is_logged_trains_the_networks_whose_loss_it_is_in(any_gan):
    """A term that was detached, or wrapped in a new tensor, trains nothing."""
    module = any_gan()
    for loss_of, trained, _ in losses(module):
        _, logs = loss_of(batch_for(module, 8))
        terms = {name: term for name, term in logs.items() if name.startswith("loss/")}
        assert f"loss/{loss_of.__name__.removesuffix('_loss')}" in terms
        for term in terms.values():
            weights = [p for network in trained.values() for p in network.parameters()]
            gradients = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
            assert any(g is not None and g.abs().sum() > 0 for g in gradients)


def test_every_layer_that_is_built_is_used(any_gan):
    """An activation that was constructed and never applied is a bug several ports share."""
    module, used = any_gan(), set()
    layers = [layer for player in module.players for layer in getattr(module, player).modules()]
    for layer in layers:
        layer.register_forward_hook(lambda layer, *_: used.add(layer))
    for loss_of, _, _ in losses(module):
        loss_of(batch_for(module, 4))
    assert not [layer for layer in layers if layer not in used and not isinstance(layer, nn.ModuleList | nn.ModuleDict)]


def test_batch_norm_has_pytorchs_epsilon(gan):
    """Not 0.8, a Keras momentum that was carried over into the place of the epsilon."""
    for layer in gan().modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            assert layer.eps == 1e-5


def test_each_update_draws_its_own_noise(gan):
    module = gan()
    drawn = []
    noise = module.noise
    module.noise = lambda n: drawn.append(noise(n)) or drawn[-1]
    fit(module, max_steps=2)
    assert len(drawn) == 2 * (module.n_critic + 1)
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


# Any loss and any regulariser with any networks

LOSSES = [
    NonSaturating(),
    Minimax(),
    LeastSquares(),
    LeastSquares(-1, 1, 0),
    Wasserstein(),
    Hinge(),
    RelativisticAverage(),
    RelativisticPairs(),
]
LOSSES += [Realness(), Realness(3, "anchor"), Realness(3, "basic")]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_any_adversarial_loss_trains_both_networks(adversary, loss):
    several = {"weight_clip": None} if adversary().several_outcomes else {}
    if loss.outcomes > 1 and not several:
        pytest.skip("has one number an image or patch")
    module = adversary(loss=loss, **several)
    for loss_of, trained, _ in losses(module):
        module.zero_grad()
        value, _ = loss_of(batch_for(module, 4))
        value.backward()
        assert torch.isfinite(value)
        for network in trained.values():
            assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
            assert sum(p.grad.abs().sum() for p in network.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize(
    "settings",
    [{"penalty": GradientPenalty()}, {"penalty": R1(1.0)}, {"penalty": [R1(1.0), R2(1.0)]}, {"weight_clip": 0.01}],
    ids=["gradient penalty", "R1", "R1 and R2", "weight clip"],
)
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_any_regulariser_goes_with_any_networks(adversary, settings, spectral_norm):
    if "spectral_norm" not in adversary().hparams and not hasattr(adversary(), "spectral_norm"):
        if spectral_norm or "weight_clip" in settings:
            pytest.skip("has no such option")
        module = adversary(**settings)
    else:
        module = adversary(**settings, spectral_norm=spectral_norm)
    before = state(module.discriminator)
    fit(module, batch_for(module, 4 * 2 * module.n_critic), max_steps=2, precision="bf16-mixed")
    assert all(torch.isfinite(v).all() for v in module.state_dict().values())
    assert changed(before, module.discriminator)
    if "penalty" in settings:
        _, logs = module.discriminator_loss(batch_for(module, 4))
        assert logs["loss/penalty"] > 0
        assert logs["loss/penalty"].dtype == torch.float32


# Counting


@pytest.mark.parametrize(("n_critic", "accumulate"), [(1, 1), (2, 1), (5, 1), (1, 2), (3, 2)])
def test_global_step_counts_generator_updates_over_epochs(n_critic, accumulate):
    module = Linear(n_critic=n_critic, accumulate_grad_batches=accumulate)
    recorder = Recorder()
    trainer = fit(module, images(28, (1, 2, 2)), max_epochs=3, callbacks=[recorder])  # 7 batches an epoch
    batches = range(1, 22)
    assert recorder.steps == [b // (n_critic * accumulate) for b in batches]
    assert trainer.global_step == 21 // (n_critic * accumulate)


def test_max_steps_means_generator_updates():
    module = Linear(n_critic=3)
    recorder = Recorder()
    assert fit(module, images(400, (1, 2, 2)), max_steps=7, callbacks=[recorder]).global_step == 7
    assert len(recorder.steps) == 21  # each critic update on a batch of its own


@pytest.mark.parametrize(("n_critic", "accumulate"), [(1, 1), (3, 1), (2, 2)])
def test_a_generator_can_have_batches_of_its_own(n_critic, accumulate):
    """One more batch an update, which the discriminator is not trained on; what both lost is logged together."""
    module = Linear(n_critic=n_critic, accumulate_grad_batches=accumulate)
    module.own_batch = True
    trained, logged, log = [], [], module._log
    update = module.update
    module.update = lambda players, loss_of, batches, **kw: (
        trained.append((players, [part.flatten()[0].item() for part in batches]))
        or update(players, loss_of, batches, **kw)
    )
    module._log = lambda logs: logged.append(set(logs)) or log(logs)
    data = torch.arange(4.0 * (n_critic + 1) * accumulate)[:, None, None, None].expand(-1, 1, 2, 2) / 100
    trainer = fit(module, data, batch_size=2, log_every_n_steps=1)
    assert trainer.global_step == 2
    turns = [("discriminator",)] * n_critic + [("generator",)]
    assert [players for players, _ in trained] == 2 * turns
    firsts = [value for _, values in trained for value in values]
    assert firsts == data[::2, 0, 0, 0].tolist()
    assert logged == [{"loss/discriminator", "critic/real", "critic/fake", "loss/generator"}] * 2


def test_validation_comes_every_so_many_generator_updates():
    module = Linear(n_critic=3, accumulate_grad_batches=2)
    validated = []
    module.on_validation_start = lambda: validated.append(module.global_step)
    module.val_dataloader = lambda: torch.utils.data.DataLoader(images(4, (1, 2, 2)))
    interval = {"val_check_interval": 2, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
    fit(module, images(28, (1, 2, 2)), max_steps=7, **interval)
    assert validated == [2, 4, 6]


def test_schedulers_step_with_the_generator():
    def halve(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    module = Linear(
        n_critic=2,
        generator_optimizer=sgd(1.0),
        discriminator_optimizer=sgd(0.5),
        generator_scheduler=halve,
        discriminator_scheduler=halve,
    )
    recorder = Recorder()
    trainer = fit(module, images(24, (1, 2, 2)), callbacks=[recorder])  # 6 batches, 3 updates
    assert recorder.rates == [[0.5, 1], [0.25, 0.5], [0.25, 0.5], [0.125, 0.25], [0.125, 0.25], [0.0625, 0.125]]
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == [0.0625, 0.125]


def test_one_scheduler_goes_with_its_own_optimizer():
    def halve(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    module = Linear(generator_optimizer=sgd(1.0), discriminator_optimizer=sgd(1.0), generator_scheduler=halve)
    trainer = fit(module, max_steps=2, data=images(8, (1, 2, 2)))
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == [1.0, 0.25]


def test_plateau_schedulers_are_refused():
    module = Linear(generator_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau)
    with pytest.raises(MisconfigurationException, match="ReduceLROnPlateau"):
        fit(module, images(8, (1, 2, 2)))


# Gradients


@pytest.mark.parametrize("n_critic", [1, 2])
def test_accumulated_batches_equal_one_large_batch(n_critic):
    data = images(32, (1, 2, 2)).double()
    settings = {"n_critic": n_critic, "generator_optimizer": sgd(0.1), "discriminator_optimizer": sgd(0.1)}
    torch.manual_seed(1)
    large = Linear(**settings)
    parts = Linear(**settings, accumulate_grad_batches=2)
    parts.load_state_dict(large.state_dict())
    fit(large, data, batch_size=8, precision="64-true")
    fit(parts, data, batch_size=4, precision="64-true")
    for a, b in zip(large.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_gradients_are_clipped_to_a_norm():
    module = Linear(generator_optimizer=sgd(1.0), discriminator_optimizer=sgd(1.0), gradient_clip_val=1e-3)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    fit(module, images(4, (1, 2, 2)))
    for network in ("generator", "discriminator"):
        moved = [p - before[name] for name, p in module.named_parameters() if name.startswith(network)]
        assert torch.cat([m.flatten() for m in moved]).norm().item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_precisions(any_gan, precision):
    module = any_gan()
    before = state(module)
    data = batch_for(module, 16)
    fit(module, double(data) if precision == "64-true" else data, max_steps=3, precision=precision)
    assert all(torch.isfinite(v).all() for v in module.state_dict().values())
    still = {f"{player}.{name}" for player, names in indifferent(module).items() for name in names}
    assert {n for n, _ in module.named_parameters()} - still <= changed(before, module)


def test_losses_are_float32_under_autocast(any_gan):
    module = any_gan()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for loss_of, _, _ in losses(module):
            loss, _ = loss_of(batch_for(module, 4))
            assert loss.dtype == torch.float32


def test_the_loop_equals_one_written_by_hand():
    """Two updates of the whole machinery against the same two, spelled out, with Adam, in float64."""
    data = images(8, (1, 2, 2)).double()
    torch.manual_seed(3)
    module = Linear(generator_optimizer=lambda p: Adam(p, lr=0.01), discriminator_optimizer=lambda p: Adam(p, lr=0.02))
    hand = copy.deepcopy(module).double()
    fit(module, data, precision="64-true")
    opt_d = torch.optim.Adam(hand.discriminator.parameters(), 0.02, betas=(0.5, 0.999))
    opt_g = torch.optim.Adam(hand.generator.parameters(), 0.01, betas=(0.5, 0.999))
    for real in data.split(4):
        fake = hand.generator(hand.noise(4)).detach()
        p_real, p_fake = torch.sigmoid(hand.discriminator(real)), torch.sigmoid(hand.discriminator(fake))
        d_loss = -(p_real.log() + (1 - p_fake).log()).mean()
        opt_d.zero_grad()
        d_loss.backward()
        opt_d.step()
        g_loss = -torch.sigmoid(hand.discriminator(hand.generator(hand.noise(4)))).log().mean()
        opt_g.zero_grad()
        g_loss.backward()
        opt_g.step()
    for a, b in zip(module.parameters(), hand.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


# Bad input


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [
        ({"n_critic": 0}, "n_critic"),
        ({"accumulate_grad_batches": 0}, "accumulate"),
        ({"gradient_clip_val": 0.0}, "clip"),
    ],
)
def test_bad_settings_are_named(settings, culprit):
    with pytest.raises(MisconfigurationException, match=culprit):
        Linear(**settings)


def test_images_of_another_shape_or_range_are_named():
    with pytest.raises(MisconfigurationException, match=r"\(3, 16, 16\).*image_shape=\(1, 16, 16\)"):
        fit(small(GAN), images(8, (3, 16, 16)))
    with pytest.raises(MisconfigurationException, match=r"\[-1, 1\]"):
        fit(small(GAN), images(8) * 127.5 + 127.5)


# Sampling


def test_samples_are_images(gan):
    for shape in [(1, 16, 16), (3, 32, 32)]:
        module = gan(image_shape=shape)
        picture = module.sample(5)
        assert picture.shape == (5, *shape)
        assert picture.dtype == torch.float32
        assert picture.abs().max() <= 1
        assert not picture.requires_grad
        assert module.generate(batch(3, shape)).shape == (3, *shape)


def test_what_an_image_was_asked_to_be_comes_with_it(gan):
    module, given = gan(), batch(6)
    torch.manual_seed(0)
    generated = module.generate(given)
    torch.manual_seed(0)
    drawn, asked = module.generate_asked(given)
    assert torch.equal(drawn, generated)
    assert (asked is None) == (module.asks == "")
    if module.asks == "class":
        assert torch.equal(asked, given[1])
    elif module.asks == "code":
        torch.manual_seed(0)
        assert torch.equal(asked, module.noise(6)[:, : module.categories].argmax(1))


def test_sampling_uses_running_statistics_and_changes_nothing(gan):
    module = gan()
    module.train()
    before = state(module)
    noise = module.noise(4)
    label = 1 if module.num_classes else None
    together = module.sample_from(noise, label)
    apart = torch.cat([module.sample_from(z[None], label) for z in noise])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)
    assert not changed(before, module)
    assert module.generator.training


# Whole runs of every GAN


def run(module, folder, **kwargs):
    """Train on the digits with averaging, from where ``resume`` stands, and return the trainer."""
    data = Digits(data_dir=str(folder), image_size=16, batch_size=32)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    resume = kwargs.pop("resume", None)
    trainer = Trainer(callbacks=[EMA()], enable_model_summary=False, limit_val_batches=0, **quiet | kwargs)
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return trainer


def test_a_resumed_run_equals_one_that_was_not_stopped(gan, tmp_path):
    """Bit for bit, in mixed precision, with averaging and a schedule."""

    def schedule(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=0.5)

    settings = {"num_classes": 10, "generator_scheduler": schedule}
    lightning.seed_everything(3)
    whole = gan(**settings)
    run(whole, tmp_path, max_steps=4, precision="bf16-mixed")
    lightning.seed_everything(3)
    run(gan(**settings), tmp_path, max_steps=2, precision="bf16-mixed").save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(4)  # what a new process draws; the seed that the user gives is the same
    resumed = gan(**settings)
    trainer = run(resumed, tmp_path, max_steps=4, precision="bf16-mixed", resume=tmp_path / "half.ckpt")
    assert trainer.global_step == 4
    assert {key.split(".")[0] for key in resumed.state_dict()} == {"generator", "discriminator", "averaged_generator"}
    assert not changed(whole.state_dict(), resumed)
    assert trainer.optimizers[1].param_groups[0]["lr"] == whole.trainer.optimizers[1].param_groups[0]["lr"]


def test_predict_draws_as_many_images_as_asked_for(gan):
    module = gan(predict_images=70)
    trainer = Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
    pictures = torch.cat(trainer.predict(module, module.predict_dataloader()))
    assert pictures.shape == (70, 1, 16, 16)
    assert len(pictures.flatten(1).unique(dim=0)) == 70


# Checkpoints


def test_a_checkpoint_gives_the_same_samples_averaged_or_raw(gan, tmp_path):
    module = gan(n_critic=2)
    module.start_averaging()
    with torch.no_grad():
        for p in module.averaged_generator.parameters():
            p.mul_(0.5)
    trainer = fit(module, max_steps=2)
    trainer.save_checkpoint(tmp_path / "m.ckpt")
    cls, noise = type(module), module.noise(3)
    assert torch.equal(cls.load_to_sample(tmp_path / "m.ckpt").sample_from(noise), module.sample_from(noise))
    raw = cls.load_to_sample(tmp_path / "m.ckpt", average=False)
    assert raw.averaged_generator is None
    module.averaged_generator = None
    assert torch.equal(raw.sample_from(noise), module.sample_from(noise))


def test_checkpoints_hold_plain_data_only(gan, tmp_path):
    fit(gan(), max_steps=1).save_checkpoint(tmp_path / "m.ckpt")
    checkpoint = torch.load(tmp_path / "m.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["image_shape"] == (1, 16, 16)
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {"generator", "discriminator"}


def test_a_checkpoint_of_another_model_is_named(tmp_path):
    fit(small(GAN), max_steps=1).save_checkpoint(tmp_path / "gan.ckpt")
    with pytest.raises(MisconfigurationException, match=r"gans\.gan\.GAN.*gans\.dcgan\.DCGAN"):
        DCGAN.load_to_sample(tmp_path / "gan.ckpt")
    with pytest.raises(MisconfigurationException, match=r"(generator|discriminator).*weight"):
        GAN.load_to_sample(tmp_path / "gan.ckpt", hidden=17)
