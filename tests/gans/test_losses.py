"""Each adversarial loss against its formula, written out in float64."""

import math

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import sigmoid

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


@pytest.fixture
def scores():
    g = torch.Generator().manual_seed(0)
    return [torch.randn(50, generator=g, dtype=torch.float64) * 3 for _ in range(2)]


@pytest.mark.parametrize("loss", [NonSaturating(), Minimax()])
def test_discriminator_maximises_equation_1(loss, scores):
    real, fake = scores
    value = sigmoid(real).log().mean() + (1 - sigmoid(fake)).log().mean()
    torch.testing.assert_close(loss.discriminator(real, fake), -value)


def test_generator_losses(scores):
    _, fake = scores
    torch.testing.assert_close(NonSaturating().generator(fake), -sigmoid(fake).log().mean())
    torch.testing.assert_close(Minimax().generator(fake), (1 - sigmoid(fake)).log().mean())


@pytest.mark.parametrize("coding", [(0, 1, 1), (-1, 1, 0)])
def test_least_squares_halves_both_terms(scores, coding):
    real, fake = scores
    a, b, c = coding
    loss = LeastSquares(a, b, c)
    expected = 0.5 * ((real - b) ** 2).mean() + 0.5 * ((fake - a) ** 2).mean()
    torch.testing.assert_close(loss.discriminator(real, fake), expected)
    torch.testing.assert_close(loss.generator(fake), 0.5 * ((fake - c) ** 2).mean())


def test_wasserstein_falls_as_the_critic_tells_real_from_fake(scores):
    real, fake = scores
    torch.testing.assert_close(Wasserstein().discriminator(real, fake), -(real.mean() - fake.mean()))
    torch.testing.assert_close(Wasserstein().generator(fake), -fake.mean())


def test_hinge(scores):
    real, fake = scores
    zero = torch.zeros(())
    expected = -torch.minimum(zero, -1 + real).mean() - torch.minimum(zero, -1 - fake).mean()
    torch.testing.assert_close(Hinge().discriminator(real, fake), expected)
    torch.testing.assert_close(Hinge().generator(fake), -fake.mean())


def test_relativistic_average(scores):
    real, fake = scores
    more_real, more_fake = sigmoid(real - fake.mean()), sigmoid(fake - real.mean())
    d = -more_real.log().mean() - (1 - more_fake).log().mean()
    g = -more_fake.log().mean() - (1 - more_real).log().mean()
    torch.testing.assert_close(RelativisticAverage().discriminator(real, fake), d)
    torch.testing.assert_close(RelativisticAverage().generator(fake, real), g)


def test_relativistic_pairs(scores):
    """Pair by pair: another order of the generated images gives another loss, and their average plays no part."""
    real, fake = scores
    loss = RelativisticPairs()
    pairs = list(zip(real.tolist(), fake.tolist(), strict=True))
    d = sum(math.log1p(math.exp(b - a)) for a, b in pairs) / len(pairs)
    g = sum(math.log1p(math.exp(a - b)) for a, b in pairs) / len(pairs)
    assert loss.discriminator(real, fake).item() == pytest.approx(d, rel=1e-12)
    assert loss.generator(fake, real).item() == pytest.approx(g, rel=1e-12)
    assert loss.discriminator(real, fake.flip(0)).item() != pytest.approx(d, rel=1e-3)
    assert RelativisticAverage().discriminator(real, fake) == RelativisticAverage().discriminator(real, fake.flip(0))


# Realness


@pytest.fixture
def outcomes():
    g = torch.Generator().manual_seed(0)
    return [torch.randn(20, 11, generator=g, dtype=torch.float64) for _ in range(2)]


def divergence(anchor, logits):
    """KL(anchor || D) for every image, by definition; 0 log 0 is 0."""
    p = logits.softmax(1)
    return (torch.xlogy(anchor, anchor) - anchor * p.log()).sum(1)


def test_realness_anchors_lie_at_the_two_ends():
    """The middle of the support moves to its end, and with it everything beyond: half of the mass."""
    loss = Realness(51)
    like = torch.zeros(1, 51, dtype=torch.float64)
    for _ in range(5):
        real, fake = loss.real_anchor(like), loss.fake_anchor(like)
        for anchor in (real, fake):
            assert anchor.min() >= 0
            torch.testing.assert_close(anchor.sum(), torch.ones((), dtype=torch.float64))
        assert real[:25].sum() == 0
        assert fake[26:].sum() == 0
        assert 0.4 < real[50] < 0.6
        assert 0.3 < fake[0] < 0.7
        # Flat against bell: a flat anchor spreads the rest evenly.
        assert real[26:50].mean() < 0.025 < 0.03 < fake[1:6].mean()
    assert not torch.equal(loss.real_anchor(like), loss.real_anchor(like))


def test_realness_equals_the_papers_divergences_but_for_the_anchors_entropy(outcomes, monkeypatch):
    """Equation 3, and equation 4 with its two additions; the difference does not depend on the outputs."""
    real, fake = outcomes
    a1, a0 = torch.rand(2, 11, dtype=torch.float64).softmax(1)
    monkeypatch.setattr(Realness, "real_anchor", lambda *_: a1)
    monkeypatch.setattr(Realness, "fake_anchor", lambda *_: a0)
    entropy = {name: -torch.xlogy(a, a).sum() for name, a in (("a1", a1), ("a0", a0))}

    def check(ours, papers):
        torch.testing.assert_close(ours, papers)

    d = divergence(a1, real).mean() + divergence(a0, fake).mean()
    check(Realness(11).discriminator(real, fake), d + entropy["a1"] + entropy["a0"])
    away = -divergence(a0, fake).mean() - entropy["a0"]
    check(Realness(11, "basic").generator(fake), away)
    check(Realness(11, "anchor").generator(fake), away + divergence(a1, fake).mean() + entropy["a1"])
    p = real.softmax(1)
    toward = (p * (p.log() - fake.softmax(1).log())).sum(1).mean() - (p * p.log()).sum(1).mean()
    check(Realness(11, "relativistic").generator(fake, real), away + toward)


def test_realness_needs_outcomes():
    with pytest.raises(MisconfigurationException, match=r"--model\.loss\.outcomes must be at least 2; got 1"):
        Realness(1)


@pytest.mark.parametrize("loss", [NonSaturating(), Minimax()])
def test_extreme_scores_stay_finite_and_keep_a_gradient(loss):
    sure = torch.tensor([-200.0, 200.0], requires_grad=True)
    value = loss.discriminator(sure, sure) + loss.generator(sure)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(sure.grad).all()
    assert sure.grad.abs().sum() > 0


def test_the_non_saturating_gradient_does_not_vanish_when_the_discriminator_wins():
    lost = torch.tensor([-20.0], requires_grad=True)
    (strong,) = torch.autograd.grad(NonSaturating().generator(lost), lost)
    (weak,) = torch.autograd.grad(Minimax().generator(lost), lost)
    assert strong.item() == pytest.approx(-1, abs=1e-6)
    assert abs(weak.item()) < 1e-6
