"""Run what a study asks for: a process a run, several at a time, until all are done; whatever was cut off goes on."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tqdm import tqdm

from callbacks.command_line.config_files import options_in, settings_of
from callbacks.runs.files import whole
from callbacks.runs.folder import LOCK
from callbacks.runs.record import say
from callbacks.studies.found import STATE, scored_in
from callbacks.studies.search import Search
from callbacks.studies.sweep import SEED, Sweep
from callbacks.threads import cores

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

EVERY = 0.5  # seconds between two looks at what runs
STATUSES = ("waiting", "finished", "failed", "stopped early")


@dataclass
class Planned:
    """A run of a study: its settings, its words on the command line, and how it stands."""

    name: str
    settings: dict[str, Any]
    words: list[str]
    configs: dict[str, str]  # a digest of what each configuration file says that the words name
    status: str = "waiting"  # one of STATUSES, and "waiting" again after an interruption
    told: str = ""  # the last line of one that failed


def digests(words: list[str]) -> dict[str, str]:
    """A digest of what each of the configuration files says that some words name, comments aside."""
    found = {}
    for option, path in options_in(words):
        if option == "--config" and Path(path).is_file():
            with suppress(MisconfigurationException):  # which is told of where the run is tried out
                content = json.dumps(settings_of("config", path), default=str)
                found[path] = hashlib.sha256(content.encode()).hexdigest()[:16]
    return found


@dataclass
class Study:
    """The runs of a study in a folder, of which only one process at a time makes any.

    Args:
        sweep: What is asked for.
        folder: Where the runs are, a folder each, and ``study.json``, how they stand.
        script: The program, ``train.py``.
        before: Words of the command line before those of the file, and behind them.
        after: Words behind them, which win.
        jobs: Runs at a time; by default one a GPU, or a thread each on the processor's cores.
    """

    sweep: Sweep
    folder: Path
    script: str
    before: list[str]
    after: list[str]
    jobs: int | None = None
    runs: dict[str, Planned] = field(default_factory=dict)
    others: dict[str, Planned] = field(default_factory=dict)  # that the folder holds, and nobody asks for now
    _lock: int | None = None
    _begun: dict[str, int] = field(default_factory=dict)  # where in its log the output of a run begins

    def __post_init__(self) -> None:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        count = torch.cuda.device_count()
        self.devices: list[str | None] = [*(seen.split(",") if seen else map(str, range(count)))][:count]
        most = len(self.devices) or int(cores())
        self.jobs = max(1, self.jobs or most)
        if not self.devices:
            self.devices = [None]
        self.free = [self.devices[i % len(self.devices)] for i in range(self.jobs)]
        self.stopped: int | None = None

    def planned(self, settings: dict[str, Any]) -> Planned:
        """The run of some settings, under a name that no other has."""
        name, number = self.sweep.name_of(settings), 1
        known = [*self.runs.values(), *self.others.values()]
        while any(run.name == name and run.settings != settings for run in known):
            number += 1
            name = f"{self.sweep.name_of(settings)}-{number}"
        head, *rest = self.sweep.words(settings)
        words = [head, *self.before, *rest, *self.after] if head == "fit" else [*self.before, head, *rest, *self.after]
        return Planned(name, settings, words, digests(words))

    def open(self) -> None:
        """Take the folder, and up what is there of the study.

        Raises:
            MisconfigurationException: Another process is at work in it, it holds another study, or it is no folder.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise MisconfigurationException(
                f"--run_dir={self.folder} cannot be written to: {error.strerror or error}"
            ) from error
        if fcntl is not None:
            self._lock = lock
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise MisconfigurationException(
                    f"another process is at work on the study in {self.folder}: wait for its end, or name another "
                    "--run_dir"
                ) from error
        path = self.folder / STATE
        if not path.exists():
            return
        try:
            known = [Planned(**run) for run in json.loads(path.read_bytes())["runs"]]
            axes = [set(run.settings) for run in known]
            if any(run.status not in STATUSES for run in known):
                raise ValueError(path)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise MisconfigurationException(f"{path} is damaged: remove it, or name another --run_dir") from error
        wanted = [str(settings) for settings in self.sweep.settings()] if self.sweep.method != "bayes" else None
        for run, named in zip(known, axes, strict=True):
            if named != {*self.sweep.parameters, *([SEED] if self.sweep.seeds else [])} or (
                wanted is not None and str(run.settings) not in wanted
            ):
                self.others[run.name] = run
                continue
            now = self.planned(run.settings)
            if now.words != run.words:
                before, after = (
                    " ".join(w for w in a if w not in b) for a, b in ((run.words, now.words), (now.words, run.words))
                )
                raise MisconfigurationException(
                    f"{self.folder} holds this study with other settings ({before or 'nothing'} there, "
                    f"{after or 'nothing'} now): name another --run_dir"
                )
            for config, digest in now.configs.items():
                if run.configs.get(config) != digest:
                    raise MisconfigurationException(
                        f"{config} says something else than when the runs in {self.folder} were begun: name another "
                        "--run_dir"
                    )
            if not (self.folder / run.name / "config.yaml").exists():  # somebody has removed it
                run.status = "waiting"
            self.runs[run.name] = run
        if self.others:
            say(f"{len(self.others)} runs in {self.folder} are not asked for now, and left out")

    def keep(self) -> None:
        with whole(self.folder / STATE) as partial:
            partial.write_text(
                json.dumps(
                    {"study": self.sweep.name, "runs": [asdict(r) for r in (self.runs | self.others).values()]},
                    indent=1,
                )
            )

    def run(self, search: Search) -> None:
        """Make all runs that are not finished; those that fail are told of, and do not end the others."""
        going: dict[subprocess.Popen[bytes], tuple[Planned, str | None, tqdm[Any]]] = {}
        for number in (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])):
            signal.signal(number, self._stop)
        bars = {"file": sys.stdout, "disable": None}  # on a terminal
        total = tqdm(total=len(self.sweep), desc=f"study {self.sweep.name}", unit="run", position=0, **bars)
        total.update(sum(run.status == "finished" for run in self.runs.values()))
        waiting, asked_to_stop = [], False
        for run in self.runs.values():
            if run.status in ("waiting", "failed"):
                waiting.append(run)
                search.known(run.settings, None)
            else:
                search.known(run.settings, scored_in(self.folder / run.name))
        try:
            while True:
                busy = 0  # runs at which a process is still at work that an earlier study began and did not outlive
                while self.free and self.stopped is None:
                    planned = waiting.pop(0) if waiting[busy:] else self._next(search)
                    if planned is None:
                        break
                    if self._is_taken(planned):
                        waiting.append(planned)
                        busy += 1
                        continue
                    device = self.free.pop(0)
                    bar = tqdm(desc=planned.name, leave=False, position=1 + len(going), unit="step", **bars)
                    going[self._start(planned, device)] = planned, device, bar
                if not going and (not waiting or self.stopped is not None):
                    break
                time.sleep(EVERY)
                for process, (planned, device, bar) in list(going.items()):
                    self._look(planned, bar, search, process)
                    if process.poll() is None:
                        continue
                    del going[process]
                    bar.close()
                    self.free.append(device)
                    self._ended(planned, process.returncode, search)
                    total.update(planned.status in ("finished", "stopped early"))
                    told = f": {planned.told}" if planned.status == "failed" else ""
                    if total.disable or told:
                        ended = sum(run.status != "waiting" for run in self.runs.values())
                        total.write(
                            f"{ended} of {len(self.sweep)}: {planned.name} {planned.status}{told}", file=sys.stdout
                        )
                if self.stopped is not None and not asked_to_stop:
                    asked_to_stop = True
                    for process in going:
                        process.send_signal(signal.SIGTERM)
        finally:
            for process in going:
                process.wait()
            total.close()
            self.keep()

    def _next(self, search: Search) -> Planned | None:
        """A run that is not known yet."""
        while (settings := search.next()) is not None:
            if not any(run.settings == settings for run in self.runs.values()):
                planned = self.planned(settings)
                self.runs[planned.name] = planned
                return planned
        return None

    def _is_taken(self, planned: Planned) -> bool:
        """Whether another process is at work in a run's folder."""
        path = self.folder / planned.name / LOCK
        if fcntl is None or not path.exists():
            return False
        with path.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _start(self, planned: Planned, device: str | None) -> "subprocess.Popen[bytes]":
        folder = self.folder / planned.name
        words = [sys.executable, self.script, *planned.words, f"--run_dir={folder}", "--ckpt_path=last"]
        words.append("--trainer.enable_progress_bar=false")
        variables = {"WANDB_RUN_GROUP": self.sweep.name}
        if device is not None:
            variables["CUDA_VISIBLE_DEVICES"] = device
        elif "OMP_NUM_THREADS" not in os.environ:
            variables["OMP_NUM_THREADS"] = str(max(1, int(cores()) // self.jobs))  # type: ignore[operator]
        self.keep()
        with (self.folder / f"{planned.name}.log").open("ab") as log:
            self._begun[planned.name] = log.tell()
            return subprocess.Popen(words, stdout=log, stderr=log, env=os.environ | variables, start_new_session=True)

    def _look(self, planned: Planned, bar: "tqdm[Any]", search: Search, process: "subprocess.Popen[bytes]") -> None:
        """How far a run is, and whether it is worth going on with."""
        with suppress(OSError, ValueError, IndexError):
            with (self.folder / planned.name / "metrics.csv").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 500))
                bar.n = int(file.read().splitlines()[-1].split(b",")[0])
            bar.refresh()
        if not self.sweep.early_terminate:
            return
        history = scored_in(self.folder / planned.name)
        if history and search.hopeless(planned.settings, *history):
            planned.status = "stopped early"
            process.send_signal(signal.SIGTERM)

    def _ended(self, planned: Planned, code: int, search: Search) -> None:
        text = (self.folder / f"{planned.name}.log").read_bytes()[self._begun.pop(planned.name, 0) :]
        lines = text.decode(errors="replace").splitlines()
        if planned.status == "stopped early":
            pass
        elif self.stopped is not None:
            planned.status = "waiting"
        elif stopped := next((line for line in lines[-4:] if line.startswith("stopped by SIG")), None):
            planned.status, planned.told = "failed", f"{stopped.rstrip(':')}; the same command goes on with it"
        elif code < 0:
            name = signal.Signals(-code).name
            planned.status, planned.told = "failed", f"it was killed by {name}; the same command goes on with it"
        elif code == 0:
            planned.status, planned.told = "finished", ""
        else:
            errors = [line for line in lines if line.startswith("error: ")] or lines
            planned.status, planned.told = "failed", (errors or [f"exit code {code}"])[-1].removeprefix("error: ")[:400]
        if planned.status != "waiting":
            search.done(planned.settings, scored_in(self.folder / planned.name))
        self.keep()

    def _stop(self, number: int, frame: object) -> None:
        if self.stopped is not None:  # a second one
            sys.exit(128 + number)
        self.stopped = number
        say(f"\nstopping after the batches that are being trained on ({signal.Signals(number).name}) ...")
