"""Checkpoint files: read them, say what is in them, and build the model that they hold.

A file may come from anywhere, so nothing that it names is imported or called: classes are looked up among the lab's.
"""

import inspect
import json
import re
import types
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import gans  # only in part imported by now, so its modules are looked into when they are needed

WEIGHTS = "generator.safetensors"
"""What an export calls the file of the generator's weights."""
FACTORIES = "_optimizer", "_scheduler"
"""Ends of the constructor arguments that make something else, whose settings are kept with the state of training."""


def read(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint, plain values and tensors; where possible, tensors stay in the file until needed.

    Args:
        path: A file written by the trainer.
        map_location: Device for the tensors.

    Raises:
        MisconfigurationException: The file is missing, damaged, or no checkpoint of one of the lab's models.
    """
    path = Path(path)
    if path.is_dir():
        raise MisconfigurationException(
            f"{path} is a folder: give a checkpoint in it, as checkpoints/last.ckpt in a run's"
        )
    if not path.is_file():
        raise MisconfigurationException(f"{path} does not exist: give a checkpoint that training has written")
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # whatever a file that is cut or holds something else leads to
        raise MisconfigurationException(
            f"{path} is no checkpoint, or only a part of one: give a checkpoint that training has written"
        ) from error
    kinds = {"gan": dict, "state_dict": dict, "hyper_parameters": dict, "global_step": int, "callbacks": dict}
    if isinstance(checkpoint, dict):
        for key in ("hyper_parameters", "callbacks"):
            checkpoint.setdefault(key, {})
    if (
        not isinstance(checkpoint, dict)
        or not all(isinstance(checkpoint.get(key), kind) for key, kind in kinds.items())
        or not re.fullmatch(r"[\w.<>]*", str(checkpoint["gan"].get("class")))
        or not re.match(r"([2-9]|\d\d+)\.\d+", str(checkpoint.get("pytorch-lightning_version")))
        or not all(isinstance(key, str) and isinstance(w, torch.Tensor) for key, w in checkpoint["state_dict"].items())
        or not all(isinstance(state, dict) for state in checkpoint["callbacks"].values())
    ):
        raise MisconfigurationException(
            f"{path} holds something else than a model of this lab: give a checkpoint that training has written"
        )
    return checkpoint


def settings(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The model of a checkpoint as configuration files give it: {"class_path": "gans.DCGAN", "init_args": {...}}.

    The arguments are the plain ones that were given, and losses and penalties of the lab, but no optimizers.

    Args:
        checkpoint: What ``read`` gives.

    Raises:
        MisconfigurationException: The model is of none of the lab's classes, or a setting is of another type than it.
    """
    cls = _class_of(checkpoint)
    accepted = _arguments(cls)
    parts = {
        name: part
        for name, part in parts_of(checkpoint).items()
        if name in accepted and rebuilt(name, part) is not None
    }
    return {"class_path": f"gans.{cls.__name__}", "init_args": plain_arguments(cls, checkpoint) | parts}


def load_to_sample(path: str | Path, **kwargs: Any) -> LightningModule:
    """The model in a checkpoint, whichever of the lab's classes it is of: see the class's ``load_to_sample``.

    Raises:
        MisconfigurationException: See there, and ``settings``.
    """
    return _class_of(read(path)).load_to_sample(path, **kwargs)


def load_to_train(path: str | Path, **kwargs: Any) -> LightningModule:
    """The model in a checkpoint, whichever of the lab's classes it is of: see the class's ``load_to_train``.

    Raises:
        MisconfigurationException: See there, and ``settings``.
    """
    return _class_of(read(path)).load_to_train(path, **kwargs)


def from_export(folder: str | Path) -> LightningModule:
    """The model of an exported folder, whichever of the lab's classes it is of: see the class's ``from_export``.

    Raises:
        MisconfigurationException: See there.
    """
    found = read_export(folder)[0]
    if not any(is_named(getattr(gans, name), found["gan"]["class"]) for name in gans.__all__):
        raise MisconfigurationException(
            f"{folder} holds a {found['gan']['class']}, which is none of the lab's models: call from_export of its own "
            "class"
        )
    return _class_of(found).from_export(folder)


def read_export(folder: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What an exported folder says of its model, as ``read`` gives it of a checkpoint, and the generator's weights.

    Raises:
        MisconfigurationException: There is no such file, it is damaged or another program's, or safetensors is missing.
    """
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise MisconfigurationException(
            "an export is read with the package safetensors: pip install -e '.[export]' installs it"
        ) from error
    path = Path(folder) / WEIGHTS if Path(folder).is_dir() else Path(folder)
    if not path.is_file():
        raise MisconfigurationException(f"{path} does not exist: give a folder that an export has written")
    try:
        with safe_open(path, "pt") as file:
            given = json.loads((file.metadata() or {})["gan"])
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        kinds = {"class": str, "settings": dict, "parts": dict, "step": int, "images_seen": int}
        if not all(type(given[key]) is kind for key, kind in kinds.items()):
            raise TypeError
    except Exception as error:  # whatever a file that is cut or holds something else leads to
        raise MisconfigurationException(
            f"{path} is no generator that this lab has exported, or only a part of one"
        ) from error
    found = {"gan": given, "hyper_parameters": given["settings"], "global_step": given["step"]}
    return found, weights


def _class_of(checkpoint: dict[str, Any]) -> Any:
    name = checkpoint["gan"]["class"]
    found = next((cls for cls in (getattr(gans, name) for name in gans.__all__) if is_named(cls, name)), None)
    if found is None:
        raise MisconfigurationException(
            f"The checkpoint holds a {name}, which is none of the lab's models: load it by its own class's "
            "load_to_sample or, on the command line, give the --config it was trained with."
        )
    return found


def is_named(cls: type, name: Any) -> bool:
    """Whether a checkpoint's name is that of a class; those of the lab may have been in another file then."""
    own = name_of(cls)
    lab, last = f"{str(name).partition('.')[0]}.", f".{str(name).rpartition('.')[2]}"
    return name == own or (lab == "gans." and own.startswith(lab) and own.endswith(last))


def name_of(thing: Any) -> str:
    """The full name of a class or function."""
    return f"{thing.__module__}.{thing.__qualname__}"


# Plain settings


def is_plain(value: Any) -> bool:
    """Whether weights_only=True can read the value back."""
    if isinstance(value, dict):
        return all(is_plain(k) and is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(is_plain(v) for v in value)
    return value is None or type(value) in (bool, int, float, str)


def plain_arguments(cls: type, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The plain settings in a checkpoint that the constructors of a class take, each of the type that they ask for.

    Raises:
        MisconfigurationException: A setting is of another type.
    """
    saved, plain = checkpoint["hyper_parameters"], {}
    for name, hint in _arguments(cls).items():
        # The command line keeps what has a class as a dictionary; it belongs to the parts or to the training state.
        if name not in saved or isinstance(saved[name], dict):
            continue
        if _fits(saved[name], hint):
            plain[name] = saved[name]
        elif _has_plain_values(hint):
            raise MisconfigurationException(
                f"The checkpoint has {name}={str(saved[name])[:60]!r}, which {cls.__name__} does not take: it was "
                f"changed or damaged; give {name} yourself, or another checkpoint."
            )
    return plain


def _arguments(cls: type) -> dict[str, Any]:
    """The types of a class's constructor arguments by name, those of its bases' constructors included."""
    hints = {}
    for base in reversed(cls.__mro__):
        for parameter in inspect.signature(base.__init__).parameters.values():  # type: ignore[misc]
            if parameter.name != "self" and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                known = parameter.annotation is not parameter.empty and not isinstance(parameter.annotation, str)
                hints[parameter.name] = parameter.annotation if known else Any
    return hints


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of a type; never true for types of which there are no plain values."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Annotated:  # with a range, which is the command line's business
        return _fits(value, inner[0])
    if hint is Any:
        return is_plain(value)
    if kind is Annotated:
        return _fits(value, inner[0])
    if kind in (Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if kind is Literal:
        return is_plain(value) and value in inner
    if kind is tuple and ... not in inner:
        return (
            isinstance(value, list | tuple)
            and len(value) == len(inner)
            and all(_fits(v, h) for v, h in zip(value, inner, strict=True))
        )
    if kind in (tuple, list, Sequence):
        return isinstance(value, list | tuple) and all(_fits(v, inner[0]) for v in value)
    if hint in (None, types.NoneType):
        return value is None
    return hint in (bool, int, float, str) and type(value) in ((int, float) if hint is float else (hint,))


def _has_plain_values(hint: Any) -> bool:
    """Whether all values of a type are plain."""
    if get_origin(hint) is Annotated:
        return _has_plain_values(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType, tuple, list, Sequence):
        return all(_has_plain_values(option) for option in get_args(hint) if option is not ...)
    return get_origin(hint) is Literal or hint in (bool, int, float, str, types.NoneType)


# Losses and penalties


def described(part: Any) -> Any:
    """A constructor argument that is no plain value, or a list of such, as a checkpoint keeps it.

    One of the lab's losses and penalties is described in full, {"class_path": ..., "init_args": {...}}: its constructor
    arguments are attributes of the same names. Of all others there is the class path alone.
    """
    if isinstance(part, list | tuple):
        return [described(each) for each in part]
    cls = type(part)
    description: dict[str, Any] = {"class_path": name_of(part if hasattr(part, "__qualname__") else cls)}
    if lab_part(name_of(cls)) is cls:
        given = {name: getattr(part, name) for name in inspect.signature(cls).parameters}
        description |= {"init_args": given} if is_plain(given) else {}
    return description


def rebuilt(name: str, part: Any) -> Any:
    """The loss or penalty of a description, or those of a list; none when it is not of the lab and cannot be built.

    Args:
        name: The constructor argument that it is for.
        part: What ``described`` gave, or whatever else a file holds in its place.

    Raises:
        MisconfigurationException: It is no description of one, or a loss where a penalty should be.
    """
    if isinstance(part, list) and part:
        parts = [rebuilt(name, each) for each in part]
        return None if None in parts else parts
    if not isinstance(part, dict) or not isinstance(part.get("class_path"), str):
        raise MisconfigurationException(f"The checkpoint's {name} is damaged: give {name} yourself.")
    cls = lab_part(part["class_path"])
    if "init_args" not in part or cls is None:
        return None
    given = part["init_args"]
    base = {"loss": gans.losses.AdversarialLoss, "penalty": gans.penalties.Penalty}.get(name, object)
    hints = _arguments(cls)
    fits = isinstance(given, dict) and all(key in hints and _fits(value, hints[key]) for key, value in given.items())
    if not issubclass(cls, base) or not fits:
        raise MisconfigurationException(
            f"The checkpoint has {name}={str(part)[:120]}, which cannot be built: it was changed or damaged; give "
            f"{name} yourself."
        )
    return cls(**given)


def path_of(part: Any) -> str:
    """The class path of a description, or those of a list."""
    return ", ".join(map(path_of, part)) if isinstance(part, list) else part["class_path"]


def parts_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The descriptions of the constructor arguments that are no plain values, by name.

    Raises:
        MisconfigurationException: There is something else in their place.
    """
    found = checkpoint["gan"].get("parts", {})
    if not isinstance(found, dict):
        raise MisconfigurationException("The checkpoint's losses and penalties are damaged: give another checkpoint.")
    return found


def lab_parts() -> list[type]:
    """The losses and penalties of the lab."""
    bases = gans.losses.AdversarialLoss, gans.penalties.Penalty
    classes = [cls for module in (gans.losses, gans.penalties) for cls in vars(module).values()]
    return [cls for cls in classes if isinstance(cls, type) and issubclass(cls, bases) and not inspect.isabstract(cls)]


def lab_part(path: str) -> type | None:
    """One of them by its full name or, as in older checkpoints, the short one: "gans.losses.Hinge"."""
    names = {name: cls for cls in lab_parts() for name in (name_of(cls), name_of(cls).replace("gans.parts.", "gans."))}
    return names.get(path)
