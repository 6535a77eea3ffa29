"""Adversarial losses as small objects: what the discriminator minimises and what the generator minimises.

Both methods take raw discriminator outputs (logits, any shape) of real and generated images and return a scalar.
``softplus(-x)`` is ``-log(sigmoid(x))`` and ``softplus(x)`` is ``-log(1 - sigmoid(x))``, without overflow.
"""

from abc import ABC, abstractmethod

from torch import Tensor
from torch.nn.functional import softplus


class AdversarialLoss(ABC):
    """What every adversarial loss provides; any of them works with any discriminator whose output fits."""

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of the discriminator, from its outputs for real and generated images."""

    @abstractmethod
    def generator(self, fake: Tensor) -> Tensor:
        """Loss of the generator, from the discriminator's outputs for generated images."""


class NonSaturating(AdversarialLoss):
    """The loss GANs are trained with in practice (Goodfellow et al. 1406.2661, section 3, last paragraph).

    D minimises ``-log D(x) - log(1 - D(G(z)))``; G minimises ``-log D(G(z))``, whose gradient does not vanish while
    the discriminator still wins.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return softplus(-fake).mean()


class Minimax(NonSaturating):
    """The original two-player game (1406.2661, equation 1): G minimises ``log(1 - D(G(z)))``."""

    def generator(self, fake: Tensor) -> Tensor:
        return -softplus(fake).mean()
