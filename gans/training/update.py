"""One update: some networks are trained on a loss, and all others frozen."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer

from gans.parts.precision import autocast_cache
from gans.training.players import Players

Loss = tuple[Tensor, dict[str, Tensor]]  # a scalar to minimise, and what to log beside it by name


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Inside, no gradient reaches the networks' weights; outside, their weights and buffers are as they were.

    Buffers change in forward passes (batch norm's running statistics, spectral norm's vectors), so they are put back.
    """
    weights = [p for network in networks for p in network.parameters() if p.requires_grad]
    buffers = [b for network in networks for b in network.buffers()]
    before = [b.clone() for b in buffers]
    for p in weights:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in weights:
            p.requires_grad_(True)
        if buffers:
            # By way of .data: to a graph that was made outside, the buffers have not changed.
            torch._foreach_copy_([b.data for b in buffers], before)


class Updates(Players):
    """What of a GANModule makes an update."""

    gradient_clip_val: float | None

    def after_update(self, players: tuple[str, ...], logs: dict[str, Tensor]) -> None:
        """Called after every update with those that it trained and what their loss logged, without gradients.

        What is kept in ``shared_state`` must come out the same on all ranks, as by ``mean_over_ranks``.
        """

    def update(
        self, players: tuple[str, ...], loss_of: Callable[[Any], Loss], batches: list[Any], counted: bool = False
    ) -> dict[str, Tensor]:
        """Train some players on the mean of a loss over batches; all others are frozen meanwhile.

        Args:
            players: Their names.
            loss_of: Gives the loss of a batch.
            batches: The batches.
            counted: Whether the trainer counts this update as a step.

        Returns:
            What the loss of the last batch logged, without gradients.
        """
        optimizers = dict(zip(self.players, self.trainer.optimizers, strict=True))
        with frozen(*(getattr(self, player) for player in self.players if player not in players)):
            logs = self._backward(loss_of, batches, [optimizers[player] for player in players])
            for player in players:
                if counted and player == players[-1]:
                    self.optimizer_of(player).step()
                else:  # around LightningOptimizer.step, which would count it in trainer.global_step
                    self.trainer.strategy.optimizer_step(optimizers[player], lambda: None)
        logs = {name: value.detach() for name, value in logs.items()}
        self.after_update(players, logs)
        return logs

    def _backward(
        self, loss_of: Callable[[Any], Loss], batches: list[Any], optimizers: list[Optimizer]
    ) -> dict[str, Tensor]:
        """Accumulate the mean gradient over the batches; return the logs of the last one."""
        logs: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            with autocast_cache():
                found = loss_of(batch)
            if not isinstance(found, tuple) or len(found) != 2:
                raise MisconfigurationException(
                    f"{type(self).__name__}.{loss_of.__name__} must return two things: the loss, and a dictionary of "
                    "what to log beside it"
                )
            loss, logs = found
            if number == 0:
                # Not before the forward pass: on a CPU the memory of large gradients would go back to the system, and
                # getting it again took a fifth of pix2pix's step.
                for optimizer in optimizers:
                    optimizer.zero_grad()
            # Outside autocast, or what a penalty differentiates twice would be rounded to half precision.
            with torch.autocast(self.device.type, enabled=False):
                self.manual_backward(loss / len(batches) if len(batches) > 1 else loss)
        return logs

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip; Lightning calls this after gradients were averaged over ranks and unscaled."""
        if self.gradient_clip_val is None:
            return
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)  # Lightning leaves this to fused optimizers, whose step comes after clipping
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(weights, self.gradient_clip_val)

    def mean_over_ranks(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all ranks, without gradients."""
        return self.trainer.strategy.reduce(value.detach().clone(), reduce_op="mean")
