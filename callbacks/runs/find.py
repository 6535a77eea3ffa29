"""The way back to a run: from the words last and best, or from a checkpoint to its folder and configuration."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.command_line.config_files import settings_in, text_of

EVALUATIONS = ("validate", "test", "predict")
STAMP = re.compile(r"\d{8}-\d{6}")


def find_checkpoint(wanted: str | None, run_dir: str | None, name: str = "*", anew: bool = False) -> Path | None:
    """The file that --ckpt_path names: a path, or the last or best checkpoint of a run (the newest, unless named).

    Args:
        wanted: A path, "last", "best" or nothing.
        run_dir: The run's folder, if it is named.
        name: The folder under ``runs`` in which to look for the newest run.
        anew: Whether a run that is named and has no checkpoint may begin once more, so that there is None.

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
