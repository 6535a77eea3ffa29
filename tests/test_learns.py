"""The leaderboard of tests/benchmarks/learns.py."""

import csv
import math
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from torchvision.io import read_image

from callbacks import EMA
from callbacks.pictures import curves
from command_line import ROOT, environment
from gans import DCGAN

SCRIPT = ROOT / "tests/benchmarks/learns.py"


@pytest.fixture(scope="module")
def learns(scripts):
    return scripts("learns")


def test_a_training_ends_with_its_budget_and_leaves_a_mark_at_every_doubling(scripts, tmp_path, monkeypatch):
    training = scripts("training")
    monkeypatch.setattr(training, "FIRST", 16)
    images = torch.rand(64, 1, 16, 16) * 2 - 1
    loader = torch.utils.data.DataLoader(images, batch_size=8)

    def fit(budget: int, path: Path | None) -> None:
        kept = training.Marks(str(tmp_path / "marks"), budget, 10.0)
        trainer = Trainer(
            accelerator="cpu", max_steps=100, callbacks=[EMA(), kept], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(DCGAN((1, 16, 16), width=4, latent_dim=4), loader, ckpt_path=path)
        trainer.save_checkpoint(tmp_path / "last.ckpt")

    fit(40, None)
    found = training.marks(tmp_path)
    assert [mark["images"] for mark in found] == [16, 32, 40]
    assert found[-1]["steps"] == 5
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in found[-1]["generator"].items():
        assert torch.equal(value, state[f"averaged_generator.{name}"])
    fit(70, tmp_path / "last.ckpt")
    resumed = training.marks(tmp_path)
    assert [mark["images"] for mark in resumed] == [16, 32, 64, 72]
    assert resumed[-1]["seconds"] > found[-1]["seconds"]


def test_a_run_is_not_taken_for_one_with_other_settings(scripts, tmp_path, monkeypatch):
    training = scripts("training")
    config, run = tmp_path / "config.yaml", tmp_path / "runs/gan-0"
    config.write_text("model: gans.GAN  # a comment\n")
    (run / "marks").mkdir(parents=True)
    (run / "checkpoints").mkdir()
    for name in ("marks/end.pt", "checkpoints/last.ckpt"):
        (run / name).touch()
    asked = {"config": {"model": "gans.GAN"}, "options": ["--a=1"], "images": 10, "minutes": 1.0, "seed": 0}
    (run / "asked.yaml").write_text(yaml.safe_dump(asked))
    training.train(config, run, ["--a=1"], 10, 1.0, 0)  # it is finished
    with pytest.raises(SystemExit, match=r"gan-0 was trained with other settings \(images\)"):
        training.train(config, run, ["--a=1"], 20, 1.0, 0)
    (run / "checkpoints/last.ckpt").unlink()  # or was cut off before its last checkpoint
    monkeypatch.setattr(training.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    with pytest.raises(SystemExit, match="was not finished"):
        training.train(config, run, ["--a=1"], 10, 1.0, 0)
    config.write_text("model: gans.DCGAN\n")
    with pytest.raises(SystemExit, match=r"other settings \(config, options\)"):
        training.train(config, run, ["--a=2"], 10, 1.0, 0)


@pytest.mark.parametrize("script", ["learns", "translates"])
def test_runs_of_other_settings_are_named_before_anything_is_trained(script, scripts, tmp_path, monkeypatch):
    module, asked = scripts(script), []
    (tmp_path / "facades/train").mkdir(parents=True)
    (tmp_path / "facades/train/1.jpg").touch()
    monkeypatch.setattr(module, "as_domains", lambda *both: both[1], raising=False)
    monkeypatch.setattr(module, "train", lambda *each: asked.append(each))
    names = {"learns": ["gan", "cgan"], "translates": ["cut", "pix2pix"]}[script]
    run = tmp_path / {"learns": "cgan-mnist-0", "translates": "pix2pix"}[script]
    run.mkdir()
    (run / "asked.yaml").write_text("minutes: 3.0\n")
    options = ["--gans", *names, "--data_dir", str(tmp_path), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [script, *options])
    with pytest.raises(SystemExit, match=f"{run.name} was trained with other settings"):
        module.main()
    assert not asked


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("learns", ["--minutes", "nan"]),
        ("learns", ["--seeds", "-1"]),
        ("translates", ["--minutes", "-1"]),
        ("super_resolution", ["--images", "0"]),
        ("restoration", ["--images", "-1"]),
    ],
)
def test_numbers_out_of_range_are_refused_by_the_option(script, words, scripts, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, *words])
    with pytest.raises(SystemExit):
        scripts(script).main()
    assert f"argument {words[0]}: invalid" in capsys.readouterr().err


