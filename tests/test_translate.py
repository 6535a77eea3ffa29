"""Models that turn images into images, from the command line: trained for two steps, then given a folder."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import read_image

from callbacks.pictures.images import to_uint8
from command_line import assert_one_sentence, run_train
from gans import CycleGAN, SRResNet, StarGAN

SIZES = {"wide": (53, 37), "deep/er/square": (64, 64), "deep/tiny": (7, 5)}  # (width, height) of pictures by name
QUICK = [
    "--trainer.accelerator=cpu",
    "--trainer.max_steps=2",
    "--trainer.logger=false",
    "--score.num_images=0",
    "--samples.count=2",
]
TINY = ["--model.width=4", "--data.image_size=32", "--data.batch_size=2"]
SMALL = [*TINY, "--model.blocks=1", "--model.n_critic=1"]
PAIRS = ["--data=PairedFolder", "--data.data_dir=pairs"]
LARGE = ["--data=SuperResolution", "--data.data_dir=pictures", *SMALL]
SRRESNET = ["--model=SRResNet", *(word for word in LARGE if "n_critic" not in word)]
SRGAN = ["--model=SRGAN", *LARGE]
STARGAN = ["--model=StarGAN", "--data=ImageFolder", "--data.data_dir=domains", *SMALL]
FACES = ["--model=StarGAN", "--data=CelebA", "--data.data_dir=faces", *SMALL]
RUNS = {  # what is trained, by the name of its run
    "pix2pix": ["--model=Pix2Pix", *PAIRS, *TINY],
    "cyclegan": ["--model=CycleGAN", *PAIRS, "--data.paired=false", *SMALL],
    "cyclegan_back": ["--model=CycleGAN", *PAIRS, "--data.paired=false", "--data.direction=BtoA", *SMALL],
    "srresnet": SRRESNET,
    "srresnet_x2": [*SRRESNET, "--data.scale=2", "--data.background=black"],
    "stargan": STARGAN,
    "stargan_faces": [*FACES, "--model.attributes=true", "--data.attributes=[Male, Young]"],
}


def write(folder, pictures):
    """Random pictures of a size (width, height) by name, as PNG where the name says nothing else."""
    for name, (width, height) in pictures.items():
        path = folder / (name if "." in name else f"{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(name)).integers(256, size=(height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


def train(home, arguments, run_dir):
    return run_train([*QUICK, *arguments, f"--run_dir={run_dir}"], home)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with data sets for all models."""
    folder = tmp_path_factory.mktemp("home")
    write(folder / "odd", SIZES)
    write(folder, {f"pairs/train/{number}": (64, 32) for number in range(4)})
    write(folder, {f"pictures/{number}": (40, 48) for number in range(4)})
    write(folder, {f"domains/{domain}/{number}": (32, 32) for domain in ("cat", "dog", "fox") for number in range(2)})
    files = [f"{number:06}.jpg" for number in range(6)]
    write(folder / "faces/celeba/img_align_celeba", dict.fromkeys(files, (44, 54)))
    rows = [f"{file} {(-1) ** number} {1 - 2 * (number < 3)}" for number, file in enumerate(files)]
    (folder / "faces/celeba/list_attr_celeba.txt").write_text("\n".join(["6", "Male Young", *rows, ""]))
    parts = [f"{file} {2 * (number > 3)}" for number, file in enumerate(files)]
    (folder / "faces/celeba/list_eval_partition.txt").write_text("\n".join([*parts, ""]))
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(scope="module")
def trained(home):
    """The checkpoint of a run of RUNS, which is trained when first asked for."""

    def checkpoint(name):
        path = home / name / "checkpoints/last.ckpt"
        if not path.exists():
            done = train(home, RUNS[name], name)
            assert done.returncode == 0, done.stdout + done.stderr
        return path

    return checkpoint


