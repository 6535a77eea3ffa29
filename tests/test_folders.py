"""Folders as people have them, from the command line."""

import os

import numpy as np
import pytest
from PIL import Image

from command_line import assert_one_sentence, run_train

QUICK = [
    *("--trainer.accelerator=cpu", "--trainer.max_steps=2", "--trainer.logger=false", "--score.num_images=0"),
    *("--samples.every_n_steps=0", "--run_dir=out"),
]
SIZES = ["--model.width=4", "--data.data_dir=images", "--data.image_size=16", "--data.batch_size=2"]
FOLDER = [*QUICK, "--model=DCGAN", "--data=ImageFolder", *SIZES]
LARGE = [*QUICK, "--model=SRResNet", "--model.blocks=1", "--data=SuperResolution", "--data.scale=2", *SIZES]


def picture(path, size=(20, 24), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(256, size=(*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def images(tmp_path):
    """Two classes, 8 images to train on and 4 to test with, and all that lies about beside them."""
    folder = tmp_path / "images"
    for split, count in (("Training", 3), ("Testing", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                picture(folder / split / name / f"{number}.png")
    train = folder / "Training"
    picture(tmp_path / "elsewhere/linked.png")
    (train / "cat/more").symlink_to(tmp_path / "elsewhere")
    picture(train / "cat" / os.fsdecode(b"caf\xe9.png"))
    for name in ("cat/.ipynb_checkpoints/0.png", "__MACOSX/cat/0.png"):
        picture(train / name)
    (train / "dog/round").symlink_to("..")
    (train / "dog/itself").symlink_to("itself")
    for name in ("cat/photo.heic", "cat/IMG_1", "Thumbs.db"):
        (train / name).write_bytes(b"")
    return folder


def broken(folder):
    (folder / "a.jpg").write_bytes(b"no picture")
    (folder / "b.png").symlink_to("nowhere.png")
    picture(folder / "c.png")
    cut(folder / "c.png")


def test_a_folder_is_read_as_a_person_would(images, tmp_path):
    Image.new("RGBA", (20, 24), (255, 0, 0, 0)).save(images / "Training/dog/0.png")
    done = run_train([*FOLDER, "--data.background=#00ff00"], tmp_path)
    assert done.returncode == 0, done.stderr
    for said in (
        "8 images, classes cat, dog; 4 held out",
        "3 files were left out: 1 without an ending, 1 .heic, 1 linked to nothing",
        "1 image is transparent in part, now on #00ff00 ground (--data.background)",
    ):
        assert done.stderr.count(said) == 1, done.stderr


def test_all_broken_images_are_listed_or_left_out(images, tmp_path):
    broken(images / "Training/cat")
    for number in range(20):
        (images / f"Testing/dog/x{number:02}.gif").write_bytes(b"")
    done = run_train(FOLDER, tmp_path)
    assert_one_sentence(done, ["and 22 more", "--data.skip_broken=true"])
    assert "23 broken images:" in done.stderr
    assert done.stderr.count(" (it cannot be identified") == 1 + 20  # of the list, and the sentence's
    assert "and 3 more" in done.stderr
    done = run_train([*FOLDER, "--data.skip_broken=true"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "23 broken images were left out" in done.stderr
    assert "8 images, classes cat, dog; 4 held out" in done.stderr


def test_everything_is_taken_without_labels(tmp_path):
    for name in ("0", "x/1", "x/deep/er/2", "test/3"):
        picture(tmp_path / f"images/{name}.png")
    done = run_train(FOLDER, tmp_path)
    assert_one_sentence(done, ["test", "--data.labels=false"])
    done = run_train([*FOLDER, "--data.labels=false"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4 images; 0 held out" in done.stderr


def test_super_resolution_lists_broken_and_small_images(tmp_path):
    folder = tmp_path / "images"
    for number in range(3):
        picture(folder / f"{number}.png", (60, 70))
    picture(folder / "small.png", (60, 15))
    broken(folder)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/d.png").write_bytes(b"")
    done = run_train(LARGE, tmp_path)
    assert_one_sentence(done, ["a.jpg", "and 3 more", "--data.skip_broken=true"])
    for name in (
        "b.png (No such file",
        "c.png (image file is truncated",
        "small.png is smaller than --data.image_size=16",
    ):
        assert done.stderr.count(f"images/{name}") == 1, done.stderr
    done = run_train([*LARGE, "--data.skip_broken=true"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4 broken images were left out" in done.stderr
    assert "3 images; 0 held out" in done.stderr
    (tmp_path / "out").rename(tmp_path / "before")
    options = ["--data.test_dir=tests", "--data.skip_broken=true"]
    assert_one_sentence(run_train([*LARGE, *options], tmp_path), ["leaves no images"])  # not in the first validation
