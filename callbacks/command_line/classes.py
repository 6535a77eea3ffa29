"""Classes by the names that people type, and the shortest paths that say which is meant."""

import collections.abc
import inspect
import json
import pkgutil
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from callbacks.command_line.annotations import FACTORIES, members
from callbacks.command_line.config_files import load, options_in, settings_in, text_of

# The lab's classes by all names that they have; filled in by whoever knows them.
CLASSES: dict[str, dict[str, type]] = {}  # what --model and --data may name
PARTS: dict[type, dict[str, type]] = {}  # what a model is made with, by the base class
LINKED: dict[str, tuple[str, ...]] = {}  # arguments of the model and the data that something else says


def paths_of(cls: type) -> list[str]:
    """The paths by which a class can be imported, the shortest that says what it is first: gans.losses.Hinge."""
    package, *rooms = parts = cls.__module__.split(".")
    modules = [package, *([f"{package}.{rooms[-1]}"] if rooms else [])]
    modules += [".".join(parts[:number]) for number in range(2, len(parts) + 1)]
    found = []
    for path in dict.fromkeys(modules):
        place: Any = sys.modules.get(package)
        for name in [*path.split(".")[1:], cls.__name__]:
            place = getattr(place, name, None)
        found += [f"{path}.{cls.__name__}"] if place is cls else []
    return found or [f"{cls.__module__}.{cls.__qualname__}"]


def named(classes: Iterable[type]) -> dict[str, type]:
    """Classes by the names that a configuration may call them by, such as Hinge and gans.losses.Hinge."""
    classes = [cls for cls in classes if not inspect.isabstract(cls)]
    return {name: cls for cls in classes for name in (cls.__name__, *paths_of(cls))}


def typed_name(cls: type) -> str:
    """What a model or data set is called on the command line: its name, or the path of one's own."""
    return cls.__name__ if any(known.get(cls.__name__) is cls for known in CLASSES.values()) else paths_of(cls)[0]


def names_for(key: str) -> list[str]:
    """The classes that --model or --data may name, by their shortest names."""
    return [name for name in CLASSES[key] if "." not in name]


def public(path: str) -> str:
    """The path of a class of the lab as it is typed; any other as it is."""
    for classes in PARTS.values():
        if path in classes:
            return paths_of(classes[path])[0]
    return path


def in_full(key: str, value: Any) -> Any:
    """A setting in which the lab's own optimizers and schedules have paths: PyTorch has some of the same names."""
    if isinstance(value, dict):
        owner = key if "class_path" in value else ""
        return {name: in_full(owner if name == "class_path" else name, part) for name, part in value.items()}
    if isinstance(value, str) and value.startswith("{") and key.endswith(tuple(FACTORIES)):
        with suppress(yaml.YAMLError):  # which is said elsewhere
            return json.dumps(in_full(key, load(value)))
    base = next((base for ending, (base, _) in FACTORIES.items() if key.endswith(ending)), object)
    own = PARTS.get(base, {}).get(value) if isinstance(value, str) else None
    return value if own is None else paths_of(own)[0]


def class_parser(cls: type, key: str, linked: bool = False) -> LightningArgumentParser:
    """A parser of a class's arguments alone, as they are typed; those that something else says if asked for."""
    parser = LightningArgumentParser(exit_on_error=False)
    skip = {"params", "optimizer"} | set(() if linked else LINKED.get(key, ()))
    parser.add_class_arguments(cls, key, skip=skip, fail_untyped=False)
    return parser


def arguments(cls: type, key: str) -> list[str]:
    """The names of what such a parser takes."""
    return list(vars(class_parser(cls, key).get_defaults().get(key, Namespace())))


def named_classes(words: list[str]) -> dict[str, type]:
    """The classes that a command line names for the model and the data, by itself or in its configuration files."""
    found: dict[str, Any] = {}
    for option, value in options_in(words):
        with suppress(ValueError, ImportError, AttributeError):  # what is wrong with it is said elsewhere
            if option in ("--config", "-c"):
                given = settings_in(value if value.startswith("{") else text_of(Path(value)))
            else:
                given = {option[2:]: value}
            for key in CLASSES.keys() & given.keys():
                path = str(given[key].get("class_path") if isinstance(given[key], dict) else given[key])
                found[key] = CLASSES[key].get(path) or pkgutil.resolve_name(path)
    return {key: cls for key, cls in found.items() if isinstance(cls, type)}


def of_all_networks(words: list[str]) -> list[str]:
    """Words in which ``--model.optimizers`` and ``--model.schedulers`` are those of each of the GAN's networks."""
    cls = named_classes(words).get("model")
    if cls is None:
        return words
    found: list[str] = []
    names: list[str] = []  # which the next word is the value of
    for word in words:
        if match := re.fullmatch(r"--model\.(optimizer|scheduler)s((?:\.[^=]*)?)(=.*)?", word, re.DOTALL):
            names = [f"--model.{name}{match[2]}" for name in arguments(cls, "model") if name.endswith(f"_{match[1]}")]
            found += [f"{name}{match[3]}" for name in names] if match[3] else []
            names = [] if match[3] else names
        elif names:
            found += [part for name in names for part in (name, word)]
            names = []
        else:
            found.append(word)
    return found


def classes_in(annotation: Any) -> Iterator[type]:
    """The classes of which a setting can name a subclass."""
    for member in members(annotation):
        if get_origin(member) is not None:
            of = [part for part in get_args(member) if part is not ...]
            if get_origin(member) is collections.abc.Callable:
                yield from classes_in(of[-1])
            elif of and get_origin(member) is not dict:
                yield from classes_in(of[0])
        elif isinstance(member, type) and member.__module__ != "builtins":
            yield member


def candidates(bases: Iterable[type]) -> list[type]:
    """The classes that a setting may name, those of the lab first: all that can be imported and are no drafts."""
    found = [cls for base in bases for cls in PARTS.get(base, {}).values()]
    more: list[type] = list(bases)
    while more:
        found += [cls for cls in more if getattr(sys.modules.get(cls.__module__), cls.__name__, None) is cls]
        more = list(chain.from_iterable(type.__subclasses__(cls) for cls in more))
    return [c for c in dict.fromkeys(found) if not c.__name__.startswith("_") and not inspect.isabstract(c)]


def listed(given: Any) -> list[Any]:
    """What a setting holds that takes one thing, several or none."""
    return [one for one in (given if isinstance(given, list) else [given]) if one]


def fitting(takes: tuple[str, ...]) -> str:
    """The lab's data whose batches are of some kinds, with the setting that makes them so."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for cls in dict.fromkeys(CLASSES["data"].values()):
        offers = {} if inspect.isabstract(cls) else getattr(cls, "offers", {})
        for setting in {offers[kind] for kind in takes if kind in offers}:
            names[setting].append(cls.__name__)
    return " or ".join(f"--data={', '.join(n)}{f' with {s}' if s else ''}" for s, n in sorted(names.items()))
