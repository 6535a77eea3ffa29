"""The Score callback, beside the same numbers computed directly from the images it saw."""

import csv
import json
import math
import threading
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import small
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch import nn
from watch import Watch

from callbacks import EMA, MetricsFile, Quality, Score
from callbacks.pictures.images import to_uint8
from callbacks.runs.ranks import agreed
from callbacks.scores.classifier import extractor_of
from callbacks.scores.collect import Collector, read_statistics, write_statistics
from callbacks.scores.distances import frechet_distance, kernel_distance, memorization_distance
from callbacks.scores.features import Custom, Features, create, fingerprint
from callbacks.scores.history import keep_until, record
from datamodules import Digits, ImageFolder, UnpairedFolder
from gans import DCGAN

FRECHET = "score/frechet_pixels"
PROBED = 4  # images that an extractor is tried on before


@pytest.fixture
def digits(tmp_path):
    return Digits(data_dir=str(tmp_path / "data"), image_size=16, batch_size=64)


@pytest.fixture
def few_subsets(monkeypatch):
    """For tests that ask for many images, but not for KID, which costs a second and a half of them."""
    monkeypatch.setattr("callbacks.scores.metrics.kernel_distance", partial(kernel_distance, subsets=2))


def trainer(tmp_path, *callbacks, **kwargs):
    options = {
        "logger": MetricsFile(tmp_path / "run"),
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "num_sanity_val_steps": 0,
    }
    return Trainer(**options | kwargs, callbacks=list(callbacks))


def score(tmp_path, **kwargs):
    return Score(**{"features": "pixels", "cache_dir": str(tmp_path / "cache")} | kwargs)


def validate(callback, model, digits, tmp_path):
    """The scores that a validation records."""
    trainer(tmp_path, callback).validate(model, digits, verbose=False)
    return json.loads((tmp_path / "run/scores.json").read_text())["final"]


def recorded(model, monkeypatch):
    """A list that every image the model generates is added to."""
    images = []
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda batch: images.append(generate(batch)) or images[-1])
    return images


def real_images(digits):
    return torch.cat([batch.image for batch in digits.val_dataloader()])


def scipy_frechet(a, b):
    mu1, mu2 = a.mean(0), b.mean(0)
    sigma1, sigma2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(sigma1 @ sigma2).real
    return ((mu1 - mu2) ** 2).sum() + np.trace(sigma1 + sigma2 - 2 * root)


@pytest.mark.parametrize("num_images", [300, 1797, 4000])
def test_scores_are_those_of_exactly_the_images_asked_for(num_images, tmp_path, digits, monkeypatch):
    """Fewer generated images than real ones, as many, and more."""
    model = small(DCGAN)
    generated = recorded(model, monkeypatch)
    scores = validate(score(tmp_path, num_images=num_images), model, digits, tmp_path)["scores"]
    pixels = create("pixels", None)
    fake = pixels(to_uint8(torch.cat(generated))).features.double()
    real = pixels(real_images(digits)).features.double()
    assert len(fake) == num_images
    assert len(real) == 1797
    expected = scipy_frechet(real.numpy(), fake.numpy())
    assert scores[FRECHET] == pytest.approx(expected, rel=1e-4)
    assert scores["score/kernel_pixels"] == pytest.approx(float(kernel_distance(real, fake)), rel=1e-4)
    memorization = float(memorization_distance(real, fake))
    assert scores["score/memorization_frechet_pixels"] == pytest.approx(expected / memorization, rel=1e-4)
    assert not any("fid" in name or "classifier" in name for name in scores)  # no Inception, no logits


