"""Gradient penalties against their closed forms."""

import pytest
import torch
from conftest import batch_for, changed, fit, images, sgd, small, small_translator, state, translator_batch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader

from gans import DCGAN, R3GAN, WGANGP, DiscoGAN, StyleGAN
from gans.parts.penalties import R1, R2, GradientPenalty, Judged


def of(penalty, critic, real, fake):
    """A penalty on images that a critic has yet to judge."""
    return penalty(Judged(real, critic), Judged(fake, critic))


@pytest.fixture
def pair():
    return torch.rand(2, 6, 3, 4, 4, dtype=torch.float64)


def test_on_a_linear_critic_the_gradient_is_its_weight_everywhere(pair):
    """D(x) = w.x: the penalty is weight * (|w| - 1)^2, with the norm over channels and pixels of one image."""
    w = torch.randn(3, 4, 4, dtype=torch.float64)

    def critic(images):
        return (images * w).sum((1, 2, 3))

    norm = w.square().sum().sqrt()
    torch.testing.assert_close(of(GradientPenalty(10.0), critic, *pair), 10 * (norm - 1) ** 2)
    for penalty in (R1(10.0), R2(10.0)):
        torch.testing.assert_close(of(penalty, critic, *pair), 5 * norm**2)


def test_the_penalty_is_two_sided(pair):
    """Too small a gradient costs as much as too large a one; at 1 it is free."""
    penalties = []
    for length in (0.5, 1.0, 1.5):
        w = torch.full((3, 4, 4), length / 48**0.5, dtype=torch.float64)
        penalties.append(float(of(GradientPenalty(1.0), lambda x, w=w: (x * w).sum((1, 2, 3)), *pair)))
    assert penalties == pytest.approx([0.25, 0, 0.25], abs=1e-12)


def test_points_lie_between_the_pair_one_share_an_image(pair):
    real, fake = pair
    seen = []

    def critic(images):
        seen.append(images)
        return images.sum((1, 2, 3))

    of(GradientPenalty(), critic, real, fake)
    share = ((seen[0] - real) / (fake - real)).flatten(1)
    assert ((share > 0) & (share < 1)).all()
    torch.testing.assert_close(share, share[:, :1].expand_as(share))
    assert len(share[:, 0].unique()) == len(real)
    of(R1(), critic, real, fake)
    of(R2(), critic, real, fake)
    assert torch.equal(seen[1], real)
    assert torch.equal(seen[2], fake)


