"""What is said at the end of a training."""

import contextlib
import shlex
import signal
import sys
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from callbacks.runs.secrets import masked
from callbacks.samples import Samples


@rank_zero_only
def say(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(line, flush=True)


@rank_zero_only
def summarise(trainer: Trainer, folder: Path) -> None:
    """Where the results are."""
    if trainer.fast_dev_run:
        return
    say(f"run folder       {folder}")
    for name in ("best", "last"):
        path = folder / "checkpoints" / f"{name}.ckpt"
        if path.exists():
            say(f"{name} checkpoint  {path}")
    samples = next((c for c in trainer.callbacks if isinstance(c, Samples)), None)
    if samples and samples.latest:
        say(f"sample picture   {samples.latest}")
    if offline := sorted((folder / "wandb").glob("offline-run-*")):
        say(f"to upload        wandb sync {' '.join(map(str, offline))}")


def stop(trainer: Trainer, folder: Path, typed: list[str], number: int, validated: bool) -> None:
    """Say how to go on, and leave; SIGTERM, which asked for no more, has got what it wanted and is no failure."""
    last = folder / "checkpoints" / "last.ckpt"
    words = [w for i, w in enumerate(typed) if "--ckpt_path" not in (w.partition("=")[0], *typed[i - 1 : i])]
    when = f"after step {trainer.global_step:,}" + ("" if validated else ", which is not validated")
    kept = last.exists()  # not with --trainer.enable_checkpointing=false
    say(f"stopped by {signal.Signals(number).name} {when}{'; to go on:' if kept else ''}")
    if kept:
        say(shlex.join(["python", sys.argv[0], *masked(words), f"--ckpt_path={last}"]))
    by_scheduler = number not in (signal.SIGINT, signal.SIGHUP)
    sys.exit(0 if by_scheduler or not trainer.is_global_zero else 128 + number)
