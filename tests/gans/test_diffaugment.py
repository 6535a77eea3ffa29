"""DiffAugment, beside the paper's formulas in loops, and inside every GAN."""

import copy
import pickle

import pytest
import torch
from conftest import TRANSLATORS, batch, batch_for, fit, images, small
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from datamodules import Digits
from gans import DCGAN, WGANGP, CycleGAN, Pix2Pix
from gans.parts.diffaugment import DiffAugment, brightness, contrast, cutout, saturation, translation

POLICY = "color,translation,cutout"


def pictures(n=200, count=2, channels=3, size=16):
    """Batches as the functions get them, (N, P, K, H, W)."""
    return images(n, (count * channels, size, size)).unflatten(1, (count, channels))


def test_brightness_adds_one_number_to_an_item():
    x = pictures()
    added = (brightness(x) - x).flatten(1)
    assert torch.allclose(added, added[:, :1].expand_as(added), atol=1e-6)
    assert -0.5 <= added.min() < -0.45
    assert 0.45 < added.max() <= 0.5


def test_saturation_stretches_the_channels_of_each_picture_about_their_own_mean():
    x = pictures()
    y = saturation(x)
    factors = []
    for i in range(len(x)):
        for p in range(2):
            grey = x[i, p].mean(0)
            factor = (y[i, p] - grey).norm() / (x[i, p] - grey).norm()
            assert torch.allclose(y[i, p], grey + factor * (x[i, p] - grey), atol=1e-5)
            factors.append(factor)
    factors = torch.stack(factors).view(-1, 2)
    assert torch.allclose(factors[:, 0], factors[:, 1], atol=1e-5)  # a pair is changed alike
    assert factors.min() < 0.1
    assert 1.9 < factors.max() <= 2.0001
    grey = pictures(channels=1)
    assert torch.equal(saturation(grey), grey)


def test_contrast_stretches_each_picture_about_its_own_mean():
    x = pictures()
    y = contrast(x)
    factors = []
    for i in range(len(x)):
        for p in range(2):
            mean = x[i, p].mean()
            factor = (y[i, p] - mean).norm() / (x[i, p] - mean).norm()
            assert torch.allclose(y[i, p], mean + factor * (x[i, p] - mean), atol=1e-5)
            factors.append(factor)
    factors = torch.stack(factors).view(-1, 2)
    assert torch.allclose(factors[:, 0], factors[:, 1], atol=1e-5)
    assert 0.4999 <= factors.min() < 0.55
    assert 1.45 < factors.max() <= 1.5001


def moved(images, down, right):
    """Images (N, C, H, W), rolled round, and what came in from the other side set to 0."""
    out = images.roll((down, right), (2, 3))
    height, width = images.shape[-2:]
    out[:, :, torch.arange(height).sub(down).lt(0) | torch.arange(height).sub(down).ge(height)] = 0
    out[..., torch.arange(width).sub(right).lt(0) | torch.arange(width).sub(right).ge(width)] = 0
    return out


def test_translation_moves_all_channels_up_to_an_eighth_and_fills_with_zeros():
    x = images(300, (6, 16, 24)).unflatten(1, (2, 3))
    found = set()
    shifts = [(down, right) for down in range(-2, 3) for right in range(-3, 4)]
    candidates = {shift: moved(x.flatten(1, 2), *shift) for shift in shifts}
    y = translation(x).flatten(1, 2)
    for i in range(len(x)):
        (shift,) = [shift for shift in shifts if torch.equal(candidates[shift][i], y[i])]
        found.add(shift)
    assert found == set(shifts)


def test_cutout_empties_half_of_height_and_width_around_a_centre_anywhere_in_the_image():
    hole = cutout(torch.ones(4000, 2, 3, 8, 6)) == 0
    assert (hole == hole[:, :1, :1]).all()  # all channels of both pictures
    seen = set()
    for mask in hole[:, 0, 0].unique(dim=0):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert mask.sum() == len(rows) * len(columns)  # a rectangle
        seen.add((rows.min().item(), rows.max().item(), columns.min().item(), columns.max().item()))
    # Size 4 of 8 with centres 0 to 8, and 3 of 6 (odd) with centres 0 to 5, cut off at the border.
    rows = {(max(0, c - 2), min(7, c + 1)) for c in range(9)}
    columns = {(max(0, c - 1), min(5, c + 1)) for c in range(6)}
    assert seen == {(*r, *c) for r in rows for c in columns}


def test_items_are_changed_each_in_its_own_way_and_from_the_seed():
    x = images(1, (3, 16, 16)).expand(8, -1, -1, -1)
    augment = DiffAugment(POLICY)
    torch.manual_seed(3)
    first = augment(x)
    torch.manual_seed(3)
    assert torch.equal(augment(x), first)
    assert len(first.unique(dim=0)) == 8
    assert first.shape == x.shape
    assert not torch.equal(augment(x), first)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_stacked_in_channels_are_changed_alike_and_each_for_itself(channels):
    first, second = images(4, (channels, 16, 16)), images(4, (channels, 16, 16), seed=1)
    augmented = []
    for x in (first, second, torch.cat([first, second], 1)):
        torch.manual_seed(7)
        augmented.append(DiffAugment(POLICY)(x))
        assert augmented[-1].shape == x.shape
    assert torch.allclose(augmented[2], torch.cat(augmented[:2], 1), atol=1e-6)


