"""``train.py`` in a process of its own, with its imports, which take ten seconds, done once for all tests."""

import atexit
import json
import multiprocessing
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from multiprocessing import connection, reduction
from pathlib import Path

from lightning.pytorch import Callback, Trainer

from datamodules import Digits

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(p for p in (ROOT / "configs").rglob("*.yaml") if "studies" not in p.parts)  # of single runs
SERVER = multiprocessing.get_context("forkserver")
# What most runs import later, too; wandb.sdk.launch first, which looks through all modules that are there 2,000 times.
SERVER.set_forkserver_preload(["wandb.sdk.launch", "train", "sklearn.datasets"])
FORKING = """#!{python} -S
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
told = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(told).to_bytes(8, "big")], [0, 1, 2])
server.sendall(told)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda number, _: server.send(bytes([number])))
code = int(server.recv(16) or -9)
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if code != -9 else None
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def environment(folder):
    """Without an account: no key in the environment and none in the home directory; and of no width of a terminal."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "PL_", "COLUMNS"))}
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    return kept | {"HOME": str(folder), "OMP_NUM_THREADS": threads, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


@contextmanager
def forks():
    """A variable for ``start`` with which processes, too, that ``train.py`` itself starts have their imports done.

    A study's runs, say, or ranks: ``sys.executable`` is a program there that takes a script and its words, has them run
    by a fork in its own folder, environment and streams, and passes signals and the exit code on.
    """
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        program, address = Path(folder, "python"), f"{folder}/socket"
        program.write_text(FORKING.format(python=sys.executable, address=address))
        program.chmod(0o755)
        listener.bind(address)
        listener.listen()

        def serve():
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:  # it is over
                    return
                threading.Thread(target=_fork, args=(client,), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield {"FORKS": str(program)}
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


class Streams:
    """File descriptors that a process of the server takes along."""

    def __init__(self, numbers):
        self.numbers = numbers

    def __getstate__(self):
        return [reduction.DupFd(number) for number in self.numbers]

    def __setstate__(self, kept):
        self.numbers = [number.detach() for number in kept]


def _fork(client):
    """Serve one that was started in the place of a Python: until its process has ended, or itself was killed."""
    with client:
        size, streams, _, _ = socket.recv_fds(client, 8, 3)
        told = b""
        while len(told) < int.from_bytes(size, "big") and (part := client.recv(1 << 20)):
            told += part
        if not size or len(told) < int.from_bytes(size, "big"):  # it was killed meanwhile
            return
        words, folder, variables = json.loads(told)
        process = SERVER.Process(target=_forked, args=(words, folder, Streams(streams), variables))
        process.start()
        for stream in streams:
            os.close(stream)
        while process.sentinel not in connection.wait([process.sentinel, client]):
            signals = client.recv(16)
            with suppress(ProcessLookupError):
                for number in signals or [signal.SIGKILL]:
                    os.kill(process.pid, number)
            if not signals:
                break
        process.join()
        with suppress(OSError):  # where it was killed itself
            client.send(str(process.exitcode).encode())


def start(arguments, folder, name="", script=ROOT / "train.py", **variables):
    """Begin ``python train.py arguments`` in a folder; its output goes into files there that begin with a name."""
    words = [str(a) for a in (script, *arguments)]
    process = SERVER.Process(target=_run, args=(words, str(folder), name, environment(folder) | variables))
    process.start()
    return process


def finish(process, folder, timeout=120, name=""):
    """Wait for a process that ``start`` began."""
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
    out, errors = ((Path(folder) / f"{name}{stream}").read_text() for stream in ("stdout", "stderr"))
    return subprocess.CompletedProcess("train.py", process.exitcode, out, errors)


def wait_for(what, process, folder, timeout=120, name=""):
    """Wait until ``what()`` is true while a process is alive; what it gave."""
    started = time.monotonic()
    while not (found := what()):
        assert process.is_alive(), finish(process, folder, name=name)
        assert time.monotonic() - started < timeout, finish(process, folder, 0, name)
        time.sleep(0.05)
    return found


def run_train(arguments, folder, timeout=120, **variables):
    """Run ``python train.py arguments`` in a folder to its end."""
    return finish(start(arguments, folder, **variables), folder, timeout)


def run_ranks(script, arguments, folder, devices):
    """Run a script on several ranks, whose environment is that of torchrun, to its end; the errors of the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        variables = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free.getsockname()[1]),
            "TORCHELASTIC_RUN_ID": "tests",
        }
    variables |= {"WORLD_SIZE": str(devices), "LOCAL_WORLD_SIZE": str(devices), "GROUP_RANK": "0"}
    ranks = [
        start(arguments, folder, f"rank{rank}-", script, RANK=str(rank), LOCAL_RANK=str(rank), **variables)
        for rank in range(devices)
    ]
    done = [finish(process, folder, 300, f"rank{rank}-") for rank, process in enumerate(ranks)]
    assert not any(rank.returncode for rank in done), "".join(rank.stderr for rank in done)
    return done[0].stderr


def assert_one_sentence(done, culprits):
    """The run failed with one line that names the culprits, and nothing after it."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    for culprit in culprits:
        assert culprit in sentence
    assert done.stderr.rstrip().endswith(sentence)
    assert len(sentence) < 500


def _run(words, folder, name, variables):
    os.chdir(folder)
    paths = (os.devnull, f"{name}stdout", f"{name}stderr")
    _as_python(words, [os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC) for path in paths], variables)


def _forked(words, folder, streams, variables):
    os.chdir(folder)
    _as_python([word for word in words if word != "-u"], streams.numbers, variables)


def _as_python(words, streams, variables):
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    sys.executable = variables.get("FORKS", sys.executable)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which the server ignores
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which tests under nohup would ignore
    if "ignored" in variables:
        signal.signal(int(variables["ignored"]), signal.SIG_IGN)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in enumerate("rww"))
    sys.argv = words
    sys.path += [path for path in variables["PYTHONPATH"].split(":") if path not in sys.path]
    import torch

    torch.set_num_threads(int(variables["OMP_NUM_THREADS"]))  # the server had read the variable before
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which the end of a fork leaves out, and Weights & Biases rests on


