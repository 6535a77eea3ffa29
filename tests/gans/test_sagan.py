"""SAGAN against its paper and official code."""

import pytest
import torch
from conftest import CLASSES, batch, images, small
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.utils import parametrize

from gans import SAGAN
from gans.parts.losses import Hinge
from gans.sagan import ConditionalNorm, GeneratorBlock, SelfAttention


def test_attention_is_section_3_written_out():
    """Queries at all positions, keys and values at those left by 2x2 max pooling; softmax over the keys."""
    layer = SelfAttention(16).double()
    nn.init.constant_(layer.gamma, 0.7)
    x = torch.randn(2, 16, 4, 6, dtype=torch.float64)
    query, key, value, output = (
        conv.weight[:, :, 0, 0] for conv in (layer.query, layer.key, layer.value, layer.output)
    )
    assert query.shape == key.shape == (2, 16)
    assert value.shape == (8, 16)
    expected = x.clone()
    for n in range(2):
        pooled = []
        for weight in (key, value):
            maps = torch.einsum("oc,chw->ohw", weight, x[n])
            pooled.append(
                torch.stack([maps[:, i : i + 2, j : j + 2].amax((1, 2)) for i in (0, 2) for j in (0, 2, 4)], 1)
            )
        for i in range(4):
            for j in range(6):
                weights = (query @ x[n, :, i, j] @ pooled[0]).softmax(0)
                expected[n, :, i, j] += 0.7 * (output @ (pooled[1] @ weights))
    torch.testing.assert_close(layer(x), expected)


def test_attention_begins_as_the_identity():
    layer = SelfAttention(8)
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize(("size", "expected"), [(64, 32), (32, 16)])
def test_attention_works_at_32_px(size, expected):
    """Or at half the size of smaller images (table 1: 32x32 is best)."""
    module = small(SAGAN, image_shape=(3, size, size))
    seen = []
    for network in (module.generator, module.discriminator):
        network.attention.register_forward_hook(lambda *call: seen.append(call[2].shape[-1]))
    module.discriminator_loss(batch(2, (3, size, size)))
    assert seen == [expected] * 3


def test_every_convolution_and_linear_map_is_spectrally_normalised_in_both():
    module = small(SAGAN)
    for network in (module.generator, module.discriminator):
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                assert parametrize.is_parametrized(layer, "weight")
    assert parametrize.is_parametrized(module.discriminator.embedding, "weight")
    layer = module.discriminator.blocks[0].conv2
    for _ in range(200):  # power iterations
        weight = layer.weight
    assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)


def test_weights_begin_as_xaviers():
    """The class embedding's too: as N(0, 1) it would move more slowly than all others under Adam."""
    module = SAGAN(image_shape=(1, 16, 16), num_classes=10)
    seen = 0
    for layer in module.modules():
        if parametrize.is_parametrized(layer, "weight"):
            weight = layer.parametrizations.weight.original
            if weight.numel() > 1000:
                receptive = weight[0, 0].numel()
                expected = (2 / (weight.shape[0] + weight.shape[1]) / receptive) ** 0.5
                assert weight.std().item() == pytest.approx(expected, rel=0.1)
                seen += isinstance(layer, nn.Embedding)
    assert seen == 1


def test_spectral_norms_are_estimated_on_the_real_pass_only():
    """The official code passes "NO_OPS" for generated images."""
    module = small(SAGAN)
    estimates = []
    for layer in module.discriminator.modules():
        if parametrize.is_parametrized(layer, "weight"):
            layer.parametrizations.weight[0].register_forward_hook(lambda norm, *_: estimates.append(norm))
    module.discriminator_loss(batch(4))
    assert len(estimates) == len(set(estimates)) == 14
    module.generator_loss(batch(4))  # for its own generated images, from D's new weights
    assert len(estimates) == 28


def test_a_generators_block_doubles_the_size_before_its_convolutions():
    """Also before that of the skip, which is the same as after it."""
    block = GeneratorBlock(4, 6, 0).double()
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    twice = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    y = block.norm1(x).relu().repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = block.conv2(block.norm2(block.conv1(y)).relu()) + block.skip(twice)
    torch.testing.assert_close(block(x), expected)


def test_classes_leave_features_in_half_precision():
    x = torch.randn(6, 2, 4, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert ConditionalNorm(2, 3)(x, torch.arange(6) % 3).dtype == torch.bfloat16


def test_class_conditional_batch_norm():
    """Normalised over the batch, then the gain and bias of each image's class."""
    layer = ConditionalNorm(2, 3).double()
    assert torch.equal(layer.affine.weight[0], torch.tensor([1.0, 1, 0, 0], dtype=torch.float64))
    nn.init.normal_(layer.affine.weight)
    x, label = torch.randn(6, 2, 4, 4, dtype=torch.float64), torch.arange(6) % 3
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    gain, bias = layer.affine.weight[label].view(6, 2, 2, 1, 1).unbind(1)
    torch.testing.assert_close(layer(x, label), gain * (x - mean) / (variance + 1e-5).sqrt() + bias)


def test_projection_adds_the_inner_product_of_the_class_and_the_summed_features():
    """Miyato and Koyama 1802.05637, equation 3."""
    discriminator = small(SAGAN).discriminator.eval()
    x, label = batch(4)
    features = []
    discriminator.end.register_forward_hook(lambda *call: features.append(call[1][0]))
    scores = discriminator(x, label)
    expected = features[0] @ discriminator.end.weight.T + discriminator.end.bias
    expected = expected[:, 0] + (discriminator.embedding.weight[label] * features[0]).sum(1)
    torch.testing.assert_close(scores, expected)


def test_hinge_loss_is_the_default():
    """Equation 4; the formula itself is tested with the other losses."""
    assert isinstance(SAGAN(image_shape=(1, 16, 16), width=2).loss, Hinge)


def test_two_time_scales_one_update_each():
    module = small(SAGAN)
    discriminator, generator = module.configure_optimizers()[0]
    assert (discriminator.defaults["lr"], generator.defaults["lr"]) == (4e-4, 1e-4)
    assert discriminator.defaults["betas"] == generator.defaults["betas"] == (0.0, 0.9)
    assert module.n_critic == 1


def test_without_classes_nothing_is_conditional():
    module = small(SAGAN, num_classes=0)
    assert module.discriminator.embedding is None
    assert not [layer for layer in module.modules() if isinstance(layer, nn.Embedding)]
    module.discriminator_loss(images(4))
    assert module.sample(3).shape == (3, 1, 16, 16)
    assert small(SAGAN).num_classes == CLASSES


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes(size, channels):
    module = small(SAGAN, image_shape=(channels, size, size), width=2)
    picture = module.generator(module.noise(2), torch.tensor([0, 1]))
    assert picture.shape == (2, channels, size, size)
    assert module.discriminator(picture, torch.tensor([0, 1])).shape == (2,)


def test_other_sizes_are_refused():
    with pytest.raises(MisconfigurationException, match=r"28x28: set --data\.image_size"):
        small(SAGAN, image_shape=(1, 28, 28))
