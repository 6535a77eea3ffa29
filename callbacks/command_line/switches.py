"""The trainer's own settings: their ranges, those that this lab has others for, and those that do not go together."""

import inspect
import os
from collections.abc import Collection, Mapping
from typing import Annotated, Any

from lightning.pytorch import Trainer, callbacks
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.checkpoints import BestCheckpoint

RANGES: dict[str, Any] = {
    **dict.fromkeys(("num_nodes", "check_val_every_n_epoch"), Annotated[int, "[1, inf)"]),
    **dict.fromkeys(("max_steps", "max_epochs", "num_sanity_val_steps"), Annotated[int, "[-1, inf)"]),
    **dict.fromkeys(("min_steps", "min_epochs", "log_every_n_steps", "fast_dev_run"), Annotated[int, "[0, inf)"]),
    **dict.fromkeys(("limit_val_batches", "limit_test_batches", "overfit_batches"), Annotated[float, "[0, inf)"]),
    **dict.fromkeys(("limit_train_batches", "limit_predict_batches"), Annotated[float, "(0, inf)"]),
}
INSTEAD = {
    "gradient_clip_val": "set --model.gradient_clip_val, which clips the gradient of each network",
    "gradient_clip_algorithm": "--model.gradient_clip_val clips by the norm",
    "accumulate_grad_batches": "set --model.accumulate_grad_batches, which counts for each network",
    "default_root_dir": "set --run_dir, the folder of everything that a run writes",
    "barebones": "a run has a metrics file, checkpoints and pictures",
    "reload_dataloaders_every_n_epochs": "the images of a run stay the same",
    "model_registry": "there is none here",
}
OF_ONE_NETWORK = (
    *(callbacks.BatchSizeFinder, callbacks.LearningRateFinder, callbacks.GradientAccumulationScheduler),
    *(callbacks.StochasticWeightAveraging, callbacks.WeightAveraging, callbacks.ModelPruning),
)
MOST_DEVICES = 1000  # of a machine
DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(Trainer).parameters.items()}


def asked(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's plain settings that are other than Lightning's own."""
    plain = {key: value for key, value in trainer.items() if isinstance(value, bool | int | float | str | list)}
    return {key: value for key, value in plain.items() if value and value != DEFAULTS.get(key)}


def check_switches(trainer: Mapping[str, Any]) -> None:
    """Judge the trainer's settings before there is a trainer.

    Raises:
        MisconfigurationException: One is for another kind of training, or does not go with another one.
    """
    for key, value in asked(trainer).items():
        if key in INSTEAD:
            raise MisconfigurationException(f"--trainer.{key}={value} must be left out: {INSTEAD[key]}")
    if str(devices := trainer["devices"]).isdigit() and int(devices) > MOST_DEVICES:  # of which Lightning makes a list
        raise MisconfigurationException(f"--trainer.devices={devices} must be at most {MOST_DEVICES}")
    interval = trainer["val_check_interval"]
    if interval == 0:
        raise MisconfigurationException(
            "--trainer.val_check_interval=0 must be at least 1; --trainer.limit_val_batches=0 validates never"
        )
    if isinstance(interval, float) and trainer["check_val_every_n_epoch"] is None:
        raise MisconfigurationException(
            f"--trainer.val_check_interval={interval} must be a whole number of generator updates or a time such as "
            "00:01:00:00; a share of an epoch needs --trainer.check_val_every_n_epoch=1 beside it"
        )


def check_trainer(trainer: Trainer, scores: Collection[str]) -> None:
    """Judge what the trainer has made of its settings; its callbacks can go by these scores, and by losses.

    Raises:
        MisconfigurationException: It cannot train on these devices, or waits for a score that there is not.
    """
    for callback in trainer.callbacks:
        if isinstance(callback, OF_ONE_NETWORK):
            raise MisconfigurationException(
                f"--trainer.callbacks={type(callback).__name__} must be left out: it is for one network with one "
                "optimizer; --ema.half_life averages weights"
            )
        monitor = getattr(callback, "monitor", None)
        waits = isinstance(callback, Checkpoint | EarlyStopping) and monitor and not monitor.startswith("loss/")
        waits = waits and not isinstance(callback, BestCheckpoint)  # which judges its own
        if waits and monitor not in scores:
            raise MisconfigurationException(
                f"--trainer.callbacks.monitor={monitor} of {type(callback).__name__} must be a loss, such as "
                f"loss/generator, or {' or '.join(scores)}"
            )
    strategy, device, most = trainer.strategy, trainer.strategy.root_device.type, max(16, os.cpu_count() or 1)
    if device == "cpu" and trainer.num_devices > 1 and strategy._layer_sync is not None:
        raise MisconfigurationException("--trainer.sync_batchnorm=true must be left out: it needs GPUs")
    if device == "cpu" and trainer.num_devices > most:
        raise MisconfigurationException(
            f"--trainer.devices={trainer.num_devices} must be at most {most} processes on this machine's processor"
        )
    if device == "cuda" and getattr(strategy, "_start_method", None) == "fork":
        raise MisconfigurationException(
            "--trainer.strategy=ddp_fork must be ddp on GPUs, which a forked process cannot use any more"
        )
