"""Pictures made to fit, and the file that keeps them."""

import errno
import fcntl
import os
import time

import numpy as np
import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from datamodules.images.cache import build, fingerprint, hold, supersede
from datamodules.images.pictures import fit_image

SHAPE = (1, 4, 4)


def decode(item):
    if item < 0:
        raise OSError("cannot identify image file")
    return np.full(SHAPE, item, np.uint8)


# Pictures


def test_grey_becomes_rgb_and_rgb_grey():
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    rgb = fit_image(grey, 3, 8)
    assert rgb.shape == (3, 8, 8)
    assert all(np.array_equal(channel, np.asarray(grey)) for channel in rgb)
    assert np.array_equal(fit_image(Image.merge("RGB", [grey] * 3), 1, 8)[0], np.asarray(grey))


@pytest.mark.parametrize("size", [(12, 8), (8, 12), (10, 8), (500, 3)])
def test_the_shorter_side_fits_and_the_centre_is_cut_out(size):
    """A marked centre stays there: bright halves left and right, or above and below, of a black cross."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width).round()[None]
    pixels[..., 1] = np.linspace(0, 255, height).round()[:, None]
    image = fit_image(Image.fromarray(pixels), 3, 8).astype(float)
    assert image.shape == (3, 8, 8)
    assert image[0].mean() == pytest.approx(127.5, abs=2)  # symmetric about the centre
    assert image[1].mean() == pytest.approx(127.5, abs=2)
    assert image[0][0, -1] - image[0][0, 0] == pytest.approx(255 * min(1, height / width), abs=40)


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 500)])
def test_of_thin_pictures_the_centre_alone_is_resized(size, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8)
    made, resize = [], Image.Image.resize

    def resized(self, to, *args, **kwargs):
        made.append(to)
        return resize(self, to, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", resized)
    image = fit_image(Image.fromarray(pixels), 1, 16)[0].astype(int)
    assert made == [(16, 16)]
    scale = 16 / min(size)
    width, height = (max(16, round(side * scale)) for side in size)
    whole = np.asarray(resize(Image.fromarray(pixels), (width, height), Image.Resampling.LANCZOS))
    left, top = (width - 16) // 2, (height - 16) // 2
    assert np.abs(image - whole[top : top + 16, left : left + 16]).mean() < 2  # Pillow rounds between its two passes


def test_images_of_the_right_size_are_left_alone():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(fit_image(Image.fromarray(pixels), 3, 8), pixels.transpose(2, 0, 1))


def test_shrinking_is_antialiased():
    """A fine chequerboard becomes grey, not black or white."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    assert np.abs(fit_image(Image.fromarray(board), 1, 8).astype(int) - 127).max() < 16


def test_16_bit_grey_is_scaled_not_clipped():
    pixels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    assert np.array_equal(fit_image(Image.fromarray(pixels), 1, 8)[0], pixels >> 8)


def test_photographs_stand_upright(tmp_path):
    """Orientation 6 says: turn this by a quarter to the right."""
    lying = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(lying).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(fit_image(Image.open(tmp_path / "a.png"), 1, 8)[0], np.rot90(lying, -1))


# The file


@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_is_in_its_place(tmp_path, workers):
    build(tmp_path / "new/x.npy", range(200), decode, SHAPE, workers)
    images = np.load(tmp_path / "new/x.npy")
    assert images.shape == (200, *SHAPE)
    assert images.dtype == np.uint8
    assert images[:, 0, 0, 0].tolist() == list(range(200))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.npy"]


def test_a_whole_file_is_kept_and_a_damaged_one_replaced(tmp_path):
    path = tmp_path / "x.npy"
    calls = []

    def counted(item):
        calls.append(item)
        return decode(item)

    build(path, range(5), counted, SHAPE, 1)
    build(path, range(5), counted, SHAPE, 1)
    assert len(calls) == 5
    for damage in (b"", b"no array", path.read_bytes()[:-3]):
        path.write_bytes(damage)
        build(path, range(5), counted, SHAPE, 1)
        assert np.load(path)[:, 0, 0, 0].tolist() == list(range(5))
    assert len(calls) == 20


def test_broken_images_are_counted_and_the_first_named(tmp_path):
    items = [*range(100), -7, *range(99), -8, -9]
    with pytest.raises(MisconfigurationException, match=r"^Broken image -7 \(cannot identify.*\) and 2 more") as error:
        build(tmp_path / "x.npy", items, decode, SHAPE, 2)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(
        MisconfigurationException, match=r"^Broken image -7 \([^)]*\): mend or remove it, or leave it out with"
    ):
        build(tmp_path / "x.npy", [-7], decode, SHAPE, 2)


