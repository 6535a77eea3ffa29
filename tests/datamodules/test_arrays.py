"""Arrays, files of them and Hugging Face's data sets, told apart by what they hold."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from watch import QUIET, Watch, watch

from command_line import assert_one_sentence, run_train
from datamodules import Arrays

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 12, 12, 3), dtype=np.uint8)
LABELS = np.arange(20) % 3
QUICK = ["--trainer.accelerator=cpu", "--trainer.logger=false", "--samples.every_n_steps=0", "--data.batch_size=4"]
QUICK += ["--model.width=4", "--data.image_size=16", "--score.num_images=8", "--score.features=pixels"]


def arrays(folder, images=COLOUR, labels=LABELS, **kwargs):
    return Arrays(images, labels, **{"data_dir": str(folder), "image_size": 12, "batch_size": 4} | kwargs)


def kept(data, split="train"):
    """All images and labels of a split, as they come from the loaders."""
    data.prepare_data()
    images, labels = zip(*data.ordered(split), strict=True)
    return torch.cat(images), None if labels[0] is None else torch.cat(labels)


@pytest.mark.parametrize(
    "given",
    [
        COLOUR,
        COLOUR.transpose(0, 3, 1, 2),
        torch.from_numpy(COLOUR),
        COLOUR / 255,
        (COLOUR / 127.5 - 1).astype(np.float32),
        torch.from_numpy(COLOUR).permute(0, 3, 1, 2).float() / 255,
        list(COLOUR),
    ],
    ids=["NHWC", "NCHW", "a tensor", "[0, 1]", "[-1, 1]", "a tensor of floats", "a list"],
)
def test_the_same_images_in_any_form_are_the_same(given, tmp_path):
    data = arrays(tmp_path, given)
    assert data.image_shape == (3, 12, 12)
    assert (data.domains, data.num_classes, data.gives) == (("0", "1", "2"), 3, "images with classes")
    images, labels = kept(data)
    assert torch.equal(images, torch.from_numpy(COLOUR).permute(0, 3, 1, 2))
    assert labels.tolist() == LABELS.tolist()
    assert data.identity("train") == arrays(tmp_path).identity("train")


@pytest.mark.parametrize("shape", [(20, 12, 12), (20, 12, 12, 1), (20, 1, 12, 12)])
def test_grey_images(shape, tmp_path):
    data = arrays(tmp_path, COLOUR[..., 0].reshape(shape), None)
    images, labels = kept(data)
    assert torch.equal(images, torch.from_numpy(COLOUR[..., 0])[:, None])
    assert labels is None
    assert data.gives == "images"


def test_bright_images_to_validate_with_have_the_range_of_those_to_train_with(tmp_path):
    bright = np.full((4, 12, 12), 0.5, np.float32)
    data = arrays(tmp_path, np.stack([-bright[0], bright[0]]), None, val_images=bright)
    assert set(kept(data, "test")[0].unique().tolist()) == {191}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"images": None}, r"^Arrays: there are no images: .*--data\.path"),
        ({"images": COLOUR[0]}, r"images must have one of the shapes .*; got \(12, 12, 3\)$"),
        ({"images": COLOUR[:, :3]}, r"not be readable as two of them; got \(20, 3, 12, 3\)$"),
        ({"images": [COLOUR[0], COLOUR[1, 1:]]}, "^Arrays: images must be of one size"),
        ({"images": COLOUR[..., :2]}, r"got \(20, 12, 12, 2\)$"),
        ({"images": COLOUR[:0]}, r"got \(0, 12, 12, 3\)$"),
        (
            {"images": COLOUR.astype(int)},
            r"must be uint8, or floats in \[0, 1\] or \[-1, 1\]; got int64 from 0 to 255$",
        ),
        ({"images": COLOUR.astype(float)}, r"got float64 from 0\.0 to 255\.0$"),
        ({"images": COLOUR / 255 * np.nan}, r"got float64 from nan to nan$"),
        ({"labels": LABELS[:9]}, r"^Arrays: labels must be 20 integers from 0 on; got int64 \(9,\)$"),
        ({"labels": LABELS - 1}, r"^Arrays: labels must be 20 integers from 0 on"),
        ({"labels": LABELS / 1}, r"must be 20 integers from 0 on; got float64"),
        ({"val_images": COLOUR}, r"^Arrays: all images must have labels, of the classes 0, 1, 2, or none of them$"),
        ({"val_images": COLOUR[..., 0], "val_labels": LABELS[:5]}, r"^Arrays: val_labels must be 20 integers"),
        ({"class_names": ["a", "b"]}, r"must have labels, of the classes a, b, or none"),
    ],
)
def test_what_is_ambiguous_or_wrong_is_refused_in_a_sentence(options, sentence, tmp_path):
    with pytest.raises(MisconfigurationException, match=sentence) as error:
        arrays(tmp_path, **options)
    assert "\n" not in str(error.value)


def test_a_file_is_the_same_as_its_arrays_and_runs_no_code(tmp_path):
    parts = {"labels": LABELS, "val_images": COLOUR[:5], "val_labels": LABELS[:5], "class_names": ["a", "b", "c"]}
    np.savez(tmp_path / "x.npz", images=COLOUR, **parts)
    data = Arrays(path=str(tmp_path / "x.npz"), data_dir=str(tmp_path), image_size=12)
    assert (data.domains, data.val_split) == (("a", "b", "c"), "test")
    assert [data.identity(split) for split in ("train", "test")] == [
        arrays(tmp_path, **parts).identity(split) for split in ("train", "test")
    ]
    assert len(kept(data, "test")[0]) == 5
    np.savez(tmp_path / "pickled.npz", images=np.array([{}], object))
    np.savez(tmp_path / "other.npz", x_train=COLOUR)
    (tmp_path / "text.npz").write_text("no arrays")
    for name, said in {
        "pickled": "allow_pickle=False",
        "other": "there are no images",
        "text": "is no .npz",
        "no": "No such",
    }.items():
        with pytest.raises(MisconfigurationException, match=rf"^--data\.path=.*{name}\.npz.*{said}"):
            Arrays(path=str(tmp_path / f"{name}.npz"))


# What data is


def test_whatever_differs_has_another_name(tmp_path):
    """A pixel of an image that no sample would hit, the shape of the same bytes, a label."""
    changed, relabelled = COLOUR.copy(), LABELS.copy()
    changed[7, 3, 3, 1] ^= 1
    relabelled[13] ^= 1
    data = [arrays(tmp_path), arrays(tmp_path, changed), arrays(tmp_path, labels=relabelled)]
    data += [arrays(tmp_path, COLOUR.reshape(20, 6, 24, 3)), arrays(tmp_path, labels=None)]
    for names in ([part.identity("train") for part in data], [part.reference("train") for part in data]):
        assert len(set(names)) == len(data)
    assert len({str(part.origin()) for part in data}) == len(data)
    assert not torch.equal(kept(data[0])[0], kept(data[1])[0])


def test_labels_alone_are_a_part_of_what_scores_know_images_by(tmp_path):
    """A classifier of the data's classes learns them; the images need not be resized again."""

    class Own(Arrays):
        def identity(self, split):
            return "mine"

    first, second = (Own(COLOUR, labels, data_dir=str(tmp_path)) for labels in (LABELS, LABELS[::-1].copy()))
    assert first.reference("train") != second.reference("train")
    assert first._cache("train") == second._cache("train")