def test_its_gradients_are_right_to_the_second_order():
    x = images(2, (3, 8, 8)).double().requires_grad_()

    def augmented(x):
        torch.manual_seed(0)
        return DiffAugment(POLICY)(x) ** 2

    assert torch.autograd.gradcheck(augmented, x)
    assert torch.autograd.gradgradcheck(augmented, x)


def test_half_precision_is_augmented_in_full():
    assert DiffAugment(POLICY)(images(2).half()).dtype == torch.float32
    assert DiffAugment(POLICY)(images(2).double()).dtype == torch.float64


@pytest.mark.parametrize("policy", ["colour", "color,,cutout", "", "color;cutout"])
def test_an_unknown_word_is_named(policy):
    with pytest.raises(MisconfigurationException, match=r"^--model\.diff_augment=.* color, translation, cutout"):
        small(DCGAN, diff_augment=policy)


class Watch(nn.Module):
    """A discriminator that keeps what it sees."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(256, 1)
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach())
        return self.linear(x.flatten(1)).flatten()


def test_real_and_generated_images_are_augmented_once_in_both_losses_however_often_it_is_fitted():
    gan = small(DCGAN, diff_augment="cutout", channels_last=False)
    gan.generator = nn.Sequential(nn.Linear(8, 256), nn.Unflatten(1, (1, 16, 16)))
    for p in gan.generator.parameters():
        nn.init.ones_(p)  # no value of an image is 0 by itself
    gan.discriminator = Watch()
    data = torch.ones(8, 1, 16, 16)
    for _ in range(2):
        gan.discriminator.seen.clear()
        fit(gan, data, max_steps=2)
        holes = [(x == 0).float().mean((1, 2, 3)) for x in gan.discriminator.seen]
        assert len(holes) == 6  # real and generated for D, generated for G, twice
        for share in holes:
            assert (share > 0.05).all()
            assert (share <= 0.25).all()  # one hole, not two
    assert len(gan.discriminator._forward_pre_hooks) == 1


def test_gradients_reach_the_generator_through_what_the_discriminator_sees():
    gan = small(DCGAN, diff_augment="cutout")
    gan.setup("fit")
    gan.discriminator = Watch()
    gan.setup("fit")
    x = images(4).requires_grad_()
    gan.judge(x).outputs.sum().backward()
    hole = gan.discriminator.seen[0] == 0
    weight = gan.discriminator.linear.weight.view(1, 1, 16, 16).expand(4, -1, -1, -1)
    assert torch.equal(x.grad, weight.masked_fill(hole, 0))
    gan.generator_loss(batch(4))[0].backward()
    assert all(p.grad.abs().sum() > 0 for p in gan.generator.parameters() if p.ndim > 1)


def test_every_gan_trains_with_it(adversary):
    module = adversary(diff_augment=POLICY)
    before = [p.clone() for p in module.generator.parameters()]
    fit(module, batch_for(module, 16), max_steps=2)
    assert any(not torch.equal(p, q) for p, q in zip(before, module.generator.parameters(), strict=True))
    assert all(p.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("cls", [cls for cls in TRANSLATORS if cls in (Pix2Pix, CycleGAN)])
def test_translators_train_with_it_in_all_their_discriminators(cls):
    module = cls(image_shape=(3, 32, 32), width=4, diff_augment=POLICY)
    fit(module, (images(4, (3, 32, 32)), images(4, (3, 32, 32), seed=1)), batch_size=2, max_steps=1)
    networks = module.discriminator.values() if cls is CycleGAN else [module.discriminator]
    assert all(len(network._forward_pre_hooks) == 1 for network in networks)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_it_goes_with_other_precisions_and_gradient_penalties(precision):
    module = small(WGANGP, diff_augment=POLICY, n_critic=1)
    fit(module, images(8), max_steps=1, precision=precision)
    assert all(p.isfinite().all() for p in module.parameters())


def test_pictures_checkpoints_and_copies_are_those_of_a_gan_without_it(tmp_path):
    plain, augmented = small(DCGAN), small(DCGAN, diff_augment=POLICY)
    augmented.load_state_dict(plain.state_dict())  # the same keys
    trainer = fit(augmented, max_steps=1)
    plain.load_state_dict(augmented.state_dict())
    for call in (
        lambda gan: gan.sample(4),
        lambda gan: gan.generate(batch(4)),
        lambda gan: gan.predict_step(range(4), 0),
    ):
        torch.manual_seed(0)
        expected = call(plain)
        torch.manual_seed(0)
        assert torch.equal(call(augmented), expected)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert DCGAN.load_to_sample(tmp_path / "a.ckpt").diff_augment.words == POLICY.split(",")
    for other in (copy.deepcopy(augmented.discriminator), pickle.loads(pickle.dumps(augmented.discriminator))):
        torch.manual_seed(0)
        expected = augmented.discriminator(images(4))
        torch.manual_seed(0)
        assert torch.equal(other(images(4)), expected)


def test_a_resumed_run_goes_on_exactly(tmp_path):
    def run(steps, path=None):
        torch.manual_seed(1)
        module = small(DCGAN, diff_augment=POLICY)
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
        data = Digits(data_dir=str(tmp_path), image_size=16)
        trainer = Trainer(max_steps=steps, limit_val_batches=0, **options)
        trainer.fit(module, data, ckpt_path=path, weights_only=True)
        return module, trainer

    whole, _ = run(4)
    run(2)[1].save_checkpoint(tmp_path / "a.ckpt")
    resumed, _ = run(4, tmp_path / "a.ckpt")
    for p, q in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)
