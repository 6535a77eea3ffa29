"""Data sets that torchvision downloads, from files in its layout; nothing here touches the network."""

import struct
from urllib.error import URLError

import numpy as np
import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules import CIFAR10, MNIST, FashionMNIST


def write_idx(folder, count=12):
    """Images and labels of both splits in MNIST's own format; image i is filled with i, its label is i mod 10."""
    folder.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        images = np.arange(count, dtype=np.uint8).repeat(28 * 28)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + images.tobytes())
        labels = np.arange(count, dtype=np.uint8) % 10
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST])
def test_files_that_are_there_are_read(cls, tmp_path):
    write_idx(tmp_path / cls.source / "raw")
    data = cls(data_dir=str(tmp_path), image_size=28, batch_size=4)
    data.prepare_data()
    assert data.image_shape == (1, 28, 28)
    assert data.num_classes == 10
    images, labels = zip(*data.val_dataloader(), strict=True)
    assert [int(image) for batch in images for image in batch[:, 0, 5, 5]] == list(range(12))
    assert [int(label) for batch in labels for label in batch] == [i % 10 for i in range(12)]


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST, CIFAR10])
def test_without_a_network_one_sentence_says_what_to_do(cls, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(MisconfigurationException) as error:
        cls(data_dir=str(tmp_path)).prepare_data()
    for part in (cls.source, str(tmp_path), "http", "--data.data_dir"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_files_are_named(tmp_path):
    write_idx(tmp_path / "MNIST/raw")
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").write_bytes(b"cut off")
    with pytest.raises(MisconfigurationException, match=r"^MNIST is missing or damaged in .*MNIST/raw"):
        MNIST(data_dir=str(tmp_path)).prepare_data()
