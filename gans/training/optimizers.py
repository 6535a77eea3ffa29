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
        constant_share: Share of the training with the full rate, where no steps are given; it falls in the rest, and
            follows whichever limit ends the training first: steps, epochs, images or time.

    Raises:
        MisconfigurationException: There are no steps, or nothing of the training, to fall in.
    """

    share = 0.0
    """Share of the training that is done; whoever steps the schedule says it."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        constant_steps: Annotated[int, "[0, inf)"] | None = None,
        decay_steps: Annotated[int, "[1, inf)"] | None = None,
        constant_share: Annotated[float, "[0, 1)"] = 0.5,
    ) -> None:
        if not 0 <= constant_share < 1:
            raise MisconfigurationException(
                f"constant_share of LinearDecay must be at least 0 and less than 1; got {constant_share}"
            )
        if (constant_steps is None) != (decay_steps is None):
            raise MisconfigurationException("LinearDecay needs both of constant_steps and decay_steps, or none of them")
        if constant_steps is not None and decay_steps is not None and (constant_steps < 0 or decay_steps < 1):
            raise MisconfigurationException(
                "constant_steps of LinearDecay must be 0 or more, and decay_steps at least 1; "
                f"got {constant_steps} and {decay_steps}"
            )
        if constant_steps is None:  # in the state, where a change can be seen
            self.constant_share = constant_share
        else:
            self.constant_steps, self.decay_steps = constant_steps, decay_steps

        def factor(step: int) -> float:
            if constant_steps is None or decay_steps is None:
                return min(1.0, (1 - self.share) / (1 - constant_share))
            return max(0.0, 1 - max(0, step - constant_steps) / decay_steps)

        super().__init__(optimizer, factor)

    @property
    def in_shares(self) -> bool:
        return not hasattr(self, "constant_steps")

    def go_on_at(self, share: float) -> None:
        """Let a training that was interrupted go on with the rate of where it is."""
        self.share = share
        for group, rate, factor in zip(self.optimizer.param_groups, self.base_lrs, self.lr_lambdas, strict=True):
            group["lr"] = rate * factor(self.last_epoch)
