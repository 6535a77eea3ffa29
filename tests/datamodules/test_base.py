"""What every data set shares, on the digits."""

import numpy as np
import pytest
import strangers
import torch
from conftest import images as random_images
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from watch import QUIET, Watch, watch

from datamodules import CIFAR10, Digits, ImageFolder
from datamodules.images.loader import ImageBatch
from datamodules.images.pictures import fit_image


def digits(tmp_path, **kwargs):
    return Digits(**{"data_dir": str(tmp_path), "image_size": 8, "batch_size": 100} | kwargs)


def test_the_model_gets_float_images_in_range_and_integer_labels(tmp_path):
    seen = watch(digits(tmp_path))
    assert len(seen) == 17
    for image, label in seen:
        assert image.shape == (100, 1, 8, 8)
        assert image.dtype == torch.float32
        assert label.dtype == torch.int64
    pixels = torch.cat([batch.image for batch in seen])
    assert (pixels.min(), pixels.max()) == (-1, 1)
    assert set(torch.cat([batch.label for batch in seen]).tolist()) == set(range(10))


def test_scaling_is_exact(tmp_path):
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    image = digits(tmp_path).on_after_batch_transfer(ImageBatch(levels, None), 0).image
    assert torch.equal(image.flatten(), torch.arange(256) / 127.5 - 1)
    assert torch.equal(((image + 1) * 127.5).round().to(torch.uint8), levels)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_images_have_the_models_precision(tmp_path, precision):
    expected = torch.float64 if precision == "64-true" else torch.float32  # autocast converts by itself
    assert watch(digits(tmp_path), precision=precision, max_steps=1)[0].image.dtype == expected


def test_resident_and_streamed_images_are_the_same_batches(tmp_path):
    resident = watch(digits(tmp_path), max_epochs=2)
    streamed = watch(
        digits(tmp_path, resident_bytes=0, num_workers=1), max_epochs=2, reload_dataloaders_every_n_epochs=0
    )
    assert len(resident) == len(streamed) == 34
    for a, b in zip(resident, streamed, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.label, b.label)


def test_flips_mirror_about_half_of_the_training_images_and_nothing_else(tmp_path):
    plain, flipped = (watch(digits(tmp_path, horizontal_flip=flip)) for flip in (False, True))
    a, b = (torch.cat([batch.image for batch in seen]) for seen in (plain, flipped))
    same = (a == b).flatten(1).all(1)
    mirrored = (a.flip(-1) == b).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 0.4 < (mirrored & ~same).float().mean() < 0.6


def test_evaluation_sees_all_images_in_order_and_unmirrored(tmp_path):
    seen = []
    for flip in (False, True):
        module = Watch()
        data = digits(tmp_path, horizontal_flip=flip)
        Trainer(**QUIET | {"limit_val_batches": None}).validate(module, data, verbose=False)
        seen.append(torch.cat([batch.image for batch in module.seen]))
    assert len(seen[0]) == 1797
    assert torch.equal(*seen)
    raw = torch.from_numpy(data.items("train")[0][:5])
    assert torch.equal(((seen[0][:5, 0] + 1) * 127.5).round().to(torch.uint8), raw)


