"""``train.py study`` and ``train.py compare`` as they are typed."""

import csv
import json
import os
import signal
import time

import pytest
import yaml

from command_line import ROOT, assert_one_sentence, finish, run_train, start, wait_for

BASE = ROOT / "configs/quickstart.yaml"
QUICK = [
    "--trainer.accelerator=cpu",
    "--data.batch_size=16",
    "--score.num_images=20",
    "--model.width=4",
    "--health.every_n_steps=0",
    "--views.every_n_steps=0",
]
SWEEP = {
    "method": "grid",
    "metric": {"name": "score/frechet_pixels", "goal": "minimize"},
    "parameters": {
        "model.loss": {"values": ["Hinge", "LeastSquares"]},
        "seed_everything": {"values": [0, 1]},
        "trainer.max_steps": {"value": 10},
        "trainer.val_check_interval": {"value": 10},
    },
    "command": ["${env}", "${interpreter}", "${program}", "fit", f"--config={BASE}", "${args}"],
}


def write_sweep(folder, **changes):
    content = {**SWEEP, **changes}
    (folder / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def study(folder, *options, **variables):
    return run_train(["study", "mine.yaml", *QUICK, *options], folder, 300, **variables)


def statuses(folder):
    return {run["name"]: run["status"] for run in json.loads((folder / "runs/mine/study.json").read_text())["runs"]}


def group_of(path):
    """The group of a run that Weights & Biases has logged offline."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, record = path.read_bytes(), 7, Record()  # behind the file's head, records as in LevelDB's log
    while place < len(content):
        length = int.from_bytes(content[place + 4 : place + 6], "little")
        record.ParseFromString(content[place + 7 : place + 7 + length])
        if record.WhichOneof("record_type") == "run":
            return record.run.run_group
        place += 7 + length
    return None


def test_a_grid_is_run_and_compared_and_not_run_again(tmp_path, forking):
    write_sweep(tmp_path)
    done = study(tmp_path, **forking)
    assert done.returncode == 0, done.stdout + done.stderr
    names = {f"loss={loss},seed={seed}" for loss in ("Hinge", "LeastSquares") for seed in (0, 1)}
    out = tmp_path / "runs/mine"
    assert {path.parent.name for path in out.glob("*/config.yaml")} == names
    assert statuses(tmp_path) == dict.fromkeys(names, "finished")
    assert "4 of 4 runs to make in runs/mine, about" in done.stdout
    with (out / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["model.loss"] for row in rows} == {"Hinge", "LeastSquares"}
    assert {row["runs"] for row in rows} == {"2"}
    for name in ("compare.md", "compare.html", "curves.png", "samples.png"):
        assert (out / name).stat().st_size > 500
    for row in rows:
        assert float(row["parameters of the generator"]) > 1000
        assert float(row["multiply-adds an image of an update of the discriminator"]) > 1000
    assert [group_of(path) for path in out.glob("*/wandb/offline-run-*/*.wandb")] == ["mine"] * 4
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/checkpoints/last.ckpt")}
    again = study(tmp_path, **forking)
    assert again.returncode == 0
    assert "0 of 4 runs to make" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/checkpoints/last.ckpt")} == before
    assert_one_sentence(study(tmp_path, "--trainer.log_every_n_steps=5"), ["runs/mine", "other settings", "--run_dir"])
    compared = run_train(["compare", "runs/mine/loss=Hinge,seed=0", "runs/mine/loss=Hinge,seed=1"], tmp_path)
    assert compared.returncode == 0, compared.stderr
    assert (tmp_path / "runs/compare/compare.html").exists()


def test_one_that_fails_does_not_end_the_study(tmp_path):
    """With a rate at which the loss is soon no number; in processes of their own, from the first import on."""
    rates = {"model.discriminator_optimizer.lr": {"values": [1e30, 1e-4]}, "trainer.max_steps": {"value": 12}}
    write_sweep(tmp_path, parameters=rates)
    quick = [option for option in QUICK if "health" not in option] + ["--trainer.logger=false"]
    done = run_train(["study", "mine.yaml", *quick, "--health.every_n_steps=1"], tmp_path, 300)
    assert done.returncode == 1, done.stdout
    assert statuses(tmp_path) == {"lr=1e+30": "failed", "lr=0.0001": "finished"}
    assert "lr=1e+30: " in done.stdout
    assert "NaN" in done.stdout or "finite" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_study_that_was_stopped_goes_on(number, tmp_path, forking):
    """While one of its runs is under way, and the other has not begun."""
    parameters = {
        "model.loss": {"values": ["Hinge", "LeastSquares"]},
        "trainer.max_steps": {"value": 60},
        "trainer.val_check_interval": {"value": 60},
    }
    write_sweep(tmp_path, parameters=parameters)
    words = ["study", "mine.yaml", *QUICK, "--jobs=1", "--last.every_n_steps=5", "--trainer.logger=false"]
    begun = start(words, tmp_path, **forking)
    wait_for(lambda: list(tmp_path.glob("runs/mine/*/checkpoints/last.ckpt")), begun, tmp_path, 200)
    if number == signal.SIGKILL:
        second = start(words, tmp_path, "second-", **forking)
        assert_one_sentence(
            finish(second, tmp_path, name="second-"), ["another process is at work on the study in runs/mine"]
        )
    os.kill(begun.pid, number)
    stopped = finish(begun, tmp_path, 200)
    if number == signal.SIGINT:
        assert "python" in stopped.stdout.splitlines()[-1]
        assert "study mine.yaml" in stopped.stdout.splitlines()[-1]
    time.sleep(1)
    done = run_train(words, tmp_path, 300, **forking)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(statuses(tmp_path).values()) == {"finished"}
    for path in (tmp_path / "runs/mine").glob("*/scores.json"):
        assert json.loads(path.read_text())["final"]["step"] == 60


def test_an_agents_command_line_trains(tmp_path):
    """As ``wandb agent`` builds it from the very same file."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    blur = {
        "class_path": "kornia.augmentation.RandomGaussianBlur",
        "init_args": {"kernel_size": [3, 3], "sigma": [0.1, 1.0]},
    }
    settings = {
        "model.loss": "Hinge",
        "model.penalty": None,
        "model.spectral_norm": True,
        "data.augment": [blur],
        "trainer.max_steps": 2,
    }
    words = create_sweep_command_args({"args": {key: {"value": value} for key, value in settings.items()}})["args"]
    command = create_sweep_command(list(SWEEP["command"]))
    command = command[command.index("${program}") + 1 : command.index("${args}")] + words
    done = run_train([*command, *QUICK, "--run_dir=out", "--trainer.logger=false"], tmp_path)
    assert done.returncode == 0, done.stderr
    kept = yaml.safe_load((tmp_path / "out/config.yaml").read_text())
    assert kept["model"]["init_args"]["spectral_norm"] is True
    assert kept["data"]["init_args"]["augment"][0]["init_args"]["kernel_size"] == [3, 3]


