"""The images that predict writes: their names, formats and number, into a folder or a zip file."""

import io
import zipfile

import pytest
import torch
from conftest import small
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch.utils.data import DataLoader, Subset
from torchvision.io import read_image

from callbacks import ImageWriter, MetricsFile
from callbacks.image_writer import flat
from callbacks.pictures.images import grid, to_uint8, write_image
from callbacks.runs.images import Images, InTurn
from gans import DCGAN, ConvolutionalCGAN, StarGAN, StyleGAN


def predict(module, folder, writer=None, loader=None):
    trainer = Trainer(
        logger=MetricsFile(folder), callbacks=[writer or ImageWriter()], enable_progress_bar=False, accelerator="cpu"
    )
    return torch.cat(trainer.predict(module, loader or module.predict_dataloader()))


@pytest.mark.parametrize("channels", [1, 3])
def test_predict_writes_every_image_and_a_grid(tmp_path, channels):
    module = small(DCGAN, image_shape=(channels, 16, 16), predict_images=70)
    torch.manual_seed(5)
    predictions = predict(module, tmp_path)
    assert len(predictions) == 70
    assert sorted(p.name for p in (tmp_path / "images").iterdir()) == [f"{i:05d}.png" for i in range(70)] + ["grid.png"]
    for i in (0, 69):
        assert torch.equal(read_image(str(tmp_path / "images" / f"{i:05d}.png")), to_uint8(predictions[i : i + 1])[0])
    assert torch.equal(read_image(str(tmp_path / "images" / "grid.png"))[:1], grid(predictions[:64], 8)[:1])


def test_images_that_cannot_be_written_end_predict_in_one_sentence(tmp_path):
    (tmp_path / "images").write_text("")
    module = small(DCGAN)
    with pytest.raises(MisconfigurationException, match=r"images/00000\.png cannot be written \(.*\): make room"):
        predict(module, tmp_path)


@pytest.mark.parametrize("cls", [DCGAN, ConvolutionalCGAN, StyleGAN])
def test_an_image_is_the_same_whatever_was_made_before_it(cls, tmp_path, monkeypatch):
    """StyleGAN draws noise in its layers, too."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    module = small(cls, predict_images=150, **{"num_classes": 3} if cls is ConvolutionalCGAN else {})
    whole = predict(module, tmp_path / "whole")
    loader = module.predict_dataloader()
    rest = DataLoader(Subset(loader.dataset, [1]), sampler=InTurn(1), collate_fn=loader.collate_fn)
    assert torch.equal(predict(module, tmp_path / "rest", loader=rest), whole[64:128])
    assert len({image.numpy().tobytes() for image in whole}) == 150
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    assert not torch.equal(predict(module, tmp_path / "other"), whole)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("format", ["jpg", "jpeg"])
def test_jpeg_looks_like_the_image(format, channels, tmp_path):
    image = torch.linspace(0, 255, 64).expand(channels, 64, 64).to(torch.uint8)
    write_image(image, tmp_path / f"a.{format}")
    with Image.open(tmp_path / f"a.{format}") as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "L" if channels == 1 else "RGB", (64, 64))
    assert (read_image(str(tmp_path / f"a.{format}")).int() - image).abs().max() < 4
    with pytest.raises(MisconfigurationException, match=r"--predict_format=gif must be png, jpg or jpeg"):
        ImageWriter(format="gif")


def test_a_zip_file_holds_plain_names_and_nothing_else_is_left(tmp_path):
    module = small(ConvolutionalCGAN, predict_images=70, num_classes=3, domains=("an apple", "b", "c"))
    for name in ("a.zip", "made/b.zip"):
        torch.manual_seed(0)
        predict(module, tmp_path / "run", ImageWriter(format="jpg", zip=tmp_path / name))
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        names = [f"{number:05d}_{('an_apple', 'b', 'c')[number % 3]}.jpg" for number in range(70)]
        assert packed.namelist() == names
        assert packed.testzip() is None
        assert Image.open(io.BytesIO(packed.read(names[0]))).size == (16, 16)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "made/b.zip").read_bytes()
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"a.zip", "b.zip"}


def test_what_cannot_be_packed_leaves_the_zip_file_as_it_was(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"before")
    (tmp_path / ".a.zip.1-x.partial").write_bytes(b"half")  # of a process that was killed
    writer = ImageWriter(zip=tmp_path / "a.zip")
    writer.planned = ["00000", "00001", "00002"]
    sentence = r"^3 images were asked for, and 2 are in .*images: 00002\.png is missing; the same command makes them$"
    with pytest.raises(MisconfigurationException, match=sentence):
        predict(small(DCGAN, predict_images=2), tmp_path / "run", writer)
    assert (tmp_path / "a.zip").read_bytes() == b"before"
    assert len(list((tmp_path / "run/images").glob("*.png"))) == 2
    writer.planned = None
    predict(small(DCGAN, predict_images=2), tmp_path / "run", writer)
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == ["00000.png", "00001.png"]
    assert not list(tmp_path.glob(".*"))


def test_names_without_folders_are_told_apart():
    assert flat(["deep/er/a", "b"]) == ["deep_er_a", "b"]
    with pytest.raises(MisconfigurationException, match=r"^a_b and a/b would both be a_b in a zip file"):
        flat(["a/b", "a_b"])


def test_images_of_one_name_are_refused_before_any_is_made():
    class Named:
        names = ("a", "a_dog")

    images = object.__new__(Images)
    images.zip = None
    loader = type("Loader", (), {"dataset": Named})
    module = small(StarGAN, domains=("dog", "dog_dog", "cat"))
    trainer = type("Trainer", (), {"limit_predict_batches": 1.0, "world_size": 1})
    with pytest.raises(MisconfigurationException, match=r"^2 images would be called a_dog_dog: rename"):
        images.left(module, loader, trainer)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_every_number_is_dealt_out_and_no_rank_goes_without(ranks, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: ranks)
    dealt = []
    for rank in range(ranks):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        dealt.append(list(InTurn(5)))
        assert len(InTurn(5)) == len(dealt[-1]) > 0
    assert {number for mine in dealt for number in mine} == set(range(5))
    assert sum(map(len, dealt)) == max(5, ranks)