@pytest.mark.parametrize("stop", [5, 17, 20])
@pytest.mark.parametrize("streamed", [False, True], ids=["resident", "streamed"])
def test_a_run_resumed_from_a_checkpoint_sees_the_batches_that_were_left(tmp_path, stop, streamed):
    """In the middle and at the end of an epoch of 17 batches."""
    options = {"resident_bytes": 0, "num_workers": 1} if streamed else {}
    whole = watch(digits(tmp_path, **options), max_epochs=-1, max_steps=30)
    first = Trainer(**QUIET | {"max_epochs": -1, "max_steps": stop})
    first.fit(Watch(), digits(tmp_path, **options))
    first.save_checkpoint(tmp_path / "a.ckpt")
    module = Watch()
    second = Trainer(**QUIET | {"max_epochs": -1, "max_steps": 30})
    second.fit(module, digits(tmp_path, **options), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert len(module.seen) == 30 - stop
    for a, b in zip(whole[stop:], module.seen, strict=True):
        assert torch.equal(a.image, b.image)


# Going on with the images that were trained on


def pictures(folder, count=9, size=8, seed=0):
    """Random pictures, numbered; those of another size are larger files."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(rng.integers(256, size=(size, size, 3), dtype=np.uint8)).save(folder / f"{number}.bmp")


def fitted(steps, data, **kwargs):
    module = Watch()
    trainer = Trainer(**QUIET | {"max_epochs": -1, "max_steps": steps})
    trainer.fit(module, data, weights_only=True, **kwargs)
    return trainer, module.seen


def of_folder(folder, **kwargs):
    return ImageFolder(data_dir=str(folder), image_size=8, batch_size=2, **kwargs)


@pytest.fixture
def resumable(tmp_path):
    """A checkpoint in the middle of an epoch of four batches, the folder it was trained on, and the batches to come."""
    pictures(tmp_path / "first")
    whole = watch(of_folder(tmp_path / "first"), max_epochs=-1, max_steps=9)
    trainer, _ = fitted(2, of_folder(tmp_path / "first"))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt", tmp_path / "first", whole[2:]


def assert_same_batches(seen, expected):
    assert len(seen) == len(expected)
    assert all(torch.equal(a.image, b.image) for a, b in zip(seen, expected, strict=True))


def test_a_checkpoint_says_what_it_was_trained_on(resumable):
    checkpoint, folder, _ = resumable
    source = torch.load(checkpoint, weights_only=True)["ImageFolder"]["source"]
    assert source["class"] == "ImageFolder"
    assert source["data_dir"] == str(folder)
    trainer, _ = fitted(1, digits(folder.parent))
    assert trainer.datamodule.state_dict()["source"]["class"] == "Digits"


def test_the_same_images_elsewhere_go_on(resumable, tmp_path, monkeypatch):
    """Copied later, given by another path, or the folder has got more."""
    checkpoint, folder, rest = resumable
    (tmp_path / "copy").mkdir()
    for path in folder.glob("*.bmp"):
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    assert_same_batches(fitted(9, of_folder(tmp_path / "copy"), ckpt_path=checkpoint)[1], rest)
    monkeypatch.chdir(tmp_path)
    assert_same_batches(fitted(9, of_folder("first"), ckpt_path=checkpoint)[1], rest)
    pictures(folder, count=12)
    assert len(fitted(9, of_folder(folder), ckpt_path=checkpoint)[1]) == 7


def test_other_images_are_refused(resumable, tmp_path):
    checkpoint, folder, _ = resumable
    for name, options in {"larger": {"size": 9}, "more": {"count": 10}}.items():
        pictures(tmp_path / name, **options)
        with pytest.raises(MisconfigurationException) as error:
            fitted(9, of_folder(tmp_path / name), ckpt_path=checkpoint)
        assert f"trained on ImageFolder in {folder}, and ImageFolder in {tmp_path / name} holds" in str(error.value)
        assert "\n" not in str(error.value)
    module, data = Watch(), of_folder(tmp_path / "more")
    Trainer(**QUIET).validate(module, data, ckpt_path=checkpoint, weights_only=True, verbose=False)  # but scored


def test_classes_that_were_chosen_are_a_part_of_what_was_trained_on(tmp_path):
    for folder in ("one", "other"):
        for name in ("a", "b"):
            pictures(tmp_path / folder / name)
    chosen = {name: of_folder(tmp_path / folder, classes=[name]) for folder, name in (("one", "a"), ("other", "b"))}
    assert chosen["a"].origin()["images"] != chosen["b"].origin()["images"]
    assert chosen["a"].origin()["images"] == of_folder(tmp_path / "other", classes=["a"]).origin()["images"]


def test_other_images_may_be_asked_for(resumable, tmp_path, caplog):
    """They are gone through from their beginning, whatever Lightning knows of the loader; this is said once."""
    checkpoint, _, _ = resumable
    pictures(tmp_path / "more", count=10, seed=1)
    fresh = watch(of_folder(tmp_path / "more"), max_epochs=-1, max_steps=7)
    data = of_folder(tmp_path / "more")
    data.other_data = True
    with caplog.at_level("INFO"):
        assert_same_batches(fitted(9, data, ckpt_path=checkpoint)[1], fresh)
    (said,) = [record.message for record in caplog.records if "was trained on" in record.message]
    assert str(tmp_path / "first") in said
    assert str(tmp_path / "more") in said


def test_older_checkpoints_do_not_say_what_they_were_trained_on(resumable, tmp_path):
    path, folder, rest = resumable
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["ImageFolder"]["source"]
    checkpoint["ImageFolder"]["seed"] = 0
    torch.save(checkpoint, path)
    assert_same_batches(fitted(9, of_folder(folder), ckpt_path=path)[1], rest)
    pictures(tmp_path / "more", count=12)
    fitted(9, of_folder(tmp_path / "more"), ckpt_path=path)


# Preparing


def test_preparing_and_loading_draw_nothing_from_the_global_generator(tmp_path):
    before = torch.get_rng_state()
    data = digits(tmp_path)
    data.prepare_data()
    data.setup("fit")
    list(data.train_dataloader())
    list(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_images_are_resized_once_and_again_when_a_file_changes(tmp_path):
    from torchvision.utils import save_image

    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(random_images(6, (3, 20, 24)) / 2 + 0.5):
        save_image(image, folder / f"{i}.png")

    def prepare():
        data = ImageFolder(data_dir=str(folder), image_size=16, batch_size=2)
        data.prepare_data()
        return data

    def kept():
        return {path: path.stat().st_mtime_ns for path in (folder / ".cache").iterdir()}

    name = prepare().reference("train")
    first = kept()
    prepare()
    assert kept() == first
    save_image(torch.zeros(3, 30, 30), folder / "3.png")
    data = prepare()
    assert data.reference("train") != name
    assert len(kept()) == 1
    assert torch.cat([batch.image for batch in data.val_dataloader()])[3].max() == 0


def test_ranks_get_their_slices_from_the_trainer(tmp_path):
    """Two ranks of batch 20 see what one of batch 40 sees."""
    data = digits(tmp_path, batch_size=40)
    data.prepare_data()
    (joined, *_) = data.train_dataloader()

    class Rank:
        world_size, strategy = 2, type("Strategy", (), {"root_device": torch.device("cpu")})
        state = type("State", (), {"fn": "fit"})

    parts = []
    for rank in (0, 1):
        part = digits(tmp_path, batch_size=20)
        part.trainer = Rank()
        part.trainer.global_rank = rank
        parts.append(next(iter(part.train_dataloader())).image)
    assert torch.equal(torch.cat(parts), joined.image)


@pytest.mark.parametrize(("key", "value"), [("image_size", 0), ("batch_size", 0), ("num_workers", -1), ("seed", -1)])
def test_arguments_out_of_range_are_named(tmp_path, key, value):
    with pytest.raises(MisconfigurationException, match=rf"^--data\.{key} must be at least \d; got {value}$"):
        digits(tmp_path, **{key: value})


def test_a_batch_larger_than_the_data_is_named_before_training(tmp_path):
    with pytest.raises(
        MisconfigurationException, match=r"--data\.batch_size=1798 is more than the 1797 .* 1797 or less"
    ):
        watch(digits(tmp_path, batch_size=1798))
    assert len(watch(digits(tmp_path, batch_size=1797))) == 1


def test_a_cache_that_cannot_be_written_asks_for_another(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MisconfigurationException, match=r"--data\.cache_dir"):
        digits(tmp_path, cache_dir=str(tmp_path / "file/cache")).prepare_data()


def test_digits_are_scikit_learns(tmp_path):
    data = digits(tmp_path, image_size=32)
    data.prepare_data()
    assert data.image_shape == (1, 32, 32)
    assert data.num_classes == 10
    batches = list(data.val_dataloader())
    pixels = torch.cat([batch.image for batch in batches])
    assert pixels.shape == (1797, 1, 32, 32)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert torch.cat([batch.label for batch in batches]).bincount().min() > 170


def coordinates(path, number=0, size=12):
    """A picture whose pixels tell their row, column and the picture's number."""
    rows, columns = np.mgrid[:size, :size]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([rows, columns, np.full_like(rows, number)], 2).astype(np.uint8)).save(path)


