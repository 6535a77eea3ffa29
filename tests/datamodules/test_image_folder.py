"""Any folder of images."""

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from datamodules import LSUN, ImageFolder, Restoration, SuperResolution
from datamodules.images.pictures import open_picture


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


# Splits and classes


def split(tmp_path, **kwargs):
    """The classes, and the names of the images to train and to test with."""
    data = folder(tmp_path, **kwargs)
    names = [
        sorted(path.relative_to(tmp_path).as_posix() for path in data.items(part)[0])
        for part in sorted(data.splits(), reverse=True)
    ]
    return data.class_names, *names


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("train", "valid"),
        ("TRAIN", "Val"),
        ("training_set", "test_set"),
        ("train2017", "val2017"),
    ],
)
@pytest.mark.parametrize("inside", ["", "archive", "archive/images"])
def test_splits_go_by_their_usual_names(train, test, inside, tmp_path):
    root = tmp_path / inside
    for name in (f"{train}/a/1", f"{train}/b/2", f"{test}/a/3"):
        picture(root / f"{name}.png")
    picture(root / "extra/4.png")  # no split, and no class
    where = f"{inside}/" if inside else ""
    expected = ("a", "b"), [f"{where}{train}/a/1.png", f"{where}{train}/b/2.png"], [f"{where}{test}/a/3.png"]
    assert split(tmp_path) == expected
    assert split(tmp_path, labels=False) == ((), *expected[1:])
    assert Restoration(data_dir=str(tmp_path)).items("test")[0] == [tmp_path / expected[2][0]]


def test_validation_images_come_before_test_images(tmp_path):
    for name in ("train", "test", "val"):
        picture(tmp_path / f"{name}/1.png")
    assert split(tmp_path) == ((), ["train/1.png"], ["val/1.png"])


@pytest.mark.parametrize(
    ("names", "classes", "count"),
    [
        (("bus/1", "car/2", "train/3"), ("bus", "car", "train"), 3),  # a vehicle
        (("train/a/1", "train/b/2", "unlabelled/3"), ("a", "b"), 2),
        (("train/1", "README"), (), 1),
        (("only/a/1", "only/b/2"), ("a", "b"), 2),
        (("only/1", "only/2"), ("only",), 2),
        (("only/a/deep/1",), ("deep",), 1),
    ],
)
def test_what_is_a_class(names, classes, count, tmp_path):
    for name in names:
        picture(tmp_path / f"{name}.png")
    found, train = split(tmp_path)
    assert (found, len(train)) == (classes, count)


def test_test_images_are_trained_on_by_nobody_who_does_not_say_so(tmp_path):
    for name in ("cat/1", "dog/2", "Testing/3"):
        picture(tmp_path / f"{name}.png")
    for module in (ImageFolder, Restoration):
        with pytest.raises(MisconfigurationException, match=r"holds a folder Testing, but none .* called train"):
            module(data_dir=str(tmp_path)).items("train")
    for module in (SuperResolution, LSUN):
        with pytest.raises(MisconfigurationException, match=r"holds a folder Testing, but none called train"):
            module(data_dir=str(tmp_path)).items("train")
    assert split(tmp_path, classes=["Testing", "cat"])[0] == ("Testing", "cat", "dog")
    assert len(split(tmp_path, labels=False)[1]) == 3


def test_two_folders_of_one_split_are_named(tmp_path):
    for name in ("train", "Training", "test"):
        picture(tmp_path / name / "1.png")
    with pytest.raises(MisconfigurationException, match=r"holds both Training and train: .* one folder train$"):
        split(tmp_path)


def test_all_images_are_taken_without_labels_at_any_depth(tmp_path):
    for name in ("1", "a/2", "a/b/3", "c/4"):
        picture(tmp_path / f"{name}.png")
    with pytest.raises(MisconfigurationException, match=r"holds both images .* --data\.labels=false takes all"):
        split(tmp_path)
    assert split(tmp_path, labels=False) == ((), ["1.png", "a/2.png", "a/b/3.png", "c/4.png"])
    images, labels = loaded(folder(tmp_path, labels=False))
    assert (len(images), labels) == (4, None)


# Broken images


def test_broken_images_leave_labels_in_their_places_and_come_back_when_mended(tmp_path):
    colours = {"a": (250, 0, 0), "b": (0, 250, 0), "c": (0, 0, 250)}
    for name, colour in colours.items():
        for number in range(3):
            picture(tmp_path / name / f"{number}.png", colour)
    for name in ("a/0", "a/2", "c/1"):
        (tmp_path / f"{name}.png").write_bytes(b"no picture")
    data = folder(tmp_path, skip_broken=True)
    for _ in range(2):  # from the files, and from what was kept
        images, labels = loaded(data)
        assert labels == images[:, :, 0, 0].argmax(1).tolist() == [0, 1, 1, 1, 2, 2]
        assert images.amax((1, 2, 3)).tolist() == [250] * 6
        data = folder(tmp_path, skip_broken=True)
    with pytest.raises(MisconfigurationException, match=r"a/0\.png .* and 2 more: mend or remove them"):
        folder(tmp_path).prepare_data()
    name = data.reference("train")
    picture(tmp_path / "a/2.png", (250, 0, 0))
    data = folder(tmp_path, skip_broken=True)
    assert loaded(data)[1] == [0, 0, 1, 1, 1, 2, 2]
    assert data.reference("train") != name
    for path in tmp_path.glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(MisconfigurationException, match=r"--data\.skip_broken=true leaves no images"):
        folder(tmp_path, skip_broken=True).prepare_data()


def test_what_was_broken_for_once_is_tried_again(tmp_path, monkeypatch):
    for number in range(3):
        picture(tmp_path / f"{number}.png")
    ill = folder(tmp_path, skip_broken=True)
    monkeypatch.setattr(ill, "open", lambda path, _: 1 / 0 if path.stem == "1" else open_picture(path))
    assert len(loaded(ill)[0]) == 2
    assert len(loaded(folder(tmp_path, skip_broken=True))[0]) == 3


def test_a_file_that_goes_after_it_was_found_is_a_broken_image(tmp_path):
    for number in range(3):
        picture(tmp_path / f"{number}.png")
    data = folder(tmp_path)
    monkey = data.items

    def items(split):
        found = monkey(split)
        (tmp_path / "1.png").unlink(missing_ok=True)
        return found

    data.items = items
    with pytest.raises(MisconfigurationException, match=r"^Broken image .*1\.png \(No such file or directory\)"):
        data.prepare_data()


@pytest.mark.parametrize("module", [LSUN, Restoration])
def test_other_folders_leave_out_broken_images_too(module, tmp_path):
    for number in range(3):
        picture(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"")
    data = module(data_dir=str(tmp_path), image_size=16, batch_size=1, skip_broken=True)
    data.prepare_data()
    assert len(list(data.val_dataloader())) == 2
