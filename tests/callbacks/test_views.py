"""Pictures that look into a model."""

import pytest
import torch
from conftest import CLASSES, fit, images, small
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torchvision.io import read_image

from callbacks import ImageWriter, MetricsFile, Views
from callbacks.pictures.images import grid
from callbacks.pictures.randomness import isolated_rng
from gans import DCGAN, ConvolutionalCGAN, InfoGAN
from gans.training.noise import slerp


def names(folder):
    return sorted(path.name for path in (folder / "views").iterdir())


def test_drawn_at_every_interval_and_at_the_end(tmp_path):
    module = small(DCGAN)
    fit(module, images(40), max_steps=5, callbacks=[Views(2, columns=6)], logger=MetricsFile(tmp_path))
    kinds = ("interpolation_linear", "interpolation_spherical")
    assert names(tmp_path) == [f"{kind}_step_000000{step}.png" for kind in kinds for step in (2, 4, 5)]
    with isolated_rng(0, module.device):
        expected = module.views(6)["interpolation_linear"]
    picture = read_image(str(tmp_path / "views/interpolation_linear_step_0000005.png"))
    assert torch.equal(picture[:1], grid(expected.flatten(0, 1), columns=6))
    assert picture.shape[1:] == (4 * 18 + 2, 6 * 18 + 2)


def test_predict_draws_them_from_a_checkpoint(tmp_path):
    trainer = Trainer(logger=MetricsFile(tmp_path), callbacks=[ImageWriter(), Views()], enable_progress_bar=False)
    module = small(ConvolutionalCGAN)
    trainer.predict(module, module.predict_dataloader())
    assert names(tmp_path) == ["classes.png", "interpolation_linear.png", "interpolation_spherical.png"]


def test_pictures_leave_the_training_alone(tmp_path):
    results = []
    for callbacks in ([], [Views(1)]):
        torch.manual_seed(1)
        module = small(DCGAN)
        fit(module, images(40), max_steps=4, callbacks=callbacks, logger=MetricsFile(tmp_path / str(len(callbacks))))
        results.append(module.state_dict())
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_switched_off(tmp_path):
    fit(small(DCGAN), images(40), max_steps=2, callbacks=[Views(0)], logger=MetricsFile(tmp_path))
    assert not (tmp_path / "views").exists()
    with pytest.raises(MisconfigurationException, match=r"--views\.columns"):
        Views(columns=1)


# What the models offer


def test_every_gan_has_its_interpolations(gan):
    module = gan()
    views = module.views(5)
    assert {"interpolation_linear", "interpolation_spherical"} <= views.keys()
    assert ("classes" in views) == bool(module.num_classes)
    for sheet in views.values():
        assert sheet.shape[2:] == (1, 16, 16)
        assert sheet.abs().max() <= 1


def seen(module, monkeypatch):
    """The noise (rows, columns, D) and labels of every sheet that the module draws."""
    sheets = []
    sheet = module.sheet
    monkeypatch.setattr(module, "sheet", lambda *given: sheets.append(given) or sheet(*given))
    return sheets


def test_walks_go_from_one_z_to_another_along_a_line_and_a_great_circle(monkeypatch):
    module = small(DCGAN).double()
    sheets = seen(module, monkeypatch)
    module.views(7)
    (line, _), (circle, _) = sheets
    assert torch.equal(line[:, 0], circle[:, 0])
    torch.testing.assert_close(line[:, -1], circle[:, -1])
    assert not torch.equal(line[:, 0], line[:, -1])
    steps = line.diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps))
    torch.testing.assert_close(line[:, 3], (line[:, 0] + line[:, 6]) / 2)


def test_slerp_turns_at_one_speed_on_the_sphere():
    a, b = torch.eye(5, dtype=torch.float64)[:2]
    t = torch.linspace(0, 1, 4, dtype=torch.float64)[:, None]
    path = slerp(a, b, t)
    angle = t[:, 0] * torch.pi / 2
    expected = torch.stack([angle.cos(), angle.sin(), *(torch.zeros(3, 4, dtype=torch.float64))], 1)
    torch.testing.assert_close(path, expected)
    assert torch.isfinite(slerp(a, a, t)).all()


def test_a_row_is_a_class_and_a_column_a_z(monkeypatch):
    module = small(ConvolutionalCGAN)
    sheets = seen(module, monkeypatch)
    classes = module.views(4)["classes"]
    noise, label = sheets[-1]
    assert classes.shape[:2] == (CLASSES, 4)
    assert label.flatten().tolist() == [0, 1, 2]
    assert torch.equal(noise[0], noise[2])
    torch.testing.assert_close(classes[1], module.sample_from(noise[0], 1))
    assert not torch.equal(classes[0], classes[1])


def test_a_row_is_a_value_of_a_code(monkeypatch):
    module = small(InfoGAN, categories=4, continuous=2)
    sheets = seen(module, monkeypatch)
    views = module.views(3)
    category, first, second = (noise for (noise,) in sheets[-3:])
    assert torch.equal(category[..., :4].argmax(-1), torch.arange(4)[:, None].expand(4, 3))
    assert (category[..., :4].sum(-1) == 1).all()
    assert torch.equal(first[:, 1, 4], torch.linspace(-2, 2, 9))
    assert torch.equal(second[:, 1, 5], torch.linspace(-2, 2, 9))
    for sheet, varied in ((category, [0, 1, 2, 3]), (first, [4]), (second, [5])):
        kept = [i for i in range(sheet.shape[2]) if i not in varied]
        assert torch.equal(sheet[..., kept], sheet[:1, ..., kept].expand_as(sheet[..., kept]))
    assert views["codes_continuous_2"].shape == (9, 3, 1, 16, 16)
    walk, _ = sheets[0]
    assert torch.equal(walk[:, 0, :6], walk[:, -1, :6])  # the codes stay in a walk through z
