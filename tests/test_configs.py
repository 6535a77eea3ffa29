"""Every shipped config trains: as it is, but on a few random pictures in the layout of its data set, for two steps."""

import csv
import math
import pickle
import shutil
import struct

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from command_line import CONFIGS, ROOT, run_train

TRAIN, TEST = 12, 2  # pictures
RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.integers(256, size=shape, dtype=np.uint8)


def write_pictures(folder, count, width, height, pattern="{}.jpg"):
    """Random pictures, numbered from 1, in a new folder."""
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        Image.fromarray(noise(height, width, 3)).save(folder / pattern.format(number))


def write_mnist(data, name="MNIST"):
    folder = data / name / "raw"
    folder.mkdir(parents=True)
    for prefix, count in (("train", TRAIN), ("t10k", TEST)):
        head = struct.pack(">4i", 2051, count, 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(head + noise(count, 28, 28).tobytes())
        labels = np.arange(count, dtype=np.uint8) % 10
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())


def write_fashion_mnist(data):
    write_mnist(data, "FashionMNIST")


def write_cifar10(data):
    folder = data / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        batch = {"data": noise(10, 3 * 32 * 32), "labels": list(range(10))}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(label) for label in range(10)]}))


def write_lsun(data):
    write_pictures(data / "lsun/0/0", TRAIN, 100, 80)
    write_pictures(data / "lsun/0/1", TRAIN, 80, 100)


def write_afhq(data):
    for split, count in (("train", TRAIN), ("val", TEST)):
        for domain in ("cat", "dog", "wild"):
            write_pictures(data / "afhq" / split / domain, count, 128, 128)


def write_celeba(data):
    write_pictures(data / "celeba/img_align_celeba", TRAIN + TEST, 178, 218, "{:06}.jpg")
    files = [f"{number:06}.jpg" for number in range(1, TRAIN + TEST + 1)]
    names = ["Attractive", "Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Smiling", "Young"]
    rows = [f"{file} {' '.join(RNG.choice(['-1', ' 1'], len(names)))}" for file in files]
    text = "\n".join([str(len(files)), " ".join(names), *rows, ""])
    (data / "celeba/list_attr_celeba.txt").write_text(text)
    text = "".join(f"{file} {2 * (number >= TRAIN)}\n" for number, file in enumerate(files))
    (data / "celeba/list_eval_partition.txt").write_text(text)


def write_facades(data):
    for split, count in (("train", TRAIN), ("test", TEST)):
        for domain in "AB":
            write_pictures(data / f"facades/{split}{domain}", count, 256, 256, f"{{}}_{domain}.jpg")


def write_cityscapes(data):
    write_pictures(data / "cityscapes/train", TRAIN, 512, 256)
    write_pictures(data / "cityscapes/val", TEST, 512, 256)


def write_monet2photo(data):
    for folder, count in {"trainA": TRAIN - 2, "trainB": TRAIN, "testA": TEST, "testB": TEST + 1}.items():
        write_pictures(data / "monet2photo" / folder, count, 256, 256)


def write_super_resolution(data):
    write_pictures(data / "sr/train", TRAIN, 200, 150, "{}.png")
    write_pictures(data / "sr/Set5", TEST, 90, 70, "{}.png")


def write_photographs(data):
    write_pictures(data / "photographs", TRAIN, 150, 200)


