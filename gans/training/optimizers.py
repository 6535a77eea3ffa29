"""The optimizer that nearly every GAN paper uses, and the schedule of those that translate images."""

from collections.abc import Iterable
from typing import Annotated

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
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
        lr: Annotated[float, "[0, inf)"] = 2e-4,
        beta1: Annotated[float, "[0, 1)"] = 0.5,
        beta2: Annotated[float, "[0, 1)"] = 0.999,
        weight_decay: Annotated[float, "[0, inf)"] = 0.0,
    ) -> None:
        # The fused kernel computes the same update in one pass over the weights.
        super().__init__(params, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay, fused=True)


class LinearDecay(torch.optim.lr_scheduler.LambdaLR):
    """The learning rate stays as it is, and then falls linearly to 0 (CycleGAN, pix2pix and StarGAN).

    Args:
        optimizer: Optimizer of the network.
        constant_steps: Generator updates with the full rate.
        decay_steps: Generator updates after these in which it falls to 0, where it stays.

    Raises:
        MisconfigurationException: There are no steps to fall in.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        constant_steps: Annotated[int, "[0, inf)"],
        decay_steps: Annotated[int, "[1, inf)"],
    ) -> None:
        if constant_steps < 0 or decay_steps < 1:
            raise MisconfigurationException(
                "constant_steps of LinearDecay must be 0 or more, and decay_steps at least 1; "
                f"got {constant_steps} and {decay_steps}"
            )
        self.constant_steps, self.decay_steps = constant_steps, decay_steps  # in the state, where a change can be seen
        super().__init__(optimizer, lambda step: max(0.0, 1 - max(0, step - constant_steps) / decay_steps))
