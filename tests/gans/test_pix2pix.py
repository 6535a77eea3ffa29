"""pix2pix against its equations."""

import pytest
import torch
from conftest import images, small_translator, translator_batch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from gans import Pix2Pix
from gans.parts.penalties import R1


def test_losses_are_the_papers():
    """Equations 1 to 4 in float64, with sigmoids spelled out."""
    module = small_translator(Pix2Pix).double()
    source, target = (part.double() for part in translator_batch(module, 3))
    fake = module.generator(source)
    module._made = [(batch := (source, target), fake)]  # dropout would make another one
    d_loss, _ = module.discriminator_loss(batch)
    g_loss, logs = module.generator_loss(batch)

    def probability(image):
        return torch.sigmoid(module.discriminator(torch.cat([source, image], 1)))

    real, generated = probability(target), probability(fake)
    torch.testing.assert_close(d_loss, -(real.log() + (1 - generated).log()).mean() / 2)
    l1 = (fake - target).abs().mean()
    torch.testing.assert_close(logs["loss/l1"], l1)
    torch.testing.assert_close(g_loss, -generated.log().mean() + 100 * l1)


def test_the_discriminator_sees_the_input_too():
    module = small_translator(Pix2Pix)
    source, target = translator_batch(module, 2)
    assert not torch.equal(module.judge(target, source).outputs, module.judge(target, -source).outputs)


def test_norms_go_by_one_image():
    """As batch norm does with a batch of one, in training and afterwards."""
    module = small_translator(Pix2Pix, width=8)
    a, b = images(1, (1, 32, 32), 1), images(1, (1, 32, 32), 2)
    for network, inputs in ((module.discriminator, (torch.cat([a, a], 1), torch.cat([b, b], 1))),):
        both = network(torch.cat(inputs))
        torch.testing.assert_close(both[:1], network(inputs[0]), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(network.eval()(inputs[0]), both[:1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 48, 48), (3, 64, 32)])
def test_sizes_that_cannot_be_halved_to_one_are_named(shape):
    with pytest.raises(MisconfigurationException, match=f"{shape[1]}x{shape[2]}.*--data.image_size"):
        Pix2Pix(image_shape=shape)


def test_patches_of_another_kind_are_named():
    with pytest.raises(MisconfigurationException, match=r"--model\.patch_halvings must be 1, 2 or 3; got 4"):
        small_translator(Pix2Pix, patch_halvings=4)


def test_a_penalty_counts_whole_beside_half_of_the_loss():
    module = small_translator(Pix2Pix, penalty=R1(4.0)).double()
    loss, logs = module.discriminator_loss(tuple(part.double() for part in translator_batch(module, 3)))
    torch.testing.assert_close(loss, logs["loss/discriminator"] + logs["loss/penalty"])
