"""``train.py`` in a process of its own, with its imports, which take ten seconds, done once for all tests."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

from lightning.pytorch import Callback, Trainer

ROOT = Path(__file__).parents[1]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["train"])


def environment(folder):
    """Without an account: no key in the environment and none in the home directory."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "PL_"))}
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    return kept | {"HOME": str(folder), "OMP_NUM_THREADS": threads, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


def start(arguments, folder):
    """Begin ``python train.py arguments`` in a folder; its output goes into files there."""
    process = SERVER.Process(target=_train, args=([str(a) for a in arguments], str(folder), environment(folder)))
    process.start()
    return process


def finish(process, folder, timeout=120):
    """Wait for a process that ``start`` began."""
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
    out, errors = ((Path(folder) / name).read_text() for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess("train.py", process.exitcode, out, errors)


def run_train(arguments, folder, timeout=120):
    """Run ``python train.py arguments`` in a folder to its end."""
    return finish(start(arguments, folder), folder, timeout)


def assert_one_sentence(done, culprits):
    """The run failed with one line that names the culprits, and nothing after it."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    for culprit in culprits:
        assert culprit in sentence
    assert done.stderr.rstrip().endswith(sentence)
    assert len(sentence) < 500


def _train(arguments, folder, variables):
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        file = os.open(os.devnull if name == "stdin" else name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in enumerate("rww"))
    sys.argv = [str(ROOT / "train.py"), *arguments]
    import torch

    torch.set_num_threads(int(variables["OMP_NUM_THREADS"]))  # the server had read the variable before
    runpy.run_path(sys.argv[0], run_name="__main__")


class Die(Callback):
    """Kill the process without warning when a step is reached."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class TrustFiles(Callback):
    """Let torchvision take files of CIFAR-10's names for the data set, whatever is in them."""

    def __init__(self) -> None:
        from torchvision.datasets import cifar

        cifar.check_integrity = lambda path, *_: Path(path).is_file()