WRONG = {
    "no file": (["study"], {}, ["study takes one file"]),
    "a file that is not there": (["study", "none.yaml"], {}, ["none.yaml", "cannot be read"]),
    "an unknown key": (["study", "mine.yaml"], {"methods": "grid"}, ["mine.yaml", "methods"]),
    "an axis that does not exist": (
        ["study", "mine.yaml"],
        {"parameters": {"model.loss": {"values": ["Hinge"]}, "model.widht": {"values": [4, 8]}}},
        ["mine.yaml", "widht=4", "model.width"],
    ),
    "a combination that cannot be": (
        ["study", "mine.yaml"],
        {"parameters": {"model.latent_dim": {"values": [8, -1]}}},
        ["mine.yaml", "latent_dim=-1"],
    ),
    "a score that nobody takes": (
        ["study", "mine.yaml", *QUICK],
        {"metric": {"name": "score/fid"}},
        ["mine.yaml", "loss=Hinge,seed=0: score/fid is none of its scores, which are score/frechet_pixels"],
    ),
    "a goal against the score's": (
        ["study", "mine.yaml", *QUICK],
        {"metric": {"name": "score/frechet_pixels", "goal": "maximize"}},
        ["metric.goal of score/frechet_pixels must be minimize; got maximize"],
    ),
    "runs without an end": (
        ["study", "mine.yaml", *QUICK],
        {"parameters": {"trainer.max_steps": {"value": -1}}},
        ["run: it has no end: give trainer.max_steps, budget.images or budget.minutes"],
    ),
    "too many runs": (["study", "mine.yaml", "--max_runs=3"], {}, ["4 runs", "--max_runs is 3"]),
    "an axis that is typed too": (["study", "mine.yaml", "--model.loss=Hinge"], {}, ["--model.loss", "varies"]),
    "no number of jobs": (["study", "mine.yaml", "--jobs=0"], {}, ["--jobs must be a whole number"]),
    "seeds that are none": (["study", "mine.yaml", "--seeds=[a]"], {}, ["--seeds must be a list of whole numbers"]),
    "nothing to compare": (["compare"], {}, ["compare takes folders"]),
    "a file to compare": (["compare", "mine.yaml"], {}, ["mine.yaml is a file: name folders of runs"]),
    "a folder that is no run": (["compare", "."], {}, ["holds no run"]),
    "an option that compare has not": (["compare", ".", "--sort=x"], {}, ["--sort=x is no option of compare"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_sentence_before_anything_runs(case, tmp_path):
    words, changes, said = WRONG[case]
    write_sweep(tmp_path, **changes)
    assert_one_sentence(run_train(words, tmp_path, 200), said)
    assert not list(tmp_path.glob("runs/*/*/config.yaml"))


@pytest.mark.parametrize("word", ["study", "compare"])
def test_help_says_what_can_be_typed(word, tmp_path):
    done = run_train([word, "--help"], tmp_path)
    assert done.returncode == 0
    assert f"usage: python train.py {word}" in done.stdout
