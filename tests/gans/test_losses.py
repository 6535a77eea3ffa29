"""Each adversarial loss against its formula, written out in float64."""

import pytest
import torch
from torch import sigmoid

from gans.losses import Minimax, NonSaturating


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
