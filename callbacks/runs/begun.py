"""What a run that is gone on with, or evaluated, has said of itself."""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.command_line.classes import CLASSES, LINKED, PARTS, paths_of
from callbacks.command_line.config_files import options_in
from callbacks.runs.find import config_of, find_checkpoint, read_config
from callbacks.runs.outcome import say
from callbacks.runs.record import changes
from callbacks.runs.settings import allowed_settings


def with_settings_of_run(subcommand: str, typed: list[str], model_in: Callable[[Path], dict[str, Any]]) -> list[str]:
    """Put the settings that lie with a checkpoint in front, where the command line names no configuration.

    They are read as data: see ``allowed_settings``. Images can be drawn, and with --data scored, from the file alone.

    Args:
        subcommand: What is done.
        typed: The words after it.
        model_in: What gives the model of a checkpoint as configuration files do.
    """
    options = defaultdict(str, options_in(typed))
    if {"--help", "-h"} & options.keys():
        return typed
    named = options["--config"] or options["-c"] or (subcommand == "fit" and options["--model"] and options["--data"])
    if named or not options["--ckpt_path"]:
        return typed
    checkpoint = find_checkpoint(options["--ckpt_path"], options["--run_dir"])
    assert checkpoint is not None
    path = config_of(checkpoint)
    if subcommand == "fit":
        given = f" (that of its run is {path})" if path else ""
        raise MisconfigurationException(f"training goes on with settings that you name: give --config=FILE{given}")
    settings = {} if path is None else allowed_settings(path, CLASSES, PARTS)
    model = model_in(checkpoint)
    for key, value in settings.get("model", {}).get("init_args", {}).items():
        if value is None:  # and was found out when the model was made
            settings["model"]["init_args"][key] = model["init_args"].get(key)
    if path is None or subcommand == "predict":  # for which a checkpoint knows enough of its data
        known = {key: model["init_args"].pop(key) for key in LINKED["model"] if key in model["init_args"]}
        settings |= {} if path else {"model": model}
        if subcommand == "predict":
            given = settings.get("data", {}).get("init_args", {})
            known |= {key: given[key] for key in ("background",) if key in given}
            settings["data"] = {"class_path": "datamodules.images.known.Known", "init_args": known}
        elif not options["--data"]:
            raise MisconfigurationException(
                f"--ckpt_path={checkpoint} lies apart from its run, whose config.yaml names the data: give --data, "
                "such as --data=MNIST, or --config"
            )
    return [f"--config={json.dumps(settings, ensure_ascii=False)}", *typed, f"--ckpt_path={checkpoint}"]


def compare(path: Path, now: dict[str, Any], folder: Path, resumed: bool) -> None:
    """Say what is other than in the configuration that lies with a checkpoint.

    Args:
        path: The configuration.
        now: What ``record`` gives of the present one.
        folder: The run's folder.
        resumed: Whether the run goes on in it.

    Raises:
        MisconfigurationException: It would, with another model or other data.
    """
    before = read_config(path)
    for key in ("model", "data") if resumed else ():
        was, now_is = (str((config.get(key) or {}).get("class_path") or "") for config in (before, now))
        was, now_is = (paths_of(CLASSES[key][name])[-1] if name in CLASSES[key] else name for name in (was, now_is))
        if was and was != now_is:
            raise MisconfigurationException(
                f"{folder} is a run of --{key}={was}, and not of {now_is}: give the settings of the run, or name a "
                "new folder with --run_dir to begin another one from its checkpoint"
            )
    if changed := changes(before, now):
        say(f"other than before  {changed}")


def direction_of(checkpoint: Path, content: dict[str, Any]) -> str | None:
    """From which of its data's domains to which a model was trained to translate, if anything says so."""
    states = list(content.values())
    path = config_of(checkpoint)  # of runs whose checkpoints do not say it
    data = {} if path is None else read_config(path).get("data")
    states.append(data.get("init_args") if isinstance(data, dict) else None)
    found = (state.get("direction") for state in states if isinstance(state, dict))
    return next((direction for direction in found if direction in ("AtoB", "BtoA")), None)
