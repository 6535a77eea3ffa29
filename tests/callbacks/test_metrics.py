"""Scores as objects: their mathematics on what a pass collects, and scores of one's own."""

import json
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import small
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from callbacks import MetricsFile, Score
from callbacks.scores import Metric
from callbacks.scores.collect import Collected, Collector
from callbacks.scores.compare import score
from callbacks.scores.features import Extractor, Features
from callbacks.scores.metrics import (
    ClassAccuracy,
    ClassifierScore,
    Frechet,
    Kernel,
    MemorizationFrechet,
    compute,
    select,
)
from datamodules import Digits
from gans import CGAN, DCGAN, InfoGAN


class Points(nn.Module):
    """Six features and four logits of small images."""

    resize = "none"

    def forward(self, images):
        points = images.double().flatten(1) / 127.5 - 1
        return Features(points[:, :6], points[:, 6:10] * 3)


def collected(images, needs=("moments", "features", "classes")):
    collector = Collector(Points(), len(images), 7, needs)
    for start in range(0, len(images), 10):
        collector.add(images[start : start + 10], start)
    return collector.collected()


@pytest.fixture
def both():
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randint(0, 256, (n, 3, 2, 2), generator=generator) / 127.5 - 1 for n in (60, 50))
    return real, fake * 0.8


def features(images):
    """What Points makes of images, in float64 and rounded as a file would be."""
    return ((images.double() + 1) * 127.5).round().flatten(1) / 127.5 - 1


def test_frechet_by_the_formula(both):
    a, b = (features(images)[:, :6].numpy() for images in both)
    sigmas = [np.cov(x, rowvar=False) for x in (a, b)]
    root = scipy.linalg.sqrtm(sigmas[0] @ sigmas[1]).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(sigmas[0] + sigmas[1] - 2 * root)
    assert float(Frechet().compute(*map(collected, both))) == pytest.approx(expected, rel=1e-9)


def test_kernel_by_the_formula(both):
    real, fake = (images[:50] for images in both)  # one subset of everything
    x, y = (features(images)[:, :6] for images in (real, fake))

    def kernel(a, b):
        return (a @ b.T / 6 + 1) ** 3

    within = sum(float(kernel(z, z).fill_diagonal_(0).sum()) for z in (x, y)) / (50 * 49)
    expected = within - 2 * float(kernel(x, y).mean())
    assert float(Kernel().compute(collected(real), collected(fake))) == pytest.approx(expected, rel=1e-5)


def test_memorization_frechet_by_the_formula(both):
    real, fake = both
    fake = torch.cat([real[:49], fake[:1]])  # nearly all are copies
    x, y = (nn.functional.normalize(features(images)[:, :6], dim=1) for images in (real, fake))
    nearest = (1 - (y @ x.T).abs()).amin(1).mean()
    assert nearest < 0.1
    frechet = Frechet().compute(collected(real), collected(fake))
    expected = float(frechet / (nearest + 1e-14))
    found = MemorizationFrechet().compute(collected(real), collected(fake))
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_classifier_score_by_the_formula(both):
    """In ten parts, in the order of the images."""
    p = (features(both[1])[:, 6:10] * 3).softmax(1)
    parts = [(q * (q / q.mean(0)).log()).sum(1).mean().exp() for q in p.split(5)]
    mean, std = ClassifierScore().compute(None, collected(both[1]))
    assert float(mean) == pytest.approx(float(torch.stack(parts).mean()), rel=1e-9)
    assert float(std) == pytest.approx(float(torch.stack(parts).std()), rel=1e-9)
    assert ClassifierScore.higher_is_better


def test_only_what_is_needed_is_collected(both):
    found = collected(both[0], ("features",))
    assert found.mu is found.sigma is found.classes is None
    assert found.features.shape == (60, 6)
    found = collected(both[0], ("moments",))
    assert found.features is None
    assert found.mu.dtype == found.sigma.dtype == torch.float64