def predict(checkpoint, home, folder, *options):
    """The pictures that ``predict`` makes of those in ``odd``, (C, H, W), by name, in float32 on any machine."""
    exact = "--trainer.precision=32-true"
    options = [f"--ckpt_path={checkpoint}", "--data.predict_dir=odd", f"--run_dir={folder}", exact, *options]
    done = run_train(["predict", *options], home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{folder}/images" in done.stdout
    files = [path for path in (folder / "images").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".png"}
    return {path.relative_to(folder / "images").with_suffix("").as_posix(): read_image(str(path)) for path in files}


def source(home, name):
    """A picture of ``odd`` as a model takes it, (1, C, H, W) in [-1, 1]."""
    return read_image(str(home / f"odd/{name}.png"))[None] / 127.5 - 1


def shapes(scale=1):
    return {name: (3, height * scale, width * scale) for name, (width, height) in SIZES.items()}


@pytest.mark.parametrize(("name", "scale"), [("pix2pix", 1), ("cyclegan", 1), ("srresnet", 4), ("srresnet_x2", 2)])
def test_predict_writes_a_picture_of_the_right_size_for_each(name, scale, home, trained, tmp_path):
    images = predict(trained(name), home, tmp_path)
    assert {name: tuple(image.shape) for name, image in images.items()} == shapes(scale)


def test_each_picture_is_the_translation_of_its_namesake(home, trained, tmp_path):
    images = predict(trained("srresnet"), home, tmp_path)
    model = SRResNet.load_to_sample(trained("srresnet"))
    for name, image in images.items():
        torch.testing.assert_close(image, to_uint8(model.translate(source(home, name)))[0], atol=1, rtol=0)


@pytest.mark.parametrize(
    ("name", "direction", "to"),
    [("cyclegan", "BtoA", "a"), ("cyclegan_back", "BtoA", "b"), ("cyclegan_back", "AtoB", "a")],
)
def test_the_direction_is_that_of_the_datas_domains(name, direction, to, home, trained, tmp_path):
    """Of one file. What is trained from B to A has its source in B."""
    options = ["--data.predict_dir=odd/wide.png", f"--data.direction={direction}"]
    images = predict(trained(name), home, tmp_path, *options)
    model = CycleGAN.load_to_sample(trained(name))
    expected, other = (to_uint8(model.translate(source(home, "wide"), domain))[0] for domain in (to, "ab"[to == "a"]))
    torch.testing.assert_close(images, {"wide": expected}, atol=1, rtol=0)
    assert (expected.int() - other).abs().max() > 1


def test_predict_leaves_out_what_is_broken(home, trained, tmp_path):
    write(home / "some", {"deep/er/a": (9, 8), "c": (8, 8)})
    for name in ("b.png", "z.jpg"):
        (home / "some" / name).write_bytes(b"no picture")
    (home / "some/d.psd").write_bytes(b"")
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(home / "some/clear.png")
    options = [f"--ckpt_path={trained('srresnet_x2')}", "--data.predict_dir=some", f"--run_dir={tmp_path}"]
    done = run_train(["predict", *options], home)
    assert_one_sentence(done, ["b.png", "and 1 more", "--data.skip_broken=true"])
    assert not list(tmp_path.rglob("*.png"))  # before the first is written
    done = run_train(["predict", *options, "--data.skip_broken=true"], home)
    assert done.returncode == 0, done.stderr
    assert {path.relative_to(tmp_path / "images").as_posix() for path in tmp_path.rglob("*.png")} == {
        "c.png",
        "clear.png",
        "deep/er/a.png",
    }
    assert "2 broken images were left out" in done.stderr
    assert "1 file was left out: 1 .psd" in done.stderr
    assert "1 image is transparent in part, now on black ground" in done.stderr  # as it was trained


def test_what_cannot_be_translated_is_refused(home, trained, tmp_path):
    options = [f"--ckpt_path={trained('pix2pix')}", "--data.predict_dir=odd", "--data.direction=BtoA"]
    assert_one_sentence(run_train(["predict", *options], home), ["--data.direction=BtoA must be AtoB", "Pix2Pix"])
    noise = ["--model=DCGAN", "--data=Digits", "--model.width=4", "--data.image_size=16"]
    done = train(home, noise, tmp_path / "noise")
    assert done.returncode == 0, done.stderr
    options = [f"--ckpt_path={tmp_path}/noise/checkpoints/last.ckpt", "--data.predict_dir=odd"]
    assert_one_sentence(run_train(["predict", *options], home), ["--data.predict_dir=odd must be left out", "DCGAN"])


@pytest.mark.parametrize("chosen", [None, ["fox", "cat"]])
def test_stargan_writes_a_picture_for_each_domain(chosen, home, trained, tmp_path):
    domains = ("cat", "dog", "fox")
    options = [f"--model.predict_domains=[{','.join(chosen)}]"] if chosen else []
    images = predict(trained("stargan"), home, tmp_path, *options)
    assert images.keys() == {f"{name}_{domain}" for name in SIZES for domain in chosen or domains}
    model = StarGAN.load_to_sample(trained("stargan"))
    for number, domain in enumerate(domains):
        if f"wide_{domain}" in images:
            expected = model.translate(source(home, "wide"), torch.eye(3)[[number]])
            torch.testing.assert_close(images[f"wide_{domain}"], to_uint8(expected)[0], atol=1, rtol=0)
    for name, shape in shapes().items():
        assert {tuple(images[key].shape) for key in images if key.startswith(name)} == {shape}


def test_stargan_changes_one_attribute_at_a_time(home, trained, tmp_path):
    images = predict(trained("stargan_faces"), home, tmp_path)
    assert images.keys() == {f"{name}_{attribute}" for name in SIZES for attribute in ("Male", "Young")}
    for name, shape in shapes().items():
        assert tuple(images[f"{name}_Male"].shape) == tuple(images[f"{name}_Young"].shape) == shape
    assert not torch.equal(images["deep/er/square_Male"], images["deep/er/square_Young"])


def test_srgan_starts_from_srresnet(home, trained, tmp_path):
    """From its averaged weights, as a learning rate of 0 shows; the discriminator learns."""
    start = f"--model.pretrained={trained('srresnet')}"
    options = ["--model.content=mse", "--model.discriminator_width=4", "--model.generator_optimizer.lr=0", start]
    done = train(home, [*SRGAN, *options], tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = (
        torch.load(path, weights_only=True)["state_dict"]
        for path in (trained("srresnet"), tmp_path / "out/checkpoints/last.ckpt")
    )
    average = "averaged_generator."
    names = [key.removeprefix(average) for key in before if key.startswith(average)]
    weights = [name for name in names if "running" not in name and "num_batches" not in name]
    assert any(not torch.equal(before[average + name], before["generator." + name]) for name in weights)
    for name in weights:
        for network in ("generator.", average):
            torch.testing.assert_close(after[network + name], before[average + name])


# What users get wrong


@pytest.mark.parametrize(
    ("folder", "culprits"),
    [
        (None, ["--data.predict_dir"]),
        ("empty", ["empty", "--data.predict_dir"]),
        ("nowhere", ["nowhere", "--data.predict_dir"]),
        ("broken", ["broken/a.png"]),
    ],
)
def test_predict_without_pictures(folder, culprits, home, trained, tmp_path):
    (home / "broken").mkdir(exist_ok=True)
    (home / "broken/a.png").write_bytes(b"no picture")
    options = [f"--data.predict_dir={folder}"] if folder else []
    done = run_train(["predict", f"--ckpt_path={trained('srresnet')}", f"--run_dir={tmp_path}", *options], home)
    assert_one_sentence(done, culprits)
    assert not list(tmp_path.rglob("*.png"))


FROM = [*SRGAN, "--model.content=mse"]
MISTAKES = {
    "missing checkpoint": ([*FROM, "--model.pretrained=nowhere.ckpt"], ["nowhere.ckpt", "--model.pretrained"]),
    "no checkpoint": ([*FROM, "--model.pretrained=notes.txt"], ["notes.txt", "--model.pretrained"]),
    "weights alone": ([*FROM, "--model.pretrained=weights.pt"], ["weights.pt", "--model.pretrained"]),
    "another model": ([*FROM, "--model.pretrained=stargan/checkpoints/last.ckpt"], ["stargan", "--model.pretrained"]),
    "another size": (
        [*FROM, "--model.width=8", "--model.pretrained=srresnet/checkpoints/last.ckpt"],
        ["srresnet", "width 8"],
    ),
    "no network": (SRGAN, ["--model.vgg_weights", "--model.content=mse"]),
    "weights of no network": ([*SRGAN, "--model.vgg_weights=notes.txt"], ["--model.vgg_weights=notes.txt"]),
    "scale": ([*SRRESNET, "--data.scale=3", "--data.image_size=33"], ["--data.scale", "3"]),
    "no domains": ([*STARGAN, "--data.data_dir=pictures"], ["StarGAN", "domain"]),
    "no attributes": ([*FACES, "--model.attributes=true"], ["StarGAN", "attributes"]),
    "attributes not said to be": ([*FACES, "--data.attributes=[Male, Young]"], ["--model.attributes=true"]),
    "unknown domain": ([*STARGAN, "--model.predict_domains=[wolf]"], ["wolf", "cat, dog, fox"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_sentence_and_no_training(mistake, home, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (home / "notes.txt").write_text("not a checkpoint")
    torch.save({"weight": torch.zeros(1)}, home / "weights.pt")
    arguments, culprits = MISTAKES[mistake]
    for name in ("stargan", "srresnet"):
        trained(name)
    assert_one_sentence(train(home, arguments, tmp_path / "out"), culprits)
    assert not list(tmp_path.rglob("*.ckpt"))