def test_a_row_of_the_sheet_has_something_of_a_gan_of_many_domains(scripts, tmp_path, monkeypatch):
    sheet = scripts("sheet")
    wide = SimpleNamespace(shown=lambda _: torch.rand(2, 12, 3, 16, 16))
    data = SimpleNamespace(val_dataloader=lambda: [0, 1], on_after_batch_transfer=lambda batch, _: batch)
    monkeypatch.setattr(sheet.gans, "load_to_sample", lambda _: wide)
    monkeypatch.setattr(sheet, "data_of", lambda _: data)
    assert sheet.tiles_of(tmp_path).shape == (10, 3, 64, 64)


def test_curves_put_larger_values_higher_and_later_ones_further_right():
    picture = curves.curves({"one": [[(1000.0, 1.0), (100_000.0, 100.0)]]}, "x", "y")
    assert picture.shape == (3, curves.HEIGHT, curves.WIDTH)
    blue = (picture[:, :, : -curves.RIGHT] == torch.tensor([0x1F, 0x77, 0xB4], dtype=torch.uint8)[:, None, None]).all(0)
    rows, columns = blue.nonzero(as_tuple=True)
    assert rows[columns.argmin()] > rows[columns.argmax()]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((8.4, 9.9), [8.5, 9, 9.5]),
        ((8, 160), [10, 20, 50, 100]),
        ((0.5, 0.9), [0.5, 0.6, 0.7, 0.8, 0.9]),
        ((1000, 5000), [1000, 2000, 3000, 4000, 5000]),
        ((2e-3, 5), [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]),
    ],
)
def test_ticks_have_few_digits(ends, expected):
    low, high = map(math.log10, ends)
    assert curves.ticks(low - 1e-9, high + 1e-9) == pytest.approx(expected)


def test_curves_have_colours_of_their_own():
    assert len({curves.colour_of(number) for number in range(200)}) == 200
    assert all(re.fullmatch("#[0-9a-f]{6}", curves.colour_of(number)) for number in range(200))


def test_several_seeds_are_told_as_their_median_and_range(learns):
    assert learns.told([3.0, 1.0, 2.0], 1) == "2.0 (1.0-3.0)"
    assert learns.told([2.0, 2.0], 1, " %") == "2.0 %"


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
    with pytest.raises(SystemExit, match=r"--gans=pix2pix/facades_64 is of Pix2Pix"):
        learns.config_files(["pix2pix/facades_64"])


def test_equal_numbers_of_images_are_compared_where_there_are_so_many(learns):
    row = {"frechet": 4.0, "untrained": 8.0, "seconds": 60.0, "least %": 1.0, "most %": 2.0}
    long = [
        row | {"images": 25_000},
        row | {"images": 50_048, "frechet": 3.0},
        row | {"images": 60_000, "seconds": 90.0},
    ]
    cells = [cell.strip() for cell in learns.line_of("gan", "MNIST", [long, long]).strip("|").split("|")]
    assert cells == ["gan", "MNIST", "60,000", "1.5", "3.00, 1.0 min", "3.00", "4.00", "0.500", "1.0 %", "2.0 %", ""]
    assert "min" not in learns.line_of("gan", "MNIST", [long[:1]])


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
    command = [sys.executable, SCRIPT, "--gans", "gan", "infogan", "--images", "48", "--out", tmp_path / "out"]
    command += ["--data_dir", tmp_path / "data", "--seeds", "0", "1", "--data.batch_size=16"]
    done = subprocess.run(command, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "[gan/mnist](../../configs/gan/mnist.yaml) | MNIST | 48 |" in done.stdout
    with (tmp_path / "out/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["gan"], row["seed"], row["steps"]) for row in rows] == [
        (name, seed, "3") for name in ("gan/mnist", "infogan/mnist") for seed in "01"
    ]
    assert all(float(row["seconds"]) > 0 and float(row["untrained"]) > 0 for row in rows)
    assert [bool(row["asked %"]) for row in rows] == [False, False, True, True]
    assert read_image(str(tmp_path / "out/samples.png")).shape[1] == 3 * 36
    assert read_image(str(tmp_path / "out/curves.png")).shape[0] == 3
