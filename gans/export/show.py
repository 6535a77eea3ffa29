"""What is said of a model to those who use it, and what a page needs to show it."""

import pkgutil
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

import gans
from gans.export import graph
from gans.export.directions import directions
from gans.parts.style import StyleGenerator
from gans.training.checkpoints import name_of
from gans.training.noise import Sampler


def load(path: Path, cls: str | None) -> Any:
    """The model of a checkpoint, to sample: of the lab's, or of a class of one's own by its path.

    Raises:
        MisconfigurationException: See ``gans.load_to_sample``; or there is no such class, or no package to export with.
    """
    graph.needed()
    if cls is None:
        try:
            return gans.load_to_sample(path)
        except MisconfigurationException as error:
            told, ours, _ = str(error).partition("which is none of the lab's models")
            if not ours:
                raise
            raise MisconfigurationException(f"{told}{ours}: name its class, as --model=my_file.Mine") from error
    try:
        found = getattr(gans, cls, None) or pkgutil.resolve_name(cls)
        return found.load_to_sample(path)
    except (ImportError, ValueError, AttributeError) as error:
        raise MisconfigurationException(
            f"--model={cls} names no GAN: give the path of its class, such as my_file.Mine ({error})"
        ) from error


def paper_of(cls: type) -> tuple[str, str]:
    """Title and address of the paper, by the first line of the file that a class is in; empty where it names none."""
    for base in cls.__mro__:
        if not base.__module__.startswith("gans."):
            continue
        line = (sys.modules[base.__module__].__doc__ or "").partition("\n")[0]
        if found := re.search(r"\b(\d{4}\.\d{4,5})\b", line):
            title = re.match(r"[^:]*:\s*(.*?)\s*\(", line)
            return title[1] if title else base.__name__, f"https://arxiv.org/abs/{found[1]}"
        if base is cls and base.__module__.count(".") == 1:  # a paper's own file, of no paper on arXiv
            return line.rstrip("."), ""
    return "", ""


def described(model: Any) -> dict[str, Any]:
    """A model as plain values: what it is, and what its networks are called with."""
    title, address = paper_of(type(model))
    return {
        "gan": type(model).__name__,
        "class": name_of(type(model)),
        "paper": address,
        "paper_title": title,
        "image_shape": list(model.image_shape),
        "step": model.trained_steps,
        "images_seen": model.images_seen,
        "averaged": model.averaged_generator is not None,
        "networks": {name: portable.described() for name, portable in model.portable().items()},
    }


def shown(model: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The same with what a page needs besides, and the networks as ONNX files by their names.

    Where styles can be had, "mapping" and "synthesis" stand for the whole generator.

    Args:
        model: A GAN, loaded to sample.

    Raises:
        MisconfigurationException: See ``graph.write`` and ``graph.largest_error``.
    """
    graph.needed()
    values, functions = described(model), model.portable()
    if "synthesis" in functions:
        del functions["generator"], values["networks"]["generator"]
    if isinstance(model, Sampler):
        values["directions"] = directions(model).tolist()
    if isinstance(model.generator, StyleGenerator):
        values |= {"coarse": model.generator.coarse, "truncation": model.generator.truncation}
    files = {}
    with TemporaryDirectory() as folder:
        for name, portable in functions.items():
            path = Path(folder) / f"{name}.onnx"
            graph.write(model, portable, path)
            graph.largest_error(portable, path)
            files[name] = path.read_bytes()
    return values, files
