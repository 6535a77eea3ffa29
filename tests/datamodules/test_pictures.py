"""Pictures found, read one by one, and the data modules' predict_dataloader that gives them to the trainer."""

import os
import pickle
import struct
import subprocess
import zlib

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import EpsImagePlugin, Image, ImageCms

from datamodules import LSUN, Digits, ImageFolder, PairedFolder, SuperResolution
from datamodules.images.folders import counted, split_of, walk
from datamodules.images.pictures import NamedPictures, endings, open_picture, upright


def write(path, pixels, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **kwargs)


def named(folder, channels=3, **kwargs):
    return NamedPictures(folder, walk(folder).pictures, channels, **kwargs)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3))


# Finding them


def found(folder):
    return [path.relative_to(folder).as_posix() for path in walk(folder).pictures]


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_what_is_no_picture_is_counted_and_what_nobody_put_there_is_not(tmp_path):
    hidden = ".x.png", ".git/x.png", "a/.ipynb_checkpoints/x.png", "__MACOSX/x.png", "Thumbs.db", "lost+found/x.png"
    touch(tmp_path, "b.PNG", "a/c.jfif", "a/d.avif", "a/e.pgm", "f.heic", "g.heic", "h", "i.txt", *hidden)
    os.mkfifo(tmp_path / "pipe.png")  # would be read for ever
    assert found(tmp_path) == ["a/c.jfif", "a/d.avif", "a/e.pgm", "b.PNG"]
    assert counted(walk(tmp_path).others) == "2 .heic, 1 without an ending, 1 .txt, 1 that are no files"


def test_links_are_followed_but_in_no_circle(tmp_path):
    touch(tmp_path, "data/a/1.png", "data/b/2.png", "store/deep/3.png", "4.png")
    links = {
        "a/store": "../../store",
        "b/store": "../../store",
        "b/one.png": "../../4.png",
        "a/b": "../b",
        "b/a": "../a",
        "a/up": "..",
        "a/top": "../..",
        "a/root": "/",
        "a/itself": "itself",
        "b/gone.png": "nowhere.png",
        "b/gone": "nowhere",
    }
    for name, target in links.items():
        (tmp_path / "data" / name).symlink_to(target)
    assert found(tmp_path / "data") == [
        "a/1.png",
        "a/store/deep/3.png",
        "b/2.png",
        "b/gone.png",
        "b/one.png",
        "b/store/deep/3.png",
    ]
    assert walk(tmp_path / "data").others == {"link": 2}
    assert found(tmp_path / "data/b") == [
        "2.png",
        "a/1.png",
        "a/store/deep/3.png",
        "gone.png",
        "one.png",
        "store/deep/3.png",
    ]
    (tmp_path / "linked").symlink_to("data/b")
    assert "2.png" in found(tmp_path / "linked")


def test_folders_that_are_all_linked_with_each_other_have_an_end(tmp_path):
    for number in range(12):
        touch(tmp_path, f"store/{number}/{number}.png", f"data/{number}/{number}.png")
        for other in range(12):
            (tmp_path / f"store/{number}/to{other}").symlink_to(f"../{other}")
            (tmp_path / f"data/{number}/to{other}").symlink_to(f"../{other}")
    assert len(found(tmp_path / "data")) == 12
    (tmp_path / "data/store").symlink_to("../store/0")
    assert len(found(tmp_path / "data")) == 24


