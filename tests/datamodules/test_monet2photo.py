"""Monet's paintings and photographs, in the layouts of Kaggle and CycleGAN; nothing here touches the network."""

from urllib.error import URLError

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from datamodules import Monet2Photo

CYCLEGAN = {"trainA": (2, 0), "trainB": (5, 200), "testA": (3, 0), "testB": (4, 200)}
KAGGLE = {"monet_jpg": (2, 0), "photo_jpg": (5, 200)}


def write(root, folders):
    """Folders of a number of pictures, photographs being green."""
    for folder, (count, green) in folders.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (16, 16), (0, green, 0)).save(root / folder / f"{number}.jpg", quality=100)


def monet(folder, **kwargs):
    return Monet2Photo(**{"data_dir": str(folder), "image_size": 16, "batch_size": 2} | kwargs)


def domains(data, split):
    """How many images each domain has, and whether they are photographs."""
    counts = [len(data.items(f"{split}_{domain}")[0]) for domain in "ab"]
    batches = list(data.ordered(split))
    greens = [{int(green > 100) for batch in batches for green in batch[i][:, 1, 8, 8]} for i in range(2)]
    return [(count, *green) for count, green in zip(counts, greens, strict=True)]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def fail(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", fail)


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_kaggles_layout_has_nothing_to_test_with(tmp_path, direction):
    write(tmp_path, KAGGLE)
    (tmp_path / "monet_tfrec").mkdir()
    data = monet(tmp_path, direction=direction)
    data.prepare_data()
    assert data.val_split == "train"
    expected = [(2, 0), (5, 1)]
    assert domains(data, "train") == (expected if direction == "AtoB" else expected[::-1])


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_an_epoch_goes_through_all_of_both_domains(tmp_path, direction):
    """Not through as many photographs as there are paintings, as where two sets of different length are zipped."""
    for folder, count in {"monet_jpg": 3, "photo_jpg": 8}.items():
        (tmp_path / folder).mkdir()
        for number in range(count):
            Image.new("L", (16, 16), 30 * number).save(tmp_path / folder / f"{number}.png")
    data = monet(tmp_path, direction=direction, batch_size=1)
    data.prepare_data()
    loader = data.train_dataloader()
    for _ in range(3):  # epochs
        batches = list(loader)
        assert len(batches) == 8
        seen = [sorted(int(batch[i][0, 0, 0, 0]) for batch in batches) for i in range(2)]
        paintings, photographs = seen if direction == "AtoB" else seen[::-1]
        assert photographs == [30 * number for number in range(8)]
        assert {30 * number for number in range(3)} == set(paintings)
    names = [folder.name for folder in (data.source_folder, data.target_folder)]
    assert names == (["monet_jpg", "photo_jpg"] if direction == "AtoB" else ["photo_jpg", "monet_jpg"])


def test_cyclegans_layout_has_test_images(tmp_path):
    write(tmp_path, CYCLEGAN)
    data = monet(tmp_path)
    data.prepare_data()
    assert data.val_split == "test"
    assert domains(data, "train") == [(2, 0), (5, 1)]
    assert domains(data, "test") == [(3, 0), (4, 1)]


def test_missing_files_are_fetched_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "datamodules.monet2photo.fetch",
        lambda url, sha256, folder: asked.append((url, len(sha256), folder)) or write(folder, CYCLEGAN),
    )
    data = monet(tmp_path / "mine")
    data.prepare_data()
    monet(tmp_path / "mine").prepare_data()
    ((url, length, folder),) = asked
    assert url.endswith("/monet2photo.zip")
    assert (length, folder) == (64, tmp_path / "mine")
    assert domains(data, "test") == [(3, 0), (4, 1)]


def test_without_a_network_one_sentence_says_what_to_do(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"http.*monet2photo\.zip was not fetched .*by hand") as error:
        monet(tmp_path / "mine").prepare_data()
    assert str(tmp_path / "mine") in str(error.value)
    assert "\n" not in str(error.value)


def test_half_of_kaggles_archive_is_named(tmp_path):
    write(tmp_path, {"monet_jpg": (2, 0)})
    with pytest.raises(MisconfigurationException, match=r"photo_jpg is not a folder: .*monet_jpg and photo_jpg"):
        monet(tmp_path).prepare_data()
