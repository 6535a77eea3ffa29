"""The folder of a run: its name, the configuration kept in it, and the way back to it from a checkpoint."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException


def find_checkpoint(wanted: str | None, run_dir: str | None, name: str = "*") -> Path | None:
    """The file that --ckpt_path names: a path, or the last or best checkpoint of a run (the newest, unless named).

    Raises:
        MisconfigurationException: There is no such file.
    """
    if wanted is None:
        return None
    if wanted not in ("last", "best"):
        if not Path(wanted).is_file():
            raise MisconfigurationException(f"--ckpt_path={wanted} does not exist; give a .ckpt file, last or best")
        return Path(wanted)
    pattern = f"checkpoints/{wanted}.ckpt"
    found = Path(run_dir).glob(pattern) if run_dir else Path("runs").glob(f"{name}/*/{pattern}")
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise MisconfigurationException(
            f"--ckpt_path={wanted} finds no {pattern} in {run_dir or f'runs/{name}/*'}: "
            "name the run with --run_dir or give the file itself"
        )
    return newest


def run_of(checkpoint: Path | None) -> Path | None:
    """The folder of the run that wrote a checkpoint; None for a file that was moved away from its run."""
    if checkpoint is None or checkpoint.parent.name != "checkpoints":
        return None
    run = checkpoint.parent.parent
    return run if (run / "config.yaml").exists() else None


def run_folder(subcommand: str, checkpoint: Path | None, wanted: str | None, name: str) -> Path:
    """Where this run keeps its files: a resumed run in the folder it began in, any other in a new one.

    Raises:
        MisconfigurationException: The folder asked for holds another run.
    """
    began = run_of(checkpoint)
    now = f"{datetime.now():%Y%m%d-%H%M%S}"
    if subcommand != "fit":
        if wanted and began != Path(wanted):
            return Path(wanted)
        return (began or Path("runs") / name) / f"{subcommand}-{now}"  # the run's own files stay as they are
    if wanted is None:
        return began or Path("runs") / name / now
    if (Path(wanted) / "config.yaml").exists() and began != Path(wanted):
        raise MisconfigurationException(
            f"--run_dir={wanted} already holds a run: add --ckpt_path=last to go on with it, or name another folder"
        )
    return Path(wanted)


def with_settings_of_run(arguments: list[str]) -> list[str]:
    """Put the configuration that a checkpoint's run has kept in front, where the command line names none."""
    options = {}
    for option in ("--config", "-c", "--ckpt_path", "--run_dir"):
        for i, argument in enumerate(arguments):
            key, equals, value = argument.partition("=")
            if key == option:
                options[option] = value if equals else "".join(arguments[i + 1 : i + 2])
    if "--config" in options or "-c" in options or "--ckpt_path" not in options:
        return arguments
    checkpoint = find_checkpoint(options["--ckpt_path"], options.get("--run_dir"))
    run = run_of(checkpoint)
    if run is None:
        raise MisconfigurationException(
            f"--ckpt_path={checkpoint} has no config.yaml of its run beside it: give the configuration with --config"
        )
    return [f"--config={run / 'config.yaml'}", *arguments]


def without_secrets(config: Any) -> Any:
    """The configuration with the values of keys such as api_key, token or password left out."""
    if isinstance(config, list):
        return [without_secrets(value) for value in config]
    if not isinstance(config, dict):
        return config
    secret = re.compile(r"(^|_)(api_?key|token|password|secret)($|_)", re.IGNORECASE)
    return {key: "***" if value and secret.search(key) else without_secrets(value) for key, value in config.items()}


class SaveConfig(SaveConfigCallback):
    """Keep the complete configuration in the run folder and in the loggers, without secrets."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        import yaml

        config = without_secrets(yaml.safe_load(self.parser.dump(self.config, skip_none=False)))
        for key in ("ckpt_path", "run_dir"):  # where this run stands, not what it does
            config.pop(key, None)
        path = Path(trainer.default_root_dir) / "config.yaml"
        if not path.exists():  # a resumed run keeps the file it began with
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump(config, sort_keys=False))
        for logger in trainer.loggers:
            logger.log_hyperparams(config)
