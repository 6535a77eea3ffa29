"""tests/benchmarks/kill.py: that it finds what is not the same, and on a run that is killed a few times, nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent / "benchmarks"
sys.path.append(str(BENCHMARKS))
from kill import differences  # noqa: E402


def run(folder):
    """Something like the folder of a run."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "metrics.csv").write_text("step\n1\n")
    data = {"images": 4, "source": {"data_dir": str(folder)}}
    weights = {"w": torch.tensor([1.0, float("nan")])}
    torch.save({"epoch": 1, "state_dict": weights, "Digits": data}, folder / "checkpoints/last.ckpt")
    return folder


def test_alike_but_for_the_place_of_the_data(tmp_path):
    assert differences(run(tmp_path / "a"), run(tmp_path / "b")) == []


def test_all_that_differs_is_named(tmp_path):
    here, there = run(tmp_path / "a"), run(tmp_path / "b")
    (here / ".x.partial").touch()
    (there / "scores.json").touch()
    (here / "metrics.csv").write_text("step\n2\n")
    path = here / "checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["w"][0] += 1e-7
    checkpoint["Digits"]["images"] = 8
    torch.save(checkpoint, path)
    found = ["missing scores.json", "new .x.partial", "checkpoints/last.ckpt: .state_dict.w"]
    found += ["checkpoints/last.ckpt: .Digits.images 8 4", "metrics.csv"]
    assert sorted(differences(here, there)) == sorted(found)


@pytest.mark.slow
def test_runs_that_are_killed_end_as_those_that_are_not():
    command = [sys.executable, str(BENCHMARKS / "kill.py"), "--rounds=4", "--variants", "dcgan", "n_critic"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
