"""Words and files of settings: data of one meaning and of a bounded size, and what is wrong with other files."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException

T = TypeVar("T")
LARGEST = 100_000  # bytes; the configuration of a run has three thousand, and a million take YAML a minute
UNFOLDED = 1_000_000  # characters, with everything that aliases repeat
DEEPEST = 50
PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def options_in(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """The options among the words of a command line, as --key=value or --key value, with their values."""
    for i, argument in enumerate(arguments):
        if argument.startswith("-"):
            key, equals, value = argument.partition("=")
            yield key, value if equals else "".join(arguments[i + 1 : i + 2])


def with_home(text: str) -> str:
    """A path that begins with ``~/`` or ``~name/`` as the shell would have given it; any other text as it is."""
    return os.path.expanduser(text) if text.startswith("~") else text  # noqa: PTH111 - a text, often no path


class Loader(yaml.SafeLoader):
    """YAML as the command line reads values: 1e-3 is a number, 010 is ten, and neither times nor dates are numbers.

    Aliases are taken up to a size, a key can be there once, keys are words, and there are no tags, which would make
    other things of values.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        mark: Any = event.start_mark
        if getattr(event, "tag", None) not in (None, "!"):
            raise yaml.MarkedYAMLError(None, None, f"the tag {event.tag} is not read", event.start_mark)
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.MarkedYAMLError(None, None, f"more than {DEEPEST} levels are not read", event.start_mark)
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if not hasattr(node, "size"):
                raise yaml.MarkedYAMLError(None, None, f"*{event.anchor} stands inside of itself", mark)
            return node
        if isinstance(node, yaml.ScalarNode):
            # JSON escapes a character in two halves; what is no half is a byte of a file's name that is not UTF-8.
            node.value = PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), node.value)
            if HALF.search(node.value):
                raise yaml.MarkedYAMLError(None, None, "half a character is not read", event.start_mark)
            parts, node.size = [], 1 + len(node.value)
        else:
            parts = [n for part in node.value for n in (part if isinstance(part, tuple) else (part,))]
            node.size = 1 + sum(part.size for part in parts)
        if node.size > UNFOLDED:
            raise yaml.MarkedYAMLError(None, None, "its aliases unfold to more than is read", event.start_mark)
        if isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, _ in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.MarkedYAMLError(None, None, "a key must be a word", key.start_mark)
                if key.value in lines:
                    where = f"lines {lines[key.value]} and {line}" if lines[key.value] != line else f"line {line}"
                    raise yaml.YAMLError(f"the key {key.value} is there twice, in {where}: the first would be lost")
                lines[key.value] = line
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        self.flatten_mapping(node)
        settings = {key.value: self.construct_object(value, deep=True) for key, value in node.value}
        if settings.get("init_args", node) is None:  # all of them are commented out
            del settings["init_args"]
        return settings

    def construct_number(self, node: Any) -> int | str:
        digits = node.value.replace("_", "").lower()
        return int(digits, 16 if "x" in digits else 10)

    def construct_text(self, node: Any) -> str:
        return with_home(self.construct_scalar(node))


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if not re.search("(timestamp|value|float|int)$", tag)]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for kind, pattern in {
    "int": r"[-+]?([0-9][0-9_]*|0x[0-9a-fA-F_]+)$",
    "float": r"[-+]?(([0-9][0-9_]*)?\.[0-9][0-9_]*|[0-9][0-9_]*\.?)([eE][-+]?[0-9]+)?$|[-+]?\.inf$|\.nan$",
}.items():
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(pattern, re.IGNORECASE), list("-+.0123456789"))
# Python's word, which wandb's agent types.
Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("None$"), ["N"])
Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_number)
Loader.add_constructor("tag:yaml.org,2002:str", Loader.construct_text)


def load(text: str) -> Any:
    """What a file or a word says; a word that begins with a hash, such as a colour, is no comment."""
    return text if text.startswith("#") and "\n" not in text else yaml.load(text, Loader)


def text_of(path: Path) -> str:
    """The text of a configuration file.

    Raises:
        ValueError: There is no such file, or it holds something else; the message says what.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST // 1000} kB")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("it is UTF-16: save it as UTF-8")
    if b"\0" in content:
        raise ValueError("it is no text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line} is not UTF-8 (byte 0x{content[error.start]:02x}, as Latin-1 has it): save it as UTF-8"
        ) from error


def settings_in(text: str) -> dict[str, Any]:
    """The settings in the text of a configuration file, which is YAML or JSON.

    Raises:
        ValueError: It holds something else; the message says what.
    """
    try:
        settings = yaml.load(text, Loader)
        str(settings)  # fails on numbers that are too long to be written
    except yaml.YAMLError as error:
        raise ValueError(wrong_in(error)) from error
    if settings is None:
        raise ValueError("it holds no settings")
    if not isinstance(settings, dict):
        kind = "a list" if isinstance(settings, list) else f"only {str(settings)[:40]!r}"
        raise ValueError(f"it holds {kind} and no keys with values, such as max_steps: 100")
    return settings


def readable(option: str, given: Any, read: Callable[[], T]) -> T:
    """What is read of a file, or of settings, that an option is given.

    Raises:
        MisconfigurationException: They cannot be read; the message says why.
    """
    try:
        return read()
    except ValueError as error:
        raise MisconfigurationException(f"{option}={given} cannot be read: {error}") from error


def settings_of(option: str, path: str) -> dict[str, Any]:
    """The settings in a file that an option names."""
    return readable(option, path, lambda: settings_in(text_of(Path(path))))


def wrong_in(error: Any) -> str:
    """What is wrong in a YAML text, and where."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return str(getattr(error, "reason", error))
    problem = error.problem.replace(r"found character '\t' that cannot start any token", "a tab where spaces should be")
    begun = getattr(error, "context_mark", None)
    where = f", {error.context} from line {begun.line + 1} on" if begun and begun.line != mark.line else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}{where}"
