"""StyleDCGAN: DCGAN (arXiv 1511.06434) with the mapping network and the styles of StyleGAN (arXiv 1812.04948)."""

from itertools import pairwise
from typing import Annotated, Any

from torch import Tensor, nn
from torch.nn.functional import relu

from gans import dcgan
from gans.parts.layers import widths_of
from gans.parts.style import AdaIN, StyleGenerator, check_mapping_layers
from gans.stylegan import StyledGAN


class StyledDCGANGenerator(StyleGenerator):
    """Noise (N, latent_dim) to images (N, C, S, S) in [-1, 1]: DCGAN's layers, with AdaIN in the place of batch norm.

    The first layer projects w where DCGAN's projects z, as in the paper before it removes the traditional input
    (table 1, configuration C).
    """

    def __init__(self, channels: int, size: int, latent_dim: int, width: int, mapping_layers: int) -> None:
        widths = widths_of(size, width)[::-1]
        super().__init__(len(widths), latent_dim, mapping_layers)
        self.coarse = min(2, self.layers // 2)
        convolutions = [nn.ConvTranspose2d(latent_dim, widths[0], 4, bias=False)]
        convolutions += [nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in pairwise(widths)]
        self.body = nn.ModuleList(convolutions)
        self.adain = nn.ModuleList(AdaIN(channels, latent_dim) for channels in widths)
        self.end = nn.Sequential(nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1), nn.Tanh())

    def synthesis(self, w: Tensor) -> Tensor:
        w = self.for_every_layer(w)
        x = w[:, 0, :, None, None]
        for i, (conv, adain) in enumerate(zip(self.body, self.adain, strict=True)):
            x = relu(adain(conv(x), w[:, i]))
        return self.end(x)


class StyleDCGAN(StyledGAN, dcgan.DCGAN):
    """DCGAN whose generator has StyleGAN's mapping network and AdaIN; discriminator, loss and optimizers are DCGAN's.

    Args:
        mapping_layers: Layers of the mapping network.
        **kwargs: See DCGAN.

    Raises:
        MisconfigurationException: The mapping network has no layers; see DCGAN for the others.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        mapping_layers: Annotated[int, "[1, 1000]"] = 8,
        **kwargs: Any,
    ) -> None:
        check_mapping_layers(mapping_layers)
        self.mapping_layers = mapping_layers
        super().__init__(image_shape, **kwargs)

    def networks(self, channels: int, size: int, width: int) -> tuple[nn.Module, nn.Module]:
        generator = StyledDCGANGenerator(channels, size, self.latent_dim, width, self.mapping_layers)
        return generator, dcgan.Discriminator(channels, size, width, self.loss.outcomes, self.discriminator_norm())
