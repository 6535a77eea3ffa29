"""Scores without a Trainer, beside those of the callback for the same images."""

import json
from typing import NamedTuple

import pytest
import torch
from conftest import small
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from callbacks import MetricsFile, Score
from callbacks.pictures.images import to_uint8, write_image
from callbacks.scores import Metric, score
from callbacks.scores.collect import share
from callbacks.scores.features import create
from datamodules import Digits
from gans import DCGAN


@pytest.fixture
def digits(tmp_path):
    return Digits(data_dir=str(tmp_path / "data"), image_size=16, batch_size=64)


def pictures(n, channels=3, seed=0, size=16):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), generator=generator) / 127.5 - 1


def validated(callback, model, data, tmp_path):
    """What the callback finds, by the names that the function gives."""
    options = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    run = Trainer(callbacks=[callback], logger=MetricsFile(tmp_path / "run"), accelerator="cpu", **options)
    run.validate(model, data, verbose=False)
    scores = json.loads((tmp_path / "run/scores.json").read_text())["final"]["scores"]
    return {name.removeprefix("score/"): value for name, value in scores.items()}


@pytest.mark.parametrize(("num_images", "num_real"), [(200, 300), (2000, None)])
def test_a_model_and_a_data_module(num_images, num_real, tmp_path, digits):
    """The same noise, the same images and the same arithmetic; real images are seen once more or from a cache."""
    model = small(DCGAN)
    options = {"features": "pixels", "num_images": num_images, "num_real": num_real, "seed": 3}
    expected = validated(Score(**options, cache_dir=str(tmp_path / "cache")), model, digits, tmp_path)
    model.train()
    assert score(digits, model, **options) == expected
    assert model.training
    assert model.generator.training


class Batch(NamedTuple):
    image: torch.Tensor
    label: torch.Tensor


class Negative(nn.Module):
    """Not of Lightning's kind."""

    def generate(self, batch):
        return -batch[0]


def test_a_model_and_a_loader_without_a_plan(tmp_path):
    real = pictures(50)
    loader = DataLoader(TensorDataset(real, torch.zeros(50)), batch_size=8)
    found = score(loader, Negative(), features="pixels", num_images=20)
    model = small(DCGAN, image_shape=(3, 16, 16))
    model.generate, model.real = Negative().generate, lambda batch: batch[0]
    callback = Score("pixels", num_images=20, cache_dir=str(tmp_path / "cache"))
    assert found == validated(callback, model, loader, tmp_path)
    chosen = [first + i for first in range(0, 50, 8) for i in range(share(first, 8, 20, 50))]  # the first of a batch
    assert found == score(real, -real[chosen], features="pixels")


def test_two_sets_in_all_forms(tmp_path):
    """As tensors, in batches, as loaders and in folders of files they are the same images."""
    sets = {"real": pictures(40), "fake": pictures(30, seed=1) * 0.7}
    sets = {name: to_uint8(images) / 127.5 - 1 for name, images in sets.items()}
    for name, images in sets.items():
        for number, image in enumerate(to_uint8(images)):
            write_image(image, tmp_path / name / f"{number // 10}/{number:03d}.png")
    (tmp_path / "real/notes.txt").write_text("no image")
    (tmp_path / "real/.hidden.png").write_text("no image")
    forms = [
        sets.values(),
        [list(images.split(7)) for images in sets.values()],
        [[Batch(part, part[:, 0]) for part in images.split(7)] for images in sets.values()],
        [DataLoader(TensorDataset(images), batch_size=9) for images in sets.values()],
        [tmp_path / name for name in sets],
        [str(tmp_path / name) for name in sets],
    ]
    found = [score(*form, features="pixels") for form in forms]
    found.append(score(*(iter(images.split(7)) for images in sets.values()), ["all"], "pixels", None, 30, 40))
    assert all(scores == found[0] for scores in found)
    assert set(found[0]) == {"frechet_pixels", "kernel_pixels", "memorization_frechet_pixels"}


def test_images_of_other_sizes_and_kinds(tmp_path):
    for number, (mode, size) in enumerate((("RGB", 16), ("L", 16), ("P", 20), ("RGBA", 8), ("1", 16), ("I;16", 9))):
        Image.new(mode, (size, size)).save(tmp_path / f"{number}.png")
    with pytest.raises(MisconfigurationException, match="as many channels"):
        score(tmp_path, tmp_path, features="pixels")
    for name in ("1", "4"):
        (tmp_path / f"{name}.png").unlink()
    assert score(tmp_path, pictures(9, 3), ["frechet"], features="pixels")["frechet_pixels"] > 0


