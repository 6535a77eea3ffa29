"""Any folder of images."""

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from datamodules import ImageFolder


def picture(path, colour=(255, 0, 0), size=(20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def folder(tmp_path, **kwargs):
    return ImageFolder(**{"data_dir": str(tmp_path), "image_size": 16, "batch_size": 1} | kwargs)


def loaded(data, split="train"):
    data.prepare_data()
    loader = data._loader(split, shuffle=False)
    batches = list(loader)
    return torch.cat([b.image for b in batches]), None if batches[0].label is None else [int(b.label) for b in batches]


def test_a_flat_folder_has_no_labels(tmp_path):
    for name in ("b.png", "a.JPG", "c.webp"):
        picture(tmp_path / name)
    data = folder(tmp_path)
    images, labels = loaded(data)
    assert images.shape == (3, 3, 16, 16)
    assert labels is None
    assert data.num_classes == 0
    assert data.val_split == "train"


def test_class_folders_give_labels_in_alphabetical_order(tmp_path):
    picture(tmp_path / "dog/1.png", (0, 0, 255))
    picture(tmp_path / "cat/deeper/2.png", (0, 255, 0))
    picture(tmp_path / "cat/1.png", (0, 255, 0))
    data = folder(tmp_path)
    images, labels = loaded(data)
    assert labels == [0, 0, 1]
    assert data.num_classes == 2
    assert images[:, :, 0, 0].tolist() == [[0, 255, 0]] * 2 + [[0, 0, 255]]


@pytest.mark.parametrize("test", ["test", "val"])
def test_train_and_test_folders_are_splits(tmp_path, test):
    for split, classes in (("train", ("a", "b", "c")), (test, ("a", "c"))):
        for name in classes:
            picture(tmp_path / split / name / "1.png")
    data = folder(tmp_path)
    assert data.val_split == "test"
    assert loaded(data)[1] == [0, 1, 2]
    assert loaded(data, "test")[1] == [0, 2]  # the training folders' numbers
    assert data.num_classes == 3


def test_grey_and_colour_are_converted(tmp_path):
    picture(tmp_path / "red.png")
    Image.new("L", (16, 16), 100).save(tmp_path / "grey.png")
    Image.new("RGBA", (16, 16), (1, 2, 3, 0)).save(tmp_path / "transparent.png")
    images, _ = loaded(folder(tmp_path))
    assert images[:, :, 0, 0].tolist() == [[100, 100, 100], [255, 0, 0], [255, 255, 255]]
    data = folder(tmp_path, channels=1)
    assert data.image_shape == (1, 16, 16)
    assert loaded(data)[0][:2, :, 0, 0].tolist() == [[100], [76]]  # luminance


def test_other_files_are_left_alone(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / ".hidden.png")
    picture(tmp_path / ".thumbnails/a.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "empty").mkdir()
    assert len(loaded(folder(tmp_path))[0]) == 1


def test_mistakes_are_named(tmp_path):
    def check(sentence, path=tmp_path):
        with pytest.raises(MisconfigurationException, match=sentence):
            folder(path).prepare_data()

    check(r"nowhere is not a folder: set --data\.data_dir", tmp_path / "nowhere")
    check(r"holds no images .*\.png.*--data\.data_dir")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    check(r"Broken image .*broken\.png")
    picture(tmp_path / "class/a.png")
    check(r"holds both images \(broken\.png\) and folders of images \(class\)")


def test_a_class_to_test_that_is_not_trained_on_is_named(tmp_path):
    picture(tmp_path / "train/cat/1.png")
    picture(tmp_path / "test/dog/1.png")
    with pytest.raises(MisconfigurationException, match=r"test/dog has no counterpart in .*train"):
        folder(tmp_path).prepare_data()
