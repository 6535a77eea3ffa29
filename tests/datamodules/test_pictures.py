"""Pictures read one by one, and the data modules' predict_dataloader that gives them to the trainer."""

import os
import pickle
import struct
import subprocess

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import EpsImagePlugin, Image

from datamodules import LSUN, Digits, ImageFolder, PairedFolder, SuperResolution
from datamodules.pictures import NamedPictures, endings, walk


def write(path, pixels, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **kwargs)


def named(folder, channels=3, **kwargs):
    return NamedPictures(folder, walk(folder).pictures, channels, **kwargs)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3))


def test_pictures_have_the_names_of_their_files_and_keep_their_sizes(tmp_path):
    sizes = {"b": (7, 5), "a.one": (4, 9), "deep/er/a": (1, 1)}
    for seed, (name, size) in enumerate(sizes.items()):
        write(tmp_path / f"{name}.png", noise(*size, seed))
    (tmp_path / "notes.txt").write_text("no picture")
    write(tmp_path / ".hidden.png", noise(2, 2))
    pictures = named(tmp_path)
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
    (grey, _), (white, _) = named(tmp_path, 1)
    assert grey.shape == white.shape == (1, 3, 4)
    assert torch.allclose(grey, torch.tensor(76 / 127.5 - 1))  # luminance
    assert [image.shape for image, _ in named(tmp_path)] == [(3, 3, 4)] * 2
    assert white.min() == 1


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photographs_stand_upright(tmp_path, orientation):
    """The tag says how the camera was held: 6 is to be turned clockwise by a quarter, 8 the other way, 3 by half."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = noise(4, 6)
    write(tmp_path / "a.png", pixels, exif=exif)
    ((image, _),) = named(tmp_path)
    turned = np.rot90(pixels, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    assert torch.allclose(image, torch.from_numpy(turned.copy()).permute(2, 0, 1) / 127.5 - 1)


def test_two_pictures_of_one_name_are_named(tmp_path):
    write(tmp_path / "x/a.png", noise(2, 2))
    write(tmp_path / "a.png", noise(2, 2))
    assert len(named(tmp_path)) == 2  # in different folders, so are their results
    write(tmp_path / "x/a.jpg", noise(2, 2))
    with pytest.raises(MisconfigurationException, match=r"x/a\.png and .*x/a\.jpg would have results of one name"):
        named(tmp_path)


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    pictures = named(tmp_path)
    with pytest.raises(MisconfigurationException, match=r"^Broken image .*a\.png"):
        pictures[0]


# Content of another kind than its name says

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
(marker) (w) file closefile
%%EOF
"""
CONTENTS = {
    "EPS": EPS,
    "DOS EPS": struct.pack("<4sII", b"\xc5\xd0\xd3\xc6", 12, len(EPS)) + EPS,
    "PDF": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n%%EOF\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><image href="file:///etc/passwd"/></svg>',
    "MVG": b"push graphic-context\nviewbox 0 0 8 8\nimage over 0,0 0,0 'https://127.0.0.1/\"|touch marker\"'\n",
    "WMF": b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(60),
    "pickle": pickle.dumps({"a": 1}),
    "PSD": b"8BPS\x00\x01" + bytes(40),
    "Python": b"#!/usr/bin/env python\nopen('marker', 'w')\n",
    "nothing": b"",
}


@pytest.fixture
def started(tmp_path, monkeypatch):
    """A file that is there when Ghostscript was started."""
    (tmp_path / "bin").mkdir()
    program, marker = tmp_path / "bin/gs", tmp_path / "started"
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # looked for anew
    return marker


def test_pillow_alone_would_start_ghostscript(started, tmp_path):
    """So that the test below could find out."""
    (tmp_path / "a.jpg").write_bytes(EPS)
    with pytest.raises(OSError):
        Image.open(tmp_path / "a.jpg").load()
    assert started.exists()


@pytest.mark.parametrize("content", CONTENTS)
def test_other_content_is_a_broken_image_and_starts_nothing(content, started, tmp_path, monkeypatch):
    def forbidden(*arguments, **_):
        raise AssertionError(f"{arguments} was started")

    monkeypatch.setattr(subprocess, "Popen", forbidden)
    folder = tmp_path / "images"
    (folder / "train").mkdir(parents=True)
    (folder / "train/a.jpg").write_bytes(CONTENTS[content])
    sizes = {"image_size": 8, "batch_size": 1}
    data = {
        "folder": ImageFolder(data_dir=str(folder / "train"), **sizes),
        "pairs": PairedFolder(data_dir=str(folder), **sizes),
        "super-resolution": SuperResolution(data_dir=str(folder), **sizes, scale=2),
        "LSUN": LSUN(data_dir=str(folder), **sizes),
    }
    for module in data.values():
        with pytest.raises(MisconfigurationException, match=r"^Broken image .*a\.jpg \([^\n]*$"):
            module.prepare_data()
    with pytest.raises(MisconfigurationException, match=r"^Broken image .*a\.jpg"):
        named(folder)[0]
    write(tmp_path / "fine/a.png", noise(16, 16))
    tested = SuperResolution(data_dir=str(tmp_path / "fine"), test_dir=str(folder), **sizes, scale=2)
    with pytest.raises(MisconfigurationException, match=r"^Broken image .*a\.jpg"):
        tested.prepare_data()
    with pytest.raises(MisconfigurationException, match=r"^Broken image .*a\.jpg"):
        list(tested.val_dataloader())
    assert not started.exists()


@pytest.mark.parametrize("ending", endings())
def test_every_format_is_read(ending, tmp_path):
    write(tmp_path / f"a{ending}", np.full((4, 6, 3), 128))
    ((image, _),) = named(tmp_path)
    assert image.shape == (3, 4, 6)
    assert image.abs().max() < 0.05


def test_photographs_of_several_pictures_are_read(tmp_path):
    """As some phones write them: MPO, under the ending of JPEG."""
    first, second = (Image.new("RGB", (6, 4), color) for color in ("white", "black"))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    ((image, _),) = named(tmp_path)
    assert image.min() > 0.95


@pytest.mark.parametrize("key", ["data_dir", "test_dir"])
def test_folders_without_pictures_are_named_with_their_setting(tmp_path, key):
    data = Digits(data_dir=str(tmp_path))
    with pytest.raises(MisconfigurationException, match=rf"^.*nowhere is not a folder: set --data\.{key}"):
        data.pictures_in(tmp_path / "nowhere", key)
    with pytest.raises(MisconfigurationException, match=rf"holds no images .*\.png.*: set --data\.{key}"):
        data.pictures_in(tmp_path, key)


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
