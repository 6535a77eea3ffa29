"""What a run costs: parameters, multiply-adds of an update, memory."""

import json
import sys
from contextlib import nullcontext
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.flop_counter import FlopCounterMode

from callbacks.pictures.images import folder_of
from callbacks.runs.files import unwritten, whole

FILE = "compute.json"


class Compute(Callback):
    """Write ``compute.json``: parameters, multiply-adds an image of an update, peak memory.

    Multiply-adds are those of PyTorch's FlopCounterMode, halved: of matrix products, convolutions and attention, in the
    forward and backward passes that an update needs, those through frozen networks included. Compiled networks are not
    counted. Memory is the accelerator's or, on a CPU, the process's.
    """

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        players = getattr(pl_module, "players", ())
        if trainer.fast_dev_run or not players or (folder_of(trainer) / FILE).exists():
            return
        for name in players:
            weights = getattr(pl_module, name).parameters()
            self.found[f"parameters of the {name}"] = float(sum(weight.numel() for weight in weights))
        if not getattr(pl_module, "compiles", False):
            self._count(pl_module)

    def _count(self, module: Any) -> None:
        """Count the first update of each network, from around the module's own method."""
        update, left = module.update, {player for players in module.updates.values() for player in players}

        def counted(players: tuple[str, ...], loss_of: Any, batches: list[Any], *args: Any, **kwargs: Any) -> Any:
            if not left & set(players):
                return update(players, loss_of, batches, *args, **kwargs)
            counter = FlopCounterMode(display=False)
            counter.mod_tracker = _AsOne()  # type: ignore[assignment]  # whose hooks fail when a penalty differentiates
            with counter:
                logs = update(players, loss_of, batches, *args, **kwargs)
            images = sum(len(module.real(batch)) for batch in batches)
            for player in players:
                self.found[f"multiply-adds an image of an update of the {player}"] = (
                    counter.get_total_flops() / 2 / images
                )
            left.difference_update(players)
            if not left:
                del module.update  # its class's own again
            return logs

        module.update = counted

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.__dict__.pop("update", None)
        if not self.found or trainer.fast_dev_run or not trainer.is_global_zero:
            return
        self.found["peak memory, MiB"] = peak()
        path = folder_of(trainer) / FILE
        try:
            with whole(path) as partial:
                partial.write_text(json.dumps(self.found, indent=1))
        except OSError as error:
            unwritten(FILE, path, error)


class _AsOne(nullcontext[None]):
    """In the place of PyTorch's ModuleTracker, which tells modules apart: all that is counted is of one."""

    parents = frozenset({"Global"})


def peak() -> float:
    """MiB that the accelerator's tensors, or on a CPU the process, have taken at most; 0 where nobody knows."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 2**10
