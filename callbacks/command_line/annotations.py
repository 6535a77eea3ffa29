"""What constructors declare of their arguments, and settings that are something else.

A number's range is an interval as mathematicians write it, beside the type of the argument that it restricts, as in
``width: Annotated[int, "[1, inf)"]``; ``--help`` shows it. What a base class declares of an argument holds for the
classes that hand it on, too.
"""

import argparse
import functools
import inspect
import math
import pkgutil
import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

FINITE = "(-inf, inf)"
OURS = ("gans", "datamodules", "callbacks")  # whose annotations say where there may be none
FACTORIES = {
    "_optimizer": (Optimizer, " of torch.optim.Optimizer"),
    "_scheduler": (LRScheduler, " of torch.optim.lr_scheduler.LRScheduler"),
}


def members(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation allows."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(inner for member in get_args(annotation) for inner in members(member))
    return (annotation,)


def parts(value: Any, annotation: Any) -> Iterator[tuple[Any, Any, Any]]:
    """The values in a list or mapping with their names and annotations; a class's arguments are none of these."""
    if isinstance(value, dict) and "class_path" not in value:
        of = next((get_args(m) for m in members(annotation) if get_origin(m) is dict), (Any, Any))
        yield from ((name, part, of[1]) for name, part in value.items())
    elif isinstance(value, list | tuple):
        given = next((get_args(m) for m in members(annotation) if get_origin(m) in (list, tuple)), ())
        of = tuple(part for part in given if part is not ...) or (Any,)
        yield from ((number, part, of[min(number, len(of) - 1)]) for number, part in enumerate(value))


def annotations_of(cls: type) -> dict[str, Any]:
    """What a class's arguments are annotated with, also those of its bases, whose ranges hold where none is given."""
    ranged: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for base in reversed(cls.__mro__[:-1]):
        made = vars(base).get("__init__")
        if not inspect.isfunction(made):
            continue
        try:
            extras, bare = (get_type_hints(made, include_extras=kept) for kept in (True, False))
        except (NameError, TypeError):  # of somebody else's class
            continue
        parameters = inspect.signature(made).parameters.values()
        names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        for name in [name for name in names if name in bare]:
            if extras[name] != bare[name] or plain.get(name) != bare[name]:
                ranged[name], plain[name] = extras[name], bare[name]
    return ranged


def defaults_of(cls: type) -> dict[str, Any]:
    """What the arguments of a class, and those that it hands on to its bases, are if they are left out."""
    made = (vars(base).get("__init__") for base in reversed(cls.__mro__[:-1]))
    signatures = (inspect.signature(own) for own in made if own is not None)
    found = {name: p.default for signature in signatures for name, p in signature.parameters.items()}
    return {name: value for name, value in found.items() if value is not inspect.Parameter.empty}


def judge(config: Any, sections: Mapping[str, type | Mapping[str, Any]]) -> None:
    """Judge all settings before anything is made of them.

    Settings make objects of classes; a function would be called with them, whatever it does.

    Args:
        config: Parsed settings, with ``class_path`` and ``init_args`` where a class is to be made.
        sections: By key, the class that a part of the settings are the arguments of, or what they are annotated with.

    Raises:
        MisconfigurationException: A setting is a function, or an optimizer or schedule is a class of something else; a
            number is not in its range, or is infinite or no number; or a value is missing.
    """
    for key, value in _settings_in(config, ""):
        arguments, declared = value, sections.get(key)
        name = value.get("class_path") if isinstance(value, dict) else None
        target = value
        if isinstance(name, str):
            arguments = value.get("init_args") or {}
            try:
                declared = target = pkgutil.resolve_name(name)
            except (AttributeError, ImportError, ValueError):
                continue  # nothing that could be made or called
        elif inspect.isroutine(value) or isinstance(value, functools.partial):
            name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"
        base, known_as = next((wanted for ending, wanted in FACTORIES.items() if key.endswith(ending)), (object, ""))
        if isinstance(name, str) and not (isinstance(target, type) and issubclass(target, base)):
            kind = "another class" if isinstance(target, type) else "a function" if callable(target) else "no class"
            raise MisconfigurationException(f"--{key}={name[:100]} is {kind}: give a class{known_as}")
        defaults: dict[str, Any] = {}
        if isinstance(declared, type):
            if declared.__module__.partition(".")[0] in OURS:
                defaults = defaults_of(declared)
            declared = annotations_of(declared)
        if declared is not None:
            for name, argument in (arguments if isinstance(arguments, dict) else vars(arguments)).items():
                full, of = f"{key}.{name}".lstrip("."), declared.get(name, Any)
                if argument is None and defaults.get(name) is not None and type(None) not in members(of):
                    raise MisconfigurationException(f"--{full}=null must have a value, or be left out")
                _check(full, argument, of)


def _settings_in(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """All settings at and below one, under the keys that they have on the command line."""
    if isinstance(value, argparse.Namespace):  # jsonargparse's too
        value = vars(value)
    yield key, value
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _settings_in(part, key if name == "init_args" else f"{key}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _settings_in(part, key)


def _check(key: str, value: Any, annotation: Any) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        ranges = [get_args(m)[1] for m in members(annotation) if get_origin(m) is Annotated] or [FINITE]
        if not any(_inside(value, interval) for interval in ranges):
            shown = f"{value:g}" if isinstance(value, float) else value
            finite = "" if math.isfinite(value) or ranges[0] == FINITE else "a finite number, "
            raise MisconfigurationException(f"--{key}={shown} must be {finite}{spelled(ranges[0])}")
    for name, part, of in parts(value, annotation):
        _check(f"{key}.{name}" if isinstance(value, dict) else key, part, of)


def check_ranges(key: str, cls: type, made: Any) -> None:
    """Raise MisconfigurationException where an attribute is too small for the argument of its name of a constructor."""
    for name, hint in annotations_of(cls).items():
        value = getattr(made, name, None)
        for interval in [get_args(member)[1] for member in members(hint) if get_origin(member) is Annotated]:
            left, low, _, _ = _bounds(interval)
            if value is not None and not (value > float(low) if left == "(" else value >= float(low)):
                least = f"more than {low}" if left == "(" else f"{low} or more"
                raise MisconfigurationException(f"--{key}.{name} must be {least}; got {value}")


def _bounds(interval: str) -> tuple[Any, ...]:
    match = re.fullmatch(r"([\[(])(\S+), (\S+)([\])])", interval)
    assert match is not None, f"{interval} is no interval"
    return match.groups()


def _inside(value: float, interval: str) -> bool:
    left, low, high, right = _bounds(interval)
    above = value > float(low) if left == "(" else value >= float(low)
    return above and (value < float(high) if right == ")" else value <= float(high))


def spelled(interval: str) -> str:
    """An interval in words, such as "at least 1" for "[1, inf)"."""
    left, low, high, right = _bounds(interval)
    if math.isinf(float(high)):
        return "a finite number" if math.isinf(float(low)) else f"at least {low}" if left == "[" else f"more than {low}"
    if left + right == "[]":
        return f"from {low} to {high}"
    return f"{'at least' if left == '[' else 'more than'} {low} and {'at most' if right == ']' else 'less than'} {high}"
