"""Networks that several papers share, against the papers' descriptions."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d, pad, pixel_shuffle

from gans import CUT, SRGAN, CycleGAN, Pix2Pix, StarGAN
from gans.parts.layers import Halve, PatchGAN, ResidualGenerator, SmoothShuffle, UNet


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("halvings", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_patch_is_as_large_as_the_paper_says(halvings, patch):
    """1611.07004, section 6.1.2: the pixels that one output depends on."""
    discriminator = PatchGAN(1, 2, nn.Identity, halvings)
    image = torch.randn(1, 1, 128, 128, requires_grad=True)
    scores = discriminator(image)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    rows, columns = image.grad[0, 0].nonzero(as_tuple=True)
    assert rows.max() - rows.min() + 1 == patch
    assert columns.max() - columns.min() + 1 == patch


def test_a_patch_discriminator_of_256_pixels_gives_30x30_logits():
    assert PatchGAN(6, 4)(torch.randn(1, 6, 256, 256)).shape == (1, 1, 30, 30)


def test_parameters_are_as_many_as_in_the_official_code():
    """Less the biases before a norm, which have no effect, and what is named here."""
    pix2pix = Pix2Pix(image_shape=(3, 256, 256))
    assert count(pix2pix.generator) == 54_413_955 + 64 + 512  # the encoder's first and last layers have biases here
    assert count(pix2pix.discriminator) == 2_768_705
    cyclegan = CycleGAN(image_shape=(3, 256, 256))
    norms = 64 + 128 + 256 + 9 * 2 * 256 + 128 + 64
    assert count(cyclegan.generator["a_to_b"]) == 11_378_179 - norms
    assert count(cyclegan.discriminator["b"]) == 2_764_737 - (128 + 256 + 512)
    cut = CUT(image_shape=(3, 256, 256))
    assert count(cut.generator) == 11_378_179 - norms
    assert count(cut.heads) == 560_384
    stargan = StarGAN(image_shape=(3, 128, 128), domains=list("abcde"), attributes=True)
    assert count(stargan.generator) == 8_430_528 + 3  # the last layer has a bias here
    # SRResNet by hand (figure 4): two 9x9 ends, 16 blocks with two convolutions, one more, two that double
    width, prelu, norm = 64, 1, 2 * 64
    block = 2 * (width * width * 9 + norm) + prelu
    body = 16 * block + width * width * 9 + norm
    doubling = width * 4 * width * 9 + 4 * width + prelu
    ends = 3 * width * 81 + width + prelu + width * 3 * 81 + 3
    assert count(SRGAN(image_shape=(3, 96, 96)).generator) == body + 2 * doubling + ends


def test_blurs_that_halve_and_double_are_the_official_codes():
    """[1, 2, 1] with reflected borders, and [1, 3, 3, 1] with repeated ones, both ways."""
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    three, four = torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 3, 3, 1])
    halving = (three.outer(three) / 16).double().repeat(3, 1, 1, 1)
    expected = conv2d(pad(x, (1, 1, 1, 1), mode="reflect"), halving, stride=2, groups=3)
    torch.testing.assert_close(Halve()(x), expected)
    doubling = (four.outer(four) / 16).double().repeat(3, 1, 1, 1)
    expected = conv_transpose2d(pad(x, (1, 1, 1, 1), mode="replicate"), doubling, stride=2, padding=3, groups=3)
    blurred = ResidualGenerator(1, 1, 2, 1, blurred=True)
    (up, _) = [layer for layer in blurred if isinstance(layer, nn.Upsample)]
    torch.testing.assert_close(up(x), expected)
    assert blurred(torch.randn(1, 1, 16, 24)).shape == (1, 1, 16, 24)
    assert sum(isinstance(layer, Halve) for layer in blurred) == 2


def test_cyclegan_takes_six_blocks_below_256_pixels():
    blocks = [
        sum(type(layer).__name__ == "ResidualBlock" for layer in CycleGAN(image_shape=(3, s, s)).generator["a_to_b"])
        for s in (128, 256)
    ]
    assert blocks == [6, 9]


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_a_u_net_goes_down_to_one_pixel_and_back(size):
    network = UNet(3, size, 4)
    sizes = []
    for layer in network.encoder:
        layer.register_forward_hook(lambda _, __, output: sizes.append(output.shape[-1]))
    assert network(torch.randn(1, 3, size, size)).shape == (1, 3, size, size)
    assert sizes == [size // 2**i for i in range(1, size.bit_length())]
    assert sizes[-1] == 1


def test_skips_carry_what_the_bottleneck_cannot():
    """With the bottleneck cut, pixels still reach the output, and near it."""
    network = UNet(1, 32, 4)
    nn.init.zeros_(network.encoder[-1][1].weight)
    image = torch.randn(1, 1, 32, 32, requires_grad=True)
    network(image)[0, 0, 8, 8].backward()
    assert image.grad[0, 0, 6:11, 6:11].abs().sum() > 0


def test_dropout_in_the_first_three_decoder_layers_is_alive_in_eval_mode():
    network = UNet(1, 64, 4).eval()
    assert ["Dropout" in str(layer) for layer in network.decoder] == [True, True, True, False, False, False]
    image = torch.randn(1, 1, 64, 64)
    assert not torch.equal(network(image), network(image))


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
@pytest.mark.parametrize("sampling", [3, 4])
def test_a_residual_generator_keeps_the_size(padding_mode, sampling):
    network = ResidualGenerator(2, 3, 4, 2, nn.InstanceNorm2d, padding_mode, sampling)
    output = network(torch.randn(1, 2, 24, 36))
    assert output.shape == (1, 3, 24, 36)
    assert output.abs().max() <= 1


def test_a_smooth_shuffle_is_the_mean_over_two_by_two_places():
    """At the border of those that there are, as if the image went on as it ends."""
    features = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    shuffled = pad(pixel_shuffle(features, 2), (1, 0, 1, 0), mode="replicate")
    means = (shuffled[..., 1:, :] + shuffled[..., :-1, :]) / 2
    torch.testing.assert_close(SmoothShuffle()(features), (means[..., 1:] + means[..., :-1]) / 2)