def fitted(steps, data, **kwargs):
    module = Watch()
    trainer = Trainer(**QUIET | {"max_epochs": -1, "max_steps": steps})
    trainer.fit(module, data, weights_only=True, **kwargs)
    return trainer, module.seen


def test_training_goes_on_with_the_same_arrays_and_no_others(tmp_path):
    """Wherever the folder is that keeps them resized, and though nothing but the arrays tells them apart."""
    whole = watch(arrays(tmp_path), max_epochs=-1, max_steps=7)
    fitted(3, arrays(tmp_path))[0].save_checkpoint(tmp_path / "a.ckpt")
    _, rest = fitted(7, arrays(tmp_path / "elsewhere"), ckpt_path=tmp_path / "a.ckpt")
    assert len(rest) == 4
    assert all(torch.equal(a.image, b.image) for a, b in zip(whole[3:], rest, strict=True))
    with pytest.raises(
        MisconfigurationException, match="trained on Arrays in memory, and Arrays in memory holds other"
    ):
        fitted(7, arrays(tmp_path, COLOUR[::-1].copy()), ckpt_path=tmp_path / "a.ckpt")


# Hugging Face


class Classes:
    names = ("cat", "dog")


class Dataset:
    """As much of a ``datasets.Dataset`` as is needed: rows of which one has another size."""

    features = {"picture": None, "label": Classes()}

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        return {"picture": Image.fromarray(COLOUR[number][: 12 - number % 2]), "label": number % 2}


