"""The folder of a run: its name, the one process that may write to it, and the way back to it from a checkpoint."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.command_line.config_files import settings_in, text_of
from callbacks.runs.files import tidy, whole
from callbacks.runs.metrics_file import MetricsFile
from callbacks.runs.settings import without_secrets
from callbacks.scores.history import keep_until

try:
    import fcntl
except ImportError:  # Windows has no locks that end with their process and fit here
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
WRITTEN = (
    *("config.yaml", "metrics.csv", "scores.json", "quality.json", "samples/real.png"),
    *(f"{folder}/*step_[0-9]*.png" for folder in ("samples", "views", "neighbors")),
)
EVALUATIONS = ("validate", "test", "predict")
STAMP = re.compile(r"\d{8}-\d{6}")


# Finding runs and checkpoints


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


# What to call a run


def options_in(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """The options among the words of a command line, as --key=value or --key value, with their values."""
    for i, argument in enumerate(arguments):
        if argument.startswith("-"):
            key, equals, value = argument.partition("=")
            yield key, value if equals else "".join(arguments[i + 1 : i + 2])


def title_of(arguments: list[str]) -> str:
    """What sets a run apart: its configuration files and the settings typed beside them, such as mnist,loss=Hinge.

    Args:
        arguments: The words of the command line, without the subcommand.
    """
    words: list[str] = []
    for key, value in options_in(arguments):
        key = key.lstrip("-").rstrip("+")
        if key in ("config", "c"):
            words += [Path(value).stem] if value.endswith((".yaml", ".yml", ".json")) else []
        elif key.partition(".")[0] in ("model", "data", "ema", "seed_everything") or key == "trainer.precision":
            short = value.rstrip("/").rpartition("/")[2]  # of a path its end, of a class its name
            short = short.rpartition(".")[2] if re.fullmatch(r"[A-Za-z_][\w.]*", short) else short
            words.append(f"{key.rpartition('.')[2]}={short}")
    return ",".join(words)


def record(config: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a configuration: no secrets, and what a run does but not where it stands."""
    return {key: value for key, value in without_secrets(config).items() if key not in ("ckpt_path", "run_dir", "name")}


def changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What is other than in an earlier configuration, such as ``model.generator_optimizer.lr 0.0002 -> 1e-05``."""

    def brief(value: Any) -> str:
        value = value.get("class_path", "...").rpartition(".")[2] if isinstance(value, dict) else value
        return str(value).rpartition(".")[2] if re.fullmatch(r"[A-Za-z_][\w.]*", str(value)) else str(value)[:60]

    return ", ".join(f"{key} {brief(old)} -> {brief(new)}" for key, old, new in differences(before, now))


def differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The settings of which a configuration has another value than an earlier one: key, former and present value.

    Settings that only one of them knows are left out: they come and go with versions and classes.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [name for name in before if name in now]:
            yield from differences(before[name], now[name], f"{key}.{name}" if key else name)
    elif before != now:
        yield key.replace(".init_args", "").replace(".class_path", ""), before, now


# The folder


class Run(Callback):
    """The folder of a run, which appears when all is ready to be begun.

    One process makes it, under a name that no other process has, and holds a lock on it that ends with the process. The
    configuration, and what other programs are told of the run, follow when training begins, so that a start that fails
    leaves nothing behind. A run that goes on finds its files as they were when the checkpoint was written. A trial run
    (``fast_dev_run``) has a temporary folder.

    Args:
        folder: The folder.
        fresh: Whether it must be a new one: where the name is taken, a number is added.
        config: What ``record`` gives of the complete configuration.
        metrics: The run's metrics file.
        loggers: What makes the other loggers, for the folder.
        resumed: Whether the run goes on in this folder.

    Raises:
        MisconfigurationException: The folder cannot be made, or another process writes to it.
    """

    def __init__(
        self,
        folder: Path,
        fresh: bool,
        config: dict[str, Any],
        metrics: MetricsFile,
        loggers: Callable[[Path], list[Logger]],
        resumed: bool,
    ) -> None:
        self.folder = folder
        self.fresh = fresh
        self.config = config
        self.metrics = metrics
        self.loggers = loggers
        self.resumed = resumed
        self.began = False
        self.temporary = False
        self._rows: int | None = None  # of the metrics file, when the checkpoint was written
        self._made: list[Path] = []  # folders that were not there before
        self._lock: int | None = None

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        error = ""
        if trainer.fast_dev_run and trainer.is_global_zero:  # keeps nothing
            self.folder, self.temporary = Path(tempfile.mkdtemp()), True
            self._made = [self.folder]
        elif trainer.is_global_zero:
            try:
                self._open()
            except MisconfigurationException as exception:
                error = str(exception)
        folder, error = trainer.strategy.broadcast((str(self.folder), error))
        if error:  # on every rank, or the others would wait
            raise MisconfigurationException(error)
        self.folder = Path(folder)
        self.metrics.path = self.folder / "metrics.csv"
        trainer._default_root_dir = folder  # which Lightning only lets its constructor set

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:
            return
        loggers = self.loggers(self.folder)  # which may fail
        if trainer.is_global_zero:
            if self.resumed:
                self._as_it_was(trainer.global_step, pl_module.validation_due)
            self._keep_config(trainer.global_step)
        self.began = True
        trainer.loggers = [*trainer.loggers, *loggers]
        for logger in loggers:
            logger.log_hyperparams(self.config)  # type: ignore[arg-type]

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        trained = trainer.fit_loop.epoch_loop.batch_progress.total.completed
        if isinstance(exception, MisconfigurationException) and not trained and len(trainer.loggers) < 2:
            self.began, self.temporary = False, True  # such as on a first batch that the model cannot take

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" and trainer.is_global_zero:
            self._keep_config(0)

    on_test_start = on_predict_start = on_validation_start

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.metrics.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rows = state_dict.get("rows")

    # What they do

    def _open(self) -> None:
        wanted, number = self.folder, 1
        while True:
            missing = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
            try:
                self.folder.mkdir(parents=True, exist_ok=not self.fresh)
                break
            except FileExistsError as error:
                if not self.fresh:
                    raise MisconfigurationException(f"--run_dir={self.folder} is a file: name a folder") from error
                number += 1
                self.folder = wanted.with_name(f"{wanted.name}-{number}")
            except OSError as error:
                raise MisconfigurationException(
                    f"the run's folder {self.folder} cannot be made ({error.strerror}): name another with --run_dir"
                ) from error
        self._made = missing
        self._take_lock()
        if not self.resumed and not self.fresh and (self.folder / "config.yaml").exists():
            self._begin_anew()
        tidy(self.folder)

    def _begin_anew(self) -> None:
        """Remove what a run that left no checkpoint has written, and nothing else."""
        rank_zero_info(f"{self.folder} holds a run that left no checkpoint to go on from: it begins anew")
        for pattern in WRITTEN:
            for path in self.folder.glob(pattern):
                path.unlink()
                with suppress(OSError):  # other files are in it
                    if path.parent != self.folder:
                        path.parent.rmdir()

    def _take_lock(self) -> None:
        if fcntl is None:
            return
        try:
            self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise MisconfigurationException(
                f"another process is at work in {self.folder}: wait for its end, stop it, or name another --run_dir"
            ) from error
        except OSError as error:
            if self._lock is None:
                raise MisconfigurationException(
                    f"nothing can be written to {self.folder} ({error.strerror}): name another folder with --run_dir"
                ) from error
            # Otherwise a file system without locks: there is nothing better to be had.

    def close(self) -> None:
        """Let go of the folder; one that was made here and in which nothing was begun disappears."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        made, self._made = self._made, []
        if not made or self.began:
            return
        written = [path for path in self.folder.rglob("*") if path.is_file() and path.name != LOCK]
        if self.temporary or not written:
            shutil.rmtree(self.folder, ignore_errors=True)
            for folder in made[1:]:
                with suppress(OSError):  # somebody else's run is in it
                    folder.rmdir()

    def _as_it_was(self, step: int, validation_due: bool) -> None:
        """Take back what was written after the checkpoint, since it is written again."""
        if self._rows is not None:
            self.metrics.cut(self._rows)
        for name in ("scores.json", "quality.json"):
            keep_until(self.folder / name, step, inclusive=not validation_due)

    def _keep_config(self, step: int) -> None:
        path = self.folder / "config.yaml"
        self.began = True
        if path.exists():
            before = read_config(path)
            if not list(differences(before, self.config)):
                return
            path.replace(self.folder / f"config_until_step_{step:07d}.yaml")
        try:
            with whole(path) as partial:
                partial.write_text(yaml.safe_dump(self.config, sort_keys=False))
        except OSError as error:
            raise MisconfigurationException(
                f"{path} cannot be written ({error.strerror}): make room, or name another folder with --run_dir"
            ) from error


def place(
    subcommand: str, checkpoint: Path | None, wanted: str | None, group: str, title: str
) -> tuple[Path, bool, bool]:
    """Where a run keeps its files: a resumed run in the folder it began in, any other in a new one.

    Args:
        subcommand: "fit" or what else is done.
        checkpoint: What it goes on from.
        wanted: The folder that --run_dir names.
        group: The folder under ``runs`` for such runs.
        title: What sets it apart from these; what a folder's name cannot hold is replaced.

    Returns:
        The folder, whether its name is only a proposal for a new one, and whether a run goes on in it.

    Raises:
        MisconfigurationException: The folder asked for holds another run.
    """
    if wanted == "":
        raise MisconfigurationException("--run_dir is empty: name a folder, or leave it out for one under runs")
    began = run_of(checkpoint)
    own = began is not None and (wanted is None or Path(wanted).resolve() == began.resolve())
    now = f"{datetime.now():%Y%m%d-%H%M%S}"
    title = re.sub(r"[^\w.=,+-]+", "_", title)[:100].strip(",_")
    if subcommand != "fit":
        if wanted is None or own:
            return (
                (began or Path("runs") / group) / f"{subcommand}-{now}",
                True,
                False,
            )  # the run's files stay as they are
        if (Path(wanted) / "config.yaml").exists():
            raise MisconfigurationException(f"--run_dir={wanted} already holds a run: name a new folder")
        return Path(wanted), False, False
    if own:
        assert began is not None
        return began, False, True
    if wanted is None:
        return Path("runs") / group / (f"{now}-{title}" if title else now), True, False
    config = Path(wanted) / "config.yaml"
    if config.exists():
        if list((Path(wanted) / "checkpoints").glob("[!.]*")):
            raise MisconfigurationException(
                f"--run_dir={wanted} already holds a run: add --ckpt_path=last to go on with it, or name another folder"
            )
        if not {"model", "data", "trainer"} <= read_config(config).keys():
            raise MisconfigurationException(
                f"--run_dir={wanted} holds a config.yaml that is of no run: name another folder"
            )
    return Path(wanted), False, False
