"""What makes networks fast: the memory order of their weights, and torch.compile."""

import os
import shutil
from collections.abc import Iterable

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn


def single(networks: nn.Module) -> list[nn.Module]:
    """The networks that are called one by one."""
    if isinstance(networks, nn.ModuleDict | nn.ModuleList):
        return list(networks.children())
    return [networks]


def takes_any_order(layer: nn.Module) -> bool:
    """Whether a layer works in any memory order: PyTorch's and this lab's do, but for those that call ``.view``."""
    classes = type(layer).__mro__[: type(layer).__mro__.index(nn.Module)]
    if not all(cls.__module__.partition(".")[0] in ("torch", "gans") for cls in classes):
        return False
    code = getattr(type(layer).forward, "__code__", None)
    return classes[0].__module__.startswith("torch") or "view" not in getattr(code, "co_names", ())


def any_order(networks: Iterable[nn.Module]) -> bool:
    """Whether networks work in any memory order."""
    return all(takes_any_order(layer) for network in networks for layer in network.modules())


def compile_networks(networks: Iterable[nn.Module], device: torch.device) -> None:
    """Let torch.compile take each network whole; names and values of weights stay as they are.

    Each is compiled for fixed shapes in the ways that training calls it, with and without gradients, and not again.

    Raises:
        MisconfigurationException: There is no compiler.
    """
    compilers = os.environ.get("CXX", "c++"), "g++", "clang++", "cl"
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise MisconfigurationException(
            "--model.compile=true needs a C++ compiler on the CPU: install one, such as g++, or leave it out"
        )
    for network in networks:
        # Inductor cannot train with spectral norm of weights that have so few columns, such as 1x1 convolutions of
        # images: what it keeps for the backward pass is changed by the next forward pass (torch 2.15).
        vectors = [b for name, b in network.named_buffers() if name.endswith("parametrizations.weight.0._v")]
        if all(v.numel() >= 8 for v in vectors):
            network.compile(dynamic=False)