def test_a_subset_of_the_real_images_is_spread_over_all_of_them(tmp_path, digits):
    model = small(DCGAN)
    few = validate(score(tmp_path, num_images=500, num_real=100), model, digits, tmp_path)
    assert few["protocol"]["real_images"] == 100
    (file,) = (tmp_path / "cache").glob("*.npz")
    real = create("pixels", None)(real_images(digits)).features.double()
    indices = [i for i in range(1797) if (i + 1) * 100 // 1797 > i * 100 // 1797]
    np.testing.assert_allclose(np.load(file)["mu"], real[indices].mean(0), rtol=1e-6)


class Logits(nn.Module):
    """Stands in for Inception: features and logits."""

    resize = "none"

    def forward(self, images):
        from callbacks.scores.features import Features

        features = images.float().flatten(1)[:, ::16]
        return Features(features, features[:, :7] / 32)


def test_only_inception_gives_the_names_of_published_scores(tmp_path, digits, monkeypatch):
    monkeypatch.setattr("callbacks.scores.classifier.create", lambda *_: Logits())
    names = {"score/fid", "score/kid", "score/inception_score", "score/inception_score_std", "score/mifid"}
    callback = score(tmp_path, features="inception", num_images=200)
    assert callback.monitor == "score/fid"
    assert validate(callback, small(DCGAN), digits, tmp_path)["scores"].keys() == names
    callback = score(tmp_path, features="resnet18", num_images=200)
    scores = validate(callback, small(DCGAN), digits, tmp_path)["scores"]
    assert callback.monitor == "score/frechet_resnet18"
    assert {name.removesuffix("_std").rpartition("_")[2] for name in scores} == {"resnet18"}


def test_training_goes_on_as_if_nothing_had_been_scored(tmp_path, digits):
    """The same weights, bit for bit, with and without scores on the way."""
    weights = []
    for num_images in (0, 100):
        torch.manual_seed(0)
        model = small(DCGAN)
        callback = score(tmp_path, num_images=num_images)
        trainer(tmp_path, callback, max_steps=6, val_check_interval=2, check_val_every_n_epoch=None).fit(model, digits)
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


def test_the_extractor_never_enters_a_checkpoint(tmp_path, digits, monkeypatch):
    extractor = Logits()
    extractor.weight = nn.Parameter(torch.zeros(3))
    monkeypatch.setattr("callbacks.scores.classifier.create", lambda *_: extractor)
    model = small(DCGAN)
    run = trainer(tmp_path, score(tmp_path, num_images=50), max_steps=1)
    run.fit(model, digits)
    run.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {"generator", "discriminator"}
    assert not any(p is extractor.weight for p in model.parameters())
    assert "Score" not in checkpoint["callbacks"]


def test_real_statistics_are_computed_once_and_kept(tmp_path, digits, monkeypatch):
    model = small(DCGAN)
    first = validate(score(tmp_path, num_images=50), model, digits, tmp_path)
    counted = []
    monkeypatch.setattr("callbacks.scores.classifier.create", lambda *_: counting(counted))
    second = validate(score(tmp_path, num_images=50), model, digits, tmp_path)
    assert sum(counted) == PROBED + 50  # generated images only
    assert second["scores"] == first["scores"]
    digits.image_size = 32  # other images
    digits.prepare_data()
    validate(score(tmp_path, num_images=50), small(DCGAN, image_shape=(1, 32, 32)), digits, tmp_path)
    assert sum(counted) == 2 * PROBED + 50 + 50 + 1797


class Projection(nn.Module):
    """A network of a user's own that draws its weights."""

    scale = 1.0

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.register_buffer("factor", torch.full((), self.scale), persistent=False)

    def forward(self, images):
        return self.layer(images.float().mean((2, 3))) * self.factor


@pytest.mark.usefixtures("few_subsets")
def test_statistics_are_kept_under_the_weights_of_what_looked_at_the_images(tmp_path, digits, monkeypatch):
    """The same weights find them again, in whatever state random numbers are; others never do."""
    monkeypatch.setattr("callbacks.scores.features.Projection", Projection, raising=False)
    model = small(DCGAN)
    monkeypatch.setattr(model, "generate", model.real)  # real images against the same real images
    for scale, files in ((1.0, 1), (1.0, 1), (100.0, 2), (1.0, 2)):
        monkeypatch.setattr(Projection, "scale", scale)
        torch.rand(files)
        callback = score(tmp_path, num_images=1797, features="callbacks.scores.features.Projection")
        scores = validate(callback, model, digits, tmp_path)["scores"]
        assert scores["score/frechet_projection"] == pytest.approx(0, abs=1e-4)
        assert len(list((tmp_path / "cache").iterdir())) == files


def test_every_rank_has_the_weights_of_the_first(monkeypatch):
    """Whatever a node's own files hold, or its own random numbers make of a network."""
    meeting, told, made = threading.Barrier(2, timeout=20), {}, {}

    def gather(into, mine):
        told[threading.current_thread().name] = mine
        meeting.wait()
        into[:] = [told[name] for name in sorted(told)]
        meeting.wait()

    def broadcast(value):
        values = [None, None]
        gather(values, value)
        return values[0]

    def rank(number):
        strategy = type("Strategy", (), {"broadcast": staticmethod(broadcast), "root_device": "cpu"})
        trainer = type("Trainer", (), {"world_size": 2, "local_rank": 0, "strategy": strategy})
        made[number] = extractor_of(trainer, "package.Network", None, None, Custom(nn.Linear(3, 4)))

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    ranks = [threading.Thread(target=rank, args=(number,), name=str(number)) for number in (0, 1)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join()
    assert fingerprint(made[0]) == fingerprint(made[1])


def test_what_is_wrong_on_one_rank_is_said_on_all(monkeypatch):
    monkeypatch.setattr(
        torch.distributed, "all_gather_object", lambda into, mine: into.__setitem__(slice(None), [mine, "wrong"])
    )
    with pytest.raises(MisconfigurationException, match=r"^wrong$"), agreed(type("Trainer", (), {"world_size": 2})):
        pass


def test_one_real_image_has_no_spread_to_compare(tmp_path, digits):
    """Of a folder, and where validation is limited to one; before training."""
    (tmp_path / "one").mkdir()
    Image.new("L", (16, 16)).save(tmp_path / "one/a.png")
    folder = ImageFolder(str(tmp_path / "one"), channels=1, image_size=16, batch_size=1)
    digits.batch_size = 1
    for data, limit in ((folder, 1.0), (digits, 1)):
        run = trainer(tmp_path, score(tmp_path, num_images=50), max_steps=2, limit_val_batches=limit)
        with pytest.raises(MisconfigurationException, match="at least 2 real images to compare with, and there is 1"):
            run.fit(small(DCGAN), data)
        assert run.global_step == 0


def test_where_there_is_no_validation_it_is_said(tmp_path, digits):
    with pytest.warns(UserWarning, match="nothing is scored, .* --trainer.limit_val_batches is 0"):
        trainer(tmp_path, score(tmp_path), max_steps=1, limit_val_batches=0).fit(small(DCGAN), digits)


class Looks(Callback):
    """Looks at all images of a validation."""

    seen = 0

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, *_):
        self.seen += len(batch.image)


def walked(tmp_path, digits, monkeypatch, *callbacks, **kwargs):
    """The scores of two trainings of images "generated" from the batch, and how many images came to validations."""
    model, came = small(DCGAN), []
    model.generate = lambda batch: -batch.image
    transfer = digits.on_after_batch_transfer

    def counted(batch, dataloader_idx):
        came.append(len(batch.image) * digits.trainer.validating)
        return transfer(batch, dataloader_idx)

    monkeypatch.setattr(digits, "on_after_batch_transfer", counted)
    callback, scores, counts = score(tmp_path, **kwargs), [], []
    for _ in range(2):
        trainer(tmp_path, callback, *callbacks, **SHORT).fit(model, digits)
        scores.append(json.loads((tmp_path / "run/scores.json").read_text())["final"]["scores"])
        counts.append(sum(came))
        came.clear()
    return scores, counts


SHORT = {"max_steps": 1, "check_val_every_n_epoch": None}


@pytest.mark.usefixtures("few_subsets")
@pytest.mark.parametrize(
    ("kwargs", "counts"),
    [({"num_real": 300, "num_images": 200}, [500, 200]), ({"num_images": 2000}, [3797, 2000])],
)
def test_only_images_that_count_are_gone_through(kwargs, counts, tmp_path, digits, monkeypatch):
    """Those that are compared with once, those that images are made of every time; somebody who looks sees all."""
    scores, found = walked(tmp_path / "some", digits, monkeypatch, **kwargs)
    assert found == counts
    assert scores[0] == scores[1]
    looks = Looks()
    assert walked(tmp_path / "all", digits, monkeypatch, looks, **kwargs)[0] == scores
    assert looks.seen == 2 * 1797
    assert len(digits.val_dataloader()) == 29


def test_noise_is_the_same_whether_real_images_are_known_and_whoever_looks(tmp_path, digits):
    model, found = small(DCGAN), []
    for callbacks in ([], [], [Looks()]):
        callback = score(tmp_path, num_images=200, num_real=300)
        trainer(tmp_path, callback, *callbacks).validate(model, digits, verbose=False)
        found.append(json.loads((tmp_path / "run/scores.json").read_text())["final"])
    assert found[0] == found[1] == found[2]


def counting(counted):
    pixels = create("pixels", None)
    pixels.register_forward_hook(lambda _, inputs, __: counted.append(len(inputs[0])))
    return pixels


def test_a_damaged_cache_is_made_anew(tmp_path, digits):
    model = small(DCGAN)
    first = validate(score(tmp_path, num_images=50), model, digits, tmp_path)
    (file,) = (tmp_path / "cache").glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert validate(score(tmp_path, num_images=50), model, digits, tmp_path)["scores"] == first["scores"]
    assert read_statistics(file)[0].shape == (64,)


def test_published_statistics_stand_in_for_real_images(tmp_path, digits):
    model = small(DCGAN)
    full = validate(score(tmp_path, num_images=50), model, digits, tmp_path)["scores"]
    (file,) = (tmp_path / "cache").glob("*.npz")
    write_statistics(tmp_path / "published.npz", *read_statistics(file))
    given = score(tmp_path, num_images=50, real_statistics=str(tmp_path / "published.npz"))
    entry = validate(given, model, digits, tmp_path)
    assert entry["scores"] == {FRECHET: pytest.approx(full[FRECHET], rel=1e-12)}  # KID and MiFID need features
    assert "published.npz" in str(entry["protocol"]["real_images"])


class FailsWhenItTrains(Callback):
    def on_train_start(self, *_):
        raise AssertionError


def test_statistics_that_do_not_fit_are_refused(tmp_path, digits):
    path = tmp_path / "wrong.npz"

    def check(sentence):
        with pytest.raises(MisconfigurationException, match=sentence):
            validate(score(tmp_path, num_images=50, real_statistics=str(path)), small(DCGAN), digits, tmp_path)

    check(r"--score\.real_statistics=.*wrong\.npz is not an \.npz file")
    np.savez(path, mean=np.zeros(3))
    check(r"with the arrays mu and sigma")
    np.savez(path, mu=np.zeros(3), sigma=np.eye(4))
    check(r"mu \(D,\) and sigma \(D, D\)")
    np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
    check(r"is of 3 features, but --score\.features=pixels has 64")
    np.savez(path, mu=np.full(64, np.nan), sigma=np.eye(64))
    check(r"holds numbers that are not finite")
    with pytest.raises(MisconfigurationException):
        trainer(tmp_path, score(tmp_path, real_statistics=str(path)), FailsWhenItTrains()).fit(small(DCGAN), digits)


def test_a_score_carries_its_protocol(tmp_path, digits):
    callback = score(tmp_path, num_images=50, num_real=60, seed=3)
    run = trainer(tmp_path, callback, EMA(), max_steps=2)
    run.fit(small(DCGAN), digits)
    entry = json.loads((tmp_path / "run/scores.json").read_text())["final"]
    assert entry["step"] == 2
    protocol = entry["protocol"]
    assert protocol.pop("reference").startswith("digits-train-16x16x1-")
    assert protocol == {
        "features": "pixels",
        "resize": "mean over areas to 8x8",
        "generated_images": 50,
        "real_images": 60,
        "weights": "ema",
        "seed": 3,
    }
    last = (tmp_path / "run/metrics.csv").read_text().splitlines()
    assert "score/generated_images" in last[0]
    assert entry["scores"][FRECHET] == pytest.approx(float(run.callback_metrics[FRECHET]))


def entry(step, value, name="s"):
    return {"step": step, "scores": {name: value}}


def history(path, *entries, monitor="s"):
    """A file of scores, as it is after these are recorded."""
    for one in entries:
        record(path, one, monitor)
    return json.loads(path.read_text())


def test_an_entry_replaces_that_of_its_own_step_only(tmp_path):
    entries = entry(10, 3.0), entry(20, 1.0), entry(30, math.nan), entry(40, 2.0), entry(30, 1.5), entry(0, 9.0)
    kept = history(tmp_path / "scores.json", *entries)
    assert kept["best"] == entry(20, 1.0)
    assert kept["final"] == entry(40, 2.0)
    assert kept["history"] == [entry(0, 9.0), entry(10, 3.0), entry(20, 1.0), entry(30, 1.5), entry(40, 2.0)]


def test_entries_of_other_features_or_without_a_number_are_never_the_best(tmp_path):
    path = tmp_path / "scores.json"
    history(path, entry(10, 1.0, "score/fid"), entry(20, math.nan), entry(30, None), monitor="score/fid")
    kept = history(path, entry(40, 5.0), entry(50, 6.0))
    assert kept["best"] == entry(40, 5.0)
    assert len(kept["history"]) == 5
    assert history(path, entry(60, math.nan, "t"), monitor="t")["best"] is None


@pytest.mark.parametrize("monitor", ["quality/psnr", "score/fid"])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(("step", "inclusive", "left"), [(30, True, 3), (30, False, 2), (25, True, 2), (99, False, 4)])
def test_a_file_of_scores_is_cut_back(monitor, named, step, inclusive, left, tmp_path):
    """Files that do not name the monitor are older; it was always the first score of an entry."""
    path = tmp_path / "scores.json"
    entries = [entry(s, v, monitor) for s, v in ((10, 3.0), (20, 1.0), (30, 2.0), (40, 9.0 * ("psnr" in monitor)))]
    content = history(path, *[e | {"scores": e["scores"] | {"other": 0.0}} for e in entries], monitor=monitor)
    if not named:
        del content["monitor"]
        path.write_text(json.dumps(content))
    keep_until(path, step, inclusive)
    kept = json.loads(path.read_text())
    assert [e["step"] for e in kept["history"]] == [10, 20, 30, 40][:left]
    assert kept["final"]["step"] == 10 * left
    best = {"quality/psnr": {4: 40}, "score/fid": {4: 40, 3: 20, 2: 20}}[monitor].get(left, 10)
    assert kept["best"]["step"] == best


def test_a_file_of_which_nothing_is_left_is_removed(tmp_path):
    path = tmp_path / "scores.json"
    keep_until(path, 10, True)
    history(path, entry(10, 1.0))
    keep_until(path, 10, False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"best": null, "history": [{"step"',
        b"\0" * 30,
        b"\xff{}",
        b"[1, 2]",
        b"3",
        b'{"history": {"step": 1}}',
        b'{"history": [{"scores": {}}]}',
        b'{"history": [{"step": "10", "scores": {}}]}',
        b'{"history": [7]}',
    ],
)
def test_a_damaged_file_is_put_aside(content, tmp_path):
    path = tmp_path / "scores.json"
    for work in (lambda: record(path, entry(10, 1.0), "s"), lambda: keep_until(path, 99, True)):
        path.write_bytes(content)
        with pytest.warns(UserWarning, match=r"scores\.json is damaged: it is kept as scores\.json\.damaged") as said:
            work()
        assert len(said) == 1
        assert (tmp_path / "scores.json.damaged").read_bytes() == content
        assert not path.exists() or json.loads(path.read_text())["history"] == [entry(10, 1.0)]


def test_a_file_that_cannot_be_written_is_said_once(tmp_path, recwarn):
    (tmp_path / "scores.json").mkdir()
    for step in (1, 2):
        record(tmp_path / "scores.json", entry(step, 1.0), "s")
    keep_until(tmp_path / "scores.json", 1, True)
    (said,) = recwarn
    assert str(said.message).endswith("scores.json cannot be written (Is a directory); training goes on")


class Anyhow(Quality):
    """Compares images that have nothing to do with each other."""

    def setup(self, *_, **__):
        pass


def test_validate_and_test_return_the_scores_and_loggers_get_them_once_at_the_step_of_the_model(tmp_path, digits):
    model = small(DCGAN)
    model.trained_steps = 7
    log = MetricsFile(tmp_path / "run")
    for step in (3, 9):
        log.log_metrics({"loss": 1.0}, step=step)
    for number, evaluate in enumerate(("validate", "test")):
        run = trainer(tmp_path, score(tmp_path, num_images=50), Anyhow(["psnr"]))
        (results,) = getattr(run, evaluate)(model, digits, verbose=False)
        scores = {}
        for file in ("scores.json", "quality.json"):
            final = json.loads((tmp_path / "run" / file).read_text())["final"]
            assert final["step"] == 7
            scores |= final["scores"]
        assert {"score/frechet_pixels", "quality/psnr"} <= scores.keys()
        for name, value in scores.items():
            assert results[name] == pytest.approx(value)
            assert float(run.callback_metrics[name]) == pytest.approx(value)
        with (tmp_path / "run/metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["step"] for row in rows] == ["3", "9", *["7"] * (number + 1)]  # nothing is lost or said twice
        assert float(rows[-1][FRECHET]) == pytest.approx(scores[FRECHET])
        assert float(rows[-1]["score/generated_images"]) == 50


def test_in_training_the_loggers_get_scores_once(tmp_path, digits):
    run = trainer(tmp_path, score(tmp_path, num_images=50), max_steps=4, val_check_interval=2)
    run.fit(small(DCGAN), digits)
    with (tmp_path / "run/metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file) if row[FRECHET]] == ["2", "4"]


def test_a_cache_of_another_shape_is_made_anew(tmp_path, digits):
    model = small(DCGAN)
    first = validate(score(tmp_path, num_images=50), model, digits, tmp_path)
    (file,) = (tmp_path / "cache").glob("*.npz")
    good = dict(np.load(file))
    for change in (
        {"mu": good["mu"][None]},
        {"mu": good["mu"][0]},
        {"sigma": good["sigma"][:-1]},
        {"features": good["features"][:, :-1]},
        {"features": good["features"][0]},
        {"count": np.arange(3)},
        {"mu": np.array(["a"] * 64)},
        {"mu": np.zeros(3), "sigma": np.eye(3), "features": np.zeros((9, 3))},
    ):
        np.savez(file, **good | change)
        assert validate(score(tmp_path, num_images=50), model, digits, tmp_path)["scores"] == first["scores"]
        assert read_statistics(file)[0].shape == (64,)


def test_statistics_that_cannot_be_kept_cost_nothing_but_time(tmp_path, digits, full_disk):
    digits.prepare_data()
    with (
        full_disk(100_000),
        pytest.warns(UserWarning, match=r"cache/digits-.*\.npz cannot be written \(.*\); training goes on"),
    ):
        entry = validate(score(tmp_path, num_images=50), small(DCGAN), digits, tmp_path)
    assert entry["scores"][FRECHET] > 0


def test_features_that_are_not_finite_give_no_score_and_a_warning(tmp_path, digits, monkeypatch):
    pixels = create("pixels", None)
    few = 2  # on which an extractor is tried before
    pixels.register_forward_hook(lambda _, __, out: out._replace(features=out.features / (len(out.features) <= few)))
    monkeypatch.setattr("callbacks.scores.classifier.create", lambda *_: pixels)
    with pytest.warns(UserWarning, match="the real images' features are not all finite numbers, so there is no score$"):
        scores = validate(score(tmp_path, num_images=50), small(DCGAN), digits, tmp_path)["scores"]
    assert math.isnan(scores.pop(FRECHET))
    assert not scores


def test_weights_that_are_no_numbers_give_no_score_and_a_warning(tmp_path, digits):
    """Their images would be black, which has a score."""
    model = small(DCGAN)
    next(model.generator.parameters()).data[0] = torch.nan
    with pytest.warns(UserWarning, match="generated images' pixels are not all finite .*: has training diverged"):
        scores = validate(score(tmp_path, num_images=50), model, digits, tmp_path)["scores"]
    assert math.isnan(scores.pop(FRECHET))
    assert not scores


def test_what_scoring_costs_on_a_cpu_is_said_once(tmp_path, digits, monkeypatch):
    said = []
    clock = iter(range(0, 10**6, 30))
    monkeypatch.setattr("callbacks.score.rank_zero_info", said.append)
    monkeypatch.setattr("callbacks.score.time.perf_counter", lambda: next(clock))
    validate(score(tmp_path, num_images=300), small(DCGAN), digits, tmp_path)
    (sentence,) = said
    assert "scoring 300 generated images in pixels features takes about 75 min here each time" in sentence  # at 15 s
    assert "and 1,797 real ones 449 min more the first time; --score.num_images" in sentence
    validate(score(tmp_path, num_images=300), small(DCGAN), digits, tmp_path)
    assert "real ones" not in said[1]  # whose statistics are kept


@pytest.mark.usefixtures("few_subsets")
def test_slow_generators_count_too(tmp_path, digits, monkeypatch):
    said = []
    clock = iter([0, 0, 0, 0, *range(0, 10**6, 30)])  # the extractor takes no time
    monkeypatch.setattr("callbacks.score.rank_zero_info", said.append)
    monkeypatch.setattr("callbacks.score.time.perf_counter", lambda: next(clock))
    validate(score(tmp_path, num_images=1797), small(DCGAN), digits, tmp_path)
    (sentence,) = said
    assert "about 14 min here each time" in sentence  # 30 s for 64 images


def test_settings_out_of_range_or_against_each_other(tmp_path):
    for option, value in {"batch_size": 0, "seed": -1}.items():
        with pytest.raises(MisconfigurationException, match=rf"--score\.{option} must be .* {value}$"):
            Score(**{option: value})
    for features in ("pixels", "classifier"):
        with pytest.raises(MisconfigurationException, match=rf"--score\.weights=a\.pt .* --score\.features={features}"):
            Score(features, weights="a.pt")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file/folder"):
        with pytest.raises(MisconfigurationException, match=rf"--score\.cache_dir={path} is, or lies in, a file"):
            Score(cache_dir=str(path))


def test_images_that_may_be_asked_for():
    for num_images in (-1, 1):
        with pytest.raises(MisconfigurationException, match=rf"--score\.num_images .*{num_images}"):
            Score(num_images=num_images)
    with pytest.raises(MisconfigurationException, match=r"--score\.num_real .* 1$"):
        Score(num_real=1)


class Negative(Watch):
    """Translates images into their negatives."""

    def generate(self, batch):
        return -batch.a

    def real(self, batch):
        return batch.b


@pytest.fixture
def unpaired(tmp_path):
    """Six images of A and four of B, in batches of three, the second of which repeats two of B."""
    for domain, count in (("A", 6), ("B", 4)):
        (tmp_path / f"data/train{domain}").mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng((number, count)).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"data/train{domain}/{number}.png")

    def make(direction="AtoB", **kwargs):
        return UnpairedFolder(str(tmp_path / "data"), direction, image_size=16, **{"batch_size": 3} | kwargs)

    return make


def of_domain(unpaired, domain):
    """All images of a domain, once, in [-1, 1]."""
    data = unpaired("AtoB" if domain == "A" else "BtoA", batch_size=1)
    data.prepare_data()
    count = {"A": 6, "B": 4}[domain]
    return torch.cat([batch.a for batch in data.val_dataloader()])[:count] / 127.5 - 1


def by_hand(real, fake):
    """The Fréchet distance of pixels of images in [-1, 1]."""
    pixels = create("pixels", None)
    features = [pixels(to_uint8(images)).features.double() for images in (real, fake)]
    return float(frechet_distance(*(part for f in features for part in (f.mean(0), f.T.cov()))))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 6])
def test_each_real_image_of_the_shorter_domain_counts_once(unpaired, tmp_path, batch_size):
    expected = by_hand(of_domain(unpaired, "B"), -of_domain(unpaired, "A"))
    for _ in range(2):  # computed, and read again
        data = unpaired(batch_size=batch_size)
        entry = validate(score(tmp_path, num_images=6), Negative(), data, tmp_path)
        assert entry["protocol"]["real_images"] == 4
        assert entry["protocol"]["reference"].startswith("unpairedfolder-train_b-")
        assert entry["scores"][FRECHET] == pytest.approx(expected, rel=1e-6)


def test_images_made_of_a_shorter_domain_are_made_of_it_again(unpaired, tmp_path):
    b = of_domain(unpaired, "B")
    expected = by_hand(of_domain(unpaired, "A"), -torch.cat([b, b[:2]]))
    entry = validate(score(tmp_path, num_images=6), Negative(), unpaired("BtoA"), tmp_path)
    assert entry["protocol"]["real_images"] == 6
    assert entry["scores"][FRECHET] == pytest.approx(expected, rel=1e-6)


def test_a_subset_of_the_real_images_is_spread_over_those_that_are_distinct(unpaired, tmp_path):
    entry = validate(score(tmp_path, num_images=6, num_real=2), Negative(), unpaired(), tmp_path)
    expected = by_hand(of_domain(unpaired, "B")[[1, 3]], -of_domain(unpaired, "A"))
    assert entry["protocol"]["real_images"] == 2
    assert entry["scores"][FRECHET] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("batch_size", "batches", "real", "inputs"), [(3, 1, 3, 3), (1, 5, 4, 5)])
