"""DCGAN against its paper: architecture guidelines of section 3, figure 1, initialisation of section 4."""

import pytest
import torch
from conftest import small
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from gans import (
    ACGAN,
    DCGAN,
    LSGAN,
    SAGAN,
    WGAN,
    ConvolutionalCGAN,
    CycleGAN,
    InfoGAN,
    Pix2Pix,
    RealnessGAN,
    StyleDCGAN,
)


def layers(network, *kinds):
    return [layer for layer in network.modules() if isinstance(layer, kinds)]


def test_figure_1():
    """At 64 px: z of 100, then 1024, 512, 256, 128 channels at 4, 8, 16, 32 px, then the picture."""
    module = DCGAN(image_shape=(3, 64, 64))
    sizes = []
    for layer in layers(module.generator, nn.ConvTranspose2d):
        layer.register_forward_hook(lambda *call: sizes.append(tuple(call[2].shape[1:])))
    module.generator(torch.randn(2, 100))
    assert sizes == [(1024, 4, 4), (512, 8, 8), (256, 16, 16), (128, 32, 32), (3, 64, 64)]


def test_parameter_counts_of_the_64_px_example():
    """PyTorch's DCGAN example (ngf = ndf = 64): 3,576,704 in G and 2,765,568 in D, plus our biases at the images."""
    module = DCGAN(image_shape=(3, 64, 64), width=64)
    generator, discriminator = (
        sum(p.numel() for p in n.parameters()) for n in (module.generator, module.discriminator)
    )
    assert generator == 3_576_704 + 3
    assert discriminator == 2_765_568 + 64 + 1


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_power_of_two(size, channels):
    module = DCGAN(image_shape=(channels, size, size), width=2)
    picture = module.generator(torch.randn(2, 100))
    assert picture.shape == (2, channels, size, size)
    assert module.discriminator(picture).shape == (2,)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 8), (3, 512, 512), (3, 32, 64)])
def test_other_sizes_are_refused(shape):
    with pytest.raises(MisconfigurationException, match=rf"{shape[1]}x{shape[2]}.*--data.image_size"):
        DCGAN(image_shape=shape)


def test_architecture_guidelines():
    module = DCGAN(image_shape=(3, 64, 64), width=8)
    g, d = module.generator, module.discriminator
    assert not layers(module, nn.Linear, nn.MaxPool2d, nn.AvgPool2d, nn.Dropout, nn.Upsample, nn.Sigmoid)
    assert all(isinstance(a, nn.ReLU) for a in layers(g, nn.ReLU, nn.LeakyReLU))
    assert all(a.negative_slope == 0.2 for a in layers(d, nn.ReLU, nn.LeakyReLU))
    assert isinstance(list(g)[-1], nn.Tanh)
    # Batch norm after every convolution but G's last and D's first and last.
    assert len(layers(g, nn.BatchNorm2d)) == len(layers(g, nn.ConvTranspose2d)) - 1
    assert len(layers(d, nn.BatchNorm2d)) == len(layers(d, nn.Conv2d)) - 2
    assert not isinstance(list(d)[1], nn.BatchNorm2d)
    assert all(norm.eps == 1e-5 for norm in layers(module, nn.BatchNorm2d))


def test_initialisation():
    module = DCGAN(image_shape=(3, 64, 64), width=32)
    for layer in layers(module, nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d):
        if layer.weight.numel() < 1000:
            continue
        mean = 1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0
        assert layer.weight.mean().item() == pytest.approx(mean, abs=0.003)
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    "cls",
    [DCGAN, WGAN, LSGAN, ACGAN, ConvolutionalCGAN, RealnessGAN, InfoGAN, SAGAN, Pix2Pix, CycleGAN],
    ids=lambda cls: cls.__name__,
)
def test_biases_begin_at_0(cls):
    """Those of convolutions, linear maps and norms, in all papers whose official code begins like this."""
    biases = [p for name, p in small(cls).named_parameters() if name.endswith("bias")]
    assert biases
    assert not any(p.any() for p in biases)


def test_layers_with_an_equalised_rate_begin_in_their_own_way():
    """Their trained weights are N(0, 1 / rate^2), and AdaIN's gains begin at 1."""
    generator = StyleDCGAN(image_shape=(1, 16, 16), width=4).generator
    scaled = [p for name, p in generator.named_parameters() if name.endswith("weight.original")]
    assert scaled
    assert all(p.std().item() > 0.5 for p in scaled)


def test_real_and_generated_images_pass_the_discriminator_apart():
    """Batch norm must see them separately: two passes for D's loss, never one of the joined batch."""
    module = DCGAN(image_shape=(1, 16, 16), width=4)
    batches = []
    module.discriminator.register_forward_hook(lambda *call: batches.append(len(call[1][0])))
    module.discriminator_loss(torch.zeros(6, 1, 16, 16))
    assert batches == [6, 6]


def test_optimizers_are_the_papers():
    for optimizer in DCGAN(image_shape=(1, 16, 16)).configure_optimizers()[0]:
        assert optimizer.defaults["lr"] == 2e-4
        assert optimizer.defaults["betas"] == (0.5, 0.999)


def test_lsgan_has_its_papers_rate():
    for optimizer in small(LSGAN).configure_optimizers()[0]:
        assert optimizer.defaults["lr"] == 1e-3
        assert optimizer.defaults["betas"] == (0.5, 0.999)
