"""Pairs of images, in pix2pix's layout and in folders of files of the same names."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from watch import QUIET, Watch, watch

from datamodules import PairedFolder
from datamodules.images.loader import PairBatch, UnpairedBatch

SIZE = 8


def pixels(number, half, size=SIZE):
    """Noise (S, S, 3) whose top left pixel holds the pair's number in red, and 0 (A) or 255 (B) in green."""
    image = np.random.default_rng((number, half)).integers(0, 256, (size, size, 3), dtype=np.uint8)
    image[0, 0] = number, 255 * half, 0
    return image


def write(root, split, numbers, layout, size=SIZE):
    for number in numbers:
        a, b = pixels(number, 0, size), pixels(number, 1, size)
        parts = {split: np.concatenate([a, b], 1)} if layout == "joined" else {f"{split}A": a, f"{split}B": b}
        for folder, image in parts.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / folder / f"{number:03}.png")


@pytest.fixture(params=["joined", "apart"])
def layout(request):
    return request.param


def pairs(folder, **kwargs):
    return PairedFolder(**{"data_dir": str(folder), "image_size": SIZE, "batch_size": 2} | kwargs)


def evaluated(data, split):
    """All pairs, as the model gets them."""
    data.prepare_data()
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.ordered(split)]
    return torch.cat([batch.source for batch in batches]), torch.cat([batch.target for batch in batches])


def raw(images):
    """The first levels of red and green, which name an image."""
    return [tuple(image[:2, 0, 0].add(1).mul(127.5).round().int().tolist()) for image in images]


def expected(numbers, half):
    images = torch.stack([torch.from_numpy(pixels(number, half)).permute(2, 0, 1) for number in numbers])
    return images / 127.5 - 1


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_both_layouts_give_the_same_pairs(tmp_path, layout, held_out):
    write(tmp_path, "train", range(5), layout)
    write(tmp_path, held_out, range(10, 13), layout)
    data = pairs(tmp_path)
    assert (data.val_split, data.num_classes, data.image_shape) == ("test", 0, (3, SIZE, SIZE))
    for split, numbers in (("train", range(5)), ("test", range(10, 13))):
        source, target = evaluated(data, split)
        assert torch.allclose(source, expected(numbers, 0), atol=1e-6)
        assert torch.allclose(target, expected(numbers, 1), atol=1e-6)


def test_validation_images_come_before_test_images_and_may_be_missing(tmp_path, layout):
    write(tmp_path, "train", range(3), layout)
    data = pairs(tmp_path)
    assert data.val_split == "train"
    data.prepare_data()
    assert len([n for batch in data.val_dataloader() for n in batch.image]) == 3
    write(tmp_path, "test", range(5), layout)
    assert pairs(tmp_path).val_split == "test"
    write(tmp_path, "val", range(7, 9), layout)
    assert raw(evaluated(pairs(tmp_path), "test")[0]) == [(7, 0), (8, 0)]


