"""Signals: the first one stops a training between two batches, with its whole state kept; the second one at once."""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
TOGETHER = 3  # seconds in which terminals and schedulers send signals of several kinds that mean one thing


class Stopped(BaseException):
    """A signal came where there is nothing to be kept.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals(Callback):
    """Ctrl-C, SIGTERM and SIGHUP, from the start of the program to its end.

    In training the first signal, to whichever of the ranks, stops all ranks between two batches by Lightning's
    SIGTERMException, upon which LastCheckpoint writes the whole state. A validation in the middle of a training is left
    on one device (a resumed run makes it up) and waited for on several. A second signal ends the process at once, but
    while the state is being written it takes a third; signals of different kinds within three seconds count as one.
    Anywhere else a signal raises Stopped at once, except while the end of a training is written, which is waited for.
    Signals that are ignored, as under nohup, stay ignored. In a SLURM job SIGUSR1, its warning, is such a signal too.

    Attributes:
        received: The signal that stopped training, if any.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._when = 0.0
        self._training = False  # and so waits for the end of a batch
        self._leaving = False  # and so writes the state
        self._kill: Callable[[int], Any] | None = None  # other ranks that this process has started

    def install(self) -> None:
        """Handle signals from now on, as far as nobody wants them ignored."""
        for number in (*SIGNALS, signal.SIGUSR1) if "SLURM_JOB_ID" in os.environ else SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def stop_others(self) -> None:
        """End the other ranks that this process has started."""
        if self._kill is not None:
            self._kill(signal.SIGKILL)

    def _handle(self, number: int, frame: Any) -> None:
        if hasattr(signal, "SIGHUP") and number == signal.SIGHUP:
            _without_terminal()
        if not self._training:
            raise Stopped(number)
        if self.received is None:
            self.received, self._when = number, time.monotonic()
            return
        if number != self.received and time.monotonic() - self._when < TOGETHER:
            return
        if self._leaving:
            self._leaving = False
            return
        self.stop_others()
        os.write(2, f"\nstopped at once by {signal.Signals(number).name}\n".encode())
        os._exit(128 + number)

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._kill = getattr(trainer.strategy.launcher, "kill", None)
        connector = trainer._signal_connector

        def register() -> None:
            connector.received_sigterm = False
            connector._original_handlers = connector._get_current_signal_handlers()
            self.install()

        # Lightning's own handlers talk to the other ranks, or write a checkpoint with them, in the middle of whatever
        # these do together, and then all wait for ever.
        connector.register_signal_handlers = register  # type: ignore[method-assign]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training = True
        if trainer.world_size > 1:
            # Lightning asks rank 0 alone before every batch, and leaves a signal to another rank unnoticed.
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: self._agree(trainer)  # type: ignore[method-assign]

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.received is not None and trainer.world_size == 1:
            trainer._signal_connector.received_sigterm = True  # whatever it was, Lightning knows no other
            trainer.val_check_batch = sys.maxsize  # a validation that is due now is made up later

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.received is not None and trainer.world_size == 1 and trainer.state.fn == "fit":
            raise SIGTERMException

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._leaving = isinstance(exception, SIGTERMException)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._training = False

    def _agree(self, trainer: Trainer) -> None:
        """Stop all ranks before the same batch if one of them has got a signal."""
        number = torch.tensor([self.received or 0], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
        if received := int(number):
            self.received = self.received or received
            raise SIGTERMException


def _without_terminal() -> None:
    """The terminal is gone: what is printed from now on goes nowhere, instead of ending the program."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if os.isatty(stream):
            os.dup2(nowhere, stream)
    os.close(nowhere)