def write_my_images(data):
    for kind in ("apples", "pears"):  # classes, which only some GANs look at
        write_pictures(data.parent / "my_images" / kind, TRAIN // 2, 90, 70)


def write_my_pairs(data):
    write_pictures(data.parent / "my_pairs/train", TRAIN, 90, 70)


def write_my_domains(data):
    for domain in "AB":
        write_pictures(data.parent / f"my_domains/train{domain}", TRAIN, 90, 70)


# Where data sets lie by default, or their configs and the README say
LAYOUTS = {
    "AFHQ": write_afhq,
    "CIFAR10": write_cifar10,
    "LSUN": write_lsun,
    "MNIST": write_mnist,
    "CelebA": write_celeba,
    "Cityscapes": write_cityscapes,
    "Digits": None,  # come with scikit-learn
    "Facades": write_facades,
    "FashionMNIST": write_fashion_mnist,
    "ImageFolder": write_my_images,
    "Monet2Photo": write_monet2photo,
    "PairedFolder": write_my_pairs,
    "Restoration": write_photographs,
    "SuperResolution": write_super_resolution,
    "UnpairedFolder": write_my_domains,
}
# Less of everything but the networks and the images they are given
QUICK = [
    "--trainer.accelerator=cpu",
    "--trainer.max_steps=2",
    "--trainer.log_every_n_steps=1",
    "--trainer.logger=false",
    "--model.n_critic=1",
    "--score.num_images=0",
    "--health.every_n_steps=0",
    "--samples.count=1",
    "--views.columns=2",
    "--quality.metrics=[]",
    "--predict_zip=null",
    "--predict_format=null",
]
BY_MODEL = {
    "SRGAN": ["--model.content=mse"],  # in place of VGG19, which is a download
}
# At their own sizes these take half a minute and more; their networks are built at them in tests/gans/test_layers.py.
SMALLER = {
    "CUT": ["--data.image_size=32", "--data.load_size=36"],
    "CycleGAN": ["--data.image_size=32", "--data.load_size=36"],
    "DCGAN": ["--model.width=32"],  # built at its own in tests/gans/test_dcgan.py
    "Pix2Pix": ["--data.image_size=32", "--data.load_size=36"],
    "StarGAN": ["--data.image_size=32"],
    "StyleGAN": ["--data.image_size=32"],
}
LARGEST = {"DCGAN": 32, "StarGAN": 32, "StyleGAN": 32}  # that are not made smaller, where it is not 64
# So do these at their own widths: R3GAN's networks are built at them in tests/gans/test_r3gan.py, and StyleGAN's in
# tests/gans/test_stylegan.py.
NARROWER = {"R3GAN": 64, "StyleGAN": 64}
BY_DATA = {
    "CIFAR10": ["--trainer.callbacks+=command_line.TrustFiles"],
    "ImageFolder": ["--data.data_dir=my_images"],
    "PairedFolder": ["--data.data_dir=my_pairs"],
    "UnpairedFolder": ["--data.data_dir=my_domains"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with all data sets in ``data``."""
    folder = tmp_path_factory.mktemp("home")
    for write in filter(None, LAYOUTS.values()):
        write(folder / "data")
    return folder


@pytest.mark.parametrize(
    "path", CONFIGS, ids=lambda path: path.relative_to(ROOT / "configs").with_suffix("").as_posix()
)
def test_a_config_trains(path, home, tmp_path):
    config = yaml.safe_load(path.read_text())
    model, data = (config[key]["class_path"].rpartition(".")[2] for key in ("model", "data"))
    settings = config["data"]["init_args"]
    assert data in LAYOUTS, (
        f"{path.name} trains on {data}: write a few pictures in its layout, and name that in LAYOUTS"
    )
    batch_size = min(2, settings.get("batch_size", 2))
    options = [f"--data.batch_size={batch_size}", *BY_MODEL.get(model, []), *BY_DATA.get(data, [])]
    if settings.get("image_size", 0) > LARGEST.get(model, 64):
        options += SMALLER.get(model, [])
    given = config["model"].get("init_args", {})
    if given.get("width", 0) > NARROWER.get(model, math.inf):
        options.append(f"--model.width={NARROWER[model]}")
    if given.get("critic_warm_up", 0) > 2:  # batches for the critic alone, 200 of them
        options.append("--model.critic_warm_up=2")
    out = tmp_path / "out"
    quick = [word for word in QUICK if "n_critic" not in word or path.stem[:8] != "pretrain"]  # has no discriminator
    if given.get("stage") == "critic":  # on what an earlier stage has left
        before = ["--model.stage=generator", f"--run_dir={tmp_path}/before"]
        assert run_train(["--config", path, *quick, *options, *before], home).returncode == 0
        options.append(f"--model.pretrained={tmp_path}/before/checkpoints/last.ckpt")
    done = run_train(["--config", path, *quick, *options, f"--run_dir={out}"], home, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert torch.load(out / "checkpoints/last.ckpt", weights_only=True, mmap=True)["global_step"] == 2
    with Image.open(out / "samples/step_0000002.png") as picture:
        assert min(picture.size) >= 28
    with (out / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("loss/generator") or row.get("loss/discriminator")]
    assert [row["step"] for row in rows] == ["1", "2"]
    losses = [float(value) for row in rows for name, value in row.items() if name.startswith("loss/") and value]
    assert all(map(math.isfinite, losses))
    assert "Unable to serialize" not in (out / "config.yaml").read_text()
    shutil.rmtree(out)  # checkpoints of the large ones have half a gigabyte
