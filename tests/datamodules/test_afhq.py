"""Animal Faces HQ, in the layouts of its two versions."""

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from datamodules.afhq import AFHQ

DOMAINS = ("cat", "dog", "wild")


def write(root, test):
    """Images of the domains are red, green and blue; two to train on and one to test with."""
    for label, domain in enumerate(DOMAINS):
        colour = tuple(255 * (channel == label) for channel in range(3))
        for split, count in (("train", 2), (test, 1)):
            folder = root / split / domain
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (24, 24), colour).save(folder / f"flickr_{domain}_{number:06}.jpg", quality=100)


def afhq(folder, **kwargs):
    return AFHQ(**{"data_dir": str(folder), "image_size": 16, "batch_size": 1} | kwargs)


def loaded(data, split):
    """Which channel of every image is bright, and the labels."""
    data.prepare_data()
    batches = list(data.ordered(split))
    colours = [int(batch.image[0, :, 0, 0].argmax()) for batch in batches]
    return colours, None if batches[0].label is None else [int(batch.label) for batch in batches]


@pytest.mark.parametrize(("folder", "test"), [("", "val"), ("afhq", "val"), ("", "test"), ("afhqv2", "test")])
def test_both_versions_are_found(folder, test, tmp_path):
    write(tmp_path / folder, test)
    data = afhq(tmp_path)
    assert (data.num_classes, data.domains, data.val_split, data.image_shape) == (3, DOMAINS, "test", (3, 16, 16))
    assert loaded(data, "train") == ([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2])
    assert loaded(data, "test") == ([0, 1, 2], [0, 1, 2])


def test_one_domain_has_no_labels(tmp_path):
    write(tmp_path, "val")
    data = afhq(tmp_path, domain="dog")
    assert (data.num_classes, data.domains) == (0, ())
    assert loaded(data, "train") == ([1, 1], None)
    assert loaded(data, "test") == ([1], None)
    assert data.reference("train") != afhq(tmp_path, domain="cat").reference("train")


def test_streaming_gives_the_same_batches(tmp_path):
    write(tmp_path, "val")
    resident, streamed = afhq(tmp_path), afhq(tmp_path, resident_bytes=0, num_workers=0)
    resident.prepare_data()
    for a, b in zip(resident.train_dataloader(), streamed.train_dataloader(), strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.label, b.label)


def test_without_images_to_test_with_the_training_images_are_compared_with(tmp_path):
    write(tmp_path, "unknown")
    assert afhq(tmp_path).val_split == "train"


def test_mistakes_are_named(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"^--data\.domain must be cat, dog, wild .*; got cow$"):
        afhq(tmp_path, domain="cow")
    with pytest.raises(
        MisconfigurationException, match=r"train/cat is missing: download http.*--data\.data_dir="
    ) as error:
        afhq(tmp_path).prepare_data()
    assert "\n" not in str(error.value)
    (tmp_path / "train/cat").mkdir(parents=True)
    with pytest.raises(MisconfigurationException, match=r"train/cat holds no images"):
        afhq(tmp_path, domain="cat").prepare_data()