def cut_out_at(images):
    """The top left corners of images that are parts of such pictures."""
    pixels = ((images + 1) * 127.5).round().int()
    corners = pixels[:, :2, 0, 0]
    for axis, along in ((0, (1, 8, 1)), (1, (1, 1, 8))):
        expected = corners[:, axis].view(-1, 1, 1) + torch.arange(8).view(along)
        assert torch.equal(pixels[:, axis], expected.expand(-1, 8, 8))
    return [tuple(corner) for corner in corners.tolist()]


def test_training_images_are_cut_out_anywhere_each_at_a_place_of_its_own(tmp_path):
    for number in range(50):
        coordinates(tmp_path / f"train/{number:02}.png", number)
    data = ImageFolder(data_dir=str(tmp_path / "train"), image_size=8, load_size=12, batch_size=50)
    assert data.image_shape == (3, 8, 8)
    seen = watch(data, max_epochs=10)
    epochs = [cut_out_at(batch.image) for batch in seen]
    assert set(epochs[0]) != set(epochs[1])
    corners = sum(epochs, [])
    assert set(corners) == {(top, left) for top in range(5) for left in range(5)}
    counts = np.bincount([5 * top + left for top, left in corners])
    assert ((counts - 20) ** 2 / 20).sum() < 51  # chi squared of 24 degrees of freedom: 99.9 % are below


