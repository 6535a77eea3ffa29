"""What is wrong with settings that the parser has refused, in one sentence, and what was probably meant.

The parser's own sentences are not read: they are long, and others in its next version. Instead the settings are gone
through once more in the order in which they were given, and each is tried alone, by what the parser of its class knows.
The first that is wrong is named. Only where there is none, the innermost reason of the parser is said as it is.
"""

import difflib
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from callbacks.command_line.annotations import defaults_of, members, parts
from callbacks.command_line.classes import (
    CLASSES,
    arguments,
    candidates,
    class_parser,
    classes_in,
    named_classes,
    names_for,
    paths_of,
    typed_name,
)
from callbacks.command_line.config_files import load, readable, settings_in, settings_of, text_of, wrong_in
from callbacks.command_line.help import kinds_of, written
from callbacks.runs.find import EVALUATIONS
from callbacks.runs.secrets import masked

SUBCOMMANDS = ("fit", *EVALUATIONS)
STUDIES = ("study", "compare")  # which are of many runs
SHOWING = ("export", "explore")  # what was trained
COMMANDS = (*SUBCOMMANDS, *STUDIES, *SHOWING)
FILES = (".yaml", ".yml", ".json")
OF_A_CLASS = ("class_path", "init_args", "dict_kwargs")


