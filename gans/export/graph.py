"""ONNX files: written by PyTorch's exporter, and compared with PyTorch in ONNX Runtime."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from gans.export.portable import Portable

TOLERANCE = 1e-3  # of values in [-1, 1]: an eighth of one of 255 grey levels
SIZES = ({"batch": 1, "height": 64, "width": 64}, {"batch": 3, "height": 45, "width": 70})
"""What is tried: other sizes than the file is traced with, and one that has to be padded."""
OPSET = 18


class _Traced(nn.Module):
    """A function of a model as a module, so that the exporter finds the weights in it."""

    def __init__(self, model: nn.Module, portable: Portable) -> None:
        super().__init__()
        self.model = model
        self.call = portable.call

    def forward(self, *given: Tensor) -> Tensor:
        return self.call(*given)


def needed() -> None:
    """Raise MisconfigurationException if a package is missing that writes these files."""
    for package in ("onnx", "onnxscript", "onnxruntime", "safetensors"):
        try:
            __import__(package)
        except ImportError as error:
            raise MisconfigurationException(
                f"an export needs the package {package}: pip install -e '.[export]' installs it"
            ) from error


def write(model: nn.Module, portable: Portable, path: Path) -> None:
    """Write a function of a model as an ONNX file, whose sizes vary where they are described so.

    Args:
        model: The model, whose weights go into the file as far as they are used.
        portable: Its function.
        path: The file.

    Raises:
        MisconfigurationException: A layer of it cannot be exported.
    """
    example = portable.draw(batch=2, height=70, width=90)
    dynamic = tuple(
        {place: torch.export.Dim.DYNAMIC for place, size in enumerate(given.shape) if isinstance(size, str)} or None
        for given in portable.inputs.values()
    )
    try:
        with _quiet(), torch.no_grad():  # traced with gradients, all that switches them off is a graph of its own
            traced = torch.export.export(_Traced(model, portable), example, dynamic_shapes=(dynamic,), strict=False)
            program = torch.onnx.export(
                traced,
                input_names=list(portable.inputs),
                output_names=[portable.output],
                opset_version=OPSET,
                verbose=False,
            )
        assert program is not None
        _name_axes(program.model.graph.inputs, [given.shape for given in portable.inputs.values()])
        _name_axes(program.model.graph.outputs, [portable.shape])
        program.save(path)
    except Exception as error:  # whatever a layer of somebody's own leads to in two exporters
        raise MisconfigurationException(
            f"{type(model).__name__} cannot be exported to ONNX ({_reason(error)}): its generator must be made of what "
            "torch.onnx knows, as those of all GANs of the lab are, and take its sizes from tensors' shapes"
        ) from error


class Session:
    """An ONNX file in ONNX Runtime, on the processor."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(self, given: dict[str, Tensor]) -> Tensor:
        (result,) = self.session.run(None, {name: value.numpy() for name, value in given.items()})
        return torch.from_numpy(result)


def largest_error(portable: Portable, path: Path) -> float:
    """The largest difference between PyTorch and ONNX Runtime on random inputs of several sizes.

    Raises:
        MisconfigurationException: It is above the tolerance, or not a number.
    """
    session, largest = Session(path), 0.0
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        for sizes in SIZES:
            given = portable.draw(**sizes)
            expected = portable.call(*given)
            found = session.run(dict(zip(portable.inputs, given, strict=True)))
            error = (expected - found).abs().max().item() if expected.shape == found.shape else float("inf")
            if not error <= TOLERANCE:
                raise MisconfigurationException(
                    f"{path.name} gives other images in ONNX Runtime than in PyTorch (by up to {error:.2g} for "
                    f"{sizes}, where {TOLERANCE:g} is allowed): it was not kept"
                )
            largest = max(largest, error)
    return largest


def _name_axes(values: Any, shapes: list[Any]) -> None:
    import onnx_ir

    for value, shape in zip(values, shapes, strict=True):
        value.shape = onnx_ir.Shape(shape)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of its own passes."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """The first line of the innermost error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:150]
