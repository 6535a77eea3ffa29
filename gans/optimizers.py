"""The optimizer that nearly every GAN paper uses."""

from collections.abc import Iterable

import torch
from torch import nn


class Adam(torch.optim.Adam):
    """Adam (1412.6980) with DCGAN's settings as defaults and each beta by its own name, as GAN papers give them.

    Args:
        params: Parameters to train.
        lr: Learning rate.
        beta1: Decay of the first moment; GAN papers lower it from 0.9 to 0.5 or 0.
        beta2: Decay of the second moment.
        weight_decay: L2 penalty.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 2e-4,
        beta1: float = 0.5,
        beta2: float = 0.999,
        weight_decay: float = 0.0,
    ) -> None:
        # The fused kernel computes the same update in one pass over the weights.
        super().__init__(params, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay, fused=True)
