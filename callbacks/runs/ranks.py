"""What several processes have to agree on, so that none goes another way and leaves the others waiting."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.runs.files import Unwritten


def gathered(trainer: Trainer, value: Any) -> list[Any]:
    """A plain value of each rank, in order, on every rank."""
    values: list[Any] = [value]
    if trainer.world_size > 1:
        values = [None] * trainer.world_size
        torch.distributed.all_gather_object(values, value)
    return values


@contextmanager
def agreed(trainer: Trainer) -> Iterator[None]:
    """What is wrong inside on one rank is raised on all of them; none goes on before all are done.

    Raises:
        MisconfigurationException: Whatever one of this kind says on the first rank that has any.
    """
    error = ""
    try:
        yield
    except MisconfigurationException as exception:
        if trainer.world_size == 1:
            raise
        error = str(exception)
    if said := next(filter(None, gathered(trainer, error)), None):
        raise MisconfigurationException(said)


@contextmanager
def together(trainer: Trainer) -> Iterator[None]:
    """``agreed`` around the writing of a checkpoint, which the first rank does while the others wait for it."""
    with agreed(trainer):
        try:
            yield
        except Unwritten:
            trainer.strategy.barrier()  # at which the others are
            raise
