"""Data-parallel training that fits several networks in one module.

Lightning's DDP wraps the whole module and expects every parameter to take part in every backward pass. A GAN trains
one network at a time, so DDP either stops ("parameters that were not used in producing the loss") or, told to find
unused parameters, walks the graph at every backward. Here nothing is wrapped: the ranks start from the same weights,
and each optimizer's gradients are averaged in one all-reduce just before its step (as NVIDIA's StyleGAN code does).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy, StrategyRegistry
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim import Optimizer


class DataParallel(DDPStrategy):
    """``strategy="ddp"`` for modules with several networks; importing ``gans`` puts it in the place of Lightning's."""

    def configure_ddp(self) -> None:
        """Give every rank the weights and buffers of rank 0; wrap nothing."""
        for tensor in self.lightning_module.state_dict().values():
            torch.distributed.broadcast(tensor, src=0)

    def optimizer_step(self, optimizer: Optimizer, closure: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        """Average the optimizer's gradients over the ranks, then unscale, clip and step as on one device."""

        def averaged() -> Any:
            result = closure()
            self._average(p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
            return result

        return super().optimizer_step(optimizer, averaged, *args, **kwargs)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The module's state with the running statistics of batch norm settled between the ranks."""
        self.average_buffers()
        return super().lightning_module_state_dict()

    def average_buffers(self) -> None:
        """Every rank's running statistics see only its own batches and drift apart: replace them by their mean."""
        self._average(b for b in self.lightning_module.buffers() if b.is_floating_point())

    def _average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their mean over the ranks: one all-reduce of one flat buffer for each data type."""
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_type.setdefault(tensor.dtype, []).append(tensor)
        for group in by_type.values():
            flat = torch.cat([t.reshape(-1) for t in group])
            torch.distributed.all_reduce(flat)
            flat /= self.world_size
            parts = flat.split([t.numel() for t in group])
            torch._foreach_copy_(group, [part.view(t.shape) for part, t in zip(parts, group, strict=True)])


def check_strategy(strategy: Strategy) -> None:
    """Find out before training whether a strategy can train several networks in one module.

    Raises:
        MisconfigurationException: It cannot, or its processes cannot be given the module.
    """
    if isinstance(strategy, DDPStrategy) and strategy._start_method == "spawn":
        raise MisconfigurationException(
            "--trainer.strategy=ddp_spawn must be ddp: optimizers and schedules that are made in each process cannot "
            "be sent to a new one"
        )
    if not isinstance(strategy, SingleDeviceStrategy | DataParallel):
        raise MisconfigurationException(
            f"--trainer.strategy={type(strategy).__name__} must be auto or ddp (gans.training.ranks.DataParallel): "
            "others wrap a module whose weights are all trained in every step"
        )


for _name, _start in {"ddp": "popen", "ddp_spawn": "spawn", "ddp_fork": "fork", "ddp_notebook": "fork"}.items():
    for _unused in ("", "_find_unused_parameters_true", "_find_unused_parameters_false"):  # here there are none
        StrategyRegistry.register(
            f"{_name}{_unused}", DataParallel, DataParallel.__doc__ or "", override=True, start_method=_start
        )
