"""How weights begin, and are kept: DCGAN's initialisation and spectral normalisation."""

from typing import Any

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


def normalise_spectrally(network: nn.Module, kinds: Any) -> None:
    """Divide the weights of all layers of some kinds by their spectral norms (Miyato et al. 1802.05957, equation 8).

    Layers that start at 0 are left, for there is nothing to divide by.
    """
    for layer in list(network.modules()):
        if isinstance(layer, kinds) and layer.weight.any():
            parametrizations.spectral_norm(layer)