def test_evaluation_cuts_the_centre_out_of_training_images(tmp_path):
    for number in range(3):
        coordinates(tmp_path / f"train/{number}.png", number)
    data = ImageFolder(data_dir=str(tmp_path / "train"), image_size=8, load_size=12, batch_size=2)
    module = Watch()
    Trainer(**QUIET | {"limit_val_batches": None}).validate(module, data, verbose=False)
    assert cut_out_at(torch.cat([batch.image for batch in module.seen])) == [(2, 2)] * 3


def test_test_images_are_resized_whole(tmp_path):
    for folder in ("train", "test"):
        coordinates(tmp_path / f"{folder}/1.png")
    data = ImageFolder(data_dir=str(tmp_path), image_size=8, load_size=12, batch_size=1)
    data.prepare_data()
    (batch,) = data.val_dataloader()
    expected = torch.from_numpy(fit_image(Image.open(tmp_path / "test/1.png"), 3, 8).copy())
    assert torch.equal(batch.image[0], expected)
    assert torch.equal(data.on_after_batch_transfer(batch, 0).image[0], expected / 127.5 - 1)


def test_a_load_size_below_the_image_size_is_named(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"^--data\.load_size must be at least 8; got 7$"):
        digits(tmp_path, load_size=7)


@pytest.fixture
def animals(tmp_path):
    """Folders of classes; the blue of a picture is its class."""
    for number, name in enumerate(("ant", "bee", "cow")):
        for split, count in (("train", 3), ("test", 2)):
            for i in range(count):
                coordinates(tmp_path / f"{split}/{name}/{i}.png", number)
    return tmp_path


def labelled(data, split):
    """The number in every picture, and its label."""
    data.prepare_data()
    batches = list(data.ordered(split))
    blue = torch.cat([batch.image[:, 2, 0, 0] for batch in batches])
    return list(zip(blue.tolist(), torch.cat([batch.label for batch in batches]).tolist(), strict=True))


def test_classes_are_labelled_in_the_order_asked_for(animals):
    def folder(**kwargs):
        return ImageFolder(data_dir=str(animals), image_size=12, batch_size=2, **kwargs)

    everything, some, turned = folder(), folder(classes=["cow", "ant"]), folder(classes=["ant", "cow"])
    assert (everything.domains, everything.num_classes) == (("ant", "bee", "cow"), 3)
    assert (some.domains, some.num_classes) == (("cow", "ant"), 2)
    for split, count in (("train", 3), ("test", 2)):
        assert labelled(everything, split) == [(0, 0)] * count + [(1, 1)] * count + [(2, 2)] * count
        assert labelled(some, split) == [(0, 1)] * count + [(2, 0)] * count
        assert labelled(turned, split) == [(0, 0)] * count + [(2, 1)] * count
    assert len({data.reference("test") for data in (everything, some, turned)}) == 3
    blue = torch.cat([batch.image[:, 2, 0, 0] for batch in watch(some)]).add(1).mul(127.5).round()
    assert set(blue.tolist()) == {0, 2}


def test_classes_of_a_data_set_with_names_of_its_own(tmp_path, monkeypatch):
    """Four images a class, filled with its number; torchvision would look for the published files."""
    labels = np.arange(40) % 10
    images = np.broadcast_to(labels[:, None, None, None], (40, 32, 32, 3)).astype(np.uint8)
    dataset = type("Dataset", (), {"data": images, "targets": labels.tolist()})
    monkeypatch.setattr(CIFAR10, "_dataset", lambda *_, **__: dataset)
    data = CIFAR10(data_dir=str(tmp_path), batch_size=3, classes=["truck", "bird", "cat"])
    assert data.domains == ("truck", "bird", "cat")
    assert sorted(labelled(data, "test")) == [(2, 1)] * 4 + [(3, 2)] * 4 + [(9, 0)] * 4
    assert CIFAR10().num_classes == len(set(CIFAR10().domains)) == 10


