"""Pictures cut into tiles and reduced, beside Pillow's bicubic reduction of the same."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from sklearn.datasets import load_sample_image
from watch import QUIET, Watch, watch

from datamodules import SuperResolution
from datamodules.super_resolution import reduced

SIZES = {"a": (21, 37), "b": (50, 25), "c": (24, 24)}  # height and width


def noise(height, width):
    return np.random.default_rng((height, width)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(folder, sizes=SIZES):
    folder.mkdir(parents=True)
    for name, size in sizes.items():
        Image.fromarray(noise(*size)).save(folder / f"{name}.png")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train")
    return tmp_path / "train"


def enlarged(folder, **kwargs):
    return SuperResolution(**{"data_dir": str(folder), "image_size": 8, "batch_size": 4, "scale": 2} | kwargs)


def levels(images):
    """uint8 images of floats in [-1, 1], all of which must be levels of a file."""
    exact = (images + 1) * 127.5
    assert torch.allclose(exact, exact.round(), atol=1e-3)
    return exact.round().to(torch.uint8)


def by_pillow(image, scale):
    """A uint8 image (3, H, W) reduced in floats, channel by channel; of RGB, Pillow rounds and clips half-way too."""
    size = image.shape[2] // scale, image.shape[1] // scale
    channels = [Image.fromarray(channel.float().numpy()) for channel in image]
    small = [np.array(channel.resize(size, Image.Resampling.BICUBIC)) for channel in channels]
    return torch.from_numpy(np.stack(small)).round().clamp(0, 255)


def check_sources(batch, scale):
    """That sources are what Pillow makes of the targets; what lies between two levels may be rounded either way."""
    for source, target in zip(*map(levels, batch), strict=True):
        difference = (source - by_pillow(target, scale)).abs()
        assert difference.max() <= 1
        assert difference.sum() <= max(1, 0.01 * difference.numel())


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_photograph_is_reduced_as_pillow_does_it(scale):
    """At half the contrast, because Pillow would clip half-way, between columns and rows."""
    pixels = load_sample_image("flower.jpg")[: 420 // scale * scale, : 636 // scale * scale] // 2 + 64
    picture = Image.fromarray(pixels)
    expected = np.array(picture.resize((picture.width // scale, picture.height // scale), Image.Resampling.BICUBIC))
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    found = levels(reduced(image, scale))[0].permute(1, 2, 0).numpy()
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    assert difference.mean() < 0.2  # Pillow rounds half-way too


def places(image, sizes=SIZES):
    """Where an image (3, S, S) is a part of one of the pictures: its name, top and left."""
    found = []
    for name, size in sizes.items():
        whole = torch.from_numpy(noise(*size)).permute(2, 0, 1)
        windows = whole.unfold(1, image.shape[-1], 1).unfold(2, image.shape[-1], 1).permute(1, 2, 0, 3, 4)
        found += [(name, *place) for place in (windows == image).flatten(2).all(2).nonzero().tolist()]
    return found


@pytest.mark.parametrize(("load_size", "kept"), [(None, 16), (8, 8), (11, 11), (100, 21)])
def test_tiles_cover_every_pixel_at_the_pictures_own_resolution(folder, load_size, kept):
    data = enlarged(folder, load_size=load_size)
    data.prepare_data()
    tiles, labels = data.items("train")
    assert labels is None
    assert len(data.files_of(tiles)) == 3
    assert data.load_size == kept  # as much as the smallest picture has
    missing = {name: np.ones(size, bool) for name, size in SIZES.items()}
    batches = torch.cat([batch.image for batch in data.ordered("train")])
    assert batches.shape == (len(tiles), 3, kept, kept)
    for tile, pixels in zip(tiles, batches, strict=True):
        name = tile.path.stem
        assert (name, tile.top, tile.left) in places(pixels)
        missing[name][tile.top : tile.top + kept, tile.left : tile.left + kept] = False
    assert not any(part.any() for part in missing.values())


@pytest.mark.parametrize(("scale", "size"), [(2, 8), (3, 9), (4, 16)])
def test_training_images_are_parts_of_the_pictures_and_the_same_reduced(folder, scale, size):
    seen = watch(enlarged(folder, scale=scale, image_size=size), max_epochs=3)
    found, mirrored = set(), set()
    for batch in seen:
        assert batch.source.shape == (4, 3, size // scale, size // scale)
        assert batch.target.shape == (4, 3, size, size)
        check_sources(batch, scale)
        for image in levels(batch.target):
            straight, flipped = places(image), places(image.flip(-1))
            assert len(straight) + len(flipped) == 1
            found.update(straight + flipped)
            mirrored.add(bool(flipped))
    assert {name for name, _, _ in found} == set(SIZES)
    assert len(found) > len(seen) * 2  # at random
    assert mirrored == {False, True}


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("separate", [True, False], ids=["test folder", "training folder"])
def test_whole_pictures_are_tested_with_one_by_one(tmp_path, folder, scale, separate):
    sizes = {"d": (9, 14), "e": (31, 17)} if separate else SIZES
    if separate:
        write(tmp_path / "test", sizes)
    data = enlarged(folder, scale=scale, test_dir=str(tmp_path / "test") if separate else None)
    assert data.val_split == ("test" if separate else "train")
    assert len(data.val_dataloader()) == len(data.test_dataloader()) == len(sizes)
    for run in ("validate", "test", "fit"):
        module = Watch()
        module.test_step = module.validation_step
        options = {"limit_val_batches": None, "max_steps": 1, "val_check_interval": 1, "num_sanity_val_steps": 0}
        getattr(Trainer(**QUIET | options), run)(module, datamodule=data)
        seen = module.seen[1:] if run == "fit" else module.seen  # after the training batch
        assert len(seen) == len(sizes)
        for batch, size in zip(seen, sizes.values(), strict=True):
            height, width = (side // scale * scale for side in size)
            assert torch.equal(
                levels(batch.target)[0].permute(1, 2, 0), torch.from_numpy(noise(*size))[:height, :width]
            )
            check_sources(batch, scale)


def test_streaming_gives_the_same_batches(folder):
    torch.manual_seed(1)
    resident = watch(enlarged(folder), max_epochs=2)
    torch.manual_seed(1)
    streamed = watch(enlarged(folder, resident_bytes=0, num_workers=1), max_epochs=2)
    assert len(resident) > 4
    for a, b in zip(resident, streamed, strict=True):
        assert torch.equal(a.source, b.source)
        assert torch.equal(a.target, b.target)


def test_photographs_stand_upright(tmp_path):
    """Turned by a quarter, a picture has its height for its width."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "train").mkdir()
    lying = np.rot90(noise(40, 16))  # counterclockwise; the camera's 6 turns it back
    Image.fromarray(lying).save(tmp_path / "train/a.png", exif=exif)
    data = enlarged(tmp_path / "train")
    data.prepare_data()
    tiles = torch.cat([batch.image for batch in data.ordered("train")])
    assert [places(tile, {"a": (40, 16)}) for tile in tiles] == [[("a", top, 0)] for top in (0, 8, 16, 24)]
    whole = next(iter(data.val_dataloader())).image
    assert torch.equal(whole[0].permute(1, 2, 0), torch.from_numpy(noise(40, 16)))


