"""The pieces without the command line, as in notebooks: where they write, and what one gets back."""

import json

import pytest
import torch
from conftest import CLASSES, batch, images, small
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset
from torchvision.io import read_image

import gans
from callbacks import EMA, ImageWriter, LastCheckpoint, MetricsFile, Neighbors, Samples, Score, Views
from callbacks.pictures.images import grid, labelled
from callbacks.pictures.randomness import isolated_rng
from gans import DCGAN, ConvolutionalCGAN, InfoGAN


def trainer(folder, *callbacks, **kwargs):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "max_epochs": -1}
    settings = {"max_steps": 2, "default_root_dir": folder, "num_sanity_val_steps": 0, "enable_checkpointing": False}
    return Trainer(**quiet | settings | kwargs, callbacks=list(callbacks))


def every(folder):
    """All callbacks that write files."""
    score = Score(features="pixels", num_images=8, num_real=8, cache_dir=str(folder / "cache"))
    return EMA(), Samples(1, count=4), Views(1, columns=2), Neighbors(2, num_real=8), score, LastCheckpoint()


def train(folder, resume=None, **kwargs):
    data = DataLoader(TensorDataset(*batch(16)), batch_size=8)
    run = trainer(folder, *every(folder.parent), enable_checkpointing=True, **kwargs)
    run.fit(small(DCGAN), data, data, ckpt_path=resume, weights_only=True)
    return run


def written(folder):
    """The folders in which there is everything, with the step that each has come to."""
    found = {}
    for path in sorted(folder.rglob("last.ckpt")):
        home = path.parents[1]
        step = torch.load(path, weights_only=True)["global_step"]
        assert {"samples", "views", "neighbors", "checkpoints", "scores.json"} <= {p.name for p in home.iterdir()}
        assert json.loads((home / "scores.json").read_text())["final"]["step"] == step
        assert (home / f"samples/step_{step:07d}.png").exists()
        found[str(home.relative_to(folder))] = step
    for name in ("samples", "views", "neighbors", "scores.json"):  # and nothing elsewhere
        assert {str(p.parent.relative_to(folder)) for p in folder.rglob(name)} == set(found)
    return found


def test_every_training_writes_into_the_folder_of_its_logger(tmp_path):
    train(tmp_path / "a", logger=True)
    train(tmp_path / "a", logger=True, max_steps=3)
    assert written(tmp_path / "a") == {"lightning_logs/version_0": 2, "lightning_logs/version_1": 3}
    train(tmp_path / "b", logger=CSVLogger(tmp_path / "b", "mine", "first"))
    train(tmp_path / "c", logger=MetricsFile(tmp_path / "c/run"))
    assert (written(tmp_path / "b"), written(tmp_path / "c")) == ({"mine/first": 2}, {"run": 2})


def test_without_a_logger_no_training_writes_over_another(tmp_path):
    """The second has a folder of its own; one that goes on from a checkpoint, and the same trainer, go on in theirs."""
    first = train(tmp_path, logger=False)
    train(tmp_path, logger=False, max_steps=1)
    assert written(tmp_path) == {".": 2, "version_1": 1}
    train(tmp_path, logger=False, max_steps=4, resume=tmp_path / "version_1/checkpoints/last.ckpt")
    assert written(tmp_path) == {".": 2, "version_1": 4}
    first.fit_loop.epoch_loop.max_steps = 5
    data = DataLoader(TensorDataset(*batch(16)), batch_size=8)
    first.fit(small(DCGAN), data, data)
    assert written(tmp_path) == {".": 5, "version_1": 4}


def test_images_of_one_prediction_stay_when_another_is_made(tmp_path):
    module = small(DCGAN, predict_images=2)
    for _ in range(2):
        trainer(tmp_path, ImageWriter(), logger=False).predict(module, module.predict_dataloader())
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.png")}
    names = ("00000.png", "00001.png", "grid.png")
    assert files == {f"{folder}images/{name}" for folder in ("", "version_1/") for name in names}


# Weights for other programs