def test_the_roots_of_large_matrices_are_taken_once(both, monkeypatch):
    real, other, fake = (collected(images) for images in (both[0], both[0] * 0.5, both[1]))
    taken = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: taken.append(1) or eigh(matrix))
    first = float(Frechet().compute(real, fake))
    MemorizationFrechet().compute(real, fake)
    assert len(taken) == 2
    assert float(Frechet().compute(other, fake)) != first


# Scores of one's own


class Spread(Metric):
    """Needs no real images."""

    name = "spread"
    higher_is_better = True
    needs_real = False

    def compute(self, real, fake):
        assert real is None
        return torch.pdist(fake.features.double()).mean()


class Shift(Metric):
    name = "shift"
    needs = ("moments",)

    def compute(self, real, fake):
        return (real.mu - fake.mu).norm(), 0.5


@pytest.fixture
def digits(tmp_path):
    return Digits(data_dir=str(tmp_path / "data"), image_size=16, batch_size=64)


def validate(tmp_path, digits, devices=1, model=None, **kwargs):
    """A Score with what a validation by it records."""
    options = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    callback = Score(**{"features": "pixels", "num_images": 60, "cache_dir": str(tmp_path / "cache")} | kwargs)
    options |= {"accelerator": "cpu", "devices": devices, "strategy": "ddp_fork" if devices > 1 else "auto"}
    trainer = Trainer(callbacks=[callback], logger=MetricsFile(tmp_path / "run"), **options)
    torch.manual_seed(0)
    trainer.validate(model or small(DCGAN), digits, verbose=False)
    return callback, json.loads((tmp_path / "run/scores.json").read_text())


def test_class_accuracy_is_of_the_class_asked_for_or_that_a_code_is_matched_with():
    seen = torch.tensor([0, 0, 1, 2, 2, 2])
    classes = Collected(6, asked=torch.stack([torch.tensor([0, 1, 1, 2, 2, 0]), seen]))
    assert float(ClassAccuracy().compute(None, classes)) == pytest.approx(4 / 6)
    # Code 0 stands for class 2, of which its three images are, and code 1 for class 0, of which two of three are.
    codes = Collected(6, asked=torch.stack([torch.tensor([1, 1, 1, 0, 0, 0]), seen]), coded=True)
    assert float(ClassAccuracy().compute(None, codes)) == pytest.approx(5 / 6)
    codes = Collected(2, asked=torch.tensor([[7, 0], [0, 9]]), coded=True)  # more codes than classes, and fewer
    assert float(ClassAccuracy().compute(None, codes)) == 1
    # Where all images are of one class, it is matched with one of four codes.
    codes = Collected(8, asked=torch.tensor([[0, 1, 2, 3] * 2, [5] * 8]), coded=True)
    assert float(ClassAccuracy().compute(None, codes)) == 0.25


class Bright(Extractor):
    """Three features and, as many logits, of how bright an image's rows are: it sees the class of the brightest."""

    resize = "none"

    def forward(self, images):
        rows = images.double().mean((1, 3))[:, :3]
        return Features(rows, rows)


@pytest.mark.parametrize("cls", [CGAN, InfoGAN])
@pytest.mark.parametrize("devices", [1, 2])
def test_class_accuracy_of_a_generator_that_is_told(cls, devices, tmp_path, digits):
    """The classes or codes are those of the very images, through batches of any size and ranks."""

    class Told(cls):
        """A bright row where the class or the category says, of three; every fifth image has it one row lower."""

        def sample_from(self, noise, label=None):
            wanted = (noise[:, : self.categories].argmax(1) if cls is InfoGAN else label) % 3
            images = torch.full((len(noise), *self.image_shape), -1.0)
            wrong = torch.arange(len(noise)) % 5 == 4
            images[torch.arange(len(noise)), :, (wanted + wrong) % 3] = 1
            return images

    more = {"categories": 3} if cls is InfoGAN else {"num_classes": 10}
    model = small(Told, **more)
    options = {"metrics": ["class_accuracy", "coverage"], "features": Bright(), "num_images": 200, "batch_size": 13}
    _, file = validate(tmp_path, digits, devices, model, **options)
    found = file["final"]["scores"]["score/class_accuracy_bright"]
    # Of the classes 3 to 9 none is ever seen, of all others four of five; codes are as many as rows.
    assert found == pytest.approx(0.8 if cls is InfoGAN else 0.8 * 0.3, abs=0.05)


