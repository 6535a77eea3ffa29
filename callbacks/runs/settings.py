"""Settings of a run folder, which are not taken on trust."""

import collections.abc
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from callbacks.command_line.annotations import annotations_of, members
from callbacks.command_line.config_files import settings_in, text_of
from callbacks.neighbors import Neighbors
from callbacks.quality import Quality
from callbacks.score import Score
from callbacks.views import Views

SECTIONS = {"trainer": Trainer, "score": Score, "quality": Quality, "neighbors": Neighbors, "views": Views}
OF_TRAINER = ("precision", "limit_val_batches", "limit_test_batches", "limit_predict_batches")
ONLY_OF_TRAINING = (
    *("budget", "samples", "ema", "health", "last", "best", "ckpt_path", "run_dir", "name", "weights_only"),
    *("predict_format", "predict_zip"),  # a stranger's folder does not say what is written over
    *("optimizer", "lr_scheduler"),
)


def allowed_settings(
    path: Path, classes: dict[str, dict[str, type]], parts: dict[type, dict[str, type]]
) -> dict[str, Any]:
    """What scoring and sampling need of the configuration that a run has kept; a stranger's folder runs no code.

    What only training needs is left out unread. The rest is plain values, and classes that are named here.

    Args:
        path: The file.
        classes: Under "model" and "data", the classes that they may be, by all names that are accepted for them.
        parts: The same for arguments of these classes, by the base class that an argument is annotated with.

    Raises:
        MisconfigurationException: The file cannot be read as settings, or says more than it may.
    """
    allowed: dict[str, Any] = {}
    try:
        if not path.is_file():  # a pipe or a device might never end
            raise ValueError("it is no file")
        config = settings_in(text_of(path))
    except (OSError, ValueError) as error:
        raise MisconfigurationException(
            f"{_short(path, 100, tail=True)} is not the configuration of a run ({_short(error, 150)}): give the "
            "configuration with --config=PATH"
        ) from error
    try:
        for key, value in config.items():
            if key == "seed_everything":
                allowed[key] = _plain(key, value, int)
            elif key in classes:
                allowed[key] = _class(key, value, classes[key], parts)
            elif key in SECTIONS:
                given = _mapping(key, value)
                if key == "trainer":
                    given = {name: given[name] for name in OF_TRAINER if name in given}
                allowed[key] = _arguments(key, given, SECTIONS[key], parts)
            elif key not in ONLY_OF_TRAINING:
                raise _Refused(key, value, "left out: there is no such setting")
        for key, name in (("score", "features"), ("neighbors", "features"), ("score", "metrics")):
            if "." in str(given := allowed.get(key, {}).get(name)):  # which would be imported
                raise _Refused(f"{key}.{name}", given, f"the name of {name}, without a dot")
    except _Refused as refused:
        raise MisconfigurationException(
            f"{refused} in {_short(path, 100, tail=True)}: what a run folder says is only read as far as scoring and "
            "sampling need it; if the run is your own, give --config=PATH (what you name yourself is trusted)"
        ) from None
    return allowed


class _Refused(Exception):
    """A setting, and what would be right in its place."""

    def __init__(self, key: str, value: Any, right: str) -> None:
        super().__init__(f"{_short(key, 45)}={_short(value, 50)} must be {_short(right, 70)}")


def _short(value: Any, length: int, tail: bool = False) -> str:
    """Anything in one line of a message."""
    text = "".join(character if character.isprintable() else " " for character in str(value))
    if len(text) <= length:
        return text
    return f"...{text[3 - length :]}" if tail else f"{text[: length - 3]}..."


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Refused(key, value, "a mapping of keys to values")
    return value


def _class(key: str, value: Any, spellings: dict[str, type], parts: dict[type, dict[str, type]]) -> dict[str, Any]:
    """A class that may be named, with arguments that it may have; a word alone is the name of a class too."""
    given = value if isinstance(value, dict) else {"class_path": value}
    for name in given:
        if name not in ("class_path", "init_args"):
            raise _Refused(f"{key}.{name}", given[name], "left out: a class has class_path and init_args")
    name = given.get("class_path")
    if not isinstance(name, str) or name not in spellings:
        known = dict.fromkeys(cls.__name__ for cls in spellings.values())
        raise _Refused(key, name, f"one of {', '.join(known)}")
    arguments = _mapping(f"{key}.init_args", given.get("init_args") or {})
    return {"class_path": name, "init_args": _arguments(key, arguments, spellings[name], parts)}


def _arguments(key: str, given: dict[str, Any], cls: type, parts: dict[type, dict[str, type]]) -> dict[str, Any]:
    """The arguments of a class, each judged by its annotation."""
    arguments: dict[str, Any] = {}
    annotations = annotations_of(cls)
    for name, value in given.items():
        full = f"{key}.{name}"
        if name not in annotations:
            raise _Refused(full, value, f"left out: {cls.__name__} has no such argument")
        allowed = members(annotations[name])
        base = next((member for member in allowed if member in parts), None)
        of_list = next((of for member in allowed if get_origin(member) is list for of in get_args(member)), None)
        if any(get_origin(member) is collections.abc.Callable for member in allowed):
            continue  # optimizers and schedules, which only training has
        if isinstance(of_list, type) and issubclass(of_list, nn.Module):
            _check_augmentation(full, value)
        elif of_list in parts and isinstance(value, list):
            arguments[name] = [_class(full, part, parts[of_list], parts) for part in value]
        elif base is not None and not (value is None and type(None) in allowed):
            arguments[name] = _class(full, value, parts[base], parts)
        else:
            arguments[name] = _plain(full, value, annotations[name])
    return arguments


def _check_augmentation(key: str, value: Any) -> None:
    """Only training augments, so it is left out; but a class that is not Kornia's is not what it says it is."""
    for module in value if isinstance(value, list) else [] if value is None else [value]:
        name = module.get("class_path") if isinstance(module, dict) else module
        if not isinstance(name, str) or not name.startswith("kornia.augmentation."):
            raise _Refused(key, name, "modules of kornia.augmentation")


def _plain(key: str, value: Any, annotation: Any) -> Any:
    """A number or word, or a list or mapping of them where there may be one; the parser says if it is in its range."""
    right = "a number or a word"
    for member in members(annotation):
        member = get_args(member)[0] if get_origin(member) is Annotated else member
        origin, of = get_origin(member), [part for part in get_args(member) if part is not ...]
        if member in (bool, int, float, str, type(None)):
            if isinstance(value, type(None) if member is type(None) else bool | int | float | str):
                return value
        elif origin is Literal:
            if value in of:
                return value
            right = f"one of {', '.join(map(str, of))}"
        elif origin in (list, tuple, collections.abc.Sequence):
            if isinstance(value, list):
                return [_plain(key, part, Union[tuple(of)]) for part in value]  # noqa: UP007
            right = "a list of numbers or words"
        elif origin is dict:
            if isinstance(value, dict):
                return {_plain(key, name, of[0]): _plain(f"{key}.{name}", part, of[1]) for name, part in value.items()}
            right = "a mapping of words to numbers or words"
    raise _Refused(key, value, right)
