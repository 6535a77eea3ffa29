"""Pictures read one by one, and the data modules' predict_dataloader that gives them to the trainer."""

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from datamodules import Digits, ImageFolder
from datamodules.pictures import NamedPictures, pictures_in


def write(path, pixels, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **kwargs)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3))


def test_pictures_have_the_names_of_their_files_and_keep_their_sizes(tmp_path):
    sizes = {"b": (7, 5), "a.one": (4, 9), "deep/er/a": (1, 1)}
    for seed, (name, size) in enumerate(sizes.items()):
        write(tmp_path / f"{name}.png", noise(*size, seed))
    (tmp_path / "notes.txt").write_text("no picture")
    write(tmp_path / ".hidden.png", noise(2, 2))
    pictures = NamedPictures(tmp_path, 3)
    assert len(pictures) == 3
    found = {name: image for image, name in (pictures[i] for i in range(3))}
    assert list(found) == ["a.one", "b", "deep/er/a"]
    for seed, (name, size) in enumerate(sizes.items()):
        pixels = torch.from_numpy(noise(*size, seed)).permute(2, 0, 1)
        assert found[name].dtype == torch.float32
        assert torch.allclose(found[name], pixels / 127.5 - 1)


def test_grey_and_colour_are_converted(tmp_path):
    write(tmp_path / "red.png", np.broadcast_to([255, 0, 0], (3, 4, 3)))
    write(tmp_path / "white.png", np.full((3, 4), 255))
    (grey, _), (white, _) = NamedPictures(tmp_path, 1)
    assert grey.shape == white.shape == (1, 3, 4)
    assert torch.allclose(grey, torch.tensor(76 / 127.5 - 1))  # luminance
    assert [image.shape for image, _ in NamedPictures(tmp_path, 3)] == [(3, 3, 4)] * 2
    assert white.min() == 1


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photographs_stand_upright(tmp_path, orientation):
    """The tag says how the camera was held: 6 is to be turned clockwise by a quarter, 8 the other way, 3 by half."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = noise(4, 6)
    write(tmp_path / "a.png", pixels, exif=exif)
    ((image, _),) = NamedPictures(tmp_path, 3)
    turned = np.rot90(pixels, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    assert torch.allclose(image, torch.from_numpy(turned.copy()).permute(2, 0, 1) / 127.5 - 1)


def test_two_pictures_of_one_name_are_named(tmp_path):
    write(tmp_path / "x/a.png", noise(2, 2))
    write(tmp_path / "a.png", noise(2, 2))
    assert len(NamedPictures(tmp_path, 3)) == 2  # in different folders, so are their results
    write(tmp_path / "x/a.jpg", noise(2, 2))
    with pytest.raises(MisconfigurationException, match=r"x/a\.png and .*x/a\.jpg would have results of one name"):
        NamedPictures(tmp_path, 3)


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    pictures = NamedPictures(tmp_path, 3)
    with pytest.raises(MisconfigurationException, match=r"^Broken image .*a\.png"):
        pictures[0]


@pytest.mark.parametrize("key", ["data_dir", "test_dir"])
def test_folders_without_pictures_are_named_with_their_setting(tmp_path, key):
    with pytest.raises(MisconfigurationException, match=rf"^.*nowhere is not a folder: set --data\.{key}"):
        pictures_in(tmp_path / "nowhere", key)
    with pytest.raises(MisconfigurationException, match=rf"holds no images .*\.png.*: set --data\.{key}"):
        pictures_in(tmp_path, key)


def test_predicting_goes_through_a_folder_picture_by_picture(tmp_path):
    folder = tmp_path / "mine"
    for i, size in enumerate([(4, 6), (5, 5)]):
        write(folder / f"{i}.png", noise(*size, i))
    data = Digits(data_dir=str(tmp_path), image_size=16, predict_dir=str(folder))
    (first, name), (second, other) = data.predict_dataloader()  # in the data's one channel, of any size
    assert (name, other) == ("0", "1")
    assert first.shape == (1, 4, 6)
    assert second.shape == (1, 5, 5)
    (first, _), _ = ImageFolder(data_dir=str(tmp_path), predict_dir=str(folder)).predict_dataloader()
    assert torch.allclose(first, torch.from_numpy(noise(4, 6)).permute(2, 0, 1) / 127.5 - 1)


def test_predicting_needs_a_folder_with_pictures(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"--data\.predict_dir$"):
        Digits(data_dir=str(tmp_path)).predict_dataloader()
    with pytest.raises(MisconfigurationException, match=r"nowhere is not a folder: set --data\.predict_dir"):
        Digits(data_dir=str(tmp_path), predict_dir=str(tmp_path / "nowhere")).predict_dataloader()
