"""Cityscapes, as pix2pix's script makes it."""

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from datamodules import Cityscapes


def write(root, split, numbers):
    """Photographs of a level that is the pair's number on the left, its negative on the right."""
    (root / split).mkdir()
    for number in numbers:
        both = Image.new("RGB", (32, 16), (number,) * 3)
        both.paste((255 - number,) * 3, (16, 0, 32, 16))
        both.save(root / split / f"{number}.jpg", quality=100)


def cityscapes(folder, **kwargs):
    return Cityscapes(**{"data_dir": str(folder), "image_size": 16, "batch_size": 2} | kwargs)


@pytest.mark.parametrize(("direction", "sign"), [("AtoB", 1), ("BtoA", -1)])
def test_photographs_are_left_and_maps_right(tmp_path, direction, sign):
    write(tmp_path, "train", [10, 20, 30])
    write(tmp_path, "val", [40, 50])
    data = cityscapes(tmp_path, direction=direction)
    data.prepare_data()
    assert (data.val_split, data.image_shape) == ("test", (3, 16, 16))
    for split, numbers in (("train", [10, 20, 30]), ("test", [40, 50])):
        batches = [data.on_after_batch_transfer(batch, 0) for batch in data.ordered(split)]
        source, target = (torch.cat(parts)[:, 0, 2, 2] for parts in zip(*batches, strict=True))
        assert torch.allclose(source, sign * (torch.tensor(numbers) / 127.5 - 1), atol=0.01)
        assert torch.allclose(target, -source, atol=0.01)


def test_where_to_get_it_is_said_in_a_sentence(tmp_path):
    with pytest.raises(MisconfigurationException) as error:
        cityscapes(tmp_path / "mine").prepare_data()
    for part in ("Cityscapes is missing", f"--data.data_dir={tmp_path / 'mine'}", "https://www.cityscapes", "train/"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
