"""Augmentation and repetition of training images, from Kornia and of one's own."""

import pytest
import torch
import yaml
from conftest import images, pretend_generator
from kornia import augmentation as kornia
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch._subclasses import FakeTensorMode
from torchvision.utils import save_image
from watch import QUIET, Watch, watch

from command_line import ROOT, run_train
from datamodules import Digits, ImageFolder, PairedFolder, SuperResolution, UnpairedFolder
from datamodules.images.augmentation import Augmentation
from datamodules.images.loader import ImageBatch
from datamodules.super_resolution import reduced

GREY = {
    "flip": lambda: kornia.RandomHorizontalFlip(),
    "affine": lambda: kornia.RandomAffine(degrees=20, translate=(0.1, 0.1), p=1.0),
    "blur": lambda: kornia.RandomGaussianBlur((3, 3), (0.5, 2.0), p=1.0),
    "noise": lambda: kornia.RandomGaussianNoise(std=0.1, p=1.0),
    "sharpness": lambda: kornia.RandomSharpness(1.0, p=1.0),
    "brightness": lambda: kornia.RandomBrightness((0.5, 1.5)),
}
COLOUR = GREY | {
    "saturation": lambda: kornia.RandomSaturation((0.0, 2.0)),
    "jiggle": lambda: kornia.ColorJiggle(0.2, 0.2, 0.2, 0.1),
    "jitter": lambda: kornia.ColorJitter(0.2, 0.2, 0.2, 0.1),
}