def test_classes_that_are_not_there_are_named(animals, tmp_path):
    with pytest.raises(MisconfigurationException, match=r"^--data\.classes=cat must be of ant, bee, cow$"):
        ImageFolder(data_dir=str(animals), classes=["cow", "cat"]).prepare_data()
    with pytest.raises(MisconfigurationException, match=r"^--data\.classes=ten must be of 0, 1, 2, .*9$"):
        digits(tmp_path, classes=["ten"]).prepare_data()
    with pytest.raises(MisconfigurationException, match=r"^--data\.classes=cow must be there once$"):
        ImageFolder(data_dir=str(animals), classes=["cow", "bee", "cow"]).prepare_data()


def test_data_is_called_by_its_class_whatever_its_batches_are(animals):
    data = ImageFolder(data_dir=str(animals), image_size=16)
    data.prepare_data()
    data.train_dataloader(), data.val_dataloader()
    assert str(data) == "ImageFolder"
    with pytest.raises(MisconfigurationException, match=r"=cow must be left out: there are no classes$"):
        ImageFolder(data_dir=str(animals / "train/cow"), classes=["cow"]).prepare_data()


# Images of one's own


def in_cache(data):
    data.prepare_data()
    return torch.cat([batch.image for batch in data.ordered("train")])


@pytest.mark.parametrize("cls", [strangers.Arrays, strangers.Numbered])
def test_arrays_without_files_are_told_apart_by_what_they_show(cls, tmp_path):
    """Whatever their items are; those of before go, and the same ones are not resized again."""
    for level in (7, 9, 7):
        data = cls(level=level, data_dir=str(tmp_path))
        assert set(in_cache(data).flatten().tolist()) == {level}
        name = data.reference("train")
        del data
        (kept,) = (tmp_path / ".cache").iterdir()
        assert kept.name == f"{name}.npy"
    written = kept.stat().st_mtime_ns
    assert cls(level=7, data_dir=str(tmp_path)).reference("train") == name
    in_cache(cls(level=7, data_dir=str(tmp_path)))
    assert kept.stat().st_mtime_ns == written
    other, same = (cls(level=level, data_dir=str(tmp_path)).origin()["images"] for level in (8, 7))
    assert other != same == cls(level=7, data_dir=str(tmp_path)).origin()["images"]


def test_files_that_are_opened_in_another_way_are_other_images(tmp_path):
    coordinates(tmp_path / "images/1.png")
    straight, turned = (
        in_cache(strangers.Turned(degrees=degrees, data_dir=str(tmp_path / "images"), image_size=12))
        for degrees in (0, 90)
    )
    assert torch.equal(straight.rot90(1, (2, 3)), turned)


def test_a_changed_folder_has_one_file_and_nobody_elses_is_touched(tmp_path):
    """One folder for the resized images of several data sets, at several sizes."""
    cache = tmp_path / "cache"

    def prepare(folder, **kwargs):
        data = ImageFolder(data_dir=str(tmp_path / folder), cache_dir=str(cache), **{"image_size": 8} | kwargs)
        data.prepare_data()
        return data

    for folder in ("a", "b"):
        coordinates(tmp_path / folder / "1.png")
    prepare("a")
    changed = {path.name for path in cache.iterdir()}
    prepare("a", image_size=10)
    prepare("a", background="black")
    read = prepare("b")
    others = {path.name for path in cache.iterdir()} - changed
    assert len(others) == 3
    coordinates(tmp_path / "a/1.png", 1)
    coordinates(tmp_path / "b/1.png", 1)
    prepare("a")
    now = {path.name for path in cache.iterdir()}
    assert others < now
    assert not changed & now
    assert len(now) == 4
    prepare("b")
    assert len(list(cache.iterdir())) == 5  # the former is still read
    assert len(list(read.ordered("train"))) == 1


def test_a_folder_may_be_moved_with_its_resized_images(tmp_path):
    coordinates(tmp_path / "a/1.png")
    name = of_folder(tmp_path / "a").reference("train")
    (tmp_path / "a").rename(tmp_path / "b")
    assert of_folder(tmp_path / "b").reference("train") == name
