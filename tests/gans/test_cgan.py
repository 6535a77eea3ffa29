"""CGAN against its paper, and what all conditional GANs share."""

import pytest
import torch
from conftest import CLASSES, batch, images, small
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from gans import ACGAN, CGAN, SAGAN, ConvolutionalCGAN
from gans.cgan import Maxout

CONDITIONAL = [CGAN, ConvolutionalCGAN, ACGAN, SAGAN]
every = pytest.mark.parametrize("cls", CONDITIONAL, ids=lambda cls: cls.__name__)


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_layers_of_section_4():
    """G: 100 to 200 and 10 to 1000 rectifiers, joined in 1200; D: maxout 240x5, 50x5 and 240x4."""
    module = CGAN(image_shape=(1, 28, 28), num_classes=10)
    assert count(module.generator) == 101 * 200 + 11 * 1000 + 1201 * 1200 + 1201 * 784
    assert count(module.discriminator) == 785 * 240 * 5 + 11 * 50 * 5 + 291 * 240 * 4 + 241
    assert [layer.p for layer in module.discriminator.modules() if isinstance(layer, nn.Dropout)] == [0.5] * 3


def test_maxout_is_the_largest_of_its_pieces():
    layer = Maxout(3, 2, 4).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    weight, bias = layer.linear.weight.view(2, 4, 3), layer.linear.bias.view(2, 4)
    expected = torch.stack([(x @ weight[unit].T + bias[unit]).max(1).values for unit in range(2)], 1)
    torch.testing.assert_close(layer(x), expected)


def test_class_and_image_begin_with_like_shares():
    """Of the variance where they are joined; with PyTorch's weights for a one-hot vector D's class has a twentieth."""
    torch.manual_seed(0)
    module = CGAN(image_shape=(1, 28, 28), num_classes=10).eval()
    for network, others in ((module.discriminator, images(64, (1, 28, 28))), (module.generator, module.noise(64))):
        into = []
        network.joint[0].register_forward_hook(lambda *passed, into=into: into.append(passed[-1]))
        with torch.no_grad():
            for label in range(10):
                network(others, torch.full((64,), label))
        found = torch.stack(into)  # (classes, others, units)
        of_class, of_others = found.var(0).mean(), found.var(1).mean()
        assert 0.2 < of_class / of_others < 2


@every
def test_the_generator_heeds_the_class(cls):
    module = small(cls)
    if cls is SAGAN:  # gains and biases of all classes begin alike
        for name, p in module.generator.named_parameters():
            if "affine" in name:
                nn.init.normal_(p)
    noise = module.noise(4)
    assert not torch.allclose(module.sample_from(noise, 0), module.sample_from(noise, 1))
    label = torch.tensor([0, 1, 0, 1])
    mixed = module.sample_from(noise, label)
    torch.testing.assert_close(mixed[1], module.sample_from(noise, 1)[1], rtol=1e-4, atol=1e-5)


@every
def test_the_discriminator_judges_image_and_class_together(cls):
    """All but ACGAN's, which is never told the class."""
    module = small(cls).eval()
    real, _ = batch(4)
    if cls is ACGAN:
        source, label = module.discriminator(real)
        assert source.shape == (4,)
        assert label.shape == (4, CLASSES)
    else:
        zeros = torch.zeros(4, dtype=torch.long)
        assert not torch.allclose(module.judge(real, zeros).outputs, module.judge(real, zeros + 1).outputs)


@every
def test_classes_to_generate_come_from_the_prior_not_from_the_batch(cls):
    module = small(cls)
    asked = []
    forward = module.generator.forward
    module.generator.forward = lambda noise, label: asked.append(label) or forward(noise, label)
    data = images(64), torch.zeros(64, dtype=torch.long)
    module.discriminator_loss(data)
    module.generator_loss(data)
    assert len(asked) == 2
    assert not torch.equal(*asked)
    for label in asked:
        assert label.unique().tolist() == [0, 1, 2]


@every
def test_a_class_can_be_asked_for(cls):
    module = small(cls, predict_label=2, predict_images=5)
    asked = []
    forward = module.generator.forward
    module.generator.forward = lambda noise, label: asked.append(label) or forward(noise, label)
    for numbers in module.predict_dataloader():
        assert module.predict_step(numbers, 0).shape == (5, 1, 16, 16)
    assert asked[0].tolist() == [2] * 5
    module.predict_label = None
    module.predict_step(torch.arange(4, 8), 0)
    assert asked[1].tolist() == [1, 2, 0, 1]  # every class in turn, by the image's number
    module.generate((images(3), torch.tensor([2, 0, 2])))
    assert asked[2].tolist() == [2, 0, 2]  # the counterpart of a batch has its classes


@every
def test_a_class_that_does_not_exist_is_named(cls):
    with pytest.raises(MisconfigurationException, match=r"--model\.predict_label=3 must be a class from 0 to 2"):
        small(cls, predict_label=3)
    with pytest.raises(ValueError, match="label must be a class from 0 to 2; got 7"):
        small(cls).sample(2, 7)


@pytest.mark.parametrize("cls", [CGAN, ConvolutionalCGAN, ACGAN])
def test_data_without_classes_is_refused(cls):
    with pytest.raises(MisconfigurationException, match=rf"{cls.__name__} needs images of at least two classes"):
        small(cls, num_classes=0)
