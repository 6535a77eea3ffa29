"""Sample grids through training."""

from types import SimpleNamespace

import pytest
import torch
from conftest import fit, images, small
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader
from torchvision.io import read_image

from callbacks import MetricsFile, Samples
from callbacks.pictures.images import grid, to_uint8
from gans import DCGAN, GAN


def test_to_uint8_rounds_clips_and_copies():
    values = torch.tensor([-2.0, -1.0, -1 + 1 / 127.5, 0.0, 1.0, 2.0]).reshape(1, 1, 1, 6)
    before = values.clone()
    assert to_uint8(values).flatten().tolist() == [0, 0, 1, 128, 255, 255]
    assert torch.equal(values, before)
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(every / 127.5 - 1), every)  # the inverse of the data's scaling


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_is_row_by_row(channels):
    picture = grid(torch.stack([torch.full((channels, 4, 4), v) for v in (-1.0, 0.0, 1.0)]), columns=2)
    assert picture.shape == (channels, 14, 14)
    assert picture[0, 2, 2] == 0
    assert picture[0, 2, 8] == 128
    assert picture[0, 8, 2] == 255


def test_pictures_of_one_fixed_noise(tmp_path):
    """The same noise in every picture, at every interval and at the end."""
    module = small(DCGAN)
    samples = Samples(every_n_steps=2, count=9)
    fit(module, images(40), max_steps=5, callbacks=[samples], logger=MetricsFile(tmp_path))
    names = sorted(p.name for p in (tmp_path / "samples").iterdir())
    assert names == ["real.png", "step_0000002.png", "step_0000004.png", "step_0000005.png"]
    assert samples.latest == tmp_path / "samples" / "step_0000005.png"
    before = read_image(str(samples.latest))
    samples._draw(module.trainer, module)
    assert torch.equal(read_image(str(samples.latest)), before)  # fixed noise
    real = read_image(str(tmp_path / "samples" / "real.png"))
    assert torch.equal(real[:1], grid(images(40)[:9]))


def test_pictures_leave_the_training_alone(tmp_path):
    results = []
    for callbacks in ([], [Samples(every_n_steps=1, count=4)]):
        torch.manual_seed(1)
        module = small(DCGAN)
        fit(module, images(40), max_steps=4, callbacks=callbacks, logger=MetricsFile(tmp_path / str(len(callbacks))))
        results.append(module.state_dict())
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_switched_off(tmp_path):
    fit(small(GAN), max_steps=2, callbacks=[Samples(every_n_steps=0)], logger=MetricsFile(tmp_path))
    assert not (tmp_path / "samples").exists()
    with pytest.raises(MisconfigurationException, match=r"--samples\.count"):
        Samples(count=0)


def test_a_logger_that_takes_pictures_gets_them_without_the_file(tmp_path):
    """TensorBoard's kind; the other kind takes the file itself."""
    (tmp_path / "samples").write_text("")
    taken, files = [], []

    class Tensors(MetricsFile):
        @property
        def experiment(self):
            return SimpleNamespace(add_image=lambda name, picture, step: taken.append((name, picture.shape, step)))

    class Files(MetricsFile):
        def log_image(self, name, paths, step):
            files.append(step)

    loggers = [Tensors(tmp_path), Files(tmp_path / "other")]
    samples = Samples(every_n_steps=2, count=4)
    with pytest.warns(UserWarning, match=r"samples/real\.png cannot be written \(.*\); training goes on") as said:
        fit(small(DCGAN), images(40), max_steps=4, callbacks=[samples], logger=loggers)
    assert len([w for w in said if "cannot be written" in str(w.message)]) == 1
    assert taken == [("samples", torch.Size([1, 38, 38]), 2), ("samples", torch.Size([1, 38, 38]), 4)]
    assert files == []
    assert samples.latest is None


def test_validation_data_is_looked_at_without_touching_the_random_state(tmp_path):
    results = []
    for callbacks in ([], [Samples(every_n_steps=1, count=4)]):
        torch.manual_seed(1)
        module = small(DCGAN)
        module.val_dataloader = lambda: DataLoader(images(8), batch_size=4)  # draws a seed whenever it starts
        logger = MetricsFile(tmp_path / str(len(callbacks)))
        fit(module, images(40), max_steps=4, callbacks=callbacks, logger=logger, num_sanity_val_steps=0)
        results.append(module.state_dict())
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])