def test_writing_that_is_interrupted_leaves_nothing(tmp_path):
    def interrupted(item):
        if item == 150:
            raise KeyboardInterrupt
        return decode(item)

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "x.npy", range(200), interrupted, SHAPE, 2)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_hold_the_file_asks_for_another(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(MisconfigurationException, match=r"^Resized images cannot be kept in .*file.*--data\.cache_dir"):
        build(tmp_path / "file/x.npy", range(5), decode, SHAPE, 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 79}))
    with pytest.raises(MisconfigurationException, match=r"GB needed.*--data\.cache_dir"):
        build(tmp_path / "x.npy", range(5), decode, SHAPE, 1)
    assert not (tmp_path / "x.npy").exists()


def test_a_picture_in_place_of_another_of_its_size_and_date_is_noticed(tmp_path):
    path = tmp_path / "a.bmp"
    path.write_bytes(bytes(100))
    status, name = path.stat(), fingerprint([path], tmp_path)
    assert fingerprint([path], tmp_path) == name
    time.sleep(0.02)  # the clock of files is coarse
    path.write_bytes(bytes(range(100)))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert fingerprint([path], tmp_path) != name


def test_unfinished_files_of_those_who_were_killed_go_and_those_of_others_stay(tmp_path):
    for name in ("dead.npy.1.partial", "old.npy.0a1b", "written.npy.2.partial"):
        (tmp_path / f".{name}").write_bytes(b"something")
    with (tmp_path / ".written.npy.2.partial").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        build(tmp_path / "x.npy", range(5), decode, SHAPE, 1)
        assert {path.name for path in tmp_path.iterdir()} == {"x.npy", ".written.npy.2.partial"}
    build(tmp_path / "y.npy", range(5), decode, SHAPE, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"x.npy", "y.npy"}


def test_what_is_superseded_goes_unless_somebody_reads_it(tmp_path):
    now, before, read = (f"{digit * 16}" for digit in "abc")
    names = {f"set-1x1-{now}.npy", f"set-1x1-{read}.npy", f"set-2x2-{before}.npy", f"other-1x1-{before}.npy"}
    gone = {f"set-1x1-{before}.npy", f"set-1x1-{before}.broken.json", f"set-1x1-{before}-01234567.npy"}
    for name in names | gone:
        (tmp_path / name).touch()
    reader = type("Reader", (), {})()
    hold(reader, tmp_path / f"set-1x1-{read}.npy")
    supersede(tmp_path, f"set-1x1-{now}")
    assert {path.name for path in tmp_path.iterdir()} == names
    del reader
    supersede(tmp_path, f"set-1x1-{now}")
    assert {path.name for path in tmp_path.iterdir()} == names - {f"set-1x1-{read}.npy"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_noticed_before_an_image_is_decoded(tmp_path, monkeypatch, number):
    def full(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(MisconfigurationException, match=rf"{os.strerror(number)}.*--data\.cache_dir"):
        build(tmp_path / "x.npy", range(5), lambda _: pytest.fail("decoded"), SHAPE, 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [None, AttributeError(), OSError(errno.EOPNOTSUPP, "not here")])
def test_all_room_is_taken_before_an_image_is_written(tmp_path, monkeypatch, error):
    """By zeros where the system cannot be asked for it; they are no part of what is read."""

    def none(*_):
        raise error

    if error is not None:
        monkeypatch.setattr("os.posix_fallocate", none)
    shape, taken = (1, 64, 64), []

    def noted(item):
        (partial,) = tmp_path.iterdir()
        taken.append(partial.stat().st_blocks * 512)
        return np.full(shape, item, np.uint8)

    build(tmp_path / "x.npy", range(1, 200), noted, shape, 0)
    assert min(taken) >= 199 * 64 * 64
    assert np.load(tmp_path / "x.npy")[:, 0, 0, 0].tolist() == list(range(1, 200))


def test_nobody_waits_for_images_that_are_not_wanted_any_more(tmp_path):
    """A thread has up to 64 images to decode, of which each may take a second."""
    decoded = []

    def interrupted(item):
        if item == 0:
            raise KeyboardInterrupt
        time.sleep(0.01)
        decoded.append(item)
        return decode(0)

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "x.npy", range(1000), interrupted, SHAPE, 3)
    assert len(decoded) < 64
