"""A run tried out in a process of its own before a study begins: whether its settings are right, how long it takes."""

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.budget import Budget

Limits = tuple[float, float, float]  # of a run, in steps, images and minutes, or seconds of each
LONG = 60.0  # seconds that a trial of the pace may take
STEPS = 3, 30  # steps that are not timed, and how many are at most
SECONDS = 5.0  # and for how long
QUIET = (
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--score.num_images=0",
    "--samples.every_n_steps=0",
    "--views.every_n_steps=0",
    "--health.every_n_steps=0",
)


class Pace(Callback):
    """Time some steps, write down how many seconds a step, an image and a minute take by that, and end.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._marks: list[tuple[int, float, int]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        seen = getattr(pl_module, "images_seen", 0)
        self._marks.append((trainer.global_step, time.monotonic(), seen))
        timed = [mark for mark in self._marks if mark[0] >= STEPS[0]]
        last_step = timed and timed[-1][0] == trainer.max_steps
        if len(timed) < 2 or not (timed[-1][0] >= sum(STEPS) or timed[-1][1] - timed[0][1] >= SECONDS or last_step):
            return
        (first, began, images), (last, ended, more) = timed[0], timed[-1]
        step, image = (ended - began) / max(1, last - first), (ended - began) / max(1, more - images)
        self.path.write_text(json.dumps([step, image, 60.0]))
        trainer.should_stop = True


def limits_of(trainer: Trainer) -> Limits:
    """After how many steps, images and minutes a run ends; those that are not set are infinite.

    Raises:
        MisconfigurationException: It has no end.
    """
    budget = next((c for c in trainer.callbacks if isinstance(c, Budget)), Budget())
    steps, images, minutes = (many if many > 0 else inf for many in (trainer.max_steps, budget.images, budget.minutes))
    timed = any(isinstance(callback, Timer | EarlyStopping) for callback in trainer.callbacks)
    if min(steps, images, minutes) == inf and not timed and trainer.max_epochs in (None, -1):
        raise MisconfigurationException("it has no end: give trainer.max_steps, budget.images or budget.minutes")
    return steps, images, minutes


def attempt(
    run: Callable[[list[str]], Any], words: list[str], metric: str = "", goal: str = "", seconds: float | None = None
) -> str | Limits:
    """What a run says is wrong, in a process of its own; if nothing is, after what it ends, see ``limits_of``.

    Args:
        run: What the process does with the words; it gives what has a trainer.
        words: Of a command line.
        metric: A score that the run must take.
        goal: "minimize" or "maximize", as must be right for it.
        seconds: After which it is ended; by default never.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else None)  # which has all imports done
    with tempfile.TemporaryDirectory() as folder:
        said, limits = Path(folder, "said"), Path(folder, "limits")
        process = context.Process(target=_quietly, args=(run, words, metric, goal, said, limits))
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
        lines = said.read_text(errors="replace").splitlines() if said.exists() else []
        if process.exitcode == 0:
            steps, images, minutes = json.loads(limits.read_text())
            return steps, images, minutes
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return (errors or lines or [f"it ended with exit code {process.exitcode}"])[-1][:300]


def _quietly(
    run: Callable[[list[str]], Any], words: list[str], metric: str, goal: str, said: Path, limits: Path
) -> None:
    file = os.open(said, os.O_RDWR | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    trainer = run(words).trainer
    try:
        limits.write_text(json.dumps(limits_of(trainer)))
        scores = {k: v for callback in trainer.callbacks for k, v in getattr(callback, "directions", {}).items()}
        if metric and metric not in scores:
            raise MisconfigurationException(f"{metric} is none of its scores, which are {', '.join(scores) or 'none'}")
        if goal and not goal.startswith(scores.get(metric, goal)):
            raise MisconfigurationException(f"metric.goal of {metric} must be {scores[metric]}imize; got {goal}")
    except MisconfigurationException as error:
        sys.exit(f"error: {error}")


def pace(run: Callable[[list[str]], Any], words: list[str]) -> Limits | None:
    """Seconds of a run's step, image and minute, without what it scores; None where that is not to be known."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "pace.json")
        more = ["--trainer.callbacks+=callbacks.studies.trial.Pace", f"--trainer.callbacks.path={found}"]
        attempt(run, [*words, *QUIET, f"--run_dir={folder}/run", *more], seconds=LONG)
        if not found.exists():
            return None
        step, image, minute = json.loads(found.read_text())
        return step, image, minute