class Search:
    """The search for what is wrong among the words that a parser has refused, and in the files that they name."""

    def __init__(self, parser: LightningArgumentParser) -> None:
        self.words = list(parser.args)
        if parser._subcommands_action:
            command = self.words.pop(0) if self.words[:1] and self.words[0] in SUBCOMMANDS else "fit"
            parser = parser._subcommands_action.choices[command]
        self.parser = parser
        self.named: dict[str, type] = {}  # the classes that were named last, by the key that they are for
        self.given: set[str] = set()  # the keys of all settings
        self.where = ""  # the file that is gone through, as it is said at the end of a sentence

    def search(self) -> None:
        """Go through all of it.

        Raises:
            MisconfigurationException: What is wrong is found out; the message says it.
        """
        for key, value in self._options():
            if key in ("config", "c"):
                self._file(value)
            else:
                self._setting(key, value)
        self._missing()

    def _options(self) -> Iterator[tuple[str, str]]:
        words = iter(enumerate(self.words))
        for i, word in words:
            option, equals, value = word.partition("=")
            if word in ("--help", "-h") or option == "--print_config":
                continue
            if option != "-c" and not re.match(r"--[\w.]", option):
                self._stray(word)
            if not equals:
                value = next(iter(self.words[i + 1 : i + 2]), "--")
                if re.match(r"-(?!\d|\.\d)", value):
                    self._wrong(f"{word} is given no value: {word}=VALUE")
                next(words)
            yield option.lstrip("-"), value

    def _file(self, given: str) -> None:
        """Whatever --config names: a file, or the settings themselves."""
        if given == "-" or "://" in given:  # which cannot be read again, or not here
            return
        is_file = os.path.exists(given)  # noqa: PTH110 - any text
        if not is_file and re.fullmatch(r"[^\s:{\[]+", given):
            missing = "it does not exist" if given.endswith(FILES) else "File does not exist"
            self._wrong(f"--config={given} cannot be read: {missing}")
        settings = readable("--config", given, lambda: settings_in(text_of(Path(given)) if is_file else given))
        self.where = f" (in {given})" if is_file else ""
        for key, value in settings.items():
            self._setting(key, value)
        self.where = ""

    def _setting(self, key: str, value: Any) -> None:
        """A setting, by the parser of the class that it is an argument of, or of whatever is named so far."""
        parser, owner, base = self.parser, None, ""
        key = re.sub(r"\.init_args|\.class_path$|\+$", "", key)
        while True:
            actions = {action.dest: action for action in parser._actions if hasattr(action, "_typehint")}
            names = key.split(".")
            at = next((a for n in range(len(names), 0, -1) if (a := ".".join(names[:n])) in actions), "")
            if not at:
                return self._section(key, value, parser, owner, base)
            hint, default = actions[at]._typehint, actions[at].default
            if at == key:
                self.given.add(key)
                return self._value(key, value, hint, default)
            owner, base = self._class_at(at, default), at
            if owner is None:
                entries = next((get_args(m)[1] for m in members(hint) if get_origin(m) is dict), None)
                if entries is not None:
                    return self._plain(key, value, entries)
                if not any(classes_in(hint)):
                    self._unknown(key, None, "")
                self._wrong(f"goes with a class: name it first, with --{at}=NAME", key, value)
            parser = class_parser(owner, at, linked=True)

    def _section(self, key: str, value: Any, parser: Any, owner: type | None, base: str) -> None:
        """What is no setting: the name of several, an option of the parser's own, or nothing."""
        if owner is not None or not any(action.dest.startswith(f"{key}.") for action in parser._actions):
            if not any(f"--{key}" in action.option_strings for action in parser._actions):
                self._unknown(key, owner, base)
            return
        settings = self._read(key, value)
        if not isinstance(settings, dict):
            self._wrong(f"{key} holds {written(value)} and no keys with values, such as --{key}.KEY=VALUE")
        for name, part in settings.items():
            self._setting(f"{key}.{name}", part)

    def _read(self, key: str, value: Any) -> Any:
        """What a word means: a mapping or a list, the content of a file, or itself."""
        if not isinstance(value, str):
            return value
        if os.path.isfile(value):  # noqa: PTH113 - any text
            return settings_of(f"--{key}", value)
        try:
            return load(value)
        except yaml.YAMLError as error:
            if value.startswith(("[", "{")):
                how = "close its brackets, and put it between quotes"
                self._wrong(f"cannot be read ({wrong_in(error)}): {how}", key, value)
        return value

    def _value(self, key: str, value: Any, hint: Any, default: Any) -> None:
        """The value of a setting of which the annotation is known."""
        bases = tuple(classes_in(hint))
        items = [of for member in members(hint) if get_origin(member) is list for of in get_args(member)]
        if not bases or any(str in members(of) for of in (hint, *items)):
            return self._plain(key, value, hint)
        read = self._read(key, value)
        for item in read if isinstance(read, list) else [read]:
            if isinstance(item, str | dict):
                self._class(key, item, bases, default)
            elif not _fits(hint, item):
                self._no_class(key, item, bases)

    def _class(self, key: str, given: Any, bases: tuple[type, ...], default: Any) -> None:
        """A class and its arguments."""
        settings = given if isinstance(given, dict) else {"class_path": given}
        if not settings.keys() & set(OF_A_CLASS):
            settings = {"init_args": settings}
        if settings.get("class_path") is not None:
            self.named[key] = self._named(key, str(settings["class_path"]), bases)
            self.given = {known for known in self.given if not known.startswith(f"{key}.")}
        for name in [name for name in settings if name not in OF_A_CLASS]:
            cls, part = self._class_at(key, default), settings[name]
            if cls and name in arguments(cls, key):
                self._wrong(f"--{key} has more than class_path: {name} goes into init_args")
            self._unknown(".".join([key, name, *(list(part)[:1] if isinstance(part, dict) else [])]), cls, key)
        for name, part in (settings.get("init_args") or {}).items():
            self._setting(f"{key}.{name}", part)

    def _class_at(self, key: str, default: Any) -> type | None:
        """The class that a setting names by now."""
        if key not in self.named and isinstance(default, dict | Namespace) and "class_path" in default:
            self.named[key] = pkgutil.resolve_name(default["class_path"])
        return self.named.get(key)

    def _named(self, key: str, name: str, bases: tuple[type, ...]) -> type:
        found: Any = CLASSES.get(key, {}).get(name)
        why = f"it is no {bases[0].__name__}"
        if found is None and "." in name:
            try:
                found = pkgutil.resolve_name(name)
            except (AttributeError, ImportError, ValueError) as error:
                why = str(error)
        elif found is None:
            found = next((cls for cls in candidates(bases) if cls.__name__ == name), None)
        if found is None or (isinstance(found, type) and (not issubclass(found, bases) or inspect.isabstract(found))):
            self._no_class(key, name, bases, why)
        return found

    def _plain(self, key: str, value: Any, hint: Any) -> None:
        """A value that has no class, and in a list or mapping the first that is wrong."""
        if _fits(hint, value):
            return
        read = self._read(key, value)
        for name, part, of in parts(read, hint):
            self._plain(f"{key}.{name}" if isinstance(read, dict) else key, part, of)
        self._wrong(f"must be {kinds_of(hint)}", key, value)

    # Sentences

    def _wrong(self, what: str, key: str = "", value: Any = "") -> NoReturn:
        if isinstance(value, str) and value.endswith(FILES):
            what = "is no file of settings"
        given = masked([f"--{key}={written(value)} "])[0] if key else ""
        raise MisconfigurationException(f"{given}{what}{self.where}")

    def _no_class(self, key: str, given: Any, bases: tuple[type, ...], why: str = "") -> NoReturn:
        """What classes there are for a setting that names none."""
        module, _, name = str(given).rpartition(".")
        if key in CLASSES:
            choices = names_for(key)
        elif nn.Module in bases:  # of which there are thousands
            module = module or "kornia.augmentation"
            found = vars(sys.modules[module]) if module in sys.modules else {}
            choices = [f"{module}.{n}" for n, c in found.items() if isinstance(c, type) and issubclass(c, nn.Module)]
        else:
            classes = [cls for cls in candidates(bases) if cls not in bases]
            names = [cls.__name__ for cls in classes]
            choices = [n if names.index(n) == i else paths_of(classes[i])[0] for i, n in enumerate(names)]
        lower = {choice.rpartition(".")[2].lower(): choice for choice in reversed(choices)}
        alike = {n: difflib.SequenceMatcher(None, n, name.lower()).ratio() for n in reversed(lower)}
        few = len(choices) <= 40
        near = [n for n in sorted(alike, key=len) if len(name) > 3 and name.lower() in n]
        enough = 0.5 if len(name) < 3 else 0.65
        near = near or [n for n in sorted(alike, key=lambda n: -alike[n]) if alike[n] >= enough]
        known = f" There are {', '.join(choices)}." if few and choices else ""
        own = f" ({why})" if why and (module or not known) else ""
        meant = f"{own if module else ''}: did you mean {' or '.join(lower[n] for n in near[: 1 if few else 2])}?"
        meant = meant if near else f"{own}."
        self._wrong(f"names no class for it{meant}{known}", key, given)

    def _unknown(self, key: str, owner: type | None, base: str) -> NoReturn:
        """What is meant by a key that does not exist, or which ones do: those of a class, if it has one."""
        section = key.partition(".")[0]
        if owner and base not in CLASSES:
            names = arguments(owner, base)
            known = [f"{base}.{name}" for name in names]
            there_are = f": {owner.__name__} has {', '.join(names[:20]) or 'no settings'}"
        else:
            known, named = self._known_keys(), named_classes(self.words).get(section)
            help_for = f"--{section}={typed_name(named)} --help" if named else "--help"
            help_for = "--trainer.help" if section == "trainer" else help_for
            there_are = f": python train.py {self.parser.subcommand} {help_for} lists what there is"
            if named and key in ("model.loss", "model.penalty"):
                self._wrong(f"the key --{key} does not exist: {named.__name__} has its paper's own")
        near = nearest(key, known)
        meant = f": did you mean --{near}?" if near and near != key else there_are
        self._wrong(f"the key --{key} does not exist{' there: it goes into init_args' if near == key else meant}")

    def _known_keys(self) -> list[str]:
        """All keys, those of the model and the data that are named included."""
        options = (option for action in self.parser._actions for option in action.option_strings)
        keys = [option[2:] for option in options if re.fullmatch(r"--[\w.]+(?<!help)", option)]
        for key, cls in named_classes(self.words).items():
            keys += class_parser(cls, key).get_defaults().keys()
        return [re.sub(r"\.init_args|\.class_path", "", key) for key in keys]

    def _stray(self, word: str) -> NoReturn:
        """What a word of the command line was probably meant to be, which is no option."""
        key, equals, _ = word.lstrip("-\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}").partition("=")
        near = difflib.get_close_matches(word.lower(), (*COMMANDS, "train"), 1) if word in self.words[:1] else []
        meant = ""
        if near:
            command = near[0].replace("train", "fit")
            meant = f"did you mean {command}? There are {', '.join(COMMANDS)}; without one it trains"
        elif word.endswith((*FILES, ".ckpt")):
            meant = f"did you mean --{'ckpt_path' if word.endswith('.ckpt') else 'config'}={word}?"
        elif word != key or equals:
            known = nearest(key, self._known_keys())
            meant = f"did you mean --{known}?" if known else "options begin with two hyphens"
        else:
            kinds = [f"did you mean --{kind}={word}?" for kind in CLASSES if word in names_for(kind)]
            meant = next(iter(kinds), "every setting is typed as --KEY=VALUE")
        self._wrong(f"{word} belongs to no option: {meant}")

    def _missing(self) -> None:
        """What has to be given and was not."""
        words = {"model": "a GAN, such as --model=DCGAN", "data": "a data set, such as --data=MNIST"}
        if absent := [words[key] for key in CLASSES if key not in self.named]:
            if self.parser.subcommand in EVALUATIONS:
                self._wrong(f"{self.parser.subcommand} needs a trained model: give --ckpt_path (a file, last or best)")
            example = "or a configuration, such as --config=configs/quickstart.yaml"
            self._wrong(f"training needs {' and '.join(absent)}, {example}")
        for key, cls in self.named.items():
            for name in arguments(cls, key):
                if name not in defaults_of(cls) and f"{key}.{name}" not in self.given:
                    self._wrong(f"--{key}.{name} is needed by {cls.__name__}: give it")


