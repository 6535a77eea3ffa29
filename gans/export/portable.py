"""What of a model other programs can use: functions of tensors, each described in full."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Shape = tuple[int | str, ...]  # a word names a size that may vary, such as "batch" or, of a result, "4*height"


@dataclass(frozen=True)
class Input:
    """What a network is called with.

    Attributes:
        shape: Its sizes.
        about: What it is, in a few words.
        draw: Gives an example for the sizes that vary, by name.
        values: How examples are distributed.
        names: What its values (of whole numbers) or its columns (of real ones) stand for, where they have names.
    """

    shape: Shape
    about: str
    draw: Callable[[dict[str, int]], Tensor]
    values: Literal["normal", "uniform", "numbers", "one"] = "one"
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Portable:
    """A function of tensors that the model computes, by whatever networks.

    Attributes:
        call: The function, called with the inputs in their order.
        inputs: They, by name.
        output: Name of the result.
        shape: The result's sizes.
        about: What it is.
        margin: Pixels around a part of an image that its result depends on; none where it is the whole image.
    """

    call: Callable[..., Tensor]
    inputs: dict[str, Input]
    output: str
    shape: Shape
    about: str
    margin: int | None = None

    def draw(self, **sizes: int) -> tuple[Tensor, ...]:
        """Examples of all inputs, for the sizes that vary."""
        return tuple(given.draw(sizes) for given in self.inputs.values())

    def described(self) -> dict[str, Any]:
        """All of it but the functions, as plain values."""
        kinds = [str(example.dtype).removeprefix("torch.") for example in self.draw(batch=1, height=64, width=64)]
        inputs = {
            name: {
                "shape": list(given.shape),
                "type": kind,
                "about": " ".join(given.about.split()),  # names of classes are in it, which are names of folders
                "values": given.values,
                "names": list(given.names),
            }
            for (name, given), kind in zip(self.inputs.items(), kinds, strict=True)
        }
        output = {"name": self.output, "shape": list(self.shape), "about": self.about}
        return {"inputs": inputs, "output": output, "margin": self.margin}


def normal(size: int) -> Input:
    """Noise vectors (batch, size), standard normal."""
    return Input(("batch", size), "noise, standard normal", lambda at: torch.randn(at["batch"], size), "normal")


def uniform(size: int, about: str) -> Input:
    """Vectors (batch, size) of numbers in [-1, 1]."""
    return Input(("batch", size), about, lambda at: torch.rand(at["batch"], size) * 2 - 1, "uniform")


def numbered(names: Sequence[str], about: str) -> Input:
    """Whole numbers (batch,) of things that have names."""
    return Input(("batch",), about, lambda at: torch.randint(len(names), (at["batch"],)), "numbers", names)


def pictures(channels: int, about: str) -> Input:
    """Images (batch, channels, height, width) in [-1, 1]."""
    return Input(
        ("batch", channels, "height", "width"),
        about,
        lambda at: torch.rand(at["batch"], channels, at["height"], at["width"]) * 2 - 1,
        "uniform",
    )
