"""The table of translators of tests/benchmarks/translates.py, and its reader of label maps."""

import csv
import functools
import math
import sys

import pytest
import torch
import yaml
from torchvision.io import read_image, write_jpeg

from command_line import ROOT


def painted(palette, classes):
    """Label maps (N, 3, H, W), uint8, of classes (N, H, W)."""
    return palette[classes].movedim(-1, 1).to(torch.uint8)


def test_classes_are_told_by_the_nearest_colour_before_maps_are_made_smaller(scripts):
    segmentation = scripts("segmentation")
    classes = torch.randint(12, (2, 8, 8))
    full = classes.repeat_interleave(4, 1).repeat_interleave(4, 2)
    full[:, ::4, ::4] = 11 - full[:, ::4, ::4]  # one pixel in sixteen is of another class
    noise = torch.randint(-40, 41, (2, 3, 32, 32))  # as of JPEG; colours are 85 apart
    maps = (painted(segmentation.PALETTE, full) + noise).clamp(0, 255).to(torch.uint8)
    assert torch.equal(segmentation.classes_of(maps, 8), classes)


def test_scores_of_known_mistakes(scripts):
    segmentation = scripts("segmentation")
    truth = torch.tensor([0, 0, 0, 1]).view(1, 2, 2)
    read = torch.tensor([0, 0, 1, 1]).view(1, 2, 2)

    def network(images):
        return torch.nn.functional.one_hot(images[:, 0].long(), 12).movedim(-1, 1).float()

    assert segmentation.score(network, truth[:, None], truth) == dict.fromkeys(
        ("per-pixel accuracy", "per-class accuracy", "class IOU", "information"), pytest.approx(100)
    )
    found = segmentation.score(network, read[:, None], truth)
    # Two of three pixels of class 0 and the one of class 1; other classes do not come up.
    assert found["per-pixel accuracy"] == 75
    assert found["per-class accuracy"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert found["class IOU"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    # By the conditional entropy: half of the pixels are read as 1, of which a half are; the others are known.
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found["information"] == pytest.approx(100 * (1 - 0.5 * math.log(2) / entropy))
    assert segmentation.score(network, 1 - truth[:, None], truth)["information"] == pytest.approx(100)
    assert segmentation.score(network, torch.zeros(1, 1, 2, 2), truth)["information"] == pytest.approx(0)


def test_the_network_learns_to_read_maps(scripts):
    segmentation = scripts("segmentation")
    classes = torch.randint(3, (20, 4, 4)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    colours = torch.tensor([[0.8, -0.5, 0.0], [-0.5, 0.8, 0.0], [0.0, 0.0, -0.9]])
    images = colours[classes].movedim(-1, 1)
    network = segmentation.Segmentation(width=8)
    segmentation.train(network, images, classes, steps=60)
    assert segmentation.score(network.eval(), images, classes)["per-pixel accuracy"] > 90


def test_sharpness_is_the_gradients_energy(scripts):
    sharpness = scripts("segmentation").sharpness
    ramp = torch.arange(4.0).expand(2, 3, 4, 4) / 2
    assert sharpness(ramp) == pytest.approx(0.25)  # 1/2 to the right, 0 downwards
    assert sharpness(torch.ones(1, 3, 4, 4)) == 0


def test_runs_take_the_steps_of_their_configs(scripts, tmp_path):
    translates = scripts("translates")
    assert set(translates.MEASURES) == set(translates.RUNS)
    for name, (config, _) in translates.RUNS.items():
        file = ROOT / f"configs/{config}.yaml"
        if file.exists():
            options = translates.options_of(name, tmp_path, tmp_path)
            assert options[0] == f"--trainer.max_steps={yaml.safe_load(file.read_text())['trainer']['max_steps']}"


def test_facades_become_images_of_two_domains(scripts, tmp_path):
    both = torch.cat([torch.zeros(3, 8, 8, dtype=torch.uint8), torch.full((3, 8, 8), 255, dtype=torch.uint8)], 2)
    for split in ("train", "val"):
        (tmp_path / "facades" / split).mkdir(parents=True)
        write_jpeg(both, str(tmp_path / "facades" / split / "1.jpg"))
    folder = scripts("translates").as_domains(tmp_path / "facades", tmp_path / "domains")
    for split in ("train", "val"):
        assert read_image(str(folder / split / "photograph/1.png")).eq(0).all()
        assert read_image(str(folder / split / "labels/1.png")).eq(255).all()


@pytest.mark.slow
def test_pix2pix_has_its_rows_and_is_not_trained_again(scripts, tmp_path, monkeypatch, capsys):
    translates, segmentation = scripts("translates"), scripts("segmentation")
    for split, count in (("train", 8), ("val", 2)):
        (tmp_path / "facades" / split).mkdir(parents=True)
        for i in range(count):
            maps = painted(segmentation.PALETTE, torch.randint(12, (1, 64, 64)))[0]
            photograph = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
            write_jpeg(torch.cat([photograph, maps], 2), str(tmp_path / "facades" / split / f"{i}.jpg"))
    monkeypatch.setattr(segmentation, "train", functools.partial(segmentation.train, steps=2))
    monkeypatch.setattr(translates, "CACHE", tmp_path)
    arguments = ["--gans", "pix2pix-l1", "pix2pix", "--data_dir", tmp_path, "--out", tmp_path / "out"]
    arguments += ["--trainer.max_steps=2", "--model.width=4", "--trainer.accelerator=cpu", "--precision=32-true"]
    monkeypatch.setattr(sys, "argv", ["translates.py", *map(str, arguments)])
    translates.main()
    printed = capsys.readouterr().out
    with (tmp_path / "out/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["gan"] for row in rows] == ["pix2pix-l1"] * 7 + ["pix2pix"] * 8
    assert {row["steps"] for row in rows} == {"2"}
    assert "beside L1 alone" in rows[-1]["figure"]
    assert all(0 < float(row["minutes"]) < 2 for row in rows)
    assert read_image(str(tmp_path / "out/pix2pix.png")).shape[2] == 3 * 66 + 2
    written = (tmp_path / "out/pix2pix/checkpoints/last.ckpt").stat().st_mtime_ns
    translates.main()
    assert capsys.readouterr().out == printed
    assert (tmp_path / "out/pix2pix/checkpoints/last.ckpt").stat().st_mtime_ns == written
