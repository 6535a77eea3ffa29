"""Nearest training images, beside those found by looking at all of them."""

import copy

import pytest
import torch
from conftest import fit, images, small
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import IterableDataset
from torchvision.io import read_image

from callbacks import MetricsFile, Neighbors
from callbacks.neighbors import NEAREST, Nearest
from callbacks.pictures.images import grid, to_uint8
from callbacks.scores.features import Features
from command_line import ROOT, run_train
from datamodules import Digits
from gans import DCGAN, GAN


@pytest.fixture
def digits(tmp_path):
    """Mirrored in training, which the neighbours must not be."""
    return Digits(data_dir=str(tmp_path / "data"), image_size=16, batch_size=64, horizontal_flip=True)


def trainer(tmp_path, *callbacks, **kwargs):
    settings = {
        "logger": MetricsFile(tmp_path / "run"),
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "num_sanity_val_steps": 0,
        "max_steps": 2,
    }
    return Trainer(**settings | kwargs, callbacks=list(callbacks))


def training_images_of(digits):
    return torch.cat([batch.image for batch in digits.ordered("train")]).float() / 127.5 - 1


def memoriser(digits, numbers=(5, 700, 1796)):
    """A model that makes its images of training images, with a little noise."""
    module = small(DCGAN)
    digits.prepare_data()
    copied = training_images_of(digits)[list(numbers)]
    module.generate = lambda _: copied + 0.001 * torch.randn(copied.shape)
    return module


def picture(tmp_path, name="pixels_step_0000002"):
    return read_image(str(tmp_path / "run/neighbors" / f"{name}.png"))[:1]


def expected(generated, real, space):
    """The picture by brute force."""
    nearest = torch.cdist(space(generated), space(real)).argsort(1)[:, :NEAREST]
    return grid(torch.cat([generated[:, None], real[nearest]], 1).flatten(0, 1), columns=NEAREST + 1)


@pytest.mark.parametrize("n", [50, 5])
def test_the_nearest_of_all_parts_are_those_of_the_whole(n):
    points, real = torch.randn(3, 256), images(n)
    nearest = Nearest(points, NEAREST, real.shape[1:])
    for part in torch.arange(n).split(7):
        nearest.add(real[part].flatten(1), real[part], part)
    distances, order = torch.cdist(points, real.flatten(1)).sort(1)
    found = min(n, NEAREST)
    assert torch.equal(nearest.numbers[:, :found], order[:, :NEAREST])
    torch.testing.assert_close(nearest.distances[:, :found], distances[:, :NEAREST])
    assert torch.equal(nearest.images[:, :found], real[order[:, :NEAREST]])
    assert (nearest.numbers[:, found:] == -1).all()
    assert (nearest.images[:, found:] == 1).all()  # white


def test_a_generator_that_remembers_is_seen_at_the_end_of_training(tmp_path, digits):
    module = memoriser(digits)
    trainer(tmp_path, Neighbors(count=3)).fit(module, digits)
    assert [p.name for p in (tmp_path / "run/neighbors").iterdir()] == ["pixels_step_0000002.png"]
    real = training_images_of(digits)
    drawn = picture(tmp_path)
    assert drawn.shape == (1, 3 * 18 + 2, (NEAREST + 1) * 18 + 2)
    for row, number in enumerate((5, 700, 1796)):
        cell = drawn[:, 2 + 18 * row :, 2 + 18 :][:, :16, :16]
        assert torch.equal(cell, to_uint8(real[number]))
    made = drawn[:, 2:18, 2:18].int() - to_uint8(real[5]).int()
    assert made.abs().max() <= 1
    assert torch.equal(drawn[:, :, 18:], expected(real[[5, 700, 1796]], real, lambda x: x.flatten(1))[:, :, 18:])


class Halves(nn.Module):
    """Stands in for Inception: looks at the upper half only."""

    resize = "none"

    def forward(self, images):
        return Features(images[:, :, :8].float().flatten(1), None)


def test_neighbours_in_the_space_of_features(tmp_path, digits, monkeypatch):
    monkeypatch.setattr("callbacks.scores.classifier.create", lambda *_: Halves())
    trainer(tmp_path, Neighbors(count=2, features="package.Halves")).fit(memoriser(digits), digits)
    names = sorted(p.name for p in (tmp_path / "run/neighbors").iterdir())
    assert names == ["halves_step_0000002.png", "pixels_step_0000002.png"]
    real = training_images_of(digits)
    by_features = expected(real[[5, 700]], real, lambda x: to_uint8(x)[:, :, :8].float().flatten(1))
    torch.testing.assert_close(
        picture(tmp_path, "halves_step_0000002")[:, :, 18:], by_features[:, :, 18:], rtol=0, atol=0
    )