def test_class_accuracy_needs_a_generator_that_is_told(tmp_path, digits):
    with pytest.raises(MisconfigurationException, match=r"=class_accuracy_bright must be left out: the gen"):
        validate(tmp_path, digits, metrics=["class_accuracy"], features=Bright())
    with pytest.raises(MisconfigurationException, match=r"=class_accuracy_pixels must be left out: .*no classes apart"):
        validate(tmp_path, digits, 1, small(CGAN, num_classes=10), metrics=["class_accuracy"])
    images = torch.zeros(4, 1, 8, 8)
    with pytest.raises(MisconfigurationException, match=r"must be left out: nothing says of which class these images"):
        score(images, images, ["class_accuracy"], features=Bright())


def test_scores_of_ones_own_share_the_pass(tmp_path, digits):
    callback, file = validate(tmp_path, digits, metrics=["frechet", Spread(), Shift()])
    assert callback.directions == {
        "score/frechet_pixels": "min",
        "score/spread_pixels": "max",
        "score/shift_pixels": "min",
    }
    scores = file["final"]["scores"]
    assert set(scores) == {*callback.directions, "score/shift_pixels_std"}
    assert scores["score/shift_pixels"] > 0
    assert scores["score/shift_pixels_std"] == 0.5
    assert file["monitor"] == callback.monitor == "score/frechet_pixels"


def test_two_ranks_find_what_one_finds(tmp_path, digits):
    """In two real processes, of scores that need real images, a subset of them, or none."""
    found = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        options = {"metrics": ["all", Spread(), Shift()], "num_images": 150, "num_real": 200}
        found.append(validate(folder, digits, devices, **options)[1]["final"])
    assert found[0]["protocol"] == found[1]["protocol"]
    assert found[0]["scores"] == pytest.approx(found[1]["scores"], rel=1e-9)
    assert len(found[0]["scores"]) == 6


def test_a_higher_score_may_choose_the_best(tmp_path, digits):
    _, file = validate(tmp_path, digits, metrics=[Spread()])
    assert (file["monitor"], file["mode"]) == ("score/spread_pixels", "max")


def test_scores_that_need_no_real_images_look_at_none(tmp_path, digits, monkeypatch):
    seen = []
    transfer = digits.on_after_batch_transfer
    monkeypatch.setattr(digits, "on_after_batch_transfer", lambda b, i: seen.append(len(b.image)) or transfer(b, i))
    _, file = validate(tmp_path, digits, metrics=[Spread()])
    assert sum(seen) == 60
    assert not (tmp_path / "cache").exists()
    assert file["final"]["protocol"]["real_images"] is None


def test_statistics_kept_for_one_score_serve_the_others(tmp_path, digits):
    validate(tmp_path, digits, metrics=["frechet"])
    (file,) = (tmp_path / "cache").iterdir()
    before = file.stat().st_mtime_ns
    _, found = validate(tmp_path, digits, metrics=["all", Shift()])
    assert file.stat().st_mtime_ns == before
    assert "score/kernel_pixels" in found["final"]["scores"]
    assert len(found["final"]["scores"]) == 5


class Fails(Metric):
    name = "fails"

    def compute(self, real, fake):
        return 1 / 0


def test_a_score_that_cannot_be_computed_is_named(tmp_path, digits):
    with pytest.raises(MisconfigurationException, match=r"--score\.metrics=fails_pixels cannot .*ZeroDivisionError"):
        validate(tmp_path, digits, metrics=["frechet", Fails()])


