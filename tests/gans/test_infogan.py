"""InfoGAN against its paper and official code."""

import math

import pytest
import torch
from conftest import batch, images, small
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from gans import InfoGAN
from gans.training.update import frozen


@pytest.fixture
def module():
    return small(InfoGAN, categories=4, continuous=2, category_weight=2.0, continuous_weight=0.3).double()


def test_noise_is_category_continuous_codes_and_noise():
    """Appendix C.1, MNIST: 10 categories, 2 codes from U(-1, 1) and 62 noise variables, 74 in all."""
    module = InfoGAN(image_shape=(1, 28, 28))
    noise = module.noise(5000)
    assert noise.shape == (5000, 74)
    category, continuous, rest = noise.split([10, 2, 62], 1)
    assert torch.equal(category.sum(1), torch.ones(5000))
    assert category.unique().tolist() == [0, 1]
    assert category.mean(0).tolist() == pytest.approx([0.1] * 10, abs=0.02)
    assert continuous.aminmax().min >= -1
    assert continuous.aminmax().max <= 1
    assert continuous.var().item() == pytest.approx(1 / 3, abs=0.02)  # of a uniform distribution
    assert rest.aminmax().min >= -1  # as the official code's noise
    assert rest.aminmax().max <= 1
    assert rest.var().item() == pytest.approx(1 / 3, abs=0.02)


def test_networks_of_table_1():
    """G: FC 1024, FC 7x7x128, upconv 64, upconv 1; D: conv 64, conv 128, FC 1024; Q: FC 128 on top of D's."""
    module = InfoGAN(image_shape=(1, 28, 28))
    sizes = [tuple(p.shape) for p in module.generator.parameters() if p.ndim > 1]
    assert sizes == [(1024, 74), (7 * 7 * 128, 1024), (128, 64, 4, 4), (64, 1, 4, 4)]
    sizes = [tuple(p.shape) for p in module.discriminator.parameters() if p.ndim > 1]
    assert sizes == [(64, 1, 4, 4), (128, 64, 4, 4), (1024, 7 * 7 * 128), (1, 1024), (128, 1024), (12, 128)]


def test_it_begins_as_the_official_code_with_both_terms_at_1():
    """Weights N(0, 0.02), linear ones too, gains N(1, 0.02) and biases 0."""
    module = InfoGAN(image_shape=(1, 28, 28))
    assert (module.category_weight, module.continuous_weight) == (1, 1)
    for layer in module.modules():
        weight = getattr(layer, "weight", None)
        if weight is not None and weight.numel() > 1000:
            assert weight.mean().item() == pytest.approx(float(weight.ndim == 1), abs=0.003)
            assert weight.std().item() == pytest.approx(0.02, rel=0.1)


def information(noise, category, continuous):
    """Minus the weighted log-likelihoods of the codes under Q: softmax for the category, N(mean, 1) for the others."""
    c, codes = noise[:, :4], noise[:, 4:6]
    discrete = (category.softmax(1).log() * c).sum(1).mean()
    density = torch.exp(-((codes - continuous) ** 2) / 2) / math.sqrt(2 * math.pi)
    return -2.0 * discrete - 0.3 * density.log().sum(1).mean()


def test_both_losses_hold_the_information_term(module):
    """Equation 6; as in the official code the bound is subtracted from D's loss too."""
    real, _ = batch(8)
    batch_ = (real.double(), None)
    torch.manual_seed(1)
    d_loss, _ = module.discriminator_loss(batch_)
    torch.manual_seed(1)
    noise = module.noise(8)
    with torch.no_grad():
        fake = module.generator(noise)
    source_real = module.discriminator(batch_[0])[0]
    source_fake, *codes = module.discriminator(fake)
    source = source_real.sigmoid().log().mean() + (1 - source_fake.sigmoid()).log().mean()
    torch.testing.assert_close(d_loss, -source + information(noise, *codes))
    torch.manual_seed(1)
    g_loss, _ = module.generator_loss(batch_)
    source_fake, *codes = module.discriminator(module.generator(noise))
    torch.testing.assert_close(g_loss, -source_fake.sigmoid().log().mean() + information(noise, *codes))


def test_every_code_trains_the_trunk_that_q_shares_with_d_and_the_generator(module):
    real, _ = batch(8)
    _, logs = module.discriminator_loss((real.double(), None))
    for name in ("loss/category", "loss/continuous"):
        trunk = torch.autograd.grad(logs[name], list(module.discriminator.trunk.parameters()), retain_graph=True)
        assert all(g.abs().sum() > 0 for g in trunk)
        head = torch.autograd.grad(
            logs[name], list(module.discriminator.source.parameters()), retain_graph=True, allow_unused=True
        )
        assert head == (None,) * len(head)
    with frozen(module.discriminator):
        _, logs = module.generator_loss((real.double(), None))
        gradients = torch.autograd.grad(logs["loss/generator_information"], list(module.generator.parameters()))
    assert all(g.abs().sum() > 0 for g in gradients)


def test_labels_are_never_looked_at():
    module = small(InfoGAN, num_classes=10)
    losses = []
    for label in (None, torch.full((8,), 10**6)):  # out of any range
        torch.manual_seed(1)
        losses.append(module.discriminator_loss((images(8), label))[0].item())
        losses.append(module.generator_loss((images(8), label))[0].item())
    assert losses[:2] == losses[2:]
    assert module.num_classes == 0


def test_learning_rates_of_appendix_c():
    discriminator, generator = InfoGAN(image_shape=(1, 28, 28)).configure_optimizers()[0]
    assert (discriminator.defaults["lr"], generator.defaults["lr"]) == (2e-4, 1e-3)
    assert generator.defaults["betas"] == (0.5, 0.999)


@pytest.mark.parametrize("size", [16, 28, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes(size, channels):
    module = small(InfoGAN, image_shape=(channels, size, size))
    assert module.sample(2).shape == (2, channels, size, size)


def test_bad_arguments_are_named():
    with pytest.raises(MisconfigurationException, match=r"got 30x30: set --data\.image_size"):
        small(InfoGAN, image_shape=(1, 30, 30))
    with pytest.raises(MisconfigurationException, match=r"--model\.categories .* got 1 and 2"):
        small(InfoGAN, categories=1)
