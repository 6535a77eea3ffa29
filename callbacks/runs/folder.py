"""The folder of a run: its name, the one process that may write to it, and the way back to it from a checkpoint."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.command_line.config_files import settings_in
from callbacks.runs.files import PARTIAL, whole
from callbacks.runs.find import read_config, run_of
from callbacks.runs.metrics_file import MetricsFile
from callbacks.runs.ranks import agreed
from callbacks.runs.record import changes, versions
from callbacks.scores.history import keep_until

try:
    import fcntl
except ImportError:  # Windows has no locks that end with their process and fit here
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
WRITTEN = (
    *("config.yaml", "versions.yaml", "metrics.csv", "scores.json", "quality.json", "samples/real.png"),
    *(f"{folder}/*step_[0-9]*.png" for folder in ("samples", "views", "neighbors")),
    "neighbors/*step_[0-9]*.npz",
)


@dataclass(eq=False, repr=False)
class Run(Callback):
    """The folder of a run, which appears when all is ready to be begun.

    One process makes it, under a name that no other process has, and holds a lock on it that ends with the process. The
    configuration, and what other programs are told of the run, follow when training begins, so that a start that fails
    leaves nothing behind. A run that goes on finds its files as they were when the checkpoint was written. A trial run
    (``fast_dev_run``) has a temporary folder.

    Raises:
        MisconfigurationException: The folder cannot be made, or another process writes to it.
    """

    folder: Path
    fresh: bool  # whether it must be a new one: where the name is taken, a number is added
    config: dict[str, Any]  # what ``record`` gives of the complete configuration
    metrics: MetricsFile
    loggers: Callable[[Path], list[Logger]]  # the other ones, for the folder
    resumed: bool  # whether the run goes on in this folder
    command: str = ""  # by which it was begun
    began: bool = False
    temporary: bool = False
    _rows: int | None = None  # of the metrics file, when the checkpoint was written
    _made: list[Path] = field(default_factory=list)  # folders that were not there before
    _lock: int | None = None

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        with agreed(trainer):
            if trainer.fast_dev_run and trainer.is_global_zero:  # keeps nothing
                self.folder, self.temporary = Path(tempfile.mkdtemp()), True
                self._made = [self.folder]
            elif trainer.is_global_zero:
                self._open()
        folder = trainer.strategy.broadcast(str(self.folder))
        self.folder = Path(folder)
        self.metrics.path = self.folder / "metrics.csv"
        trainer._default_root_dir = folder  # which Lightning only lets its constructor set

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:
            return
        loggers = self.loggers(self.folder)  # which may fail
        if trainer.is_global_zero:
            if self.resumed:
                # What was written after the checkpoint is written again.
                if self._rows is not None:
                    self.metrics.cut(self._rows)
                for name in ("scores.json", "quality.json"):
                    keep_until(self.folder / name, trainer.global_step, inclusive=not pl_module.validation_due)
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
        for path in self.folder.glob(f"**/.*{PARTIAL}"):  # left by killed processes; nobody else writes here now
            path.unlink(missing_ok=True)

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

    def _keep_config(self, step: int) -> None:
        self.began = True
        for name, now in {"config": self.config, "versions": versions() | {"command": self.command}}.items():
            path = self.folder / f"{name}.yaml"
            if name == "versions" and path.exists():
                now["command"] = read_config(path).get("command", self.command)  # the one that began it
            text = yaml.safe_dump(now, sort_keys=False)
            if path.exists():
                if not (changed := changes(read_config(path), settings_in(text))):  # as reading changes it, such as ~
                    continue
                if name == "versions":
                    rank_zero_info(f"other than before  {changed}")
                path.replace(self.folder / f"{name}_until_step_{step:07d}.yaml")
            try:
                with whole(path) as partial:
                    partial.write_text(text)
            except OSError as error:
                raise MisconfigurationException(
                    f"{path} cannot be written ({error.strerror}): make room, or name another folder with --run_dir"
                ) from error


def place(
    subcommand: str, checkpoint: Path | None, wanted: str | None, group: str, title: str
) -> tuple[Path, bool, bool]:
    """Where a run keeps its files: a resumed run in the folder it began in, any other in a new one.

    That is ``wanted``, as --run_dir names it, or one in ``runs`` whose name ends with ``title`` as far as it can.

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
        if wanted is None or own:  # the run's files stay as they are
            return (began or Path("runs") / group) / f"{subcommand}-{now}", True, False
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
