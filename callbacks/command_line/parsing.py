"""How settings are read: the parser, which says in one sentence what is wrong, and in its help what can be set."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import set_loader
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.command_line.classes import in_full, of_all_networks, public
from callbacks.command_line.config_files import load, options_in, readable, settings_in, settings_of, text_of
from callbacks.command_line.errors import fail
from callbacks.command_line.help import help_of, listed, written
from callbacks.command_line.mistakes import Search

# Whatever the parser reads is read so: files, and the words of the command line.
set_loader("yaml", lambda text: in_full("", load(text)), exceptions=(yaml.YAMLError,))


class Parser(LightningArgumentParser):
    """Says in one sentence what is wrong, and in its help what can be set for the classes that are named."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def parse_args(self, args: Any = None, *rest: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        sections = ("trainer", *self.callback_keys)
        words = of_all_networks(list(sys.argv[1:] if args is None else args))
        for option, value in options_in(words):
            if option[2:] in ("model", "data", *sections) and os.path.isfile(value):  # noqa: PTH113 - any text
                # What is wrong with a file is said with its name.
                settings_of(option, value)
            if option.endswith(".help") and option[2:-5] in sections and not self._subcommands_action:
                print("\n".join(listed(self, option[2:-5])))
                sys.exit()
        keys = ["", *(word if word.startswith("--") else "" for word in words)]
        for number, word in enumerate(words):
            key, equals, value = word.rpartition("=") if word.startswith("--") else (keys[number], "", word)
            words[number] = f"{key}={in_full(key, value)}" if equals else in_full(key, word)
        return super().parse_args(words, *rest, **kwargs)

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        if "://" in str(path):
            return super().parse_path(path, *args, **kwargs)
        path = "/dev/stdin" if str(path) == "-" else str(path)
        text = readable("--config", path, lambda: text_of(Path(path)))
        return self.parse_string(text, path, *args, **kwargs)

    def parse_string(self, content: str, path: Any = "", *args: Any, **kwargs: Any) -> Any:
        settings = readable("--config", path or content, lambda: settings_in(content))
        for key in ("trainer", *self.callback_keys):
            if not isinstance(given := settings.get(key, {}), dict):
                raise MisconfigurationException(
                    f"{key} holds {written(given)} and no keys with values, such as --{key}.KEY=VALUE "
                    f"(in {path or content})"
                )
        return super().parse_string(content, path, *args, **kwargs)

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """Settings as text, in which the classes of the lab have the paths by which they are typed."""
        return re.sub(
            r"(?<=class_path: )[\w.]+$", lambda path: public(path[0]), super().dump(*args, **kwargs), flags=re.M
        )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # the parser of a class; the whole one says in which place
            raise argparse.ArgumentError(None, message) from ex
        Search(self).search()
        reason: BaseException | None = ex
        while reason is not None and reason.__cause__ is not None:
            reason = reason.__cause__
        fail(str(reason or message))  # without any better sentence, the parser's own

    def format_help(self, formatter: Any = None) -> str:
        if hasattr(self, "subcommand"):
            return help_of(self, self.subcommand, self.args)
        if self._subcommands_action:
            return self.description or ""
        return "\n".join([self.description or "", *(listed(self) or ["", "It has no settings."]), ""])
