"""The folder that an export writes: networks as ONNX files, the generator's weights, and what they are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from gans.export import graph
from gans.training.checkpoints import WEIGHTS


def write(model: Any, folder: Path) -> Iterator[tuple[str, float | None]]:
    """Write a model's files into a folder, and check each.

    Args:
        model: A GAN, loaded to sample.
        folder: Where to; it is made if need be, and its files of the same names are replaced.

    Yields:
        The name of a file that is written, and by how much it differs from PyTorch at most, if it is a network.

    Raises:
        MisconfigurationException: A package is missing, a network cannot be exported or gives other images, or the
            folder cannot be written to.
    """
    graph.needed()
    from safetensors.torch import save

    functions = model.portable()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, portable in functions.items():
            path, partial = folder / f"{name}.onnx", folder / f".{name}.partial.onnx"
            try:
                graph.write(model, portable, partial)
                error = graph.largest_error(portable, partial)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
            yield path.name, error
        with model.sampling() as generator:
            weights: dict[str, Tensor] = {k: w.contiguous().clone() for k, w in generator.state_dict().items()}
        partial = folder / f".{WEIGHTS}.partial"
        try:
            partial.write_bytes(save(weights, model.metadata()))  # its save_file lets nobody else read it
            partial.replace(folder / WEIGHTS)
        finally:
            partial.unlink(missing_ok=True)
        yield WEIGHTS, None
    except OSError as error:
        raise MisconfigurationException(
            f"{folder} cannot be written to ({error.strerror or error}): give another --export_dir"
        ) from error
