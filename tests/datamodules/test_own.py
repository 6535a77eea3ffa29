"""A data set in a file of one's own, which no other file knows of."""

import numpy as np
import pytest
import torch
from PIL import Image

from command_line import ROOT, run_train
from datamodules import ImageDataModule

SHAPES = """
from PIL import Image, ImageDraw

from datamodules import ImageDataModule


class Shapes(ImageDataModule):
    channels = 1
    class_names = ("square", "disc")

    def items(self, split):
        numbers = range(1000) if split == "train" else range(1000, 1200)
        return numbers, [number % 2 for number in numbers]

    def open(self, item, split):
        picture = Image.new("L", (40, 40))
        draw = ImageDraw.Draw(picture)
        (draw.ellipse if item % 2 else draw.rectangle)((8, 8, 16 + item % 20, 16 + item % 20), fill=255)
        return picture
"""


def test_a_file_of_ones_own_is_all_that_a_data_set_needs(tmp_path):
    (tmp_path / "shapes.py").write_text(SHAPES)
    words = ["--config", f"{ROOT}/configs/dcgan/mnist.yaml", "--data=shapes.Shapes", "--trainer.max_steps=2"]
    words += ["--trainer.accelerator=cpu", "--trainer.logger=false", "--model.width=4", "--score.num_images=16"]
    words += ["--data.batch_size=8", "--score.features=pixels"]
    done = run_train(words, tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "1,000 images, classes square, disc; 200 held out" in done.stderr
    (run,) = (tmp_path / "runs/dcgan-shapes").iterdir()
    assert (run / "checkpoints/last.ckpt").exists()
    assert (run / "scores.json").exists()


class Own(ImageDataModule):
    """Three files, opened as the settings say."""

    channels, val_split = 1, "train"

    def __init__(self, gain: int = 1, **kwargs) -> None:
        super().__init__(image_size=8, batch_size=1, **kwargs)
        self.gain = gain

    def items(self, split):
        return sorted(self.data_dir.glob("*.png")), None

    def open(self, item, split):
        picture = super().open(item, split)
        return picture.point(lambda level: level * self.gain) if item.stem == "1" else picture


def test_settings_that_change_an_image_that_is_not_looked_into_change_the_name(tmp_path):
    """Of 40 files 16 to 20 are looked into when a data set is named, and not the second."""
    for number in range(40):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"{number:02}.png")
    (tmp_path / "01.png").rename(tmp_path / "1.png")
    names = [Own(gain, data_dir=str(tmp_path)).reference("train") for gain in (1, 2, 1)]
    assert names[0] == names[2] != names[1]


def test_files_that_come_twice_are_a_part_of_the_name(tmp_path):
    class Twice(Own):
        def items(self, split):
            first, second = super().items(split)[0]
            return [first, first, second] if self.gain == 1 else [first, second, second], None

    for number in range(2):
        Image.fromarray(np.full((8, 8), 100 * number, np.uint8)).save(tmp_path / f"x{number}.png")
    means = []
    for gain in (1, 2):
        data = Twice(gain, data_dir=str(tmp_path))
        data.prepare_data()
        means.append(torch.cat([batch.image for batch in data.ordered("train")]).float().mean().item())
    assert means == pytest.approx([100 / 3, 200 / 3])


def levels(data, split):
    data.prepare_data()
    return torch.cat([batch.image for batch in data.ordered(split)]).unique().tolist()


def test_items_may_mean_another_picture_in_each_split(tmp_path):
    class Numbers(ImageDataModule):
        channels = 1

        def items(self, split):
            return range(3), None

        def open(self, item, split):
            return np_picture(item + 100 * (split == "test"))

    def np_picture(level):
        return Image.fromarray(np.full((8, 8), level, np.uint8))

    data = Numbers(data_dir=str(tmp_path), image_size=8)
    assert (levels(data, "train"), levels(data, "test")) == ([0, 1, 2], [100, 101, 102])


@pytest.mark.parametrize("identity", ["told", "shown"])
def test_a_data_set_may_say_what_it_is(identity, tmp_path):
    """Then no picture is opened to find it out."""
    opened = []

    class Told(ImageDataModule):
        channels, val_split = 1, "train"

        def __init__(self, version):
            super().__init__(data_dir=str(tmp_path), image_size=8)
            self.level = version

        def items(self, split):
            return range(3), None

        def open(self, item, split):
            opened.append(item)
            return Image.fromarray(np.full((8, 8), self.level, np.uint8))

    if identity == "told":
        Told.identity = lambda self, split: (split, self.level)
    first, second, same = (Told(level).reference("train") for level in (1, 2, 1))
    assert first == same != second
    assert bool(opened) == (identity == "shown")
