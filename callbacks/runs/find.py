"""The way back to a run: from the words last and best, and from a checkpoint to its folder and settings."""

import json
import re
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.command_line.classes import CLASSES, LINKED, PARTS, paths_of
from callbacks.command_line.config_files import options_in, settings_in, text_of
from callbacks.runs.record import changes, say
from callbacks.runs.settings import allowed_settings

EVALUATIONS = ("validate", "test", "predict")
STAMP = re.compile(r"\d{8}-\d{6}")


def find_checkpoint(wanted: str | None, run_dir: str | None, name: str = "*", anew: bool = False) -> Path | None:
    """The file that --ckpt_path names: a path, or the last or best checkpoint of a run.

    That is the run in ``run_dir``, or else the newest in ``runs/NAME``. There is None of a run that may begin ``anew``.

    Raises:
        MisconfigurationException: There is no such file.
    """
    if wanted is None:
        return None
    if wanted not in ("last", "best"):
        if not Path(wanted).is_file():
            wrong = "is a folder" if Path(wanted).is_dir() else "does not exist"
            raise MisconfigurationException(f"--ckpt_path={wanted} {wrong}; give a .ckpt file, last or best")
        return Path(wanted)
    run = Path(run_dir) if run_dir else newest_run(name)
    if run is None:
        raise MisconfigurationException(
            f"--ckpt_path={wanted} finds no run in runs/{name}: name the run with --run_dir or give the file itself"
        )
    files = [run / "checkpoints" / f"{kind}.ckpt" for kind in (("last", "best") if wanted == "last" else ("best",))]
    found = next(filter(Path.is_file, files), None)  # the best one is whole, too: a run goes on from either
    if found is None and not (anew and run_dir and wanted == "last"):
        newest = "" if run_dir else ", the newest run"
        other = ", or leave --ckpt_path out to begin anew" if anew else ""
        raise MisconfigurationException(
            f"--ckpt_path={wanted} finds no checkpoints/{wanted}.ckpt in {run}{newest}: name another run with "
            f"--run_dir or give the file itself{other}"
        )
    return found


def newest_run(name: str = "*") -> Path | None:
    """The run in ``runs/NAME`` that was begun last, whether it has a checkpoint or not."""

    def began(run: Path) -> tuple[str, int]:
        time = (run / "config.yaml").stat().st_mtime_ns  # written when training begins, and not by a resumed run
        stamp = STAMP.match(run.name)
        return stamp[0] if stamp else f"{datetime.fromtimestamp(time / 1e9):%Y%m%d-%H%M%S}", time

    runs = [path.parent for path in Path("runs").glob(f"{name}/*/config.yaml")]
    return max((run for run in runs if not run.name.startswith(EVALUATIONS)), key=began, default=None)


def run_of(checkpoint: Path | None) -> Path | None:
    """The folder of the run that wrote a checkpoint; None for a file that was moved away from its run."""
    if checkpoint is None or checkpoint.parent.name != "checkpoints":
        return None
    run = checkpoint.parent.parent
    return run if (run / "config.yaml").exists() else None


def config_of(checkpoint: Path) -> Path | None:
    """The configuration that lies with a checkpoint: in its run's folder, or right beside it."""
    folders = (run_of(checkpoint), checkpoint.parent)
    return next((folder / "config.yaml" for folder in folders if folder and (folder / "config.yaml").is_file()), None)


def read_config(path: Path) -> dict[str, Any]:
    """A run's configuration as plain data.

    Raises:
        MisconfigurationException: The file is damaged.
    """
    try:
        return settings_in(text_of(path))
    except ValueError as error:
        raise MisconfigurationException(
            f"{path} is damaged ({error}): give the settings with --config, and another --run_dir to write to"
        ) from error


def with_settings_of_run(subcommand: str, typed: list[str], model_in: Callable[[Path], dict[str, Any]]) -> list[str]:
    """Put the settings that lie with a checkpoint before the words, if these name no configuration.

    They are read as data: see ``allowed_settings``. Images can be drawn, and with --data scored, from the file alone:
    ``model_in`` gives the model of a checkpoint as configuration files do.
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
    """Say what is other now, as ``record`` gives it, than in the configuration that lies with a checkpoint.

    Raises:
        MisconfigurationException: A run would be resumed in its folder with another model or other data.
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
