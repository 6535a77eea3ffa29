"""CMP Facades, in the layouts of pix2pix and CycleGAN; nothing here touches the network."""

from urllib.error import URLError

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from datamodules import Facades


def write(root, layout):
    """Photographs are red and maps blue, of a level that is the pair's number."""
    held_out = {"pix2pix": "val", "cyclegan": "test"}[layout]
    for split, numbers in (("train", range(1, 5)), (held_out, range(7, 10))):
        for number in numbers:
            photograph, labels = (Image.new("RGB", (16, 16), c) for c in ((number, 0, 0), (0, 0, number)))
            if layout == "pix2pix":
                both = Image.new("RGB", (32, 16))
                both.paste(photograph, (0, 0))
                both.paste(labels, (16, 0))
                save(both, root / split / f"{number}.png")
            else:
                save(photograph, root / f"{split}A/{number}_A.png")
                save(labels, root / f"{split}B/{number}_B.png")


def save(picture, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def facades(folder, **kwargs):
    return Facades(**{"data_dir": str(folder), "image_size": 16, "batch_size": 2} | kwargs)


def check(data, photograph):
    """That pairs are found, photographs being number ``photograph`` of both."""
    for split, numbers in (("train", [1, 2, 3, 4]), ("test", [7, 8, 9])):
        batches = [data.on_after_batch_transfer(batch, 0) for batch in data.ordered(split)]
        found = [torch.cat(parts).add(1).mul(127.5).round().int() for parts in zip(*batches, strict=True)]
        assert found[photograph][:, :, 8, 8].tolist() == [[number, 0, 0] for number in numbers]
        assert found[1 - photograph][:, :, 8, 8].tolist() == [[0, 0, number] for number in numbers]


@pytest.mark.parametrize("layout", ["pix2pix", "cyclegan"])
@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_files_that_are_there_are_read(tmp_path, layout, direction, monkeypatch):
    monkeypatch.setattr("datamodules.facades.fetch", None)
    write(tmp_path, layout)
    data = facades(tmp_path, direction=direction)
    data.prepare_data()
    assert (data.val_split, data.image_shape) == ("test", (3, 16, 16))
    check(data, photograph=int(direction == "BtoA"))


def test_missing_files_are_fetched_once(tmp_path, monkeypatch):
    asked = []

    def fetch(url, sha256, folder):
        asked.append((url, len(sha256), folder))
        write(folder, "cyclegan")

    monkeypatch.setattr("datamodules.facades.fetch", fetch)
    data = facades(tmp_path / "facades")
    data.prepare_data()
    facades(tmp_path / "facades").prepare_data()
    ((url, length, folder),) = asked
    assert url.endswith("/facades.zip")
    assert length == 64
    assert folder == tmp_path / "facades"
    check(data, photograph=0)


def test_without_a_network_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(MisconfigurationException, match=r"http.*facades\.zip was not fetched .*by hand") as error:
        facades(tmp_path / "mine").prepare_data()
    assert str(tmp_path / "mine") in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(MisconfigurationException, match="holds other things than the data set"):
        facades(tmp_path).prepare_data()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_photograph_without_its_map_is_named(tmp_path):
    write(tmp_path, "cyclegan")
    (tmp_path / "trainB/3_B.png").unlink()
    with pytest.raises(MisconfigurationException, match=r"trainA/3_A\.png has no counterpart of the same name in"):
        facades(tmp_path).prepare_data()