def test_a_limited_validation_counts_the_real_images_that_it_sees(
    unpaired, tmp_path, batch_size, batches, real, inputs
):
    """Before the shorter domain begins again, and after."""
    run = trainer(tmp_path, score(tmp_path, num_images=inputs), limit_val_batches=batches)
    run.validate(Negative(), unpaired(batch_size=batch_size), verbose=False)
    entry = json.loads((tmp_path / "run/scores.json").read_text())["final"]
    expected = by_hand(of_domain(unpaired, "B")[:real], -of_domain(unpaired, "A")[:inputs])
    assert entry["protocol"]["real_images"] == real
    assert entry["scores"][FRECHET] == pytest.approx(expected, rel=1e-6)


def test_two_ranks_take_each_real_image_once(unpaired, tmp_path):
    """The second rank generates from images 3 to 5; the last of the shorter domain's four is its, too."""
    real, fake = {}, {}
    for rank in range(2):
        data = unpaired()
        data.prepare_data()
        strategy = {"root_device": torch.device("cpu"), "broadcast": staticmethod(lambda x: x)}
        part = {"world_size": 2, "global_rank": rank, "strategy": type("Strategy", (), strategy)}
        part |= {"is_global_zero": not rank, "callbacks": [], "lightning_module": None, "datamodule": data}
        part |= dict.fromkeys(("sanity_checking", "training", "testing"), False)
        part["_evaluation_loop"] = type("Loop", (), {"max_batches": [1]})
        data.trainer = stand_in = type("Trainer", (), part)
        stand_in.val_dataloaders = loader = data.val_dataloader()
        callback = score(tmp_path, num_images=6)
        callback._extractor = create("pixels", None)
        callback._begin(stand_in, Negative(), loader)
        callback._pass.go_through(lambda batch, data=data: data.on_after_batch_transfer(batch, 0))
        for found, collector in ((real, callback._pass.of_real), (fake, callback._pass.of_fake)):
            found |= zip(collector._numbers, torch.cat(collector._waiting), strict=True)
            assert collector.count == {id(real): 4, id(fake): 6}[id(found)]
    for found, images in ((real, of_domain(unpaired, "B")), (fake, -of_domain(unpaired, "A"))):
        assert list(found) == list(range(len(images)))
        assert torch.equal(torch.stack(list(found.values())), to_uint8(images))


