"""ACGAN against its paper."""

import pytest
import torch
from conftest import CLASSES, batch, small
from torch import nn

from gans import ACGAN
from gans.training.update import frozen


@pytest.fixture
def module():
    """Without dropout and batch norm's noise, so that the formula can be evaluated by hand."""
    return small(ACGAN, dropout=0.0).double()


def log_likelihood(logits, label):
    return logits.softmax(1).gather(1, label[:, None]).log().mean()


def test_the_discriminator_maximises_source_and_class_on_real_and_generated_images(module):
    """L_S + L_C of section 3, equations 2 and 3."""
    real, label = batch(8)
    torch.manual_seed(1)
    loss, _ = module.discriminator_loss((real.double(), label))
    torch.manual_seed(1)
    asked = torch.randint(CLASSES, (8,))
    with torch.no_grad():
        fake = module.generator(torch.randn(8, 8, dtype=torch.float64), asked)
    (real_source, real_class), (fake_source, fake_class) = (
        module.discriminator(real.double()),
        module.discriminator(fake),
    )
    source = real_source.sigmoid().log().mean() + (1 - fake_source.sigmoid()).log().mean()
    classes = log_likelihood(real_class, label) + log_likelihood(fake_class, asked)
    torch.testing.assert_close(loss, -(source + classes))


@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_the_generator_maximises_the_class_it_was_asked_for(weight):
    module = small(ACGAN, dropout=0.0, class_weight=weight).double()
    real, label = batch(8)
    torch.manual_seed(1)
    loss, _ = module.generator_loss((real.double(), label))
    torch.manual_seed(1)
    asked = torch.randint(CLASSES, (8,))
    source, classes = module.discriminator(module.generator(torch.randn(8, 8, dtype=torch.float64), asked))
    torch.testing.assert_close(loss, -source.sigmoid().log().mean() - weight * log_likelihood(classes, asked))


def test_both_questions_train_the_generator(module):
    real, label = batch(8)
    with frozen(module.discriminator):
        loss, logs = module.generator_loss((real.double(), label))
        for name in ("loss/generator", "loss/generator_class"):
            gradients = torch.autograd.grad(logs[name], list(module.generator.parameters()), retain_graph=True)
            assert all(g.abs().sum() > 0 for g in gradients)
    assert loss.requires_grad


def test_accuracies_are_logged(module):
    """Of an ideal classifier: 1 on real images."""
    real, label = batch(6)
    discriminator = module.discriminator

    class Knows(nn.Module):
        def forward(self, images):
            source, classes = discriminator(images)
            if torch.equal(images, real.double()):
                classes = 50 * nn.functional.one_hot(label, CLASSES).double()
            return source, classes

    module.discriminator = Knows()
    _, logs = module.discriminator_loss((real.double(), label))
    assert logs["accuracy/real"] == 1
    assert 0 <= logs["accuracy/fake"] <= 1


def test_dropout_follows_every_activation_of_the_discriminator():
    """Appendix A: half of the features are dropped after each layer."""
    body = list(small(ACGAN).discriminator.body)
    activations = [i for i, layer in enumerate(body) if isinstance(layer, nn.LeakyReLU)]
    assert activations
    assert all(isinstance(body[i + 1], nn.Dropout) and body[i + 1].p == 0.5 for i in activations)
