"""Numbers outside the ranges that constructors declare, as in ``width: Annotated[int, "[1, inf)"]``.

A range is an interval as mathematicians write it, beside the type of the argument that it restricts; ``--help`` shows
it. What a base class declares of an argument holds for the classes that hand it on, too.
"""

import math
import pkgutil
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.runs.settings import _annotations, _members, _settings_in, defaults_of

FINITE = "(-inf, inf)"
OURS = ("gans", "datamodules", "callbacks")  # whose annotations say where there may be none


def refuse_out_of_range(config: Any, sections: Mapping[str, type | Mapping[str, Any]]) -> None:
    """Judge all numbers among settings before anything is made of them.

    Args:
        config: Parsed settings, with ``class_path`` and ``init_args`` where a class is to be made.
        sections: By key, the class that a part of the settings are the arguments of, or what they are annotated with.

    Raises:
        MisconfigurationException: A number is not in its range, or is infinite or no number, or a value is missing.
    """
    for key, value in _settings_in(config, ""):
        arguments, annotations = value, sections.get(key)
        if isinstance(value, dict) and isinstance(value.get("class_path"), str):
            arguments = value.get("init_args") or {}
            try:
                annotations = pkgutil.resolve_name(value["class_path"])
            except (AttributeError, ImportError, ValueError):
                annotations = {}  # nothing that could be made
        given: dict[str, Any] = {}
        if isinstance(annotations, type):
            if annotations.__module__.partition(".")[0] in OURS:
                given = defaults_of(annotations)
            annotations = _annotations(annotations, ranges=True)
        if annotations is not None:
            for name, argument in (arguments if isinstance(arguments, dict) else vars(arguments)).items():
                full, of = f"{key}.{name}".lstrip("."), annotations.get(name, Any)
                if argument is None and given.get(name) is not None and type(None) not in _members(of):
                    raise MisconfigurationException(f"--{full}=null must have a value, or be left out")
                _check(full, argument, of)


def _check(key: str, value: Any, annotation: Any) -> None:
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        ranges = [get_args(m)[1] for m in _members(annotation) if get_origin(m) is Annotated]
        ranges += [] if ranges else [FINITE]
        if not any(_inside(value, interval) for interval in ranges):
            shown = f"{value:g}" if isinstance(value, float) else value
            finite = "" if math.isfinite(value) or ranges[0] == FINITE else "a finite number, "
            raise MisconfigurationException(f"--{key}={shown} must be {finite}{spelled(ranges[0])}")
    else:
        for name, part, of in _parts(value, annotation):
            _check(f"{key}.{name}" if isinstance(value, dict) else key, part, of)


def _parts(value: Any, annotation: Any) -> Iterator[tuple[Any, Any, Any]]:
    """The values in a list or mapping with their names and annotations; what is a class's own has been judged."""
    if isinstance(value, dict) and "class_path" not in value:
        of = next((get_args(m) for m in _members(annotation) if get_origin(m) is dict), (Any, Any))
        yield from ((name, part, of[1]) for name, part in value.items())
    elif isinstance(value, list | tuple):
        given = next((get_args(m) for m in _members(annotation) if get_origin(m) in (list, tuple)), ())
        of = tuple(part for part in given if part is not ...) or (Any,)
        yield from ((number, part, of[min(number, len(of) - 1)]) for number, part in enumerate(value))


def _bounds(interval: str) -> tuple[str, str, str, str]:
    match = re.fullmatch(r"([\[(])(\S+), (\S+)([\])])", interval)
    assert match is not None, f"{interval} is no interval"
    return match[1], match[2], match[3], match[4]


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
