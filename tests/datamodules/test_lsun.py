"""LSUN, in the layouts that it is found in."""

import hashlib
import io
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from datamodules.lsun import LSUN

lmdb = pytest.importorskip("lmdb")


def jpeg(number):
    """A grey picture that holds its number."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 16), (number,) * 3).save(buffer, "JPEG")
    return buffer.getvalue()


def write_database(folder, numbers):
    """Keys are hashes, as in LSUN, so that their order is not that of the numbers."""
    with lmdb.open(str(folder), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for number in numbers:
            transaction.put(hashlib.sha1(str(number).encode()).hexdigest().encode(), jpeg(number))


@pytest.fixture
def databases(tmp_path):
    write_database(tmp_path / "bedroom_train_lmdb", range(100))
    write_database(tmp_path / "bedroom_val_lmdb", range(200, 205))
    return tmp_path


def write_files(folder, numbers):
    """Deep folders, as in Kaggle's sample."""
    for number in numbers:
        name = hashlib.sha1(str(number).encode()).hexdigest()
        path = folder / "data0/lsun/bedroom" / name[0] / name[1] / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))


def lsun(folder, **kwargs):
    return LSUN(**{"data_dir": str(folder), "image_size": 8, "batch_size": 2} | kwargs)


def numbers(data, split):
    """The numbers of all images of a split, as the loader gives them."""
    data.prepare_data()
    return [int(image[0, 4, 4]) for batch in data.ordered(split) for image in batch.image]


def test_databases_are_splits(databases):
    data = lsun(databases)
    assert (data.val_split, data.num_classes, data.image_shape) == ("test", 0, (3, 8, 8))
    assert sorted(numbers(data, "train")) == list(range(100))
    assert sorted(numbers(data, "test")) == list(range(200, 205))
    assert next(iter(data.train_dataloader())).label is None


def test_files_in_any_folders_are_trained_on(tmp_path):
    write_files(tmp_path, range(12))
    data = lsun(tmp_path)
    write_database(tmp_path / "bedroom_val_lmdb", range(3))  # without its counterpart, not read
    assert data.val_split == "train"
    assert sorted(numbers(data, "train")) == list(range(12))


@pytest.mark.parametrize("source", ["database", "files"])
def test_a_share_is_held_back(source, tmp_path):
    if source == "files":
        write_files(tmp_path, range(100))
    else:
        write_database(tmp_path / "bedroom_train_lmdb", range(100))
    data = lsun(tmp_path, test_share=0.2)
    assert data.val_split == "test"
    train, test = numbers(data, "train"), numbers(data, "test")
    assert len(test) == 20
    assert sorted(train + test) == list(range(100))
    again = lsun(tmp_path, test_share=0.2, seed=7)
    assert (numbers(again, "train"), numbers(again, "test")) == (train, test)
    assert again.reference("test") == data.reference("test")
    assert len(numbers(lsun(tmp_path, test_share=0.3), "test")) == 30
    assert lsun(tmp_path, test_share=0.3).reference("test") != data.reference("test")


def test_the_order_of_names_does_not_matter(tmp_path):
    names = [str(number).encode() for number in range(50)]
    data = lsun(tmp_path, test_share=0.2)
    assert set(data._part(names, "test")) == set(data._part(names[::-1], "test"))


def test_streaming_gives_the_same_batches(databases):
    resident, streamed = lsun(databases), lsun(databases, resident_bytes=0, num_workers=0)
    resident.prepare_data()
    for a, b in zip(resident.train_dataloader(), streamed.train_dataloader(), strict=True):
        assert torch.equal(a.image, b.image)


def test_databases_are_read_by_many_threads_and_after_pickling(databases):
    data = pickle.loads(pickle.dumps(lsun(databases)))
    records, _ = data.items("train")
    data = pickle.loads(pickle.dumps(data))  # with the database open
    with ThreadPoolExecutor(8) as pool:
        seen = pool.map(lambda record: data.open(record, "train").getpixel((0, 0))[0], list(records) * 5)
        assert sorted(seen) == sorted(list(range(100)) * 5)


def test_mistakes_are_named(tmp_path, monkeypatch):
    def check(sentence, **kwargs):
        with pytest.raises(MisconfigurationException, match=sentence) as error:
            lsun(**{"folder": tmp_path} | kwargs).prepare_data()
        assert "\n" not in str(error.value)

    check(r"^--data\.test_share must be at least 0 and less than 1; got 1$", test_share=1)
    check(
        r"nowhere holds neither bedroom_train_lmdb nor images: unpack bedroom_train_lmdb\.zip from http",
        folder=tmp_path / "nowhere",
    )
    write_files(tmp_path / "files", range(3))
    check(r"test_share=0\.1 of the 3 images .* leaves none to test with", folder=tmp_path / "files", test_share=0.1)
    check(r"test_share=0\.9 of the 3 images .* leaves none to train with", folder=tmp_path / "files", test_share=0.9)
    write_database(tmp_path / "tower_train_lmdb", [])
    check("tower_train_lmdb holds no images", category="tower")
    (tmp_path / "kitchen_train_lmdb").mkdir()
    check("kitchen_train_lmdb is missing or damaged", category="kitchen")
    with lmdb.open(str(tmp_path / "church_train_lmdb")) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"a1", b"no picture")
    check("^Broken image a1 in .*church_train_lmdb", category="church")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    check("church_train_lmdb .*: pip install lmdb$", category="church")