def test_ranks_add_up_their_sums_where_they_are(monkeypatch):
    """Sums, of a rank without images too, go into an all-reduce; what is sent as objects would change its device."""
    told, sums, meeting = {}, {}, threading.Barrier(2, timeout=20)

    def gather(into, mine):
        told[threading.current_thread()] = mine
        meeting.wait()
        into[:] = told.values()

    def add(tensor):
        meeting.wait()
        sums[threading.current_thread()] = tensor.clone()
        meeting.wait()
        tensor.copy_(sum(sums.values()))

    def extractor(images):
        points = images.float().flatten(1)
        return Features(points[:, :6], points[:, :3] / 50)

    def collect(images, rank, world_size):
        collector = Collector(extractor, 10, 4, ("moments", "features", "classes"))
        collector.add(images, 0)
        strategy = type("Strategy", (), {"root_device": torch.device("cpu")})
        found[rank] = collector.collected(type("Trainer", (), {"world_size": world_size, "strategy": strategy}))

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    monkeypatch.setattr(torch.distributed, "all_reduce", add)
    found, images = {}, torch.rand(10, 3, 4, 4) * 2 - 1
    ranks = [threading.Thread(target=collect, args=(part, rank, 2)) for rank, part in enumerate((images, images[:0]))]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    collect(images, "alone", 1)
    for rank in (0, 1):
        for part in ("mu", "sigma", "features"):
            assert torch.equal(getattr(found[rank], part), getattr(found["alone"], part))
        assert found[rank].classes.compute() == found["alone"].classes.compute()
    assert sorted(len(kept) for _, kept, *_ in told.values()) == [0, 1]
    assert {tuple(sizes) for sizes, *_ in told.values()} == {(6, 5), (None, None)}