def _fits(hint: Any, value: Any) -> bool:
    """Whether the parser takes a value for what is annotated so; a text is read as it reads what is typed."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        parser.parse_args([f"--value={value}"]) if isinstance(value, str) else parser.parse_object({"value": value})
    except ArgumentError:
        return False
    return True


def nearest(key: str, known: list[str]) -> str:
    """The key that was probably meant: one of the same name elsewhere, or of a similar one; "" if there is none."""
    section, _, name = key.rpartition(".")
    beside = [k for k in known if k.rpartition(".")[0] == section]
    alike = [k for k in known if k.rpartition(".")[2] == name]
    alike = [k for k in alike if k.startswith(("model.", "data."))] or alike
    word = rf"(\.|_|^){re.escape(name)}(_|$)"
    inside = [k for k in known if len(name) > 2 and section in ("", k.rpartition(".")[0]) and re.search(word, k)]
    inside = [k for k in inside if ".min_" not in k] or inside
    for among, cutoff in ((beside, 0.6), (set(beside) & set(inside), 0), (alike, 0), (inside, 0), (known, 0.6)):
        names = {k.rpartition(".")[2] for k in among}
        if like := difflib.get_close_matches(name, names, 1, cutoff):
            return difflib.get_close_matches(key, [k for k in among if k.rpartition(".")[2] == like[0]], 1, 0)[0]
    return ""
