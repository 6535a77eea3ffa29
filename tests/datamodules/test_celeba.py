"""CelebA, in the layouts of torchvision and of Kaggle; nothing here touches the network."""

import time

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from datamodules.celeba import CelebA

NAMES = ("5_o_Clock_Shadow", "Black_Hair", "Male", "Smiling", "Young")
PARTITION = [0, 0, 1, 0, 2, 0, 2]


def value(number, column):
    """Whether an image has an attribute: the bits of its number."""
    return 1 if number >> column & 1 else -1


def write(root, layout, partition=PARTITION, images=True):
    """Image i, from 1, is grey of level 10 i; its attributes are the bits of i."""
    folder = root / ("celeba/img_align_celeba" if layout == "torchvision" else "img_align_celeba/img_align_celeba")
    folder.mkdir(parents=True)
    rows = range(1, len(partition) + 1)
    for number in rows if images else ():
        Image.new("RGB", (178, 218), (10 * number,) * 3).save(folder / f"{number:06}.jpg")
    values = {number: [value(number, column) for column in range(len(NAMES))] for number in rows}
    if layout == "torchvision":
        lines = [f"{number:06}.jpg  {' '.join(f'{v:2}' for v in values[number])}" for number in rows]
        text = "\n".join([str(len(partition)), " ".join(NAMES) + " ", *lines]) + "\n"
        (root / "celeba/list_attr_celeba.txt").write_text(text)
        text = "".join(f"{number:06}.jpg {part}\n" for number, part in zip(rows, partition, strict=True))
        (root / "celeba/list_eval_partition.txt").write_text(text)
    else:
        lines = [f"{number:06}.jpg,{','.join(map(str, values[number]))}" for number in rows]
        (root / "list_attr_celeba.csv").write_text("\r\n".join([",".join(["image_id", *NAMES]), *lines]))
        lines = [f"{number:06}.jpg,{part}" for number, part in zip(rows, partition, strict=True)]
        (root / "list_eval_partition.csv").write_text("\n".join(["image_id,partition", *lines]))


def celeba(folder, **kwargs):
    return CelebA(**{"data_dir": str(folder), "image_size": 16, "batch_size": 2} | kwargs)


def loaded(data, split):
    """The numbers of the images, and their labels."""
    data.prepare_data()
    batches = list(data.ordered(split))
    numbers = [round(int(image[0, 8, 8]) / 10) for batch in batches for image in batch.image]
    return numbers, None if batches[0].label is None else torch.cat([batch.label for batch in batches])


@pytest.mark.parametrize("layout", ["torchvision", "kaggle"])
def test_images_and_attributes_are_found(layout, tmp_path):
    write(tmp_path, layout)
    data = celeba(tmp_path, attributes=["Male", "Black_Hair"])
    assert (data.num_classes, data.domains, data.image_shape) == (2, ("Male", "Black_Hair"), (3, 16, 16))
    for split, expected in (("train", [1, 2, 4, 6]), ("test", [5, 7])):
        numbers, labels = loaded(data, split)
        assert numbers == expected
        assert labels.dtype == torch.int64
        assert labels.tolist() == [[number >> 2 & 1, number >> 1 & 1] for number in expected]


@pytest.mark.parametrize("layout", ["torchvision", "kaggle"])
def test_without_attributes_there_are_no_labels(layout, tmp_path):
    write(tmp_path, layout)
    data = celeba(tmp_path)
    assert (data.num_classes, data.domains) == (0, ())
    assert loaded(data, "train") == ([1, 2, 4, 6], None)


def test_streaming_gives_the_same_batches(tmp_path):
    write(tmp_path, "torchvision")
    options = {"attributes": ("Young", "Smiling", "Male")}
    resident, streamed = celeba(tmp_path, **options), celeba(tmp_path, resident_bytes=0, num_workers=0, **options)
    resident.prepare_data()
    for a, b in zip(resident.train_dataloader(), streamed.train_dataloader(), strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.label, b.label)
        assert a.label.shape == (2, 3)


@pytest.mark.parametrize(
    ("wrong", "right"), [("male", "Male"), ("Smile", "Smiling"), ("5_o_clock", "5_o_Clock_Shadow")]
)
def test_an_unknown_attribute_gets_the_nearest(wrong, right, tmp_path):
    write(tmp_path, "torchvision")
    with pytest.raises(
        MisconfigurationException, match=rf"^--data\.attributes={wrong} is no .*did you mean {right}\?$"
    ):
        celeba(tmp_path, attributes=(wrong,)).prepare_data()


def test_without_a_download_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    def quota(*_, **__):
        raise RuntimeError("Too many users have viewed\nor downloaded this file")

    monkeypatch.setattr("torchvision.datasets.CelebA", quota)
    with pytest.raises(MisconfigurationException) as error:
        celeba(tmp_path).prepare_data()
    for part in (
        "Too many users",
        "img_align_celeba",
        "list_attr_celeba.txt",
        str(tmp_path / "celeba"),
        "http",
        "--data.data_dir",
    ):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_classes_are_not_attributes(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"set --data\.attributes, not --data\.classes$"):
        celeba(tmp_path, classes=["Male"])


def test_a_download_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.CelebA", lambda root, **_: write(root, "torchvision"))
    assert loaded(celeba(tmp_path), "test")[0] == [5, 7]


def test_missing_images_and_damaged_tables_are_named(tmp_path):
    def check(sentence, **kwargs):
        with pytest.raises(MisconfigurationException, match=sentence) as error:
            celeba(tmp_path, **kwargs).prepare_data()
        assert "\n" not in str(error.value)

    write(tmp_path, "torchvision")
    table = tmp_path / "celeba/list_attr_celeba.txt"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:-1]))
    check(r"list_attr_celeba\.txt has no row for '000007\.jpg'", attributes=("Male",))
    table.write_text("\n".join([*lines[:-1], "000007.jpg -1"]))
    check(r"list_attr_celeba\.txt is damaged", attributes=("Male",))
    table.write_text("")
    check(r"--data\.attributes=Male is no attribute in .*list_attr_celeba\.txt$", attributes=("Male",))
    (tmp_path / "celeba/img_align_celeba/000005.jpg").unlink()
    check(r"img_align_celeba does not hold 000005\.jpg, one of 1 missing")
    (tmp_path / "celeba/list_eval_partition.txt").write_text("000001.jpg 0\n")
    check(r"does not hold any test image")


def test_broken_and_missing_images_are_left_out_with_their_attributes(tmp_path):
    write(tmp_path, "torchvision")
    folder = tmp_path / "celeba/img_align_celeba"
    (folder / "000001.jpg").write_bytes(b"")
    (folder / "000004.jpg").unlink()
    numbers, labels = loaded(celeba(tmp_path, attributes=("Black_Hair",), skip_broken=True), "train")
    assert (numbers, labels.tolist()) == ([2, 6], [[1], [1]])


def test_tables_of_full_size_are_read_in_seconds(tmp_path):
    header = " ".join(f"attribute_{column}" for column in range(40))
    rows = (f"{number:06}.jpg {'-1  1 ' * 20}" for number in range(1, 202600))
    (tmp_path / "list.txt").write_text("\n".join(["202599", header, *rows]))
    data = celeba(tmp_path, attributes=("attribute_1", "attribute_38"))
    start = time.perf_counter()
    has = data._read(tmp_path / "list.txt")
    assert time.perf_counter() - start < 20  # about one, on a machine with nothing else to do
    assert (len(has), has["202599.jpg"]) == (202599, [1, 0])