@pytest.mark.parametrize(
    ("metrics", "features", "sentence"),
    [
        (["fidd"], "inception", r"=fidd is no score: there are fid, kid, mifid, inception_score of .*frechet, kernel"),
        ([Spread], "inception", r"=<class .*Spread'> is no score"),
        (["fid"], "pixels", r"=fid is of Inception's features, .* pixels: ask for frechet, or .*features=inception"),
        (["fid", "frechet"], "inception", r"=fid must be there once"),
        (["kernel", "kernel"], "pixels", r"=kernel_pixels must be there once"),
        (["no.such.Metric"], "pixels", r"=no\.such\.Metric cannot be imported"),
        (["torch.nn.Linear"], "pixels", r"=torch\.nn\.Linear is not a callbacks\.scores\.metrics\.Metric class"),
        (
            ["callbacks.scores.metrics.Metric"],
            "pixels",
            r"=callbacks\.scores\.metrics\.Metric cannot be made without",
        ),
    ],
)
def test_scores_that_there_are_not(metrics, features, sentence):
    with pytest.raises(MisconfigurationException, match=rf"^--score\.metrics{sentence}"):
        Score(features, metrics=metrics)


def test_scores_that_the_features_cannot_give(tmp_path, digits):
    with pytest.raises(MisconfigurationException, match=r"=classifier_score_pixels must be .*pixels tells no classes"):
        validate(tmp_path, digits, metrics=["classifier_score"])
    np.savez(tmp_path / "real.npz", mu=np.zeros(64), sigma=np.eye(64))
    given = {"real_statistics": str(tmp_path / "real.npz")}
    with pytest.raises(MisconfigurationException, match=r"=kernel_pixels must be left out: .*npz has no features"):
        validate(tmp_path, digits, metrics=["kernel"], **given)
    assert set(validate(tmp_path, digits, **given)[1]["final"]["scores"]) == {"score/frechet_pixels"}


def test_by_class_path_and_by_other_names():
    (metric,) = select(["callbacks.scores.metrics.Kernel"], "pixels", 3)
    assert metric.called("pixels") == "kernel_pixels"
    (metric,) = select(["kid"], "inception", 3)
    assert metric.called("inception") == "kid"
    assert metric.seed == 3
    assert [metric.name for metric in select(["all"], "pixels", 0)] == [
        *("frechet", "kernel", "memorization_frechet", "classifier_score")
    ]


def test_without_scores_nothing_is_scored(tmp_path, digits):
    callback = Score("pixels", metrics=[])
    assert callback.monitor is None
    with pytest.raises(FileNotFoundError):
        validate(tmp_path, digits, metrics=[])


def test_where_numbers_are_not_finite_the_first_score_says_so(both, recwarn):
    fake = both[1].clone()
    fake[3, 0] = math.inf
    scores = compute(select(["kernel", "frechet"], "pixels", 0), collected(both[0]), collected(fake), "pixels")
    assert list(scores) == ["kernel_pixels"]
    assert math.isnan(scores["kernel_pixels"])
    assert "the generated images' pixels are not all finite" in str(recwarn.list[0].message)


# Features that are a module


class Mean(nn.Module):
    def __init__(self, power):
        super().__init__()
        self.power = power

    def forward(self, images):
        return images.float().mean((2, 3)) ** self.power


def test_features_may_be_a_module(tmp_path, digits):
    network = Mean(1)
    callback, file = validate(tmp_path, digits, features=network)
    assert set(file["final"]["scores"]) == {
        f"score/{name}_mean" for name in ("frechet", "kernel", "memorization_frechet")
    }
    assert file["final"]["protocol"]["features"].endswith(".Mean")
    assert network.training  # it is a copy that is frozen
    assert callback.monitor == "score/frechet_mean"
    _, other = validate(tmp_path, digits, features=Mean(2))  # with the same weights, and other settings
    assert other["final"]["scores"] != file["final"]["scores"]
    with pytest.raises(MisconfigurationException, match=r"--score\.weights=a\.pt .*Mean has none to load"):
        Score(features=network, weights="a.pt")