def test_some_of_the_training_images_spread_over_all(tmp_path, digits):
    trainer(tmp_path, Neighbors(count=1, num_real=100)).fit(memoriser(digits), digits)
    real = training_images_of(digits)
    some = real[[i for i in range(1797) if (i + 1) * 100 // 1797 > i * 100 // 1797]]
    assert len(some) == 100
    assert torch.equal(picture(tmp_path)[:, :, 18:], expected(real[[5]], some, lambda x: x.flatten(1))[:, :, 18:])


def test_the_run_is_as_it_would_have_been(tmp_path, digits):
    """What a resumed run goes on from: weights, random state and the training loader's place."""
    states = []
    for count in (0, 2):
        torch.manual_seed(0)
        run = trainer(tmp_path, Neighbors(count=count), max_steps=3)
        data = copy.deepcopy(digits)
        run.fit(small(DCGAN), data)
        run.save_checkpoint(tmp_path / "a.ckpt")
        states.append(torch.load(tmp_path / "a.ckpt", weights_only=True) | {"drawn": torch.get_rng_state()})
        assert data.state_dict()["images"] == 3 * 64
    assert torch.equal(states[0]["drawn"], states[1]["drawn"])
    for key, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][key])
    assert states[0]["Digits"] == states[1]["Digits"]


def test_loaders_of_ones_own(tmp_path, recwarn):
    """A plain DataLoader's images are gone through in order; a stream has no end, so it is left alone."""

    class Stream(IterableDataset):
        def __iter__(self):
            while True:
                yield images(1)[0]

    fit(small(GAN), images(40), max_steps=2, callbacks=[Neighbors(count=3)], logger=MetricsFile(tmp_path / "run"))
    assert picture(tmp_path).shape == (1, 3 * 18 + 2, (NEAREST + 1) * 18 + 2)
    trainer(tmp_path / "stream", Neighbors(count=3)).fit(small(GAN), torch.utils.data.DataLoader(Stream(), 4))
    assert not (tmp_path / "stream/run/neighbors").exists()
    assert any("--neighbors.count draws nothing" in str(w.message) for w in recwarn)


def test_what_it_costs_on_a_cpu_is_said(tmp_path, digits, monkeypatch):
    said = []
    clock = iter(range(0, 10**6, 30))
    monkeypatch.setattr("callbacks.neighbors.rank_zero_info", said.append)
    monkeypatch.setattr("callbacks.neighbors.time.perf_counter", lambda: next(clock))
    trainer(tmp_path, Neighbors(count=1)).fit(memoriser(digits), digits)
    (sentence,) = [line for line in said if "neighbours" in line]
    assert "1,797 training images" in sentence
    assert "14 min" in sentence  # 30 s for 64 images
    assert "--neighbors.num_real" in sentence


def test_from_a_checkpoint(tmp_path, digits):
    """Beside the step at which the checkpoint was written."""
    run = trainer(tmp_path)
    run.fit(small(DCGAN), digits)
    run.save_checkpoint(tmp_path / "a.ckpt")
    for name in ("validate", "test"):
        scorer = trainer(tmp_path, Neighbors(count=2), logger=MetricsFile(tmp_path / name))
        getattr(scorer, name)(small(DCGAN), digits, ckpt_path=tmp_path / "a.ckpt")
        assert [p.name for p in (tmp_path / name / "neighbors").glob("*.png")] == ["pixels_step_0000002.png"]


def test_on_the_command_line(tmp_path):
    """With the features of the scores; not drawn unless asked for."""
    arguments = [
        "--config",
        str(ROOT / "configs/quickstart.yaml"),
        "--trainer.accelerator=cpu",
        "--trainer.logger=false",
        "--model.width=4",
        "--data.image_size=16",
        "--score.num_images=50",
        "--score.features=torch.nn.Flatten",
        "--trainer.max_steps=3",
        "--run_dir=out",
    ]
    done = run_train(arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "out/neighbors").exists()
    named = ["--config=out/config.yaml", "--ckpt_path=out/checkpoints/last.ckpt", "--neighbors.count=4"]
    done = run_train(["validate", *named], tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("out/validate-*/neighbors")
    assert sorted(p.name for p in folder.glob("*.png")) == ["flatten_step_0000003.png", "pixels_step_0000003.png"]


def test_what_may_be_asked_for(tmp_path, digits):
    trainer(tmp_path, Neighbors()).fit(small(DCGAN), digits)
    assert not (tmp_path / "run/neighbors").exists()
    with pytest.raises(MisconfigurationException, match=r"--neighbors\.count .* -1$"):
        Neighbors(count=-1)
    with pytest.raises(MisconfigurationException, match=r"--neighbors\.num_real .* 0$"):
        Neighbors(num_real=0)