def test_grey_pictures_become_colour(tmp_path):
    (tmp_path / "train").mkdir()
    Image.new("L", (20, 20), 77).save(tmp_path / "train/a.png")
    source, target = watch(enlarged(tmp_path / "train", batch_size=1))[0]
    assert levels(source).unique().tolist() == levels(target).unique().tolist() == [77]
    assert target.shape == (1, 3, 8, 8)


def test_scores_compare_with_exactly_these_pictures(tmp_path, folder):
    """Test folders of one name, such as Set5/HR and Set14/HR, hold different ones."""
    for name, sizes in (("five", {"d": (20, 20)}), ("fourteen", {"d": (24, 20)})):
        write(tmp_path / name / "HR", sizes)
    tests = (None, str(tmp_path / "five/HR"), str(tmp_path / "fourteen/HR"))
    names = {enlarged(folder, test_dir=test).reference("test") for test in tests}
    names |= {enlarged(folder, test_dir=tests[1], scale=4).reference("test")}  # cropped otherwise
    assert len(names) == 4
    assert enlarged(folder, test_dir=tests[1]).reference("test") in names


def test_splits_and_broken_images(tmp_path):
    """In the training folder, broken and small ones; of the test images, one that is less than a pixel when reduced."""
    write(tmp_path / "Train", {"a": (21, 37), "b": (24, 24), "small": (7, 30)})
    write(tmp_path / "valid", {"d": (9, 14), "e": (1, 17)})
    data = enlarged(tmp_path, skip_broken=True)
    assert data.val_split == "test"
    data.prepare_data()
    assert {tile.path.stem for tile in data.items("train")[0]} == {"a", "b"}
    assert [batch.image.shape[-2:] for batch in data.val_dataloader()] == [(8, 14)]
    (tmp_path / "Train/small.png").unlink()
    with pytest.raises(MisconfigurationException, match=r"valid/e\.png \(17x1 pixels are less than --data\.scale=2\)"):
        enlarged(tmp_path).prepare_data()


def test_mistakes_are_named_in_a_sentence(tmp_path, folder):
    def check(sentence, **kwargs):
        with pytest.raises(MisconfigurationException, match=sentence) as error:
            enlarged(**{"folder": folder} | kwargs).prepare_data()
        assert "\n" not in str(error.value)

    multiple = r"^--data\.image_size must be a multiple of --data\.scale, and that at least 2; got "
    check(multiple + "10 and 4$", image_size=10, scale=4)
    check(multiple + "8 and 1$", scale=1)
    check(r"^--data\.load_size must be at least 8; got 7$", load_size=7)
    check(
        r"train/a\.png is smaller than --data\.image_size=22: remove it or take a smaller size, or leave", image_size=22
    )
    check(r"nowhere is not a folder: set --data\.data_dir", folder=tmp_path / "nowhere", test_dir=str(folder))
    check(r"nowhere is not a folder: set --data\.test_dir", test_dir=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    check(r"empty holds no images .*: set --data\.test_dir", test_dir=str(tmp_path / "empty"))
    whole = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(whole[: len(whole) // 2])
    check(r"^Broken image [^(]*train/a\.png \(")