def test_a_data_set_of_hugging_face(tmp_path):
    options = {"image": "picture", "data_dir": str(tmp_path), "image_size": 12, "batch_size": 2}
    data = Arrays.from_hugging_face(Dataset(6), **options)
    images, labels = kept(data)
    assert images.shape == (6, 3, 12, 12)
    assert torch.equal(images[::2], torch.from_numpy(COLOUR[:6:2]).permute(0, 3, 1, 2))
    assert (labels.tolist(), data.domains) == ([0, 1] * 3, ("cat", "dog"))
    splits = Arrays.from_hugging_face({"train": Dataset(6), "validation": Dataset(4), "test": Dataset(2)}, **options)
    assert (splits.val_split, splits.count("train"), splits.count("test")) == ("test", 6, 4)
    assert splits.identity("train") == data.identity("train") != splits.identity("test")
    unlabelled = Arrays.from_hugging_face(Dataset(6), label=None, **options)
    assert unlabelled.gives == "images"
    assert len(watch(unlabelled)) == 3


@pytest.mark.parametrize(
    ("given", "sentence"),
    [(Dataset(4), "image and label of picture, label$"), (iter([{}]), "image and label of none$")],
)
def test_columns_that_are_not_there_are_named(given, sentence):
    with pytest.raises(MisconfigurationException, match=rf"^from_hugging_face takes .*: {sentence}"):
        Arrays.from_hugging_face(given)


def test_the_real_package(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [Image.fromarray(image) for image in COLOUR], "label": [number % 2 for number in range(20)]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    data, same, other = (
        Arrays.from_hugging_face(part, data_dir=str(tmp_path), image_size=12, batch_size=4)
        for part in (dataset, dataset, dataset.select(range(1, 20)))
    )
    images, labels = kept(data)
    assert torch.equal(images, torch.from_numpy(COLOUR).permute(0, 3, 1, 2))
    assert (labels.tolist(), data.domains) == (rows["label"], ("cat", "dog"))
    assert data.identity("train") == same.identity("train") != other.identity("train")


# From the command line


def test_a_file_is_trained_on_scored_and_gone_on_with(tmp_path):
    np.savez(tmp_path / "x.npz", images=COLOUR, labels=LABELS, val_images=COLOUR[:8], val_labels=LABELS[:8])
    words = [
        "--model=ConvolutionalCGAN",
        "--data=Arrays",
        "--data.path=x.npz",
        *QUICK,
        "--trainer.val_check_interval=2",
    ]
    done = run_train([*words, "--trainer.max_steps=2"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "20 images, classes 0, 1, 2; 8 held out" in done.stderr
    assert len(list(tmp_path.rglob("arrays-test-*pixels*.npz"))) == 1  # the real statistics
    done = run_train([*words, "--trainer.max_steps=4", "--ckpt_path=last"], tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs/convolutionalcgan-arrays").iterdir()
    done = run_train(["validate", f"--ckpt_path={folder}/checkpoints/last.ckpt"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert_one_sentence(run_train([*words, "--data.path=y.npz"], tmp_path), ["--data.path=y.npz", "No such file"])
    assert_one_sentence(run_train([*words[:2], *QUICK], tmp_path), ["no images", "--data.path"])
    pairs = ["--model=CycleGAN", "--data=Arrays", "--data.path=x.npz"]
    assert_one_sentence(run_train(pairs, tmp_path), ["--model=CycleGAN", "--data=Arrays gives images with classes"])