class Die(Callback):
    """Kill the process without warning when a step is reached."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class Wait(Callback):
    """Stay in the middle of a batch of training, validation or prediction, once a step is reached.

    Args:
        seconds: How long.
        step: Generator updates before.
        where: "train", "validation" or "predict"; or "data", before the first batch, or "end", after the last.
        rank: Which of several processes stays; by default all.
    """

    def __init__(self, seconds: float, step: int = 0, where: str = "train", rank: int | None = None) -> None:
        self.seconds, self.step, self.where, self.rank = seconds, step, where, rank

    def _wait(self, trainer: Trainer, where: str) -> None:
        if where == self.where and trainer.global_step >= self.step and self.rank in (None, trainer.global_rank):
            Path(f"waiting-{trainer.global_rank}").touch()
            end = time.monotonic() + self.seconds
            while time.monotonic() < end:  # a signal ends a single sleep
                time.sleep(0.05)

    def setup(self, trainer: Trainer, pl_module: object, stage: str) -> None:
        load = trainer.fit_loop.setup_data
        trainer.fit_loop.setup_data = lambda: (self._wait(trainer, "data"), load())

    def on_train_end(self, trainer: Trainer, *_: object) -> None:
        self._wait(trainer, "end")

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        self._wait(trainer, "train")

    def on_validation_batch_start(self, trainer: Trainer, *_: object) -> None:
        self._wait(trainer, "validation")

    def on_predict_batch_start(self, trainer: Trainer, *_: object) -> None:
        self._wait(trainer, "predict")


class SlowDigits(Digits):
    """Digits that take their time before they are there."""

    def prepare_data(self) -> None:
        Path("looking").touch()
        time.sleep(100)


class TrustFiles(Callback):
    """Let torchvision take files of CIFAR-10's names for the data set, whatever is in them."""

    def __init__(self) -> None:
        from torchvision.datasets import cifar

        cifar.check_integrity = lambda path, *_: Path(path).is_file()


class Obstruct(Callback):
    """Put something else in the place of files and folders of the run for some steps, so that they cannot be written.

    Args:
        names: Under out.
        first: Step from which on.
        last: Step at which all is as before.
    """

    def __init__(self, names: list[str], first: int, last: int) -> None:
        self.names, self.first, self.last = names, first, last
        self._done = 0

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        for moment in (self.first, self.last):
            if self._done < moment == trainer.global_step:
                self._done = moment
                for name in self.names:
                    path, away = Path("out", name), Path("out", f"{name}.away")
                    if moment == self.last:
                        path.rmdir() if path.is_dir() else path.unlink()
                        away.rename(path)
                    else:
                        folder = path.is_dir()
                        path.rename(away)
                        path.touch() if folder else path.mkdir()


class Full(Callback):
    """From a step on, no file can be longer than some bytes.

    Args:
        step: The step.
        size: The bytes.
    """

    def __init__(self, step: int, size: int) -> None:
        self.step, self.size = step, size

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))
