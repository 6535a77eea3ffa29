"""From a competition's two folders to its zip file in one command, and what may come between."""

import json
import os
import re
import signal
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from command_line import ROOT, assert_one_sentence, finish, run_train, start, wait_for

KAGGLE = ["--config", str(ROOT / "configs/cut/monet2photo_kaggle.yaml"), "--data.data_dir=data"]
SMALL = [
    *("--data.image_size=32", "--data.load_size=36", "--data.batch_size=2", "--model.width=4", "--model.blocks=1"),
    *("--model.head_width=8", "--score.features=pixels", "--score.metrics=[all]", "--score.num_images=7"),
    *("--health.every_n_steps=0", "--trainer.accelerator=cpu", "--trainer.logger=false", "--run_dir=out"),
]
PHOTOGRAPHS = [f"{name}.jpg" for name in ("a", "b", "c", "d", "e", "sea_a", "sea_b")]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    for name in (*(f"photo_jpg/{n.replace('_', '/')}" for n in PHOTOGRAPHS), *(f"monet_jpg/{n}.jpg" for n in range(4))):
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def made(home):
    """The whole of it, within a few seconds."""
    done = run_train([*KAGGLE, *SMALL, "--trainer.max_time=00:00:00:15"], home)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def packed(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_one_command_trains_paints_all_photographs_and_scores_them(home, made):
    assert list(packed(home / "images.zip")) == PHOTOGRAPHS
    assert "images.zip (7 .jpg)" in made.stdout
    assert re.search(r"of the images .*score/memorization_frechet_pixels [\d.]+.*, against data/monet_jpg", made.stdout)
    assert "within --trainer.max_time=0:00:15" in made.stderr
    history = json.loads((home / "out/scores.json").read_text())["history"]
    assert len(history) == 2  # tried out, and the last
    assert (home / f"out/samples/step_{history[-1]['step']:07d}.png").exists()
    (line,) = [line for line in (home / "out/metrics.csv").read_text().splitlines()[-1:]]
    header = (home / "out/metrics.csv").read_text().splitlines()[0].split(",")
    assert float(line.split(",")[header.index("time/seconds")]) < 15


@pytest.mark.usefixtures("made")
def test_the_same_command_goes_on_with_what_is_there(home):
    before = (home / "images.zip").stat().st_mtime_ns
    done = run_train([*KAGGLE, *SMALL, "--trainer.max_time=00:00:00:15", "--ckpt_path=last"], home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "images.zip is there already" in done.stdout
    assert (home / "images.zip").stat().st_mtime_ns == before


@pytest.mark.usefixtures("made")
def test_a_prediction_that_was_killed_goes_on(home, tmp_path):
    """It makes what is missing, and as if nothing had happened."""
    words = ["predict", f"--ckpt_path={home}/out/checkpoints/last.ckpt", f"--data.predict_dir={home}/data/photo_jpg"]
    words += ["--predict_format=jpg", "--run_dir=drawn", "--trainer.accelerator=cpu"]
    slowly = ["--trainer.callbacks+=command_line.Wait", "--trainer.callbacks.where=predict"]
    process = start([*words, *slowly, "--trainer.callbacks.seconds=0.25"], tmp_path)
    images = tmp_path / "drawn/images"
    wait_for(lambda: len(list(images.glob("*.jpg"))) >= 3, process, tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    assert finish(process, tmp_path).returncode < 0
    there = {path: path.stat().st_mtime_ns for path in images.rglob("*.jpg")}
    assert 3 <= len(there) < 7
    other = run_train([*words, "--seed_everything=1"], tmp_path)
    assert_one_sentence(other, ["--run_dir=drawn already holds a run"])
    done = run_train(words, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(there)} of 7 images are in drawn already" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in there} == there
    drawn = {path.relative_to(images).as_posix() for path in images.rglob("*") if path.is_file()}
    assert drawn == {name.replace("_", "/") for name in PHOTOGRAPHS}
    assert not list(tmp_path.rglob("*.zip"))  # which the run's folder names, but nobody typed


MISTAKES = {
    "--predict_format=gif": "--predict_format=gif must be png, jpg or jpeg",
    "--predict_zip=images.tar": "--predict_zip=images.tar must end in .zip",
    "--predict_zip=folder.zip": "--predict_zip=folder.zip is a folder",
    "--predict_zip=/proc/none/images.zip": "--predict_zip=/proc/none/images.zip cannot be written",
    "--predict_zip=a.zip --trainer.fast_dev_run=true": "--trainer.fast_dev_run=true leaves no checkpoint",
    "--predict_zip=a.zip --trainer.enable_checkpointing=false": "--trainer.enable_checkpointing=false leaves no",
    "--predict_zip=a.zip --data=PairedFolder --data.paired=false": "name their folder with --data.predict_dir",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_what_cannot_be_is_said_before_anything_is_done(typed, tmp_path, monkeypatch):
    import train

    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.zip").mkdir()
    monkeypatch.setattr("train.SIGNALS.install", lambda: None)
    words = ["--model=CycleGAN", "--data=UnpairedFolder", "--trainer.max_steps=1", "--trainer.logger=false"]
    monkeypatch.setattr(sys, "argv", ["train.py", *words, "--score.num_images=0", *typed.split(" ")])
    with pytest.raises(SystemExit, match=re.escape(MISTAKES[typed])) as end:
        train.main()
    assert len(str(end.value.code).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["folder.zip"]


@pytest.mark.usefixtures("made")
def test_scoring_writes_no_images(home):
    done = run_train(["validate", "--ckpt_path=out/checkpoints/last.ckpt", "--predict_zip=a.zip"], home)
    assert_one_sentence(done, ["--predict_zip must be left out: validate writes no images"])


def test_a_folder_that_is_missing_is_named(tmp_path):
    """Before anything asks the data where its photographs are."""
    (tmp_path / "data/monet_jpg").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "data/monet_jpg/a.jpg")
    done = run_train([*KAGGLE, *SMALL], tmp_path)
    assert_one_sentence(done, ["data/photo_jpg is not a folder", "must hold monet_jpg and photo_jpg"])


@pytest.mark.usefixtures("made")
def test_a_prediction_that_is_done_is_not_made_again_and_another_one_takes_its_place(home):
    words = ["predict", "--ckpt_path=out/checkpoints/last.ckpt", "--data.predict_dir=data/photo_jpg", "--run_dir=again"]
    words.append("--predict_zip=again.zip")
    first, second = (run_train(words, home) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert "again.zip is there already" in second.stdout
    assert "Predicting" not in second.stdout
    third = run_train([*words[:3], "--run_dir=third", words[4], "--predict_format=jpg"], home)
    assert "again.zip holds other images" in third.stdout
    assert len(packed(home / "again.zip")) == 7
