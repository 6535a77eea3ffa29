"""Signals to ``python train.py``: what is cut short is kept, says how to go on and has an exit code."""

import json
import os
import shlex
import signal
import time

import pytest
from test_train import NO_LOGGER, QUICK, assert_same, load, train
from untimed import rows

from command_line import ROOT, finish, start, wait_for

LONG = [*QUICK, NO_LOGGER, "--trainer.max_steps=100000", "--last.every_n_steps=100000", "--run_dir=out"]
CODES = {signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGTERM: 0}


def waiting(where, seconds, step=0, **kwargs):
    """Options that keep a process in a batch."""
    given = {"seconds": seconds, "step": step, "where": where} | kwargs
    return ["--trainer.callbacks+=command_line.Wait", *(f"--trainer.callbacks.{k}={v}" for k, v in given.items())]


def begin(arguments, folder, until="waiting-0", **variables):
    process = start(arguments, folder, **variables)
    wait_for((folder / until).exists, process, folder)
    return process


@pytest.mark.parametrize("number", CODES)
def test_the_first_signal_keeps_everything_and_says_how_to_go_on(number, tmp_path):
    running = begin(LONG, tmp_path, "out/samples/step_0000020.png")
    os.kill(running.pid, number)
    done = finish(running, tmp_path)
    assert done.returncode == CODES[number], done.stderr
    assert "Traceback" not in done.stderr
    step = load(tmp_path / "out/checkpoints/last.ckpt")["global_step"]
    assert step >= 20
    assert f"stopped by {number.name} after step {step:,}" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.endswith("--ckpt_path=out/checkpoints/last.ckpt")]
    words = shlex.split(line)
    assert words[:2] == ["python", str(ROOT / "train.py")]
    if number != signal.SIGINT:  # one of them goes on in full
        return
    train(*words[2:], f"--trainer.max_steps={step + 10}", folder=tmp_path)
    whole = [*LONG[:-1], "--run_dir=whole", f"--trainer.max_steps={step + 10}"]
    train(*whole, folder=tmp_path)
    assert_same(*(load(tmp_path / name / "checkpoints/last.ckpt") for name in ("out", "whole")))
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")


def test_signals_of_two_kinds_at_once_are_one(tmp_path):
    """As when a terminal and a launcher both pass on what the user did."""
    running = begin([*LONG, *waiting("train", 2, 15)], tmp_path)
    os.kill(running.pid, signal.SIGTERM)
    time.sleep(0.2)
    os.kill(running.pid, signal.SIGINT)
    done = finish(running, tmp_path)
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "out/checkpoints/last.ckpt")["global_step"] == 16


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_stops_at_once(number, tmp_path):
    running = begin([*LONG, *waiting("train", 100, 12)], tmp_path)
    os.kill(running.pid, number)
    time.sleep(0.5)
    assert running.is_alive()
    os.kill(running.pid, number)
    done = finish(running, tmp_path, timeout=40)
    assert done.returncode == 128 + number
    assert not (tmp_path / "out/checkpoints/last.ckpt").exists()
    assert load(tmp_path / "out/checkpoints/best.ckpt")["global_step"] == 10


def test_a_validation_that_is_stopped_is_made_up(tmp_path):
    """Its scores, and the best checkpoint, are those of a run that was not stopped."""
    running = begin([*LONG, *waiting("validation", 2, 30)], tmp_path)
    os.kill(running.pid, signal.SIGINT)
    done = finish(running, tmp_path, timeout=60)  # where 57 batches take two minutes
    assert done.returncode == 130, done.stderr
    assert [e["step"] for e in json.loads((tmp_path / "out/scores.json").read_text())["history"]] == [10, 20]
    train(*LONG, "--trainer.max_steps=40", "--ckpt_path=last", folder=tmp_path)
    train(*LONG[:-1], "--run_dir=whole", "--trainer.max_steps=40", folder=tmp_path)
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert json.loads((out / "scores.json").read_text()) == json.loads((whole / "scores.json").read_text())
    assert rows(out) == rows(whole)
    assert_same(load(out / "checkpoints/best.ckpt"), load(whole / "checkpoints/best.ckpt"))