@pytest.mark.parametrize("penalty", [GradientPenalty(3.0), R1(3.0), R2(3.0)])
def test_its_gradient_for_the_weights_equals_finite_differences(pair, penalty):
    """The double backward, by hand."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.Tanh(), nn.Linear(5, 1)).double()

    def value():
        torch.manual_seed(0)
        return of(penalty, net, *pair)

    value().backward()
    weight = net[1].weight
    step = 1e-6
    for i, j in ((0, 0), (3, 20)):
        values = []
        for change in (step, -2 * step, step):  # above, below, and back
            weight.data[i, j] += change
            values.append(value().item())
        up, down, _ = values
        assert weight.grad[i, j].item() == pytest.approx((up - down) / (2 * step), rel=1e-5)


def test_a_gradient_of_zero_gives_no_nan(pair):
    dead = nn.Sequential(nn.Flatten(), nn.Linear(48, 1)).double()
    nn.init.zeros_(dead[1].weight)
    of(GradientPenalty(), dead, *pair).backward()
    assert torch.isfinite(dead[1].weight.grad).all()


def test_under_autocast_the_penalty_is_float32_and_close(pair):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(32, 1))
    real, fake = pair.float()
    torch.manual_seed(0)
    exact = of(GradientPenalty(), net, real, fake)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = of(GradientPenalty(), net, real, fake.bfloat16())
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, rtol=0.05, atol=0.05)
    mixed.backward()
    assert torch.isfinite(net[0].weight.grad).all()


@pytest.mark.parametrize("cls", [R1, R2, GradientPenalty])
def test_bad_settings_are_named(cls):
    with pytest.raises(MisconfigurationException, match=r"--model\.penalty\.weight must be positive; got 0"):
        cls(0)
    with pytest.raises(MisconfigurationException, match=r"--model\.penalty\.every must be at least 1; got 0"):
        cls(1.0, every=0)


@pytest.mark.parametrize(("size", "batch"), [(16, 32), (32, 32), (64, 32), (128, 32), (256, 16), (1024, 4)])
def test_the_weight_follows_the_size_by_the_rule_of_stylegan2_ada(size, batch):
    """0.0002 * pixels / batch, with its batch for one GPU."""
    images = torch.rand(2, 3, size, size)
    judge = lambda x: x.sum((1, 2, 3))  # noqa: E731  # a gradient of 1 everywhere
    for cls in (R1, R2):
        assert cls().weight_at(images) == pytest.approx(0.0002 * size**2 / batch)
        assert cls(7.0).weight_at(images) == 7
        expected = 0.0002 * size**2 / batch / 2 * 3 * size**2
        assert of(cls(), judge, images, images).item() == pytest.approx(expected)


@pytest.mark.parametrize("cls", [DCGAN, StyleGAN, WGANGP])
def test_a_lazy_penalty_counts_every_so_many_updates_and_as_many_times(cls):
    """Where it counts it is logged; between, nothing is differentiated twice."""
    module = small(cls, penalty=[R1(2.0, every=4), R2(3.0)], num_classes=0).double().eval()
    x, fake = torch.rand(2, 4, 1, 16, 16).double() * 2 - 1
    found = []
    for step in range(8):
        module.critic_updates = step
        judged = module.compare((x,), (fake,))
        assert [judged[0].images.requires_grad, judged[1].images.requires_grad] == [step % 4 == 3, True]
        found.append(module.tell_apart(*judged)[1]["loss/penalty"].item())
    r1, r2 = (of(p, module.discriminator, x, fake).item() for p in (R1(2.0), R2(3.0)))
    assert found == pytest.approx([r2, r2, r2, r2 + 4 * r1] * 2)
    module.penalties = module.penalties[:1]
    module.critic_updates = 0
    loss, logs = module.tell_apart(*module.compare((x,), (fake,)))
    assert "loss/penalty" not in logs
    assert loss is logs["loss/discriminator"]


@pytest.mark.parametrize(
    ("cls", "options", "steps", "judged"),
    [
        (DCGAN, {}, 12, 12),
        (DCGAN, {"critic_warm_up": 9}, 4, 12),
        (WGANGP, {"n_critic": 3}, 4, 12),
        (R3GAN, {}, 12, 12),  # the generator has batches of its own
        (DiscoGAN, {}, 24, 12),  # the discriminators rest in every second step
    ],
)
def test_a_lazy_penalty_comes_in_one_of_so_many_updates_of_the_discriminator(cls, options, steps, judged):
    class Counting(R1):
        calls = 0

        def __call__(self, *judged):
            Counting.calls += 1
            return super().__call__(*judged)

    make = small_translator if cls is DiscoGAN else small
    module = make(cls, penalty=Counting(1.0, every=4), **options)
    fit(module, translator_batch(module, 8) if cls is DiscoGAN else batch_for(module, 8), max_steps=steps)
    assert module.critic_updates == judged
    assert Counting.calls == judged // 4 * (1 + (cls is DiscoGAN))  # which has two discriminators


def test_a_lazy_penalty_goes_on_as_if_training_had_not_stopped(tmp_path):
    def trained(steps, path=None):
        seed_everything(0)
        module = small(DCGAN, penalty=R1(50.0, every=3))
        trainer = Trainer(max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.fit(module, DataLoader(images(4).repeat(8, 1, 1, 1), 4), ckpt_path=path, weights_only=True)
        return trainer, state(module)

    _, whole = trained(7)
    trained(2)[0].save_checkpoint(tmp_path / "m.ckpt")
    _, resumed = trained(7, tmp_path / "m.ckpt")
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


@pytest.mark.parametrize("penalty", [GradientPenalty(), R1(), R2()])
def test_under_mixed_precision_penalties_are_computed_in_full(penalty):
    """Forward, gradient and the gradient's gradient: training steps differ in nothing from those in float32."""

    class OnlyPenalised(WGANGP):
        def discriminator_loss(self, batch):
            loss = self.tell_apart(*self.compare((batch[0],), (-batch[0],)))[1]["loss/penalty"]
            return loss, {"loss/penalty": loss}

    weights = []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        module = small(OnlyPenalised, penalty=penalty, discriminator_optimizer=sgd(0.01))
        before = state(module.discriminator)
        torch.manual_seed(1)
        fit(module, precision=precision, max_steps=1)
        assert changed(before, module.discriminator)
        weights.append(module.discriminator.state_dict())
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key
