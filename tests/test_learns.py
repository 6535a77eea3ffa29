"""The leaderboard of tests/benchmarks/learns.py."""

import csv
import importlib.util
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from torchvision.io import read_image

from command_line import ROOT, environment

SCRIPT = ROOT / "tests/benchmarks/learns.py"


@pytest.fixture(scope="module")
def learns():
    spec = importlib.util.spec_from_file_location("learns", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_agreement_with_the_class_asked_for_and_by_majority(learns):
    classes = torch.tensor([0, 0, 1, 2, 2, 2])
    assert learns.agreement(classes, torch.tensor([0, 1, 1, 2, 2, 0]), False) == pytest.approx(100 * 4 / 6)
    # Code 0 stands for class 2 and code 1 for class 0, of which 2 of 3 and 2 of 3 images are.
    assert learns.agreement(classes, torch.tensor([1, 1, 1, 0, 0, 0]), True) == pytest.approx(100 * 5 / 6)


def test_gans_are_found_by_folder_or_file(learns):
    found = learns.config_files(["wgan_gp", "cgan", "cgan/convolutional_mnist"])
    assert [f.relative_to(ROOT / "configs").as_posix() for f in found] == [
        "wgan_gp/fashion_mnist.yaml",
        "cgan/mnist.yaml",
        "cgan/convolutional_mnist.yaml",
    ]
    of_noise = {p.parent.name for p in ROOT.glob("configs/*/*.yaml") if p.name in ("mnist.yaml", "fashion_mnist.yaml")}
    assert {f.parent.name for f in learns.config_files([])} == of_noise
    with pytest.raises(SystemExit, match=r"--gans=wgna is no config"):
        learns.config_files(["wgna"])


def test_real_images_are_at_distance_zero_and_shares_are_of_the_classes(learns):
    from callbacks.scores.classifier import SmallClassifier

    torch.manual_seed(0)
    classifier = SmallClassifier(1, 3).eval()
    images = torch.randint(256, (600, 1, 32, 32), dtype=torch.uint8)
    moments, _, classes = learns.look(images, classifier)
    row = learns.row_of(images, classes, classifier, moments, False)
    assert row["frechet"] == pytest.approx(0, abs=1e-6)
    assert row["asked %"] == 100
    assert row["most %"] == pytest.approx(100 * classes.bincount().max().item() / 600)
    assert learns.row_of(images // 2, None, classifier, moments, False)["frechet"] > 0.001


@pytest.mark.slow
def test_the_leaderboard_prints_a_row_a_gan(tmp_path):
    """On scikit-learn's digits, written out as MNIST's files are."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * 255 / 16).astype(np.uint8).repeat(3, 1).repeat(3, 2)
    pixels = np.pad(pixels, ((0, 0), (2, 2), (2, 2)))
    raw = tmp_path / "data/MNIST/raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        header = struct.pack(">IIII", 2051, len(pixels), 28, 28)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = digits.target.astype(np.uint8)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, len(labels)) + labels.tobytes())
    command = [sys.executable, SCRIPT, "--gans", "gan", "infogan", "--steps", "3", "--out", tmp_path / "out"]
    command += ["--data_dir", tmp_path / "data", "--data.batch_size=16"]
    done = subprocess.run(command, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out/results.csv").open() as file:
        real, gan, infogan = csv.DictReader(file)
    assert float(real["frechet"]) == pytest.approx(0, abs=1e-6)
    assert (gan["gan"], gan["steps"]) == ("gan/mnist", "3")
    assert float(gan["seconds"]) > 0
    assert float(infogan["untrained"]) > 0
    assert infogan["asked %"]
    assert not gan["asked %"]
    assert read_image(str(tmp_path / "out/samples.png")).shape == (1, 3 * 34 + 2, 20 * 34 + 2)
