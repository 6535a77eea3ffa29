"""A run is one folder and one process, and comes back as it was: through the command line."""

import itertools
import json
import re
import shutil
import signal
import subprocess

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from test_train import NO_LOGGER, QUICK, assert_same, load, train
from untimed import rows

import gans
from callbacks.runs.record import revision, versions
from command_line import assert_one_sentence, finish, run_train, start, wait_for

SHORT = [*QUICK, NO_LOGGER, "--trainer.max_steps=20"]
RMSPROP = ["--model.generator_optimizer=torch.optim.RMSprop", "--model.generator_optimizer.lr=1e-3"]
FOLDER = ["--data=ImageFolder", "--data.image_size=16", "--data.batch_size=8", "--model=DCGAN", "--model.width=4"]
UNSCORED = ["--score.num_images=0", "--trainer.accelerator=cpu", "--last.every_n_steps=4", "--data.cache_dir=cache"]
PICTURES = [*FOLDER, *UNSCORED, NO_LOGGER]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of twenty steps."""
    folder = tmp_path_factory.mktemp("whole")
    train(*SHORT, "--run_dir=out", folder=folder)
    return folder / "out"


@pytest.fixture
def run(whole, tmp_path):
    """A copy of it."""
    return shutil.copytree(whole, tmp_path / "out")


def runs(folder):
    return sorted(path.parent for path in folder.glob("runs/*/*/config.yaml"))


def pictures(folder, count=16, seed=0):
    folder.mkdir()
    pixels = np.random.default_rng(seed).integers(256, size=(count, 16, 16, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")


# One folder, one process


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path):
    """Started together in a common folder, four of them, on one cache."""
    names = ["a", "b", "c", "d"]
    started = [start([*SHORT, "--trainer.max_steps=10"], tmp_path, name) for name in names]
    for process, name in zip(started, names, strict=True):
        done = finish(process, tmp_path, name=name)
        assert done.returncode == 0, done.stderr
    found = runs(tmp_path)
    assert len(found) == 4
    for path in found:
        assert load(path / "checkpoints/last.ckpt")["global_step"] == 10
        assert [int(row["step"]) for row in rows(path)] == [int(row["step"]) for row in rows(found[0])]
    assert not list(tmp_path.rglob("*.partial"))


def test_a_second_process_is_kept_out_of_a_folder(tmp_path):
    wait = ["--trainer.callbacks+=command_line.Wait", "--trainer.callbacks.seconds=60", "--trainer.callbacks.step=10"]
    first = start([*SHORT, "--run_dir=out", *wait], tmp_path, "first")
    wait_for((tmp_path / "waiting-0").exists, first, tmp_path, name="first")
    last = tmp_path / "out/checkpoints/last.ckpt"
    before = last.read_bytes()
    done = run_train([*SHORT, "--run_dir=out", "--ckpt_path=last"], tmp_path)
    assert_one_sentence(done, ["out", "another process"])
    first.kill()
    finish(first, tmp_path, name="first")
    assert last.read_bytes() == before
    done = train(*SHORT, "--run_dir=out", "--ckpt_path=last", folder=tmp_path)  # the lock went with its process
    assert load(last)["global_step"] == 20


FAILURES = {
    "a wrong rate": [*QUICK, "--model.generator_optimizer.lr=-1"],
    "no data": ["--config", QUICK[1], "--data=MNIST", "--data.data_dir=nowhere", "--score.features=pixels"],
    "no weights": [*QUICK, "--score.features=resnet18", "--score.weights=nowhere.pt"],
    "no such class": [*QUICK, "--data.classes=[eleven]"],
    "a batch too large": [*QUICK, "--data.batch_size=5000"],
}


@pytest.mark.parametrize(("failure", "place"), zip(FAILURES, itertools.cycle([["--run_dir=out"], []]), strict=False))
def test_a_start_that_fails_leaves_no_run_behind(failure, place, tmp_path):
    """With Weights & Biases, and in a folder that is named or not."""
    done = run_train([*FAILURES[failure], *place], tmp_path)
    assert_one_sentence(done, [])
    assert {path.name for path in tmp_path.iterdir()} <= {"stdout", "stderr", "data"}, list(tmp_path.rglob("*"))


def test_a_folder_that_was_there_stays(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    assert run_train([*FAILURES["a wrong rate"], "--run_dir=out"], tmp_path).returncode == 1
    assert (tmp_path / "out/notes.txt").read_text() == "mine"
    assert not list((tmp_path / "out").rglob("*.yaml"))


def test_files_that_are_no_runs_stay(whole, tmp_path):
    """Where a run could begin anew: a folder with a configuration of something else, or with checkpoints put aside."""
    for name in ("samples", "checkpoints"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / "precious").write_text("mine")
    (tmp_path / "mine/config.yaml").write_text("model: {}")
    aside = shutil.copytree(whole, tmp_path / "aside")
    (aside / "checkpoints/last.ckpt").unlink()
    (aside / "checkpoints/best.ckpt").rename(aside / "checkpoints/best.ckpt.keep")
    for folder in ("mine", "aside"):
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / folder).rglob("*") if path.is_file()}
        assert_one_sentence(run_train([*SHORT, f"--run_dir={folder}"], tmp_path), [folder])
        assert {path: path.stat().st_mtime_ns for path in before} == before
    (tmp_path / "mine/checkpoints/precious").unlink()
    assert_one_sentence(run_train([*SHORT, "--run_dir=mine"], tmp_path), ["mine", "config.yaml"])
    shutil.rmtree(aside / "checkpoints")
    (aside / "samples/notes.txt").write_text("mine")
    train(*SHORT, "--run_dir=aside", folder=tmp_path)
    assert (aside / "samples/notes.txt").read_text() == "mine"
    assert_one_sentence(run_train([*SHORT, "--run_dir="], tmp_path), ["--run_dir"])


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.val_check_interval=0"],
        ["--trainer.strategy=nothing"],
        ["--trainer.callbacks=lightning.pytorch.callbacks.LearningRateMonitor", "--data.batch_size=0"],
        ["--trainer.logger", json.dumps({"class_path": "WandbLogger", "dict_kwargs": {"foo": 1}})],
        ["--trainer.logger=lightning.pytorch.loggers.CometLogger", "--trainer.logger.api_key=S3CRET"],
    ],
    ids=lambda options: options[0],
)
def test_settings_that_only_lightning_knows_end_in_a_sentence_too(options, tmp_path):
    done = run_train([*QUICK, *options], tmp_path)
    assert_one_sentence(done, [])
    assert "S3CRET" not in done.stdout + done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_trial_run_leaves_nothing_behind(tmp_path):
    callback = "--trainer.callbacks=lightning.pytorch.callbacks.ModelSummary"  # one alone is no list
    train(*QUICK, "--trainer.fast_dev_run=true", callback, "--trainer.log_every_n_steps=0", folder=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"stdout", "stderr", "data"}


def test_a_place_where_nothing_can_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/out"):
        assert_one_sentence(run_train([*SHORT, f"--run_dir={place}"], tmp_path), [place, "--run_dir"])


@pytest.mark.parametrize("option", [[], ["--ckpt_path=last"]])
def test_a_run_killed_before_its_first_checkpoint_begins_anew(option, whole, tmp_path):
    """By the same command, also with --ckpt_path=last; its files are those of a run that was not killed."""
    death = ["--trainer.callbacks+=command_line.Die", "--trainer.callbacks.step=7", "--last.every_n_steps=1000"]
    done = run_train([*SHORT, "--run_dir=out", *death], tmp_path)
    assert done.returncode == -signal.SIGKILL
    assert not list(tmp_path.rglob("*.ckpt"))
    done = train(*SHORT, "--run_dir=out", *option, folder=tmp_path)
    assert "begins anew" in done.stderr + done.stdout
    assert rows(tmp_path / "out") == rows(whole)
    assert_same(load(tmp_path / "out/checkpoints/last.ckpt"), load(whole / "checkpoints/last.ckpt"))


def test_a_run_that_is_not_there_begins(tmp_path):
    """So that one command serves a job that is queued again and again."""
    done = train(*SHORT, "--trainer.max_steps=2", "--run_dir=out", "--ckpt_path=last", folder=tmp_path)
    assert "out is not there to go on from" in done.stdout
    assert load(tmp_path / "out/checkpoints/last.ckpt")["global_step"] == 2


def test_a_run_that_has_a_checkpoint_is_not_begun_anew(run, tmp_path):
    (run / "checkpoints/last.ckpt").unlink()
    assert_one_sentence(run_train([*SHORT, "--run_dir=out"], tmp_path), ["--run_dir=out", "--ckpt_path=last"])
    step = load(run / "checkpoints/best.ckpt")["global_step"]
    train(*SHORT, "--trainer.max_steps=25", "--run_dir=out", "--ckpt_path=last", folder=tmp_path)
    assert step < load(run / "checkpoints/last.ckpt")["global_step"] == 25


# Names


def test_runs_can_be_told_apart_by_name(tmp_path):
    few = ["--trainer.max_steps=1", "--score.num_images=0"]
    train(*SHORT, *few, "--model.loss=gans.losses.Hinge", "--data.horizontal_flip", "true", folder=tmp_path)
    train(*SHORT, *few, "--name=my first/try", folder=tmp_path)
    train(*SHORT, *few, "--data.cache_dir=hf_abcdefghijklmnopqrstuvwx", "--seed_everything=3", folder=tmp_path)
    names = [path.name for path in runs(tmp_path)]
    assert [bool(re.match(r"\d{8}-\d{6}-", name)) for name in names] == [True] * 3
    typed, named, secret = (next(n for n in names if word in n) for word in ("Hinge", "first", "everything"))
    assert "quickstart" in typed
    assert "loss=Hinge" in typed
    assert "horizontal_flip=true" in typed
    assert named[16:] == "my_first_try"
    assert "seed_everything=3" in secret
    assert "hf_abc" not in secret  # which looks like somebody's key


def test_last_is_the_newest_run_and_not_the_newest_checkpoint(tmp_path):
    old = train(*SHORT, "--trainer.max_steps=10", folder=tmp_path)
    (first,) = runs(tmp_path)
    death = ["--trainer.callbacks+=command_line.Die", "--trainer.callbacks.step=5"]
    run_train([*SHORT, *death], tmp_path)
    (second,) = set(runs(tmp_path)) - {first}
    done = run_train([*SHORT, "--ckpt_path=last"], tmp_path)
    assert_one_sentence(done, [second.name, "--run_dir"])
    assert old.returncode == 0
    shutil.copytree(first / "checkpoints", second / "checkpoints")
    (first / "checkpoints/last.ckpt").touch()
    train(*SHORT, "--ckpt_path=last", folder=tmp_path)
    steps = [load(path / "checkpoints/last.ckpt")["global_step"] for path in (first, second)]
    assert steps == [10, 20]


# Other data, other settings


def test_cats_are_not_continued_on_dogs(tmp_path):
    for seed, name in enumerate(("cats", "dogs")):
        pictures(tmp_path / name, seed=seed)
    shutil.copytree(tmp_path / "cats", tmp_path / "moved")
    train(*PICTURES, "--data.data_dir=cats", "--trainer.max_steps=4", folder=tmp_path)
    (cats,) = runs(tmp_path)
    for place in ([], [f"--run_dir={cats}"]):
        done = run_train(
            [*PICTURES, "--data.data_dir=dogs", "--trainer.max_steps=8", "--ckpt_path=last", *place], tmp_path
        )
        assert_one_sentence(done, ["cats", "dogs", "--run_dir"])
    assert load(cats / "checkpoints/last.ckpt")["global_step"] == 4
    asked = ["--run_dir=new", f"--ckpt_path={cats}/checkpoints/last.ckpt"]
    done = train(*PICTURES, "--data.data_dir=dogs", "--trainer.max_steps=8", *asked, folder=tmp_path)
    assert "data.data_dir cats -> dogs" in done.stdout
    assert load(tmp_path / "new/checkpoints/last.ckpt")["global_step"] == 8
    assert load(cats / "checkpoints/last.ckpt")["global_step"] == 4
    train(*PICTURES, "--data.data_dir=moved", "--trainer.max_steps=8", "--ckpt_path=last", folder=tmp_path)
    assert load(cats / "checkpoints/last.ckpt")["global_step"] == 8  # the same images elsewhere


def test_a_run_that_goes_on_as_it_was_keeps_one_configuration(run, tmp_path):
    train(*SHORT, "--run_dir=out", "--ckpt_path=last", folder=tmp_path)
    assert not list(run.glob("*_until_step_*.yaml"))


@pytest.mark.usefixtures("run")
def test_another_data_set_or_model_is_refused_in_a_runs_folder(tmp_path):
    for option, names in (("--data=FashionMNIST", ["Digits", "FashionMNIST"]), ("--model=LSGAN", ["DCGAN", "LSGAN"])):
        done = run_train([*SHORT, option, "--run_dir=out", "--ckpt_path=last"], tmp_path)
        assert_one_sentence(done, [*names, "--run_dir"])


@pytest.mark.parametrize(
    ("options", "rate", "said"),
    [
        (["--model.generator_optimizer.lr=1e-5"], 1e-5, "model.generator_optimizer.lr 0.0002 -> 1e-05"),
        (RMSPROP, 1e-3, "model.generator_optimizer Adam -> RMSprop"),
        (["--model.generator_scheduler=null"], 2e-4, "model.generator_scheduler LinearLR -> None"),
        (["--model.generator_scheduler.total_iters=40"], 2e-4 * (1 - 0.9 * 30 / 40), "total_iters 20 -> 40"),
    ],
    ids=["rate", "optimizer", "no schedule", "longer schedule"],
)
def test_what_is_typed_wins_over_the_checkpoint(options, rate, said, run, tmp_path):
    schedule = [
        "--model.generator_scheduler=torch.optim.lr_scheduler.LinearLR",
        "--model.generator_scheduler.start_factor=1",
        "--model.generator_scheduler.end_factor=0.1",
        "--model.generator_scheduler.total_iters=20",
    ]
    if "scheduler" in options[0]:
        shutil.rmtree(run)
        train(*SHORT, *schedule, "--run_dir=out", folder=tmp_path)
        options = [*schedule, *options]
    done = train(*SHORT, *options, "--trainer.max_steps=30", "--run_dir=out", "--ckpt_path=last", folder=tmp_path)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("other than before")]
    assert said in line
    assert "trainer.max_steps 20 -> 30" in line
    assert "score." not in line  # which nobody has changed
    groups = load(run / "checkpoints/last.ckpt")["optimizer_states"][1]["param_groups"]
    assert groups[0]["lr"] == pytest.approx(rate)
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 30
    assert yaml.safe_load((run / "config_until_step_0000020.yaml").read_text())["trainer"]["max_steps"] == 20


def test_other_features_at_a_resume_begin_a_new_best(run, tmp_path):
    options = ["--score.features=strangers.Means", "--trainer.max_steps=30", "--run_dir=out", "--ckpt_path=last"]
    train(*SHORT, *options, folder=tmp_path)
    scores = json.loads((run / "scores.json").read_text())
    assert [entry["step"] for entry in scores["history"]] == [10, 20, 30]
    assert scores["best"]["step"] == 30
    assert load(run / "checkpoints/last.ckpt")["global_step"] == 30


# A checkpoint alone


def test_a_checkpoint_that_was_sent_alone(run, tmp_path):
    """To a folder where there is neither data nor configuration."""
    (tmp_path / "sent").mkdir()
    shutil.copy(run / "checkpoints/best.ckpt", tmp_path / "sent/x.ckpt")
    train("predict", "--ckpt_path=sent/x.ckpt", "--model.predict_images=3", "--run_dir=drawn", folder=tmp_path)
    assert len(list((tmp_path / "drawn/images").glob("0*.png"))) == 3
    assert_one_sentence(run_train(["validate", "--ckpt_path=sent/x.ckpt"], tmp_path), ["sent/x.ckpt", "--data"])
    scored = ["--data=Digits", "--data.image_size=16", "--score.features=pixels", *QUICK[-4:-2]]
    done = train("validate", "--ckpt_path=sent/x.ckpt", *scored, "--data.batch_size=32", folder=tmp_path)
    best = json.loads((run / "scores.json").read_text())["best"]
    assert f"step {best['step']}" in done.stdout
    assert f"{best['scores']['score/frechet_pixels']:.5g}" in done.stdout
    assert gans.load_to_sample(tmp_path / "sent/x.ckpt").sample(2).shape == (2, 1, 16, 16)


def test_a_configuration_right_beside_a_checkpoint_serves(run, tmp_path):
    (tmp_path / "sent").mkdir()
    for path in ("checkpoints/best.ckpt", "config.yaml"):
        shutil.copy(run / path, tmp_path / "sent")
    done = train("validate", "--ckpt_path=sent/best.ckpt", folder=tmp_path)
    assert "score/frechet_pixels" in done.stdout


@pytest.mark.usefixtures("run")
def test_training_goes_on_with_settings_that_are_named(tmp_path):
    done = run_train(["fit", "--ckpt_path=out/checkpoints/last.ckpt"], tmp_path)
    assert_one_sentence(done, ["--config", "out/config.yaml"])
    done = train("--config=out/config.yaml", "--ckpt_path=last", "--run_dir=out", folder=tmp_path)
    assert "other than before" not in done.stdout


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_checkpoint_is_named(damage, run, tmp_path):
    path = run / "checkpoints/last.ckpt"
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"not a checkpoint"}[damage])
    done = run_train([*SHORT, "--run_dir=out", "--ckpt_path=last"], tmp_path)
    assert_one_sentence(done, ["out/checkpoints/last.ckpt"])
    assert (run / "metrics.csv").exists()


def test_a_damaged_configuration_is_named(run, tmp_path):
    (run / "config.yaml").write_text("model: [")
    options = ["--trainer.max_steps=30", "--run_dir=out", "--ckpt_path=last"]
    assert_one_sentence(run_train([*SHORT, *options], tmp_path), ["out/config.yaml"])


def test_damaged_scores_and_metrics_do_not_end_a_training(run, tmp_path):
    text = (run / "metrics.csv").read_bytes()
    (run / "metrics.csv").write_bytes(text + b"\0\0\0\0")
    (run / "scores.json").write_text("")
    options = ["--trainer.max_steps=30", "--run_dir=out", "--ckpt_path=last"]
    done = train(*SHORT, *options, folder=tmp_path)
    assert "scores.json" in done.stderr
    assert (run / "metrics.csv").read_bytes().startswith(text)
    assert [entry["step"] for entry in json.loads((run / "scores.json").read_text())["history"]] == [30]
    assert b"\0" not in (run / "metrics.csv").read_bytes()


def test_a_training_goes_on_where_pictures_and_rows_cannot_be_written(tmp_path):
    often = [*SHORT, "--samples.every_n_steps=5", "--trainer.val_check_interval=5"]
    train(*often, "--run_dir=whole", folder=tmp_path)
    block = [
        "--trainer.callbacks+=command_line.Obstruct",
        "--trainer.callbacks.names=[samples,metrics.csv,scores.json]",
    ]
    block += ["--trainer.callbacks.first=10", "--trainer.callbacks.last=19"]
    done = train(*often, "--run_dir=out", *block, folder=tmp_path)
    for name in ("samples/step_0000015.png", "metrics.csv", "scores.json"):
        (line,) = [line for line in done.stderr.splitlines() if f"out/{name}" in line]
        assert "training goes on" in line
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert rows(out) == rows(whole)  # no row is lost
    assert_same(load(out / "checkpoints/last.ckpt"), load(whole / "checkpoints/last.ckpt"))
    steps = [entry["step"] for entry in json.loads((out / "scores.json").read_text())["history"]]
    assert steps == [5, 10, 20]
    pictures = {path.name for path in (out / "samples").iterdir()}
    assert pictures == {path.name for path in (whole / "samples").iterdir()} - {"step_0000015.png"}


def test_a_full_disk_ends_a_training_in_one_sentence_and_keeps_what_is_there(tmp_path):
    full = ["--trainer.callbacks+=command_line.Full", "--trainer.callbacks.step=12", "--trainer.callbacks.size=50000"]
    done = run_train([*SHORT, "--run_dir=out", *full], tmp_path)
    assert_one_sentence(done, ["out/checkpoints/"])
    kept = tmp_path / "out/checkpoints"
    assert {path.name for path in kept.iterdir()} == {"last.ckpt", "best.ckpt"}
    assert [load(kept / f"{name}.ckpt")["global_step"] for name in ("last", "best")] == [10, 10]
    train(*SHORT, "--run_dir=out", "--ckpt_path=last", folder=tmp_path)
    assert load(kept / "last.ckpt")["global_step"] == 20


def test_a_run_folder_that_is_deleted_while_training_comes_back(tmp_path):
    wait = ["--trainer.callbacks+=command_line.Wait", "--trainer.callbacks.seconds=2", "--trainer.callbacks.step=13"]
    running = start([*SHORT, "--trainer.max_steps=14", "--run_dir=out", *wait], tmp_path)
    wait_for((tmp_path / "waiting-0").exists, running, tmp_path)
    shutil.rmtree(tmp_path / "out")
    done = finish(running, tmp_path)
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "out/checkpoints/last.ckpt")["global_step"] == 14
    assert "out" in done.stderr


# Nothing that nobody asked for


@pytest.mark.usefixtures("run")
def test_what_a_run_and_its_scoring_print_is_of_use(tmp_path):
    done = train(*QUICK, "--trainer.max_steps=2", folder=tmp_path)
    said = done.stdout + done.stderr
    done = train("validate", "--ckpt_path=out/checkpoints/best.ckpt", folder=tmp_path)
    said += done.stdout + done.stderr
    for noise in ("dirpath has changed", "anonymous", "litlogger", "litmodels", "Warning", "skip_none", "not empty"):
        assert noise not in said
    assert done.stdout.count("score/frechet_pixels") == 1


@pytest.mark.usefixtures("run")
def test_checkpoints_are_never_read_as_code(tmp_path):
    (tmp_path / "mine.yaml").write_text("weights_only: false\n")
    for options in (["--weights_only=false"], ["--config=mine.yaml"]):
        done = run_train(
            ["validate", "--config=out/config.yaml", "--ckpt_path=last", "--run_dir=out", *options], tmp_path
        )
        assert_one_sentence(done, ["weights_only"])


# Weights & Biases


def test_a_resumed_offline_run_keeps_its_id_and_is_uploaded_by_one_line(tmp_path):
    train(*QUICK, "--trainer.max_steps=10", folder=tmp_path)
    (run,) = runs(tmp_path)
    done = train(*QUICK, "--trainer.max_steps=20", "--ckpt_path=last", folder=tmp_path)
    folders = sorted((run / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert len({folder.name.rpartition("-")[2] for folder in folders}) == 1
    (line,) = [line for line in done.stdout.splitlines() if "wandb sync" in line]
    assert all(str(folder.relative_to(tmp_path)) in line for folder in folders)
    config = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["logger"]["init_args"]
    assert config["name"] is config["version"] is None  # another run with this configuration has its own
    metadata = [json.loads(path.read_text()) for path in (run / "wandb").glob("*/files/wandb-metadata.json")]
    assert all("api_key" not in str(given) for given in metadata)


def test_offline_by_its_own_setting_says_how_to_upload(tmp_path):
    done = train(*QUICK, "--trainer.max_steps=1", "--trainer.logger.offline=true", "--run_dir=out", folder=tmp_path)
    assert "wandb sync out/wandb/offline-run-" in done.stdout


def test_a_key_without_a_network_goes_offline_at_once(tmp_path):
    network = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}  # where nobody answers
    done = run_train([*QUICK, "--trainer.max_steps=1", "--run_dir=out"], tmp_path, timeout=60, **network)
    assert done.returncode == 0, done.stderr
    assert "WANDB_MODE=offline" in done.stderr + done.stdout
    assert "wandb sync out/wandb/offline-run-" in done.stdout


# Versions


def test_the_folder_records_versions(tmp_path):
    run = [*SHORT, "--trainer.max_steps=2", "--score.num_images=0", "--run_dir=out"]
    done = run_train(run, tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "out/versions.yaml"
    found = yaml.safe_load(path.read_text())
    assert found.pop("command").startswith("python train.py --config ")
    assert found == versions()
    assert found["torch"] == torch.__version__
    path.write_text(yaml.safe_dump(found | {"torch": "2.0.1", "command": "the first"}))
    done = run_train([*run, "--trainer.max_steps=4", "--ckpt_path=last"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"other than before  torch 2.0.1 -> {torch.__version__}" in done.stdout + done.stderr
    assert yaml.safe_load(path.read_text()) == found | {"command": "the first"}  # and not how it was gone on with
    assert yaml.safe_load((tmp_path / "out/versions_until_step_0000002.yaml").read_text())["torch"] == "2.0.1"


def test_the_revision_is_that_of_the_lab_and_says_what_is_not_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr("callbacks.runs.record.ROOT", tmp_path)
    assert revision() is None

    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    git("init")
    assert revision() is None  # nothing is committed
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "one")
    git("remote", "add", "origin", "https://me:s3cret@host/a")
    assert revision() == git("rev-parse", "HEAD").strip()
    (tmp_path / "file").write_text("2")
    assert revision() == f"{git('rev-parse', 'HEAD').strip()} with uncommitted changes"
    monkeypatch.setenv("PATH", "")
    assert revision() is None