@pytest.mark.parametrize(
    ("subcommand", "where", "number"),
    [
        ("validate", "validation", signal.SIGTERM),
        ("predict", "predict", signal.SIGTERM),
        ("predict", "predict", signal.SIGINT),
    ],
)
def test_scoring_and_drawing_stop_at_once(subcommand, where, number, trained, tmp_path):
    options = ["--ckpt_path=last", f"--run_dir={trained}", *waiting(where, 100)]
    running = begin([subcommand, *options], tmp_path)
    os.kill(running.pid, number)
    done = finish(running, tmp_path, timeout=40)
    assert done.returncode == 128 + number, done.stderr
    assert f"stopped by {number.name}" in done.stderr
    assert "Traceback" not in done.stderr


def leaves_nothing(running, folder):
    """SIGTERM ends a process that does not train yet."""
    os.kill(running.pid, signal.SIGTERM)
    done = finish(running, folder, timeout=40)
    assert done.returncode == 143, done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "out").exists()


def test_a_signal_before_training_leaves_nothing(tmp_path):
    """While the data is looked at, say."""
    arguments = [*LONG, "--data=command_line.SlowDigits"]
    running = begin(arguments, tmp_path, "looking")
    leaves_nothing(running, tmp_path)


def test_ignored_signals_stay_ignored(tmp_path):
    """As under nohup."""
    running = start([*LONG, "--trainer.max_steps=40"], tmp_path, ignored=str(int(signal.SIGHUP)))
    wait_for((tmp_path / "out/samples/step_0000010.png").exists, running, tmp_path)
    os.kill(running.pid, signal.SIGHUP)
    done = finish(running, tmp_path)
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "out/checkpoints/last.ckpt")["global_step"] == 40


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_signal_to_one_rank_stops_both(rank, tmp_path, forking):
    running = begin([*LONG, "--trainer.devices=2"], tmp_path, "out/samples/step_0000020.png")
    children = [int(p) for p in (open(f"/proc/{running.pid}/task/{running.pid}/children").read()).split()]  # noqa: PTH123, SIM115
    os.kill(children[0] if rank else running.pid, signal.SIGTERM)
    done = finish(running, tmp_path)
    assert done.returncode == 0, done.stderr
    step = load(tmp_path / "out/checkpoints/last.ckpt")["global_step"]
    assert f"after step {step:,}" in done.stdout
    more = ["--trainer.devices=2", f"--trainer.max_steps={step + 5}", "--ckpt_path=last"]
    train(*LONG, *more, folder=tmp_path, **forking)
    assert load(tmp_path / "out/checkpoints/last.ckpt")["global_step"] == step + 5


def test_a_signal_to_one_of_two_ranks_before_the_first_batch_ends_both(tmp_path, forking):
    """One stands where all wait for each other, and the other is not there yet."""
    running = begin([*LONG, "--trainer.devices=2", *waiting("data", 3, rank=1)], tmp_path, "waiting-1", **forking)
    leaves_nothing(running, tmp_path)


def test_what_a_training_writes_at_its_end_is_waited_for(tmp_path):
    """Also upon the warning that a SLURM job gets before its time is over, which ends nothing that is over already."""
    running = start([*LONG, "--trainer.max_steps=12", *waiting("end", 1)], tmp_path, SLURM_JOB_ID="1")
    wait_for((tmp_path / "waiting-0").exists, running, tmp_path)
    os.kill(running.pid, signal.SIGUSR1)
    done = finish(running, tmp_path, timeout=40)
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "out/checkpoints/last.ckpt")["global_step"] == 12


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(*LONG, "--trainer.max_steps=2", "--score.num_images=0", folder=folder)
    return folder / "out"