def test_what_goes_or_is_closed_while_it_is_looked_at(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.png", "gone/2.png", "closed/3.png")
    scan = os.scandir

    def scandir(path):
        reasons = {"gone": FileNotFoundError, "closed": PermissionError}
        if error := reasons.get(path.name):
            raise error(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr("os.scandir", scandir)
    assert found(tmp_path) == ["a/1.png"]
    with pytest.raises(MisconfigurationException, match=r"^The folder .*closed \(Permission denied\) cannot be read: "):
        ImageFolder(data_dir=str(tmp_path)).items("train")
    assert len(ImageFolder(data_dir=str(tmp_path), skip_broken=True).items("train")[0]) == 1


def test_names_that_are_not_utf_8(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    write(tmp_path / name, noise(8, 8))
    ImageFolder(data_dir=str(tmp_path), image_size=8, batch_size=1).prepare_data()
    assert [name for _, name in named(tmp_path)] == [name.removesuffix(".png")]
    (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(MisconfigurationException) as error:
        ImageFolder(data_dir=str(tmp_path), image_size=8, batch_size=1).prepare_data()
    assert "caf\\udce9.png" in str(error.value).encode().decode()


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train Train TRAINING training_set train2017 train-images trainset"),
        ("val", "val valid Validation VAL val2017 eval dev holdout"),
        ("test", "test Testing test_set test1"),
        (None, "trains tester cat latest validated trainA streetest a-train 1"),
    ],
)
def test_names_of_splits(split, names):
    assert {split_of(name) for name in names.split()} == {split}


# Reading them


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


LEVELS = np.tile(np.linspace(0, 255, 16).round().astype(np.uint8), (16, 1))
COLOURS = np.stack([LEVELS, LEVELS.T, 255 - LEVELS], 2)


def read_back(picture, path, channels, **kwargs):
    picture.save(path, **kwargs)
    return np.asarray(upright(open_picture(path), channels)).astype(int)


@pytest.mark.parametrize(
    ("ending", "mode"),
    [("png", "RGB"), ("tif", "CMYK"), ("tif", "YCbCr"), ("png", "RGBA"), ("tif", "RGBX"), ("jpg", "CMYK")],
)
def test_colours_come_out_right(ending, mode, tmp_path):
    found = read_back(Image.fromarray(COLOURS).convert(mode), tmp_path / f"a.{ending}", 3)
    assert np.abs(found - COLOURS).max() <= (0 if mode[0] == "R" else 3)
    grey = np.asarray(Image.fromarray(COLOURS).convert("L")).astype(int)
    assert np.abs(read_back(Image.fromarray(COLOURS).convert(mode), tmp_path / f"a.{ending}", 1) - grey).max() <= 2


def test_lab_and_single_bits_come_out_right(tmp_path):
    spaces = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    dull = (COLOURS // 2 + 64).astype(np.uint8)  # 8 bits of LAB hold few of the saturated colours
    lab = ImageCms.profileToProfile(Image.fromarray(dull), *spaces, outputMode="LAB")
    assert np.abs(read_back(lab, tmp_path / "a.tif", 3) - dull).mean() < 3
    board = np.indices((8, 8)).sum(0) % 2 * 255
    bits = Image.fromarray(board.astype(np.uint8)).convert("1")
    assert np.array_equal(read_back(bits, tmp_path / "b.png", 1), board)


@pytest.mark.parametrize(
    ("ending", "pixels"),
    [
        ("tif", (LEVELS / 255).astype(np.float32)),
        ("pfm", (LEVELS / 255).astype(np.float32)),
        ("tif", LEVELS.astype(np.int32) * 257),
        ("tif", LEVELS.astype(np.int32)),
        ("pgm", LEVELS.astype(np.int32) * 257),
        ("png", LEVELS.astype(np.uint16) * 257),
        ("png", LEVELS.astype(np.uint16)),  # 8 bits in 16, which would be black
        ("tif", LEVELS.astype(">u2") * 257),
    ],
)
def test_more_than_8_bits_are_neither_black_nor_white(ending, pixels, tmp_path):
    for channels in (1, 3):
        found = read_back(Image.fromarray(pixels), tmp_path / f"a.{ending}", channels)
        assert np.array_equal(found, LEVELS if channels == 1 else np.repeat(LEVELS[..., None], 3, 2))


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (LEVELS.astype(np.float32), r"mode F, go from 0 to 255: convert it to 8 or 16 bits, or to floats from 0 to 1"),
        (np.full((8, 8), np.nan, np.float32), r"mode F, go from nan to nan"),
        (LEVELS / np.float32(255) - np.float32(0.5), r"mode F, go from -0.5 to 0.5"),
        (LEVELS.astype(np.int32) << 20, r"mode I, go from 0 to 2.6739e\+08: convert it to 8 or 16 bits"),
    ],
)
def test_pixels_of_no_known_range_are_refused(pixels, said, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(MisconfigurationException, match=rf"^Broken image .*a\.tif \(.*{said}"):
        named(tmp_path)[0]
    with pytest.raises(MisconfigurationException, match=said):
        ImageFolder(data_dir=str(tmp_path), image_size=8, batch_size=1).prepare_data()


def clear_in_part(kind, path):
    """A picture whose left half is blue and transparent, and whose right half is red."""
    picture = Image.new("RGBA", (8, 8), (0, 0, 255, 0))
    picture.paste((255, 0, 0, 255), (4, 0, 8, 8))
    flat = picture.convert("RGB")
    if kind == "palette":
        picture.quantize(4).save(path / "a.png")
    elif kind == "one colour":
        flat.save(path / "a.png", transparency=(0, 0, 255))
    elif kind == "one grey":
        flat.convert("L").save(path / "a.png", transparency=flat.convert("L").getpixel((0, 0)))
    elif kind == "GIF":
        picture.save(path / "a.gif", save_all=True, append_images=[Image.new("RGBA", (8, 8), "green")])
    elif kind == "animation":
        picture.save(path / "a.webp", save_all=True, append_images=[Image.new("RGBA", (8, 8))], lossless=True)
    else:
        picture.convert(kind).save(path / ("a.tif" if kind == "PA" else "a.png"))


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "one colour", "one grey", "GIF", "animation"])
@pytest.mark.parametrize(("background", "shows"), [("white", (255, 255, 255)), ("#00ff00", (0, 255, 0))])
def test_what_is_transparent_shows_the_background(kind, background, shows, tmp_path):
    clear_in_part(kind, tmp_path)
    right = (76, 76, 76) if kind in ("LA", "one grey") else (255, 0, 0)
    data = ImageFolder(data_dir=str(tmp_path), image_size=8, batch_size=1, background=background)
    data.prepare_data()
    (batch,) = data.val_dataloader()
    ((image, _),) = named(tmp_path, background=background)
    for pixels in (batch.image[0].float(), (image + 1) * 127.5):
        assert torch.allclose(pixels[:, 4, 0], torch.tensor(shows).float(), atol=1)
        assert torch.allclose(pixels[:, 4, 7], torch.tensor(right).float(), atol=1)


def test_the_background_is_a_part_of_what_is_kept_and_must_be_a_colour(tmp_path):
    clear_in_part("RGBA", tmp_path)
    names = {ImageFolder(data_dir=str(tmp_path), background=b).reference("train") for b in ("white", "black")}
    assert len(names) == 2
    with pytest.raises(MisconfigurationException, match=r"^--data\.background=snow-ish is no colour"):
        Digits(background="snow-ish")


def test_a_header_that_promises_gigabytes_is_refused(tmp_path):
    write(tmp_path / "a.png", noise(2, 2))
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(MisconfigurationException, match=r"^Broken image .*a\.png \(.*3600000000 pixels.* exceeds"):
        named(tmp_path)[0]


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
