"""How weights begin, and are kept: DCGAN's initialisation, that of sub-pixel convolutions, spectral normalisation."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize


def initialise(module: nn.Module) -> None:
    """DCGAN's initialisation (section 4, official code): weights N(0, 0.02), batch norm gains N(1, 0.02), biases 0.

    The official codes of InfoGAN, pix2pix and CycleGAN begin like this, too.
    """
    if parametrize.is_parametrized(module):
        return  # such as layers with an equalised learning rate, which begin otherwise
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def initialise_sub_pixel(layer: nn.Conv2d, factor: int = 2) -> nn.Conv2d:
    """Let all pixels that PixelShuffle makes of one begin alike (ICNR; Aitken et al. 1707.02937, section 3.2).

    Otherwise an untrained network writes a regular pattern into flat images, and training has to unlearn it.
    """
    with torch.no_grad():
        for values in (layer.weight, layer.bias):
            if values is not None:
                values.copy_(values[:: factor**2].repeat_interleave(factor**2, 0))
    return layer


def normalise_spectrally(network: nn.Module, kinds: Any) -> None:
    """Divide the weights of all layers of some kinds by their spectral norms (Miyato et al. 1802.05957, equation 8).

    Layers that start at 0 are left, for there is nothing to divide by.
    """
    for layer in list(network.modules()):
        if isinstance(layer, kinds) and layer.weight.any():
            parametrizations.spectral_norm(layer)
