"""What a GAN is trained on: which data fits which model, and what loaders of one's own may give."""

import os
import re
import signal
import warnings
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import strangers
import torch
from conftest import ALL_GANS, EVERY, TRANSLATORS, batch_for, changed, fit, images, small, smallest, state
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

import datamodules
import gans
from callbacks import Score
from callbacks.scores.passes import check_loader
from command_line import assert_one_sentence, finish, run_train, start, wait_for
from gans import ACGAN, CUT, DCGAN, GAN, CycleGAN, InfoGAN, Pix2Pix, SRResNet, StarGAN
from gans.parts.losses import Realness
from gans.training.batches import check_kind
from gans.training.speed import takes_any_order

QUICK = [
    *("--trainer.accelerator=cpu", "--trainer.max_steps=2", "--trainer.logger=false", "--score.num_images=0"),
    *("--model.width=4", "--data.image_size=32", "--data.batch_size=2", "--samples.count=2"),
]


def write(folder, count=4, size=(32, 32)):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


# Every GAN and every data set

NOISE = {"ACGAN", "CGAN", "ConvolutionalCGAN", "DCGAN", "GAN", "InfoGAN", "LSGAN", "RealnessGAN", "SAGAN", "StyleDCGAN"}
NOISE |= {"StyleGAN", "WGAN", "WGANGP"}
TOLD = {"ACGAN", "CGAN", "ConvolutionalCGAN"}  # the class of an image
BOTH = {"CUT", "CycleGAN", "DiscoGAN"}
CLASSES = "AFHQ", "Arrays", "CIFAR10", "MNIST", "Digits", "FashionMNIST", "classes"
FITS = {
    **{name: NOISE | {"StarGAN"} for name in CLASSES},
    **{name: NOISE - TOLD for name in ("LSUN", "images")},
    "attributes": NOISE - TOLD - {"SAGAN"} | {"StarGAN with attributes"},
    **{name: {"Pix2Pix", "DiscoGAN"} for name in ("Facades", "Cityscapes", "PairedFolder", "Restoration")},
    **{name: BOTH for name in ("Monet2Photo", "UnpairedFolder", "unpaired")},
    "SuperResolution": {"SRGAN", "SRResNet"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Every data module, by its name or what sets it apart; none of them is asked for an image."""
    folder = tmp_path_factory.mktemp("data")
    write(folder / "flat")
    for name in "ab":
        write(folder / "classes" / name)
    arrays = np.random.default_rng(0).integers(256, size=(4, 32, 32, 3), dtype=np.uint8)
    named = {name: getattr(datamodules, name) for name in FITS if name in datamodules.__all__}
    named["Arrays"] = partial(datamodules.Arrays, arrays, [0, 1, 0, 1])
    made = {name: cls(data_dir=str(folder / "flat"), image_size=32) for name, cls in named.items()}
    made["images"], made["classes"] = (
        datamodules.ImageFolder(data_dir=str(folder / kind), image_size=32) for kind in ("flat", "classes")
    )
    made["attributes"] = datamodules.CelebA(attributes=("Male", "Young"))
    made["unpaired"] = datamodules.Facades(paired=False)
    return made


def test_all_data_is_among_them():
    concrete = {name for name in datamodules.__all__ if name[:5] != "Image"}
    assert concrete <= FITS.keys() | {"CelebA"}
    told = set().union(*FITS.values()) - {"StarGAN with attributes"}
    assert told <= {cls.__name__ for cls in EVERY}
    assert all(cls.takes for cls in EVERY), "a GAN says in `takes` what its batches are"


@pytest.mark.parametrize("name", FITS)
def test_a_gan_takes_the_data_that_it_is_made_for_and_no_other(name, data):
    found, said = set(), []
    for title in set().union(*FITS.values()):
        cls = getattr(gans, title.split()[0])
        options = {"num_classes": data[name].num_classes} if cls in ALL_GANS else {}
        if cls is StarGAN:
            options = {"attributes": title != "StarGAN", "domains": data[name].domains}
        try:
            check_kind(cls, data[name])
            check_kind(smallest(cls, image_shape=(3, 32, 32), **options), data[name])
            found.add(title)
        except MisconfigurationException as error:
            said.append((cls.__name__, str(error)))
    assert all(name in sentence and "\n" not in sentence for name, sentence in said)
    assert found == FITS[name]


def test_a_class_of_ones_own_that_does_not_say_what_it_makes_is_not_refused():
    class Pairs(datamodules.ImageFolder):
        def assemble(self, image, label):
            return image, image

    check_kind(smallest(Pix2Pix), Pairs())
    check_kind(type("Own", (gans.training.module.GANModule,), {}), datamodules.UnpairedFolder())


# Loaders of one's own

LABELS = torch.arange(8) % 3
WRONG = {
    "a dict": (
        GAN,
        {},
        [{"image": i, "label": 0} for i in images(8)],
        r"A batch must be images.* a dict of image, lab",
    ),
    "labels alone": (GAN, {}, LABELS, r"images are \(\), but GAN was built for image_shape=\(1, 16, 16\)"),
    "bytes": (GAN, {}, ((images(8) + 1) * 127).to(torch.uint8), r"images are uint8; GAN takes float32 in \[-1, 1\]"),
    "half": (GAN, {}, images(8).half(), r"images are float16; GAN takes float32"),
    "double": (GAN, {}, images(8).double(), r"images are float64; GAN takes float32"),
    "channels last": (
        GAN,
        {"image_shape": (3, 16, 16)},
        images(8, (16, 16, 3)),
        r"\(16, 16, 3\), .*permute\(0, 3, 1, 2\)",
    ),
    "numbers that are none": (GAN, {}, torch.full((8, 1, 16, 16), float("nan")), r"pixels go from nan to nan"),
    "no labels": (
        ACGAN,
        {},
        images(8),
        r"ACGAN takes images with labels, int64 \(N,\), from 0 to 2; .* labels are None",
    ),
    "labels as floats": (ACGAN, {}, (images(8), LABELS.float()), r"labels are float32 \(4,\)"),
    "labels as columns": (ACGAN, {}, (images(8), LABELS[:, None]), r"labels are int64 \(4, 1\)"),
    "labels from 1": (ACGAN, {}, (images(8), LABELS + 1), r"from 0 to 2; the data's go from 1 to 3"),
    "one domain": (
        CycleGAN,
        {},
        images(8, (1, 32, 32)),
        r"a tuple of two images; the data gives float32 \(4, 1, 32, 32\)",
    ),
    "a label": (
        Pix2Pix,
        {},
        (images(8, (1, 32, 32)), LABELS),
        r"images are \(\), but Pix2Pix was built for image_shape",
    ),
    "one size": (SRResNet, {}, (images(8, (1, 32, 32)),) * 2, r"\(1, 32, 32\), .* built for sources of \(1, 8, 8\)"),
    "two sizes": (Pix2Pix, {}, (images(8, (1, 32, 32)), images(8, (1, 16, 16))), r"\(1, 16, 16\), but Pix2Pix"),
    "attributes": (StarGAN, {}, (images(8, (1, 32, 32)), LABELS[:, None].expand(-1, 3)), r"--model\.attributes=true"),
    "domains": (StarGAN, {"attributes": True}, (images(8, (1, 32, 32)), LABELS), r"--model\.attributes=false"),
    "attributes from 1": (
        StarGAN,
        {"attributes": True},
        (images(8, (1, 32, 32)), torch.full((8, 3), 2)),
        r"from 2 to 2",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_batch_that_a_gan_cannot_use_is_named_before_it_is_used(case):
    cls, options, given, sentence = WRONG[case]
    module = smallest(cls, **options)
    before = state(module)
    with pytest.raises(MisconfigurationException, match=sentence) as error:
        fit(module, given)
    assert "\n" not in str(error.value)
    assert not changed(before, module)


def test_images_without_a_negative_pixel_are_warned_of_once(tmp_path):
    with pytest.warns(UserWarning, match=r"No pixel of the first batch is negative .*x \* 2 - 1") as warned:
        fit(small(GAN), images(16).abs())
    assert sum("negative" in str(warning.message) for warning in warned) == 1
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fit(small(GAN), torch.cat([images(4), images(12).abs()]))
        bright = strangers.Arrays(level=200, image_size=16, data_dir=str(tmp_path), batch_size=4)
        Trainer(max_steps=1, logger=False, enable_checkpointing=False, accelerator="cpu").fit(small(GAN), bright)
    assert not [
        warning for warning in warned if "negative" in str(warning.message)
    ]  # whose pixels are known to be right


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_a_batch_of_one_trains_or_ends_in_a_sentence(cls):
    module = smallest(cls)
    sentence = r"InfoGAN's batch norm needs at least two images .*--data\.batch_size.*drop_last=True"
    with pytest.raises(MisconfigurationException, match=sentence) if cls is InfoGAN else nullcontext():
        fit(module, batch_for(module, 1), batch_size=1, max_steps=1)


def test_the_last_batch_of_an_epoch_of_a_loader_of_ones_own_may_be_the_one():
    with pytest.raises(MisconfigurationException, match=r"this one has 1.*drop_last=True"):
        fit(small(InfoGAN), images(9), batch_size=4)


# Updates that never come


@pytest.mark.parametrize("options", [{"n_critic": 10**9}, {"accumulate_grad_batches": 10**6}])
def test_updates_that_never_come_are_refused(options):
    (key,) = options
    with pytest.raises(
        MisconfigurationException, match=rf"--model\.{key}={options[key]} .* an epoch has 4: .*4 or less"
    ):
        fit(small(DCGAN, **options), images(16), max_steps=1)


@pytest.mark.parametrize("options", [{"n_critic": 5}, {"accumulate_grad_batches": 5}])
def test_epochs_without_an_update_are_said(options):
    with pytest.warns(UserWarning, match=r"updated once in 5 batches, and an epoch has 4: that is once in 2 epochs"):
        assert fit(small(DCGAN, **options), images(16), max_steps=1).global_step == 1


# Networks of one's own


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_networks_that_flatten_features_by_view_train_as_they_are(precision):
    fit(strangers.Mine(image_shape=(1, 16, 16)), images(8), max_steps=2, precision=precision)
    asked_for = strangers.Mine(image_shape=(1, 16, 16), channels_last=True)
    with pytest.raises(RuntimeError, match="view"):
        fit(asked_for, images(8), max_steps=2)


def test_a_layer_of_the_labs_kind_keeps_its_order_to_itself_unless_it_calls_view(gan, translator):
    """So that a paper that somebody adds to this folder trains as well, and all others are as fast as they were."""
    for module in (gan(), translator()):
        networks = [getattr(module, player) for player in module.players]
        assert all(takes_any_order(layer) for network in networks for layer in network.modules())
    foreign = type("Foreign", (torch.nn.Conv2d,), {"__module__": "elsewhere"})
    added = type("Added", (strangers.Viewed,), {"__module__": "gans.added", "forward": strangers.Viewed.forward})
    assert not takes_any_order(foreign(1, 1, 1))
    assert not takes_any_order(added(1, 8))
    parametrised = torch.nn.utils.parametrizations.spectral_norm(foreign(1, 1, 1))
    assert not takes_any_order(parametrised)
    assert takes_any_order(torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(1, 1, 1)))


# Losses


@pytest.mark.parametrize("cls", [cls for cls in TRANSLATORS if cls not in (CUT, CycleGAN, SRResNet)])
def test_translators_refuse_losses_of_several_outcomes(cls):
    with pytest.raises(
        MisconfigurationException, match=rf"^--model\.loss=Realness .*51 outcomes.* {cls.__name__} has one"
    ):
        smallest(cls, loss=Realness())


# Validation


class Endless(IterableDataset):
    def __iter__(self):
        return iter(images(8))


LOADERS = {
    "none": (None, "there is none"),
    "two": ([DataLoader(images(8)), DataLoader(images(8))], "got 2 in a list"),
    "a stream": (DataLoader(Endless()), "got a DataLoader of Endless with no length"),
    "batches": (DataLoader(images(8), batch_sampler=[[0, 1], [2]]), "got a DataLoader of Tensor with a batch_sampler"),
    "a list of tensors": ([images(4)], "got 1 in a list"),
}


@pytest.mark.parametrize("case", LOADERS)
def test_score_says_which_validation_loaders_it_can_take(case):
    loader, found = LOADERS[case]
    with pytest.raises(MisconfigurationException, match=rf"^Score compares .*; {found}: .*--score\.num_images=0"):
        check_loader(loader)


@pytest.mark.parametrize("loader", [None, DataLoader(Endless(), batch_size=4)], ids=["none", "a stream"])
def test_score_says_so_before_training(loader):
    module = small(GAN)
    before = state(module)
    score = Score(features="pixels", num_images=8)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_steps=2, callbacks=[score], **quiet)
    with pytest.raises(MisconfigurationException, match=r"^Score compares"):
        trainer.fit(module, DataLoader(images(8), batch_size=4), loader)
    assert not changed(before, module)


# From the command line


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    for domain in "AB":
        write(folder / f"domains/train{domain}")
    return folder


@pytest.mark.parametrize(
    ("arguments", "culprits"),
    [
        (["--model=CycleGAN", "--data=ImageFolder"], ["--model=CycleGAN", "--data=ImageFolder", "UnpairedFolder"]),
        (["--model=SRGAN", "--data=PairedFolder"], ["--model=SRGAN", "--data=PairedFolder", "--data=SuperResolution"]),
        (["--model=CycleGAN", "--data=PairedFolder"], ["gives pairs: take --data.paired=false"]),
        (["--model=InfoGAN", "--data=ImageFolder", "--data.batch_size=1"], ["InfoGAN", "--data.batch_size"]),
        (["--model=DCGAN", "--data=ImageFolder", "--model.n_critic=100000"], ["--model.n_critic=100000"]),
    ],
    ids=["CycleGAN", "SRGAN", "pairs", "batch", "updates"],
)
def test_what_cannot_be_trained_ends_in_a_sentence_and_leaves_nothing(arguments, culprits, home):
    done = run_train([*arguments[:2], *QUICK, "--data.data_dir=domains", *arguments[2:], "--run_dir=out"], home)
    assert_one_sentence(done, culprits)
    assert not (home / "out").exists()


def test_resized_images_are_named_and_what_a_stopped_process_began_goes(tmp_path):
    """By SIGTERM at once; by SIGKILL when images are resized again. Then networks of one's own are trained on them."""
    write(tmp_path / "images", count=200)
    options = ["--model=strangers.Mine", "--data=strangers.Slow", *QUICK, "--data.data_dir=images", "--run_dir=out"]
    options.remove("--model.width=4")
    cache = tmp_path / "images/.cache"
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = start(options, tmp_path, SLOW="1")
        wait_for(lambda: list(cache.glob("*.partial")), process, tmp_path)
        os.kill(process.pid, number)
        done = finish(process, tmp_path, timeout=10)
        assert done.returncode == (143 if number == signal.SIGTERM else -number), done.stderr
        assert len(list(cache.iterdir())) == (number == signal.SIGKILL)
    done = run_train(options, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.suffix for path in cache.iterdir()] == [".npy"]
    assert re.search(r"Resized images are kept in images/\.cache \(0\.6 MB now\)", done.stderr)
