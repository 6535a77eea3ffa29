"""The small classifier whose features stand in for Inception's."""

import json

import pytest
import torch
from conftest import small
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import MetricsFile, Score
from callbacks.scores import classifier
from callbacks.scores.classifier import SmallClassifier, classifier_of, extractor_of, reduced
from datamodules import Digits, ImageFolder
from gans import DCGAN


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """With a training of two steps, which is enough for all but learning."""
    monkeypatch.setattr(classifier, "EPOCHS", 0)
    monkeypatch.setattr(classifier, "LEAST_STEPS", 2)
    data = Digits(data_dir=str(tmp_path / "data"), image_size=16, batch_size=500)
    data.prepare_data()
    return data


def test_it_learns_the_classes_once_and_is_kept(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "LEAST_STEPS", 60)
    random = torch.get_rng_state()
    network = classifier_of(digits, tmp_path)
    assert torch.equal(torch.get_rng_state(), random)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    right = 0
    for images, labels in digits.ordered("train"):
        features, logits = network(images)
        assert features.shape == (len(images), 128)
        right += (logits.argmax(1) == labels).sum().item()
    assert right / 1797 > 0.9
    monkeypatch.setattr(classifier, "train", None)  # would raise
    again = classifier_of(digits, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), network.parameters(), strict=True))


def test_images_of_any_size_are_brought_to_its_own():
    ramp = torch.arange(0, 256, 4, dtype=torch.uint8).expand(1, 1, 64, 64)
    half = reduced(ramp)
    assert half.shape == (1, 1, 32, 32)
    torch.testing.assert_close(half[0, 0, 0, 1:-1].float(), torch.arange(2, 256, 8.0)[1:-1], atol=1, rtol=0)
    assert reduced(half) is half
    assert SmallClassifier(3, 5).eval()(torch.zeros(2, 3, 128, 128, dtype=torch.uint8)).logits.shape == (2, 5)


def test_scores_in_its_features(digits, tmp_path):
    score = Score(features="classifier", num_images=100, cache_dir=str(tmp_path / "cache"))
    assert score.monitor == "score/frechet_classifier"
    options = {"enable_progress_bar": False, "accelerator": "cpu"}
    Trainer(logger=MetricsFile(tmp_path), callbacks=[score], **options).validate(small(DCGAN), digits, verbose=False)
    scores = json.loads((tmp_path / "scores.json").read_text())["final"]["scores"]
    assert {"score/frechet_classifier", "score/kernel_classifier", "score/classifier_score_classifier"} <= scores.keys()
    assert 1 - 1e-9 <= scores["score/classifier_score_classifier"] <= 10  # up to rounding


def test_data_without_classes_is_refused(tmp_path):
    from torchvision.io import write_png

    write_png(torch.zeros(1, 8, 8, dtype=torch.uint8), str(tmp_path / "a.png"))
    data = ImageFolder(data_dir=str(tmp_path), image_size=8)
    with pytest.raises(MisconfigurationException, match=r"--score\.features=classifier needs labelled --data"):
        classifier_of(data, tmp_path)


@pytest.mark.parametrize("damage", ["cut", "list", "other", "empty", "garbage"])
def test_a_damaged_file_is_said_and_the_classifier_trained_anew(damage, digits, tmp_path, recwarn):
    network = classifier_of(digits, tmp_path)
    (path,) = tmp_path.glob("classifier-*.pt")
    if damage == "list":
        torch.save([1, 2], path)
    elif damage == "other":
        torch.save(SmallClassifier(3, 10).state_dict(), path)  # of RGB images
    else:
        path.write_bytes({"empty": b"", "cut": path.read_bytes()[:5000], "garbage": b"garbage" * 99}[damage])
    again = classifier_of(digits, tmp_path)
    (said,) = [w for w in recwarn if "classifier" in str(w.message)]
    assert f"{path} is damaged" in str(said.message)
    kept = torch.load(path, weights_only=True)
    for key, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
        assert torch.equal(kept[key], value)


def test_a_file_that_cannot_be_written_costs_nothing_but_time(digits, tmp_path, full_disk):
    with full_disk(100_000), pytest.warns(UserWarning, match=r"classifier-.*\.pt cannot be written \(File too large\)"):
        network = classifier_of(digits, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    again = classifier_of(digits, tmp_path / "cache")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), network.parameters(), strict=True))


@pytest.mark.parametrize(("precision", "half"), [("bf16-mixed", True), ("32-true", False)])
def test_it_is_trained_in_the_precision_of_the_run(precision, half, digits, tmp_path, monkeypatch):
    """Processors without instructions for bfloat16 emulate it, slowly."""
    found = []
    monkeypatch.setattr(classifier, "train", lambda *arguments: found.append(arguments[-1]))
    run = Trainer(logger=False, precision=precision, accelerator="cpu", enable_progress_bar=False)
    run.datamodule = digits
    extractor_of(run, "classifier", None, tmp_path)
    assert found == [half]
