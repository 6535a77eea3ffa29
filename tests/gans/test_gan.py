"""The original GAN's networks."""

from torch import nn

from gans import GAN


def test_networks_are_perceptrons_of_the_documented_sizes():
    module = GAN(image_shape=(1, 28, 28), latent_dim=100, hidden=512)
    count = [sum(p.numel() for p in net.parameters()) for net in (module.generator, module.discriminator)]
    pixels = 28 * 28
    assert count[0] == (100 + 1) * 512 + (512 + 1) * 512 + (512 + 1) * pixels
    assert count[1] == (pixels + 1) * 512 + (512 + 1) * 512 + (512 + 1)
    kinds = {type(layer) for net in (module.generator, module.discriminator) for layer in net.modules()}
    assert not kinds & {nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d}
    assert nn.Sigmoid not in kinds  # losses take raw outputs