@pytest.mark.parametrize("made", ["trained", "loaded", "loaded by its class", "validated"])
def test_weights_are_in_the_memory_order_that_other_programs_expect(made, tmp_path):
    """safetensors, for one, takes no others. They have the same values, and training goes on as it was."""

    class Look(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            orders.append(pl_module.generator[1].weight.is_contiguous(memory_format=torch.channels_last))

    orders = []
    module = small(DCGAN, channels_last=True)
    run = trainer(tmp_path, EMA(), Look(), logger=False)
    run.fit(module, DataLoader(images(16), batch_size=8))
    run.save_checkpoint(tmp_path / "dcgan.ckpt")
    if made == "validated":
        trainer(tmp_path, logger=False).validate(module, DataLoader(images(16), batch_size=8), verbose=False)
    elif made != "trained":
        load = gans.load_to_train if made == "loaded" else DCGAN.load_from_checkpoint
        module, before = load(tmp_path / "dcgan.ckpt"), module.state_dict()
        assert all(torch.equal(weight, before[name]) for name, weight in module.state_dict().items())
    assert all(weight.is_contiguous() for weight in module.state_dict().values())
    assert module.averaged_generator is not None
    trainer(tmp_path, EMA(), Look(), logger=False).fit(module, DataLoader(images(16), batch_size=8))
    assert orders == [True] * 4


# What is in a picture


@pytest.mark.parametrize(
    ("kwargs", "names"),
    [
        ({"domains": ["cat", "a dog/wolf", "chat é"]}, ["cat", "a_dog_wolf", "chat_é", "cat"]),
        ({"domains": ["0", "1", "2"]}, ["class_0", "class_1", "class_2", "class_0"]),
        ({"predict_label": 1}, ["class_1"] * 4),
        ({}, ["class_0", "class_1", "class_2", "class_0"]),
    ],
)
def test_predictions_are_named_by_their_class(kwargs, names, tmp_path):
    module = small(ConvolutionalCGAN, predict_images=4, **kwargs)
    trainer(tmp_path, ImageWriter(), logger=False).predict(module, module.predict_dataloader())
    expected = {f"{number:05d}_{name}.png" for number, name in enumerate(names)}
    assert {path.name for path in (tmp_path / "images").iterdir()} == expected | {"grid.png"}


def test_names_of_classes_are_kept_in_checkpoints(tmp_path):
    module = small(ConvolutionalCGAN, domains=["cat", "dog", "wild"])
    run = trainer(tmp_path, logger=False)
    run.fit(module, DataLoader(TensorDataset(*batch(8)), batch_size=8))
    run.save_checkpoint(tmp_path / "x.ckpt")
    assert gans.load_to_sample(tmp_path / "x.ckpt").class_name(1) == "dog"


@pytest.mark.parametrize(("height", "channels"), [(8, 1), (32, 3), (256, 1)])
def test_a_row_has_its_label_at_its_left(height, channels):
    """In black on white, each beside its own row, and nothing of the images is lost."""
    plain = grid(images(6, (channels, height, height)), columns=2)
    picture = labelled(plain, ["first", "", "a name that is much too long for a picture"])
    width = picture.shape[2] - plain.shape[2]
    assert picture.shape[:2] == plain.shape[:2]
    assert torch.equal(picture[..., width:], plain)
    strip = picture[0, :, :width] < 128
    first, empty, long = strip.tensor_split(3)
    assert first.any()
    assert not empty.any() or height == 8  # where letters are higher than images
    assert long.any()
    assert not strip[:, -2:].any()
    assert torch.equal(labelled(plain, []), plain)


def test_views_have_labels_on_their_rows(tmp_path):
    names = {"domains": ["cat", "dog", "wild"]}
    module = small(ConvolutionalCGAN, **names)
    assert module.view_labels("classes") == names["domains"]
    assert module.view_labels("interpolation_linear") == ["cat", "dog", "wild", "cat"]
    codes = small(InfoGAN, categories=CLASSES, continuous=1)
    assert codes.view_labels("codes_category") == ["category 0", "category 1", "category 2"]
    assert codes.view_labels("codes_continuous_1") == ["-2", "-1.5", "-1", "-0.5", "+0", "+0.5", "+1", "+1.5", "+2"]
    for each in (module, codes, small(DCGAN)):
        for view, sheet in each.views(2).items():
            assert len(each.view_labels(view)) in (0, len(sheet))
    trainer(tmp_path, ImageWriter(), Views(columns=3), logger=False).predict(module, module.predict_dataloader())
    with isolated_rng(0, module.device):
        sheet = module.views(3)["classes"]
    expected = labelled(grid(sheet.flatten(0, 1), columns=3), names["domains"])
    assert torch.equal(read_image(str(tmp_path / "views/classes.png")), expected)
