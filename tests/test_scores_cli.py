"""Scores through the command line: however a training ends, and what stands in their way."""

import json
import math

import numpy as np
import pytest
import torch
from test_train import NO_LOGGER, QUICK
from untimed import rows

from command_line import ROOT, assert_one_sentence, run_train

MNIST = str(ROOT / "configs/dcgan/mnist.yaml")


@pytest.fixture(scope="module")
def by_epochs(tmp_path_factory):
    """A run that ends with its first epoch, of 56 updates."""
    folder = tmp_path_factory.mktemp("run")
    settings = [*QUICK, NO_LOGGER, "--trainer.max_epochs=1", "--trainer.val_check_interval=40", "--run_dir=out"]
    done = run_train(settings, folder)
    assert done.returncode == 0, done.stderr
    return folder, settings


def test_a_score_and_features_of_ones_own_choose_the_best(tmp_path):
    """By class path; a stranger's run folder may name no such class."""
    (tmp_path / "more.yaml").write_text(
        "score: {features: strangers.Means, metrics: [frechet, {class_path: strangers.Varied, init_args: {power: 2}}]}"
    )
    settings = [*QUICK, NO_LOGGER, "--config=more.yaml", "--trainer.max_steps=30", "--best.monitor=score/varied_means"]
    done = run_train([*settings, "--run_dir=out"], tmp_path)
    assert done.returncode == 0, done.stderr
    file = json.loads((tmp_path / "out/scores.json").read_text())
    assert (file["monitor"], file["mode"]) == ("score/varied_means", "max")
    values = {entry["step"]: entry["scores"]["score/varied_means"] for entry in file["history"]}
    best = torch.load(tmp_path / "out/checkpoints/best.ckpt", weights_only=True)
    assert best["global_step"] == file["best"]["step"] == max(values, key=values.get)
    assert set(file["best"]["scores"]) == {"score/frechet_means", "score/varied_means"}
    validate = ["validate", "--ckpt_path=out/checkpoints/best.ckpt"]
    assert_one_sentence(run_train(validate, tmp_path), ["score.metrics=", "out/config.yaml"])
    done = run_train([*validate, "--config=out/config.yaml"], tmp_path)
    assert f"score/varied_means {values[best['global_step']]:.5g}" in done.stdout


def test_one_score_more_beside_all(tmp_path):
    settings = [*QUICK, NO_LOGGER, "--trainer.max_steps=5", "--run_dir=out", "--best.monitor=loss/generator"]
    done = run_train([*settings, "--score.metrics+=strangers.Varied"], tmp_path)
    assert done.returncode == 0, done.stderr
    (entry,) = history(tmp_path)
    assert list(entry["scores"]) == [
        f"score/{name}_pixels" for name in ("frechet", "kernel", "memorization_frechet", "varied")
    ]
    assert (tmp_path / "out/checkpoints/best.ckpt").exists()


def history(folder):
    return json.loads((folder / "out/scores.json").read_text())["history"]


def test_a_run_that_ends_by_epochs_is_scored_once_more(by_epochs):
    folder, settings = by_epochs
    assert [entry["step"] for entry in history(folder)] == [40, 56]
    assert (folder / "out/checkpoints/best.ckpt").exists()
    logged = rows(folder / "out")
    done = run_train([*settings, "--ckpt_path=last"], folder)  # there is nothing left to do
    assert done.returncode == 0, done.stderr
    assert [entry["step"] for entry in history(folder)] == [40, 56]
    assert rows(folder / "out") == logged


def test_a_run_that_ends_by_time_is_scored(tmp_path):
    done = run_train([*QUICK, NO_LOGGER, "--budget.minutes=0.05", "--run_dir=out"], tmp_path)
    assert done.returncode == 0, done.stderr
    steps = [entry["step"] for entry in history(tmp_path)]
    last = torch.load(tmp_path / "out/checkpoints/last.ckpt", weights_only=True)
    assert steps[-1] == last["global_step"]
    assert set(steps) >= set(range(10, steps[-1], 10))
    assert len(set(steps) - set(range(10, steps[-1], 10))) <= 2  # the end, and where it was tried out


def test_a_checkpoint_of_weights_that_are_no_numbers_has_no_score(by_epochs):
    folder, _ = by_epochs
    path = folder / "out/checkpoints/broken.ckpt"
    checkpoint = torch.load(folder / "out/checkpoints/last.ckpt", weights_only=True)
    for name, weight in checkpoint["state_dict"].items():
        if "generator" in name and weight.is_floating_point():
            weight.fill_(math.nan)
    torch.save(checkpoint, path)
    done = run_train(["validate", f"--ckpt_path={path}"], folder)
    assert "generated images' pixels are not all finite numbers" in done.stderr
    assert "score/frechet_pixels nan" in done.stdout


def test_what_is_missing_is_missed_before_images_are_looked_for(tmp_path):
    """There is no MNIST here either, and no network to be asked for it."""
    for options, culprit in (
        (["--score.features=inception", "--score.weights=nowhere.pth"], "--score.weights=nowhere.pth does not exist"),
        (["--score.features=resnet81"], "--score.features=resnet81"),
    ):
        done = run_train(["--config", MNIST, NO_LOGGER, *options], tmp_path)
        assert_one_sentence(done, [culprit])
        assert "MNIST" not in done.stderr
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--score.real_statistics=small.npz"],
        ["--quality.metrics=[psnr]"],
        ["--score.batch_size=0"],
        ["--score.metrics=[fidd]"],
        ["--score.metrics=[fid]"],  # of pixels
        ["--score.metrics=[strangers.Metric]"],
        ["--best.monitor=fid"],
        ["--best.monitor=score/fid"],
        ["--best.monitor=score/frechet_pixels", "--score.num_images=0"],
    ],
)
def test_what_cannot_be_scored_is_one_sentence_before_training(options, tmp_path):
    np.savez(tmp_path / "small.npz", mu=np.zeros(3), sigma=np.eye(3))
    done = run_train([*QUICK, NO_LOGGER, *options], tmp_path)
    assert_one_sentence(done, [options[0].partition("=")[0]])
    assert not list(tmp_path.glob("runs/*/*"))