def test_the_random_state_of_the_caller_stays(digits):
    state = torch.get_rng_state()
    model = small(DCGAN)
    state = torch.get_rng_state()
    found = score(digits, model, features="pixels", num_images=50)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert score(digits, model, features="pixels", num_images=50) == found
    shuffled = DataLoader(TensorDataset(pictures(30)), batch_size=8, shuffle=True)
    state = torch.get_rng_state()
    score(shuffled, pictures(30, seed=1), features="pixels")
    assert torch.equal(torch.get_rng_state(), state)


class Bright(Metric):
    name = "bright"
    needs_real = False

    def compute(self, real, fake):
        assert real is None
        return fake.features.mean()


def test_a_score_of_ones_own_in_features_of_ones_own():
    class Brightness(nn.Module):
        def forward(self, images):
            return images.float().mean((2, 3))

    fake = pictures(20)
    expected = float(to_uint8(fake).float().mean())
    assert score(None, fake, [Bright()], Brightness()) == {"bright_brightness": pytest.approx(expected, rel=1e-5)}


def test_the_classifier_of_a_data_module(tmp_path, digits, monkeypatch):
    monkeypatch.setattr("callbacks.scores.classifier.LEAST_STEPS", 2)
    monkeypatch.setattr("callbacks.scores.classifier.EPOCHS", 0)
    model, cache = small(DCGAN), str(tmp_path / "cache")
    expected = validated(Score("classifier", num_images=100, cache_dir=cache), model, digits, tmp_path)
    assert score(digits, model, features="classifier", num_images=100, cache_dir=cache) == expected
    assert {"classifier_score_classifier", "classifier_score_classifier_std"} < set(expected)
    with pytest.raises(MisconfigurationException, match="needs labelled"):
        score(pictures(5), pictures(5), features="classifier")


def wrong(tmp_path):
    (tmp_path / "folder").mkdir()
    for name in "ab":
        (tmp_path / f"folder/{name}.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    four = pictures(4)
    return {
        "a broken image": ((tmp_path / "folder", four), r"folder/a\.png cannot be read as an image"),
        "an empty folder": ((tmp_path / "empty", four), r"empty is no folder that holds images"),
        "no folder": ((tmp_path / "none", four), r"none is no folder that holds images"),
        "one image": ((four, four[:1]), "at least 2 generated images, and there is 1"),
        "bytes": (
            (four, (four * 127.5).to(torch.uint8)),
            r"generated images must be floats .*got \(4, 3, 16, 16\), uint8",
        ),
        "an image": ((four[0], four), r"real images must be floats \(N, C, H, W\)"),
        "too few": ((four, iter([four]), ["all"], "pixels", None, 9), "there are 4 generated images, and not 9"),
        "nobody knows how many": ((four, iter([four])), "at least 2 generated images, .* num_images"),
        "classes": ((four, four, ["classifier_score"]), "features=pixels tells no classes apart"),
        "grey and colour": ((four, four[:, :1]), "as many channels"),
        "no metric": ((four, four, ["nonsense"]), "--score.metrics=nonsense is no score"),
        "a model alone": ((None, Negative()), "Score compares with the images of one .* there is none"),
    }


@pytest.mark.parametrize("case", ["a broken image", "an empty folder", "no folder", "one image", "bytes", "an image"])
def test_images_that_cannot_be_scored(case, tmp_path):
    given, sentence = wrong(tmp_path)[case]
    with pytest.raises(MisconfigurationException, match=sentence):
        score(*given, features="pixels")


@pytest.mark.parametrize(
    "case", ["too few", "nobody knows how many", "classes", "grey and colour", "no metric", "a model alone"]
)
def test_what_cannot_be_scored(case, tmp_path):
    given, sentence = wrong(tmp_path)[case]
    given = dict(zip(("real", "fake", "metrics", "features", "weights", "num_images"), given, strict=False))
    with pytest.raises(MisconfigurationException, match=sentence):
        score(**{"features": "pixels"} | given)


def test_pixels_are_read_as_they_are(tmp_path):
    """Rounded as ``to_uint8`` does, and not resized."""
    images = pictures(12, size=8)
    for number, image in enumerate(to_uint8(images)):
        write_image(image, tmp_path / f"{number}.png")
    features = create("pixels", None)(to_uint8(images)).features
    assert score(tmp_path, images, ["frechet"], "pixels")["frechet_pixels"] == pytest.approx(0, abs=1e-6)
    assert features.shape == (12, 192)


def test_images_that_were_never_scaled_are_refused():
    """Clipped to white, any two sets of them would be equal."""
    for images in (torch.rand(40, 1, 8, 8) * 255, torch.rand(40, 1, 8, 8) * 2):
        with pytest.raises(MisconfigurationException, match=r"images must be in \[-1, 1\].*these go from"):
            score(images, images, features="pixels")
