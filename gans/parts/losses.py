"""Adversarial losses as small objects: what the discriminator minimises and what the generator minimises.

Both methods take raw discriminator outputs of real and generated images, (N,) or whatever shape the discriminator has,
and return a scalar. ``softplus(-x)`` is ``-log(sigmoid(x))`` and ``softplus(x)`` is ``-log(1 - sigmoid(x))``, without
overflow.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn.functional import softplus


class AdversarialLoss(ABC):
    """What every adversarial loss provides; any of them works with any discriminator whose output fits."""

    outcomes: int = 1
    """Numbers the discriminator gives for an image (or patch)."""

    compares: bool = False
    """Whether the generator's loss looks at the discriminator's outputs for real images too."""

    critic_may_win: bool = False
    """Whether the generator learns well from a discriminator that makes no mistake, so that this is no bad sign."""

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of the discriminator, from its outputs for real and generated images."""

    @abstractmethod
    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Loss of the generator, from the discriminator's outputs for generated images (and real ones)."""

    def realness(self, outputs: Tensor) -> Tensor:
        """How real the discriminator finds each image, (N,): its output, or the mean over patches; larger is more."""
        return outputs.flatten(1).mean(1) if outputs.ndim > 1 else outputs


class NonSaturating(AdversarialLoss):
    """The loss GANs are trained with in practice (Goodfellow et al. 1406.2661, section 3, last paragraph).

    D minimises ``-log D(x) - log(1 - D(G(z)))``; G minimises ``-log D(G(z))``, whose gradient does not vanish while
    the discriminator still wins.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + softplus(fake).mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return softplus(-fake).mean()


class Minimax(NonSaturating):
    """The original two-player game (1406.2661, equation 1): G minimises ``log(1 - D(G(z)))``."""

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -softplus(fake).mean()


class LeastSquares(AdversarialLoss):
    """Least squares on raw outputs (Mao et al. 1611.04076, equation 2), halves included.

    D minimises ``(D(x) - b)^2 / 2 + (D(G(z)) - a)^2 / 2`` and G minimises ``(D(G(z)) - c)^2 / 2``. The defaults are the
    paper's 0-1 coding (equation 9); ``a=-1, b=1, c=0`` minimises the Pearson chi-squared divergence (equation 8).

    Args:
        a: What D should say of generated images.
        b: What D should say of real images.
        c: What G wants D to say of generated images.
    """

    def __init__(self, a: float = 0.0, b: float = 1.0, c: float = 1.0) -> None:
        self.a, self.b, self.c = a, b, c

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return ((real - self.b).square().mean() + (fake - self.a).square().mean()) / 2

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return (fake - self.c).square().mean() / 2


class Wasserstein(AdversarialLoss):
    """The critic's difference of means, an estimate of the earth mover's distance (Arjovsky et al. 1701.07875, eq. 3).

    The critic must be Lipschitz: clip its weights or penalise its gradient.
    """

    critic_may_win = True  # the better the critic, the better its gradient (section 3)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -fake.mean()


class Hinge(AdversarialLoss):
    """The hinge version (Lim and Ye 1705.02894; Zhang et al. 1805.08318, equation 4)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return (1 - real).relu().mean() + (1 + fake).relu().mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -fake.mean()


class RelativisticAverage(AdversarialLoss):
    """Real images should look more real than generated ones do on average, and the other way round for G.

    The relativistic average GAN (Jolicoeur-Martineau 1807.00734, section 4.2, with the standard GAN's sigmoid).
    """

    compares = True

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake.mean() - real).mean() + softplus(fake - real.mean()).mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        assert real is not None
        return softplus(real.mean() - fake).mean() + softplus(real - fake.mean()).mean()


class RelativisticPairs(AdversarialLoss):
    """Every real image should look more real than the generated one that it is paired with, and the other way for G.

    The relativistic pairing GAN (Jolicoeur-Martineau 1807.00734, section 4.1; R3GAN 2501.05441, equation 2 with f(t) =
    -log(1 + exp(-t))): D minimises ``softplus(D(G(z)) - D(x))`` and G ``softplus(D(x) - D(G(z)))``.
    """

    compares = True

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real).mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        assert real is not None
        return softplus(real - fake).mean()


