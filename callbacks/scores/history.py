"""The scores of a run: in its file, its loggers and on the console."""

import json
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.pictures.images import folder_of
from callbacks.runs.files import unwritten, whole
from callbacks.runs.metrics_file import MetricsFile

Mode = Literal["min", "max"]


LARGER = ("quality/psnr", "quality/ssim", "quality/ms_ssim", "score/inception_score", "score/classifier_score",
          "score/coverage", "score/class_accuracy")  # fmt: skip


def mode_of(name: str) -> Mode:
    """Whether a score's smallest or largest value is the best, by its name: of files that do not say it."""
    return "max" if name.startswith(LARGER) else "min"


def keep_best(trainer: Trainer, directions: dict[str, Mode]) -> None:
    """Let the loggers that summarise a run keep the best value of the first of some scores; say if there is none."""
    name, mode = next(iter(directions.items()))
    if not trainer.enable_validation:
        why = "--trainer.limit_val_batches is 0" if trainer.limit_val_batches == 0 else "there are no images for it"
        rank_zero_warn(f"nothing is scored, and no best checkpoint chosen, since there is no validation: {why}")
    for logger in trainer.loggers if trainer.is_global_zero else ():
        if isinstance(logger, WandbLogger):
            logger.experiment.define_metric(name, step_metric="trainer/global_step", summary=mode)


def publish(
    trainer: Trainer,
    module: LightningModule,
    file: str,
    entry: dict[str, Any],
    directions: dict[str, Mode],
    counts: dict[str, float],
) -> None:
    """Give a moment's scores to Lightning, the console, a file in the run folder and the loggers; on every rank.

    ``trainer.validate`` and ``trainer.test`` return them, with the counts and the step.

    Args:
        trainer: The trainer.
        module: The module, in a hook that may log.
        file: Name of the file.
        entry: The "step", the "scores" by name (equal on all ranks) and the "protocol", all they depend on.
        directions: The scores that there can be; the first chooses the best moment, or that of the best checkpoint.
        counts: What the loggers get beside the scores.
    """
    step, scores = entry["step"], entry["scores"]
    chosen = (getattr(checkpoint, "monitor", None) for checkpoint in trainer.checkpoint_callbacks)
    monitor = next((name for name in chosen if name in directions), next(iter(directions)))
    fitting = trainer.state.fn == TrainerFn.FITTING
    # Lightning returns what it sends to the loggers itself, which it does at the step among them.
    logged = scores if fitting else {"step": float(step)} | scores | counts
    module.log_dict(logged, logger=not fitting, sync_dist=trainer.world_size > 1)
    if trainer.is_global_zero:
        if not trainer.fast_dev_run:
            record(folder_of(trainer) / file, entry, monitor, directions[monitor])
        line = "  ".join(f"{name} {value:.5g}" for name, value in scores.items())
        show = trainer.progress_bar_callback.print if trainer.progress_bar_callback else print
        show(f"step {step:,}  {line}")
    protocol = {f"{monitor.partition('/')[0]}_protocol": entry["protocol"]}
    for logger in trainer.loggers:
        if fitting:
            logger.log_metrics(scores | counts | {"time/images": float(getattr(module, "images_seen", 0))}, step=step)
        elif isinstance(logger, MetricsFile):
            logger.cut(logger.rows)  # nothing is written again
        if trainer.is_global_zero and isinstance(logger, WandbLogger):
            logger.experiment.config.update(protocol, allow_val_change=True)


def record(path: Path, entry: dict[str, Any], monitor: str, mode: Mode | None = None) -> None:
    """Add a moment's scores to a run's file of them, in order of steps; they replace those of the same step.

    Args:
        path: The file, which holds the "history", the "best" moment by the "monitor" and the "final" one.
        entry: The "step", the "scores" by name, and what they depend on.
        monitor: Name of the score that chooses the best.
        mode: Whether its smallest or largest value is the best; by default its name tells.
    """
    try:
        history = [old for old in _read(path)[0] if old["step"] != entry["step"]]
        _write(path, sorted([*history, entry], key=lambda e: e["step"]), monitor, mode or mode_of(monitor))
    except OSError as error:
        unwritten(path.name, path, error)


def keep_until(path: Path, step: int, inclusive: bool) -> None:
    """Cut a run's file of scores, if there is one, back to a step that training goes on from.

    The scores of the step itself stay if ``inclusive``; a file of which nothing is left is removed.
    """
    try:
        history, monitor, mode = _read(path)
        kept = [entry for entry in history if entry["step"] < step + inclusive]
        if not kept:
            path.unlink(missing_ok=True)
        elif kept != history:
            _write(path, kept, monitor, mode)
    except OSError as error:
        unwritten(path.name, path, error)


def history_in(path: Path) -> tuple[list[dict[str, Any]], str, Mode] | None:
    """The history in a file of scores, the name of the monitor and its mode; None where it is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
        history = content["history"]
        right = isinstance(history, list) and all(
            type(entry["step"]) is int
            and all(isinstance(value, int | float | None) for value in entry["scores"].values())
            for entry in history
        )
        # Files of earlier versions do not name it, but it was always the first; some do not know its mode.
        monitor = content.get("monitor") or next((name for entry in history[-1:] for name in entry["scores"]), "")
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return (history, monitor, content.get("mode") or mode_of(monitor)) if right else None


def _read(path: Path) -> tuple[list[dict[str, Any]], str, Mode]:
    """The same for a file that is to be written again: a damaged one is put aside."""
    if (found := history_in(path)) is not None:
        return found
    if path.exists():
        damaged = path.with_name(f"{path.name}.damaged")
        path.replace(damaged)
        rank_zero_warn(f"{path} is damaged: it is kept as {damaged.name}, and a new one begun")
    return [], "", "min"


def _write(path: Path, history: list[dict[str, Any]], monitor: str, mode: Mode) -> None:
    def value(entry: dict[str, Any]) -> Any:
        return entry["scores"].get(monitor)

    # Entries that were scored in other features have no such value.
    finite = [e for e in history if isinstance(value(e), int | float) and value(e) == value(e)]
    best = (max if mode == "max" else min)(finite, key=value, default=None)
    content = {"monitor": monitor, "mode": mode, "best": best, "final": history[-1], "history": history}
    with whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2))