class Negative(nn.Module):
    """No augmentation of Kornia's, with a weight and a random choice."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, x):
        assert x.min() >= 0
        assert x.max() <= 1
        chosen = torch.rand(len(x), 1, 1, 1) < 0.5
        return torch.where(chosen, self.one - x, x)


def digits(tmp_path, *augment, **kwargs):
    options = {"data_dir": str(tmp_path), "image_size": 16, "batch_size": 100, "augment": list(augment)}
    return Digits(**options | kwargs)


def folder(path, count=6, size=(20, 20)):
    path.mkdir(parents=True)
    for i, image in enumerate(images(count, (3, *size)) / 2 + 0.5):
        save_image(image, path / f"{i}.png")
    return path


def one_colour(tmp_path, **colours):
    """A class folder of 6 images of one colour for each name."""
    for name, colour in colours.items():
        (tmp_path / "classes" / name).mkdir(parents=True)
        for i in range(6):
            save_image(torch.tensor(colour).view(3, 1, 1).expand(3, 16, 16), tmp_path / f"classes/{name}/{i}.png")
    return str(tmp_path / "classes")


@pytest.mark.parametrize(
    ("make", "channels"),
    [(make, 1) for make in GREY.values()] + [(make, 3) for make in COLOUR.values()],
    ids=[f"{name}-grey" for name in GREY] + [f"{name}-colour" for name in COLOUR],
)
def test_images_are_changed_in_range_from_the_seed_and_pairs_alike(make, channels):
    augmentation = Augmentation([make()])
    augmentation.check(channels, 16, labelled=False)
    x = images(8, (channels, 16, 16))
    torch.manual_seed(2)
    first = augmentation(x)
    torch.manual_seed(2)
    both = augmentation(torch.cat([x, x], 1), layers=2)
    after = torch.rand(1)
    assert first.shape == x.shape
    assert first.dtype == x.dtype
    assert first.abs().max() <= 1
    assert not torch.equal(first, x)
    assert torch.equal(both, torch.cat([first, first], 1))
    torch.manual_seed(2)
    augmentation(x)
    assert torch.equal(torch.rand(1), after)  # a pair draws no more than an image


def test_modules_see_images_from_0_to_1_and_follow_each_other():
    x = images(4)
    twice = Augmentation([kornia.RandomBrightness((1.5, 1.5)), kornia.RandomBrightness((0.7, 0.7))])(x)
    expected = (((x + 1) / 2 + 0.5).clamp(max=1) - 0.3).clamp(min=0) * 2 - 1
    assert torch.allclose(twice, expected, atol=1e-6)


def test_any_module_will_do_and_both_of_a_pair_are_changed_alike():
    x = images(64, (6, 8, 8))
    y = Augmentation([Negative()])(x, layers=2)
    same, turned = ((y - sign * x).abs().flatten(1).amax(1) < 1e-6 for sign in (1, -1))
    assert (same ^ turned).all()
    assert 10 < turned.sum() < 54
    assert not y.requires_grad


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_both_of_a_pair_are_changed_alike_on_every_device(kind, monkeypatch):
    """Whatever is drawn on the device for the first is drawn again for the second."""
    generator, states = pretend_generator(kind, monkeypatch), []

    class Draw(nn.Module):
        def forward(self, x):
            states.append(generator.state)
            generator.state = object()
            return x

    with FakeTensorMode():
        Augmentation([Draw()])(torch.zeros(2, 6, 4, 4, device=kind), layers=2)
    assert states[0] is states[1]
    assert generator.state is not states[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_all_precisions_are_changed_alike(dtype):
    x = images(4, (3, 16, 16)).to(dtype)
    augmentation = Augmentation([make() for make in COLOUR.values()])
    torch.manual_seed(0)
    y = augmentation(x)
    torch.manual_seed(0)
    assert y.dtype == dtype
    assert torch.equal(y, augmentation(x.float()).to(dtype))


def test_training_images_are_augmented_after_mirroring_and_others_are_not(tmp_path):
    plain = watch(digits(tmp_path))
    changed = watch(digits(tmp_path, kornia.RandomInvert(p=1.0)))
    for a, b in zip(plain, changed, strict=True):
        assert torch.allclose(a.image, -b.image, atol=1e-6)
        assert torch.equal(a.label, b.label)

    def evaluated(*augment, **kwargs):
        module = Watch()
        Trainer(**QUIET | {"limit_val_batches": None}).validate(
            module, digits(tmp_path, *augment, **kwargs), verbose=False
        )
        return module.seen

    pairs = zip(evaluated(), evaluated(Negative(), kornia.RandomCutMixV2(), oversample={"3": 4}), strict=True)
    assert all(torch.equal(a.image, b.image) and torch.equal(a.label, b.label) for a, b in pairs)


def test_what_is_kept_for_scores_and_pictures_is_neither_augmented_nor_repeated(tmp_path):
    data = digits(tmp_path, Negative(), oversample={"3": 4})
    watch(data)
    data.trainer = None
    assert sum(len(batch.image) for batch in data.ordered("train")) == 1797
    raw = next(iter(data.ordered("train")))
    assert torch.equal(data.on_after_batch_transfer(raw, 0).image, raw.image / 127.5 - 1)


def test_a_resumed_run_sees_the_same_augmented_images(tmp_path):
    def make():
        return digits(tmp_path, *(make() for make in GREY.values()), kornia.RandomCutMixV2(), oversample={"3": 3})

    # The images differ from run to run of this process unless the seed is the same.
    class Seeded(Watch):
        def on_save_checkpoint(self, checkpoint):
            checkpoint["rng"] = torch.get_rng_state()

        def on_load_checkpoint(self, checkpoint):
            self.rng = checkpoint["rng"]

        def on_train_start(self):
            if hasattr(self, "rng"):
                torch.set_rng_state(self.rng)

    def run(steps, path=None):
        torch.manual_seed(0)
        module, trainer = Seeded(), Trainer(**QUIET | {"max_epochs": -1, "max_steps": steps})
        trainer.fit(module, make(), ckpt_path=path, weights_only=True)
        return module.seen, trainer

    whole, _ = run(25)
    run(13)[1].save_checkpoint(tmp_path / "a.ckpt")
    rest, _ = run(25, tmp_path / "a.ckpt")
    assert len(rest) == 12
    for a, b in zip(whole[13:], rest, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.label, b.label)


def test_pairs_are_augmented_alike_and_unpaired_domains_each_in_its_own_way(tmp_path):
    for split in ("trainA", "trainB"):
        folder(tmp_path / split, size=(16, 16))  # the same images in both
    options = {"data_dir": str(tmp_path), "image_size": 16, "batch_size": 6}
    turn = {"augment": [kornia.RandomAffine(degrees=90, p=1.0), kornia.RandomGaussianNoise(std=0.05, p=1.0)]}
    (pair,) = watch(PairedFolder(**options, **turn))
    assert torch.equal(pair.source, pair.target)
    (before,) = watch(PairedFolder(**options))
    assert not torch.isclose(pair.source, before.source, atol=0.1).flatten(1).all(1).any()
    (unpaired,) = watch(UnpairedFolder(**options, augment=[kornia.RandomBrightness((0.0, 0.5))]))
    assert len(unpaired.a.flatten(1).amax(1).unique()) == 6
    assert not set(unpaired.a.flatten(1).amax(1).tolist()) & set(unpaired.b.flatten(1).amax(1).tolist())


def test_super_resolution_reduces_what_is_augmented(tmp_path):
    folder(tmp_path / "images", size=(40, 40))
    data = SuperResolution(data_dir=str(tmp_path / "images"), image_size=16, batch_size=6, augment=[Negative()])
    batch = watch(data)[0]
    assert torch.equal(batch.source, reduced(batch.target, 4))


@pytest.mark.parametrize("correct", [False, True])
def test_cutmix_leaves_the_label_of_the_larger_share(tmp_path, correct):
    path = one_colour(tmp_path, black=(0.0, 0.0, 0.0), white=(1.0, 1.0, 1.0))
    cutmix = kornia.RandomCutMixV2(use_correct_lambda=correct)
    seen = watch(ImageFolder(data_dir=path, image_size=16, batch_size=12, augment=[cutmix]), max_epochs=40)
    white = torch.cat([(batch.image > 0).float().mean((1, 2, 3)) for batch in seen])
    label = torch.cat([batch.label for batch in seen])
    assert ((white > 0) & (white < 1)).sum() > 50
    assert (label[white > 0.5] == 1).all()
    assert (label[white < 0.5] == 0).all()
    assert label.dtype == torch.int64


def test_mixing_takes_attributes_as_well():
    mixup = Augmentation([kornia.RandomMixUpV2(lambda_val=(0.9, 0.9), p=1.0)])
    x, attributes = images(6), torch.eye(6).long()
    torch.manual_seed(0)
    y, mixed = mixup.mixed(x, attributes)
    other = mixed.argmax(1)
    assert torch.allclose(y, 0.1 * x + 0.9 * x[other], atol=1e-5)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (lambda: kornia.RandomSaturation((0.5, 2.0)), "RandomSaturation does not take images of 1 channels and 16 px"),
        (lambda: kornia.RandomCrop((8, 8)), r"RandomCrop must keep the size of images; of \(2, 1, 16, 16\) it makes"),
    ],
)
def test_what_does_not_fit_the_images_is_named_before_training(tmp_path, augment, message):
    with pytest.raises(MisconfigurationException, match=rf"^--data\.augment={message}"):
        watch(digits(tmp_path, augment()))


def test_mixing_without_labels_is_named_before_training(tmp_path):
    data = ImageFolder(
        data_dir=str(folder(tmp_path / "flat")), image_size=16, batch_size=2, augment=[kornia.RandomCutMixV2()]
    )
    with pytest.raises(MisconfigurationException, match=r"^--data\.augment=RandomCutMixV2 mixes .* labels"):
        watch(data)


def test_checking_draws_nothing(tmp_path):
    data = digits(tmp_path, *(make() for make in GREY.values()))
    data.prepare_data()
    before = torch.get_rng_state()
    data.setup("fit")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("streamed", [False, True], ids=["resident", "streamed"])
def test_oversampled_classes_come_as_often_as_asked_for(tmp_path, streamed):
    options = {"resident_bytes": 0, "num_workers": 1} if streamed else {}
    plain, more = (
        digits(tmp_path, batch_size=1),
        digits(tmp_path, batch_size=10, oversample={"3": 3, "5": 2}, **options),
    )
    labels = torch.cat([batch.label for batch in watch(more)])
    count = torch.tensor(plain.items("train")[1]).bincount()
    expected = count * torch.tensor([1, 1, 1, 3, 1, 2, 1, 1, 1, 1])
    assert (labels.bincount() - expected).abs().sum() < 10  # the incomplete batch at the end is dropped
    assert len(labels) == expected.sum() // 10 * 10


def test_images_of_several_attributes_come_as_often_as_the_most_wanted_one(tmp_path):
    class Attributes(Digits):
        class_names = ("a", "b", "c")

    data = Attributes(data_dir=str(tmp_path), oversample={"a": 2, "c": 3})
    labels = torch.tensor([[1, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 0]])
    assert data._repeated(labels).tolist() == [0, 0, 1, 1, 1, 2, 3]


def test_unknown_classes_and_numbers_out_of_range_are_named(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"^--data\.oversample=cat must be of 0, 1, 2, "):
        watch(digits(tmp_path, oversample={"cat": 2}))
    with pytest.raises(MisconfigurationException, match=r"^--data\.oversample\.3 must be at least 1; got 0$"):
        digits(tmp_path, oversample={"3": 0})
    flat = ImageFolder(data_dir=str(folder(tmp_path / "flat")), image_size=16, batch_size=2, oversample={"cat": 2})
    with pytest.raises(
        MisconfigurationException, match=r"^--data\.oversample=cat must be left out: there are no class"
    ):
        watch(flat)


def test_labels_without_mixing_are_passed_on_untouched():
    batch = ImageBatch(images(3), None)
    assert Augmentation([]).mixed(*batch) == batch
    assert Augmentation([])(batch.image) is batch.image


def test_the_command_line_takes_augmentations_and_the_run_keeps_them(tmp_path):
    quick = [
        "--config",
        ROOT / "configs/quickstart.yaml",
        "--trainer.accelerator=cpu",
        "--trainer.logger=false",
        "--model.width=4",
        "--data.image_size=16",
        "--score.num_images=0",
        "--trainer.max_steps=2",
        "--run_dir=out",
        "--data.augment+=kornia.augmentation.RandomAffine",
        "--data.augment.degrees=10",
        "--data.augment+=kornia.augmentation.RandomGaussianNoise",
        "--data.augment.std=0.1",
        "--data.oversample.3=2",
        "--model.diff_augment=translation,cutout",
    ]
    done = run_train(quick, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    config = (tmp_path / "out/config.yaml").read_text()
    assert "Unable to serialize" not in config
    data = yaml.safe_load(config)["data"]["init_args"]
    assert [module["class_path"].rpartition(".")[2] for module in data["augment"]] == [
        "RandomAffine",
        "RandomGaussianNoise",
    ]
    assert data["augment"][0]["init_args"]["degrees"] == 10
    assert data["oversample"] == {"3": 2}
    again = ["--config=out/config.yaml", "--ckpt_path=out/checkpoints/last.ckpt", "--trainer.max_steps=3"]
    resumed = run_train(again, tmp_path)  # reads it back
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    printed = run_train([*quick, "--print_config"], tmp_path)
    assert "Unable to serialize" not in printed.stdout
    assert yaml.safe_load(printed.stdout)["data"]["init_args"]["augment"] == data["augment"]