class Realness(AdversarialLoss):
    """The discriminator gives a distribution over outcomes, compared with one anchor for each kind of image.

    Xiangli et al. 2002.05512, equation 3: D minimises KL(A1 || D(x)) + KL(A0 || D(G(z))) for the real anchor A1 and the
    fake anchor A0. For G the paper has three objectives, of which all push D(G(z)) away from A0 (equation 4); "anchor"
    also pulls it to A1 and "relativistic", the default, to D(x), as the official code does. The anchors' own entropies,
    which have no gradient, are left out: these are cross-entropies.

    Anchors are histograms of 1,000 samples, A0 of a normal and A1 of a uniform distribution, and then shifted to the
    two ends of the support [-1, 1], which piles half of their mass on the last outcome there. The official code draws
    the samples once; here they are drawn anew every time.

    Args:
        outcomes: Numbers the discriminator gives for an image, as logits of the distribution.
        objective: The generator's: "relativistic", "anchor" or "basic".
    """

    compares = True

    def __init__(
        self,
        outcomes: Annotated[int, "[2, inf)"] = 51,
        objective: Literal["relativistic", "anchor", "basic"] = "relativistic",
    ) -> None:
        if outcomes < 2:
            raise MisconfigurationException(f"--model.loss.outcomes must be at least 2; got {outcomes}")
        self.outcomes = outcomes
        self.objective = objective

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return _cross_entropy(self.real_anchor(real), real) + _cross_entropy(self.fake_anchor(fake), fake)

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        away = -_cross_entropy(self.fake_anchor(fake), fake)
        if self.objective == "basic":
            return away
        if self.objective == "anchor":
            return away + _cross_entropy(self.real_anchor(fake), fake)
        assert real is not None
        return away + _cross_entropy(real.softmax(1), fake)

    def realness(self, outputs: Tensor) -> Tensor:
        """The expected outcome, (N,), on the support [-1, 1]."""
        support = torch.linspace(-1, 1, self.outcomes, device=outputs.device, dtype=outputs.dtype)
        return outputs.softmax(1) @ support

    def real_anchor(self, like: Tensor) -> Tensor:
        """A1, (outcomes,): flat, shifted to the upper end."""
        return _shifted(_histogram(torch.rand(1000, device=like.device, dtype=like.dtype), self.outcomes), 1.0)

    def fake_anchor(self, like: Tensor) -> Tensor:
        """A0, (outcomes,): a bell, shifted to the lower end."""
        return _shifted(_histogram(torch.randn(1000, device=like.device, dtype=like.dtype), self.outcomes), -1.0)


def _cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    return -(target * logits.log_softmax(1)).sum(1).mean()


def _histogram(samples: Tensor, bins: int) -> Tensor:
    """Shares of the samples in equal bins from the smallest to the largest."""
    low, high = samples.aminmax()
    index = ((samples - low) / (high - low) * bins).long().clamp(max=bins - 1)
    return torch.zeros(bins, device=samples.device, dtype=samples.dtype).scatter_add(
        0, index, torch.full_like(samples, 1 / len(samples))
    )


def _shifted(shares: Tensor, shift: float) -> Tensor:
    """Move a distribution along its support [-1, 1]; what would leave it stays at the end.

    Mass between two outcomes is divided between them (Bellemare et al. 1707.06887, equation 7).
    """
    n = len(shares)
    support = torch.linspace(-1, 1, n, device=shares.device, dtype=shares.dtype)
    position = ((support + shift).clamp(-1, 1) + 1) * (n - 1) / 2
    lower = position.floor().clamp(max=n - 2)
    upper_part = position - lower
    index = lower.long()
    moved = torch.zeros_like(shares).scatter_add(0, index, shares * (1 - upper_part))
    return moved.scatter_add(0, index + 1, shares * upper_part)