@pytest.mark.parametrize("paired", [True, False])
def test_the_direction_says_which_is_the_source(tmp_path, layout, paired):
    write(tmp_path, "train", range(4), layout)
    batches = {}
    for direction, half in (("AtoB", 0), ("BtoA", 1)):
        data = pairs(tmp_path, direction=direction, paired=paired)
        seen = watch(data)
        assert all(isinstance(batch, PairBatch if paired else UnpairedBatch) for batch in seen)
        source, target = (torch.cat(parts) for parts in zip(*seen, strict=True))
        assert {green // 255 for _, green in raw(source)} == {half}
        assert {green // 255 for _, green in raw(target)} == {1 - half}
        batches[direction] = data.reference("train")
    assert batches["AtoB"] != batches["BtoA"]  # scores compare with the targets


def test_both_of_a_pair_are_cut_out_and_mirrored_alike(tmp_path, layout):
    """B is A's negative."""
    for number in range(16):
        a = pixels(number, 0, 12)
        folders = {"train": np.concatenate([a, 255 - a], 1)}
        if layout == "apart":
            folders = {"trainA": a, "trainB": 255 - a}
        for folder, image in folders.items():
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(image).save(tmp_path / folder / f"{number}.png")
    seen = watch(pairs(tmp_path, load_size=12, horizontal_flip=True, batch_size=16), max_epochs=8)
    places = set()
    for source, target in seen:
        assert source.shape == (16, 3, SIZE, SIZE)
        assert torch.allclose(source, -target, atol=1e-6)
        for image in source:
            places.add(place(image))
    assert len(places) > 25  # of 2 times 5 times 5
    assert {mirrored for mirrored, _, _ in places} == {False, True}


def place(image):
    """Whether a cut-out of one of the sixteen images is mirrored, and where it lay."""
    for mirrored in (False, True):
        part = (image.flip(-1) if mirrored else image).add(1).mul(127.5).round()
        for number in range(16):
            whole = torch.from_numpy(pixels(number, 0, 12)).permute(2, 0, 1).float()
            windows = whole.unfold(1, SIZE, 1).unfold(2, SIZE, 1).permute(1, 2, 0, 3, 4)
            found = (windows == part).flatten(2).all(2).nonzero().tolist()
            if found:
                return mirrored, *found[0]
    raise AssertionError("no part of any image")


def test_what_cannot_be_a_pair_is_named(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"--data\.data_dir=.* holds no folder train .* trainA and"):
        pairs(tmp_path).prepare_data()
    write(tmp_path, "train", [3], "joined")
    Image.new("RGB", (15, 8)).save(tmp_path / "train/odd.png")
    with pytest.raises(MisconfigurationException, match=r"^Broken image [^(]*train/odd\.png \(15x8 pixels are not two"):
        pairs(tmp_path).prepare_data()


@pytest.mark.parametrize("gone", ["trainA", "trainB"])
def test_a_missing_counterpart_is_named(tmp_path, gone):
    write(tmp_path, "train", range(3), "apart")
    (tmp_path / gone / "001.png").unlink()
    kept = {"trainA": "trainB", "trainB": "trainA"}[gone]
    with pytest.raises(
        MisconfigurationException, match=rf"{kept}/001\.png has no counterpart .* in .*{gone}: remove it, or leave"
    ):
        pairs(tmp_path).prepare_data()


def test_pairs_of_which_a_part_is_broken_or_missing_are_left_out_whole(tmp_path, layout):
    write(tmp_path, "train", range(6), layout)
    (tmp_path / ("train" if layout == "joined" else "trainA") / "001.png").write_bytes(b"")
    (tmp_path / ("train" if layout == "joined" else "trainB") / "004.png").write_bytes(b"")
    if layout == "apart":
        (tmp_path / "trainA/005.png").unlink()
    kept = [0, 2, 3] + [5] * (layout == "joined")
    source, target = evaluated(pairs(tmp_path, skip_broken=True), "train")
    assert (raw(source), raw(target)) == ([(n, 0) for n in kept], [(n, 255) for n in kept])


@pytest.mark.parametrize(("train", "test"), [("Training", "Validation"), ("train", "testing")])
@pytest.mark.parametrize("form", ["{}A", "{}_B", "{}/A", "{}"])
def test_splits_and_domains_go_by_their_usual_names(tmp_path, train, test, form):
    for split, numbers in ((train, [1, 2]), (test, [3])):
        write(tmp_path, "x", numbers, "joined" if form == "{}" else "apart")
        for domain in ("",) if form == "{}" else "AB":
            name = form.replace("A", domain).replace("B", domain).format(split) if domain else split
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / f"x{domain}").rename(tmp_path / name)
    source, target = evaluated(pairs(tmp_path), "train")
    assert (raw(source), raw(target)) == ([(1, 0), (2, 0)], [(1, 255), (2, 255)])
    assert raw(evaluated(pairs(tmp_path), "test")[1]) == [(3, 255)]


def test_two_files_of_one_name_are_named(tmp_path):
    write(tmp_path, "train", range(2), "apart")
    Image.new("RGB", (8, 8)).save(tmp_path / "trainA/001.bmp")
    with pytest.raises(MisconfigurationException, match=r"001\.png and .*001\.bmp would be of one pair"):
        pairs(tmp_path).prepare_data()


def test_files_of_one_name_in_sub_folders_are_different_pairs(tmp_path):
    for number, folder in enumerate(("x", "y")):
        for half, domain in enumerate("AB"):
            (tmp_path / f"train{domain}" / folder).mkdir(parents=True)
            ending = "jpg" if domain == "A" and folder == "x" else "png"
            path = tmp_path / f"train{domain}" / folder / f"1.{ending}"
            Image.new("RGB", (SIZE, SIZE), (100 * number, 255 * half, 0)).save(path, quality=100, subsampling=0)
    source, target = evaluated(pairs(tmp_path), "train")
    assert [round((image[0, 0, 0].item() + 1) * 127.5 / 100) for image in source] == [0, 1]
    assert raw(target) == [(0, 255), (100, 255)]


def test_streaming_gives_the_same_batches(tmp_path, layout):
    write(tmp_path, "train", range(9), layout)
    for paired in (True, False):
        options = {"paired": paired, "horizontal_flip": True}
        torch.manual_seed(1)
        resident = watch(pairs(tmp_path, **options), max_epochs=2)
        torch.manual_seed(1)
        streamed = watch(pairs(tmp_path, resident_bytes=0, num_workers=1, **options), max_epochs=2)
        assert len(resident) == len(streamed) == 8
        assert all(
            torch.equal(x, y) for a, b in zip(resident, streamed, strict=True) for x, y in zip(a, b, strict=True)
        )


def numbers(seen):
    """The numbers of the sources and of the targets."""
    source, target = (torch.cat(parts) for parts in zip(*seen, strict=True))
    return [red for red, _ in raw(source)], [red for red, _ in raw(target)]


def test_without_pairing_each_domain_has_an_order_of_its_own(tmp_path, layout):
    write(tmp_path, "train", range(12), layout)
    together = watch(pairs(tmp_path))
    assert numbers(together)[0] == numbers(together)[1]
    apart = watch(pairs(tmp_path, paired=False), max_epochs=2)
    assert len(apart) == 2 * len(together) == 12
    a, b = numbers(apart)
    for epoch in (slice(12), slice(12, 24)):
        assert sorted(a[epoch]) == sorted(b[epoch]) == list(range(12))
    assert a[:12] != a[12:]
    assert len({(i - j) % 12 for i, j in zip(a, b, strict=True)}) > 4  # nor a fixed shift
    assert sum(i == j for i, j in zip(a, b, strict=True)) < 12


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("stop", [2, 5, 7])
def test_a_resumed_run_sees_the_batches_that_were_left(tmp_path, paired, stop):
    """In the middle and at the end of an epoch of five batches."""
    write(tmp_path, "train", range(11), "joined")
    whole = watch(pairs(tmp_path, paired=paired), max_epochs=-1, max_steps=12)
    first = Trainer(**QUIET | {"max_epochs": -1, "max_steps": stop})
    first.fit(Watch(), pairs(tmp_path, paired=paired))
    first.save_checkpoint(tmp_path / "a.ckpt")
    module = Watch()
    second = Trainer(**QUIET | {"max_epochs": -1, "max_steps": 12})
    second.fit(module, pairs(tmp_path, paired=paired), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert numbers(module.seen) == tuple(part[2 * stop :] for part in numbers(whole))


def test_evaluation_keeps_the_pairs_together_also_without_pairing(tmp_path):
    write(tmp_path, "train", range(5), "joined")
    data = pairs(tmp_path, paired=False)
    data.prepare_data()
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader()]
    assert numbers(batches) == (list(range(5)), list(range(5)))
