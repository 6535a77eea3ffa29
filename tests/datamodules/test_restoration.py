"""Damaged pictures, on two photographs that scikit-learn brings."""

import io

import numpy as np
import pytest
import torch
from conftest import images as random_images
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from sklearn.datasets import load_sample_image

from datamodules import Restoration
from datamodules.restoration import blurred, compressed
from gans import Pix2Pix

QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}


def photograph(height=235, width=229):
    """A part (1, 3, H, W) of a photograph, in [-1, 1]."""
    pixels = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)[None]
    return pixels[..., 100 : 100 + height, 150 : 150 + width] / 127.5 - 1


def decibels(a, b):
    return 10 * torch.log10(4 / (a - b).square().mean())


def as_file(image, quality):
    """What Pillow makes of an image (1, 3, H, W)."""
    file = io.BytesIO()
    pixels = ((image[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None] / 127.5 - 1


def folder_of_photographs(tmp_path, count=4):
    folder = tmp_path / "images"
    for i in range(count):
        (folder / f"{i % 2}").mkdir(parents=True, exist_ok=True)
        pixels = load_sample_image(("flower.jpg", "china.jpg")[i % 2])[50 * i : 50 * i + 200, 100:340]
        Image.fromarray(pixels).save(folder / f"{i % 2}/{i}.png")
    return folder


def batches(data, epochs=1):
    """What training sees."""
    seen = []

    class Watch(Pix2Pix):
        def training_step(self, batch, batch_idx):
            seen.append(batch)
            self.images_seen += len(batch.source)  # which random numbers follow from

    Trainer(max_epochs=epochs, limit_val_batches=0, enable_model_summary=False, **QUIET).fit(
        Watch(data.image_shape, width=4), data
    )
    return seen


@pytest.mark.parametrize("quality", [10, 40, 70])
def test_compressed_images_are_as_a_jpeg_file_shows_them_also_of_odd_sizes(quality):
    image = photograph()
    mine, other = compressed(image, torch.tensor([float(quality)])), as_file(image, quality)
    assert mine.shape == image.shape
    assert decibels(mine, other) > 35
    assert decibels(mine, image) == pytest.approx(decibels(other, image), abs=0.5)  # as much is lost
    steps = (mine + 1) * 127.5
    assert torch.allclose(steps, steps.round(), atol=1e-3)


def test_every_image_of_a_batch_is_compressed_by_its_own_quality():
    image = photograph(40, 40)
    both = compressed(torch.cat([image, image]), torch.tensor([10.0, 70.0]))
    for got, quality in zip(both.split(1), (10.0, 70.0), strict=True):
        assert torch.allclose(got, compressed(image, torch.tensor([quality])), atol=1e-6)
    assert decibels(both[:1], image) < decibels(both[1:], image)


def test_grey_images_are_compressed_as_the_brightness_of_coloured_ones():
    grey = photograph(48, 40).mean(1, keepdim=True)
    got = compressed(grey, torch.tensor([30.0]))
    assert got.shape == grey.shape
    assert decibels(got, as_file(grey.expand(-1, 3, -1, -1), 30)[:, :1]) > 40


def test_images_are_reduced_and_enlarged_each_by_its_own_factor():
    image = photograph(64, 64)
    none, two, four = blurred(image.expand(3, -1, -1, -1), [1.0, 2.0, 4.0]).split(1)
    assert torch.allclose(none, image, atol=1e-6)
    assert decibels(four, image) < decibels(two, image) < 40
    # Columns 2 and 3 of an image that changes from top to bottom only: a triangle filter of twice the factor's width.
    rows = random_images(1, (1, 8, 1)).expand(-1, -1, -1, 8)
    small = torch.stack(
        [
            (rows[0, 0, max(0, 2 * i - 1) : 2 * i + 3, 0] * w).sum() / w.sum()
            for i, w in enumerate([torch.tensor([3.0, 3.0, 1.0])] + [torch.tensor([1.0, 3.0, 3.0, 1.0])] * 2)
        ]
    )
    by_hand = (small[0], 0.75 * small[0] + 0.25 * small[1], 0.25 * small[0] + 0.75 * small[1])
    assert torch.allclose(blurred(rows, [2.0])[0, 0, :3, 3], torch.stack(by_hand), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_training_images_are_damaged_anew_every_time_and_reproducibly(tmp_path, channels):
    options = {"data_dir": str(folder_of_photographs(tmp_path)), "image_size": 32, "batch_size": 4}
    torch.manual_seed(5)
    first, second = batches(Restoration(**options, channels=channels), epochs=2)
    torch.manual_seed(5)
    again, _ = batches(Restoration(**options, channels=channels), epochs=2)
    assert torch.equal(first.source, again.source)
    assert first.source.shape == first.target.shape == (4, channels, 32, 32)
    assert first.source.abs().max() <= 1
    match = (first.target[:, None] == second.target[None]).flatten(2).all(2).float().argmax(1)
    assert torch.equal(first.target, second.target[match])
    assert not torch.isclose(first.source, second.source[match], atol=0.01).flatten(1).all(1).any()


def test_amounts_are_drawn_from_the_whole_ranges_for_each_image(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("datamodules.restoration.blurred", lambda images, factors: seen.append(factors) or images)
    monkeypatch.setattr("datamodules.restoration.compressed", lambda images, quality: seen.append(quality) or images)
    data = Restoration(data_dir=str(tmp_path), quality=(20, 60), reduction=(1.5, 3))
    data.trainer = type("T", (), {"training": True})
    data.assemble(random_images(2000), None)
    for values, (low, high) in ((torch.tensor(seen[0]), (1.5, 3)), (seen[1], (20, 60))):
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, rel=0.03)
    assert abs(torch.corrcoef(torch.stack([torch.tensor(seen[0]), seen[1]]))[0, 1]) < 0.1
    data.trainer.training = False
    data.assemble(random_images(3), None)
    assert seen[2] == [2.25] * 3
    assert seen[3].tolist() == [40] * 3


def test_evaluation_damages_an_image_always_alike_and_draws_nothing(tmp_path):
    def evaluated(batch_size):
        data = Restoration(data_dir=str(folder_of_photographs(tmp_path)), image_size=32, batch_size=batch_size)
        data.prepare_data()
        before = torch.get_rng_state()
        found = [data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader()]
        assert torch.equal(torch.get_rng_state(), before)
        return torch.cat([batch.source for batch in found]), torch.cat([batch.target for batch in found])

    one, three = evaluated(1), evaluated(3)
    assert torch.equal(one[1], three[1])
    assert torch.allclose(one[0], three[0], atol=1e-6)
    assert not torch.equal(one[0], one[1])


def test_classes_are_ignored_and_folders_are_splits(tmp_path):
    folder = folder_of_photographs(tmp_path)
    data = Restoration(data_dir=str(folder))
    assert data.num_classes == 0
    assert data.val_split == "train"
    assert len(data.items("train")[0]) == 4
    (folder / "0").rename(folder / "train")
    (folder / "1").rename(folder / "test")
    data = Restoration(data_dir=str(folder))
    assert data.val_split == "test"
    assert [path.name for path in data.items("test")[0]] == ["1.png", "3.png"]


@pytest.mark.parametrize(
    ("key", "value"), [("quality", (0, 50)), ("quality", (60, 50)), ("reduction", (0.5, 2)), ("reduction", (1, 64))]
)
def test_ranges_that_are_none_are_named(tmp_path, key, value):
    with pytest.raises(MisconfigurationException, match=rf"^--data\.{key} must be two numbers from 1 to \d+"):
        Restoration(data_dir=str(tmp_path), image_size=32, **{key: value})


def test_pix2pix_trains_and_is_evaluated_with_it(tmp_path):
    data = Restoration(data_dir=str(folder_of_photographs(tmp_path)), image_size=32, batch_size=2)
    module = Pix2Pix(image_shape=data.image_shape, width=4)
    trainer = Trainer(max_steps=2, val_check_interval=1, enable_model_summary=False, **QUIET)
    trainer.fit(module, data)
    assert trainer.global_step == 2
    assert all(p.isfinite().all() for p in module.parameters())
