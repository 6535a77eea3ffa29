"""How settings are read: the parser, its help, and one sentence for what is wrong with them."""

import argparse
import collections.abc
import difflib
import inspect
import os
import pkgutil
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn, TypeVar, get_args, get_origin

import yaml
from jsonargparse import Namespace, set_loader
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from callbacks.command_line.config_files import Loader, settings_in, text_of, wrong_in
from callbacks.command_line.ranges import spelled
from callbacks.runs.folder import EVALUATIONS, options_in
from callbacks.runs.settings import SECTIONS, _annotations, _members, masked, without_typed_secrets


def _load(text: str) -> Any:
    """What a file or a word says; a word that begins with a hash, such as a colour, is no comment."""
    return text if text.startswith("#") and "\n" not in text else yaml.load(text, Loader)


set_loader("yaml", _load, exceptions=(yaml.YAMLError,))

T = TypeVar("T")
FILES = (".yaml", ".yml", ".json")
SUBCOMMANDS = ("fit", *EVALUATIONS)
# Of the Trainer's forty options, those that most people need.
OF_TRAINER = (
    *("max_steps", "max_time", "val_check_interval", "limit_val_batches", "log_every_n_steps"),
    *("accelerator", "devices", "num_nodes", "precision", "logger", "callbacks"),
)
OF_RUN = {
    "config=FILE": "Settings in YAML or JSON; of several files the later ones win, and what is typed wins over all.",
    "print_config": "Print the settings that all of it amounts to, and run nothing.",
    "ckpt_path=FILE": "Checkpoint to go on from or to evaluate: a file, last or best; those of the newest run or of "
    "--run_dir.",
    "run_dir=FOLDER": "Folder that keeps everything of this run; by default runs/GAN-DATA/DATE-TIME-NAME.",
    "name=NAME": "Name of this run; by default its configuration files and the settings typed beside them.",
    "seed_everything=0": "Seed of all random numbers; true draws one.",
}


class Parser(LightningArgumentParser):
    """Says in one sentence what is wrong, and in its help what can be set for the classes that are named.

    Attributes:
        file: The configuration file that is being read, if any.
        classes: What --model and --data may name, by all names that they have; it is filled by whoever knows them.
        parts: The same for the classes that a model is made with, by their base class.
        linked: Arguments of the model and the data that cannot be typed, since something else says them.
    """

    file = ""
    classes: dict[str, dict[str, type]] = {}
    parts: dict[type, dict[str, type]] = {}
    linked: dict[str, tuple[str, ...]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def parse_args(self, args: Any = None, *rest: Any, **kwargs: Any) -> Any:
        for option, value in options_in(args or []):  # what is wrong with a file is said with its name
            if option[2:] in ("model", "data", "trainer", *self.callback_keys) and os.path.isfile(value):  # noqa: PTH113 - any text
                readable(option, lambda path=value: settings_in(text_of(Path(path))), value)
        return super().parse_args(args, *rest, **kwargs)

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        if "://" in str(path):
            return super().parse_path(path, *args, **kwargs)
        before, Parser.file = Parser.file, str(path)
        try:
            text = readable("--config", lambda: text_of(Path("/dev/stdin" if str(path) == "-" else path)), path)
            return self.parse_string(text, *args, **kwargs)
        finally:
            Parser.file = before

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Any:
        settings = readable("--config", lambda: settings_in(content), Parser.file or content)
        for key in ("trainer", *self.callback_keys):
            if key in settings and not isinstance(settings[key], dict):
                fail(
                    f"{key} holds {written(settings[key])} and no keys with values, such as --{key}.KEY=VALUE{within()}"
                )
        return super().parse_string(content, *args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # the parser of a class; the whole one says in which place
            raise argparse.ArgumentError(None, message) from ex
        fail(one_sentence(message, self))

    def format_help(self) -> str:
        if hasattr(self, "subcommand"):
            return help_of(self, self.subcommand, self.args)
        if self._subcommands_action:
            return self.description or ""
        return "\n".join([self.description or "", *(listed(self) or ["", "It has no settings."]), ""])


def readable(option: str, read: Callable[[], T], given: Any) -> T:
    """What is read of a file that an option names, or the end."""
    try:
        return read()
    except ValueError as error:
        raise MisconfigurationException(f"{option}={given} cannot be read: {error}") from error


def within() -> str:
    """Where it was read, if it was in a file."""
    return f" (in {Parser.file})" if Parser.file else ""


def fail(message: str) -> NoReturn:
    """End with one line that says what is wrong, and no secret that was typed."""
    sys.exit(f"error: {without_typed_secrets(' '.join(message.split()), sys.argv[1:])[:450]}")


# Help


def help_of(parser: Parser, subcommand: str, words: list[str]) -> str:
    """What can be set: for the run, its callbacks, and the GAN and data set that are named among the words."""
    if "--trainer.help" in words:
        return "\n".join(["The options of Lightning's Trainer", *listed(parser, "trainer"), ""])
    command = f"python train.py {subcommand}"
    lines = [f"usage: {command} [--config=FILE ...] [--KEY=VALUE ...]", "", "The run:"]
    lines += [line for key, text in OF_RUN.items() for line in entry(f"--{key}", text)]
    classes = named_classes(words)
    for key in Parser.classes:
        if key in classes:
            lines += listed(class_parser(classes[key], key), key, f"--{key}={typed_name(classes[key])}: ")
        else:
            lines += ["", f"With --{key}=NAME or a configuration that names one, its settings are listed here, too:"]
            lines += entry(f"--{key}=NAME", f"One of {', '.join(names_for(key))}, or the class path of your own.")
    for key in [key for key in parser.callback_keys if subcommand == "fit" or key in SECTIONS]:
        lines += listed(parser, key, brief=True)
    lines += listed(parser, "trainer", "Of Lightning's Trainer, all of whose options --trainer.help lists", brief=True)
    return "\n".join([*lines, ""])


def listed(parser: Parser, key: str = "", title: str = "", brief: bool = False) -> list[str]:
    """The settings under a key with their defaults, what they mean (in brief, the first sentence), and their ranges."""
    lines: list[str] = []
    defaults = parser.get_defaults()
    for group in parser._action_groups:
        actions = [
            a for a in group._group_actions if a.dest.startswith(key and f"{key}.") and a.default != argparse.SUPPRESS
        ]
        if brief and key == "trainer":
            actions = [a for a in actions if a.dest.partition(".")[2] in OF_TRAINER]
        if actions:
            about = title if brief and title else f"{title}{group.title}"
            lines += ["", *textwrap.wrap(f"{plain_text(about).rstrip('.:')}:", page())]
        for action in actions:
            text, default = plain_text(action.help or ""), defaults.get(action.dest)
            if brief:
                text = re.split(r"(?<=\.)\s", text)[0]
            kinds = _members(getattr(action, "_typehint", None))
            for interval in [get_args(kind)[1] for kind in kinds if get_origin(kind) is Annotated][:1]:
                text = f"{text.rstrip('.')}; {spelled(interval)}."
            for base in Parser.parts.keys() & set(kinds):
                text += f" There are {', '.join(name for name in Parser.parts[base] if '.' not in name)}."
            if str(action.metavar).startswith("{") and "true" not in str(action.metavar):
                text += f" One of {action.metavar.strip('{}').replace(',', ', ')}."
            if not brief and isinstance(default, Namespace) and default.get("init_args"):
                given = (f".{name}={written(value)}" for name, value in default.init_args.items())
                text += f" With {' '.join(given)}."
            lines += entry(f"--{action.dest}={written(default)}", text)
    return lines


def plain_text(text: str) -> str:
    """A docstring's words without its markup and without what the defaults say anyhow."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", " ".join(text.split()))
    return re.sub(r"\s*Default: ``.*?``\.?", "", text).replace("``", "")


def written(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, Namespace | dict) and "class_path" in value:
        return str(value["class_path"])
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(written, value))}]" if isinstance(value, list | tuple) else str(value)


def entry(head: str, text: str) -> list[str]:
    """A setting and what it means, side by side."""
    column = 36
    lines = textwrap.wrap(text, page() - column, break_on_hyphens=False) or [""]
    first = [f"  {head}"] if len(head) > column - 4 else []
    beside = [f"{'' if first or i else f'  {head}':<{column}}{line}".rstrip() for i, line in enumerate(lines)]
    return first + beside


def page() -> int:
    """The width of what is printed."""
    return min(120, max(70, shutil.get_terminal_size((110, 24)).columns))


def names_for(key: str) -> list[str]:
    """The classes that --model or --data may name, by their shortest names."""
    return [name for name in Parser.classes[key] if "." not in name]


def class_parser(cls: type, key: str) -> Parser:
    """A parser of a class's arguments alone, as they are typed."""
    parser = Parser(exit_on_error=False)
    parser.add_class_arguments(cls, key, skip=set(Parser.linked.get(key, ("params", "optimizer"))), fail_untyped=False)
    return parser


def named_classes(words: list[str]) -> dict[str, type]:
    """The classes that a command line names for the model and the data, by itself or in its configuration files."""
    found: dict[str, Any] = {}
    for option, value in options_in(words):
        if option in ("--config", "-c"):
            try:
                settings = settings_in(value if value.startswith("{") else text_of(Path(value)))
            except ValueError:
                continue  # said elsewhere
            found |= {key: settings[key] for key in Parser.classes if settings.get(key)}
        elif option in ("--model", "--data"):
            found[option[2:]] = value
    classes = {}
    for key, value in found.items():
        name = str(value.get("class_path") if isinstance(value, dict) else value)
        try:
            classes[key] = Parser.classes[key].get(name) or pkgutil.resolve_name(name)
        except (AttributeError, ImportError, ValueError):
            continue
    return {key: cls for key, cls in classes.items() if isinstance(cls, type)}


# What is wrong


class Problem(NamedTuple):
    """What the parser's tree of causes says.

    Attributes:
        key: The key as it is typed.
        reasons: What is wrong with it.
        value: Its value, unless that is a whole class.
        owner: The class that has the key as an argument.
        made: The class that was to be made for it.
    """

    key: str
    reasons: list[str]
    value: str | None
    owner: str | None
    made: str | None


NOISE = re.compile(
    r"(Does not validate|Subtypes:|Errors:|Given value type|Expected a path but|Subclass types expect|a (class|dict))"
)

NO_CLASS = re.compile(
    r"Expected a dot import path|.*has no attribute|No module named|Import path|Expected '.*' to be|Unexpected import|"
    r"Not a valid"
)


def problem_in(message: str) -> Problem:
    """The first branch of jsonargparse's tree of causes."""
    keys: list[str] = []
    reasons: list[str] = []
    owner = made = value = None
    depth = 0
    for raw in message.splitlines():
        line = re.sub(r".* expects a function or a callable class: ", "", raw.strip(" -"))
        if found := re.match(r"Given value: (.*)", line):
            made = made if (named := re.match(r"Namespace\(class_path='([^']+)'", found[1])) is None else named[1]
            if nested := re.match(r"NestedArg\(key='([^']+)', val=(.*)\)$", found[1]):
                if not ".".join(keys).endswith(nested[1].rstrip("+")) and "Option" not in reasons[0]:
                    keys.append(nested[1])
                found = [nested[2].strip("'")] * 2
            value = found[1].partition(". Got value: ")[0] if value is None else value
            break
        indent = len(raw) - len(raw.lstrip(" "))
        if reasons and indent < depth:  # of what is around it
            continue
        if found := re.match(r'Parser key "([^"]*)":\s*(.*)', line):
            if reasons:
                break
            keys.append(found[1])
            owner, line = made, found[2]
        if found := re.match(r"Problem with given class_path '([^']+)':", line):
            made = found[1]
        elif line and not NOISE.match(line):
            reason, got, rest = line.partition(" Got value:")
            if found := re.search(r"Namespace\(class_path='([^']+)'", rest):
                made = found[1]
            value = rest.strip().partition(". Got value: ")[0] if got and value is None else value
            depth = depth if reasons else indent
            reasons.append(reason.rstrip("."))
    key = re.sub(rf"^({'|'.join(SUBCOMMANDS)})\.|\.init_args|\.class_path$", "", ".".join(keys))
    return Problem(
        key, reasons, None if re.match(r"Namespace\(|\{'(class_path|init_args)", value or "") else value, owner, made
    )


def one_sentence(message: str, parser: Parser) -> str:
    """The innermost cause in jsonargparse's tree of causes, and what was probably meant."""
    problem = problem_in(message)
    reason = problem.reasons[0] if problem.reasons else message
    where = within()
    if found := re.match(r"unrecognized arguments: (.*)", reason):
        return stray(next((word for word in parser.args if found[1].startswith(word)), found[1]), parser)
    if found := re.search(r"Option '(.+)' is not accepted|does not accept option '(.+)'", reason):
        return unknown(problem.key, found[1] or found[2], parser, problem.made) + where
    if found := re.match(r"the following arguments are required: (.*)", reason):
        return missing(problem, found[1].split(", "), parser) + where
    if "-h/--help: ignored explicit argument" in reason:
        return stray(next(word for word in parser.args if re.match("-h.", word)), parser)
    if found := re.match(r"argument (?:\S+/)?(--\S+): expected one argument", reason):
        words = [word for word in parser.args if word.startswith(found[1]) and "=" not in word]
        return f"{words[-1] if words else found[1]} is given no value: {words[-1] if words else found[1]}=VALUE"
    if problem.key == "config":
        given = option_of(parser, "--config") or option_of(parser, "-c")
        if given.endswith(FILES) and not os.path.exists(given):  # noqa: PTH110 - any text
            reason = "it does not exist"
        elif not re.match("File|Path", reason):
            readable("--config", lambda: settings_in(given), given)
        return f"--config={given} cannot be read: {reason}"
    value = {"None": "null", "True": "true", "False": "false"}.get(problem.value or "", problem.value or "")
    given = masked([f"--{problem.key}={value}"])[0]
    if found := re.match(r"Unable to load config '(.*)'", reason):
        return f"{given}{found[1]} is no file of settings, which are typed as --{problem.key}.KEY=VALUE"
    if value.endswith(FILES):
        return f"{given} is no file of settings{where}"
    if value.startswith(("[", "{")) and Parser.file == "":
        try:
            yaml.load(value, Loader)
        except yaml.YAMLError as error:
            return f"{given} cannot be read ({wrong_in(error)}): close its brackets, and put it between quotes"
    if found := re.match(r"Multiple subclasses with name (\w+)\. .*: (.*)", reason):
        return f"{given} is the name of several classes: give {' or '.join(found[2].split(', '))}{where}"
    if reason.endswith("is abstract"):
        return f"{given} goes with a class: name it first, with --{problem.key.rpartition('.')[0]}=NAME{where}"
    if NO_CLASS.match(reason):
        return no_class(problem, given) + where
    expected = [kind for r in problem.reasons for kind in re.findall(r"^Expected an? (?!dot )(.*)", r)]
    if expected == ["<class 'NoneType'>"]:
        return no_class(problem, given) + where
    if expected:
        return f"{given} must be {kinds_of(expected)}{where}"
    text = re.sub(r"<class '([\w.]+)'>", r"\1", " ".join(problem.reasons) or message)
    return (f"{given}: {text}" if problem.key else text) + where


def option_of(parser: Parser, option: str) -> str:
    """The last value that an option was given."""
    return next((value for key, value in reversed(list(options_in(parser.args))) if key == option), "")


KINDS = {
    "NoneType": "null",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a word",
    "list": "a list, such as [a,b] (or += in place of =)",
    "dict": "a mapping, such as {a: 1}",
}


def kinds_of(expected: list[str]) -> str:
    """The types that a value may be of, as one types them."""
    words: list[str] = []
    for kind in expected:
        if kind.startswith("typing.Literal["):
            words += re.findall(r"[\w.-]+", kind.partition("[")[2])
        elif kind.startswith("import path"):
            words.append("the name of a class")
        else:
            name = re.sub(r"<class '([\w.]+)'>", r"\1", kind).rpartition(".")[2]
            words.append(KINDS.get(name, name))
    words = list(dict.fromkeys(word for word in words if word != "null")) + ["null"] * ("null" in words)
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def stray(word: str, parser: Parser) -> str:
    """What a word of the command line was probably meant to be, which is no option."""
    key, equals, _ = word.lstrip("-\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}").partition("=")
    if word.startswith("--") and key:
        return unknown("", key, parser)
    near = difflib.get_close_matches(word.lower(), (*SUBCOMMANDS, "train"), 1)
    if near and word in parser.args[:1]:
        meant = (
            f"did you mean {near[0].replace('train', 'fit')}? There are {', '.join(SUBCOMMANDS)}; without one it trains"
        )
    elif word.endswith(FILES):
        meant = f"did you mean --config={word}?"
    elif word.endswith(".ckpt"):
        meant = f"did you mean --ckpt_path={word}?"
    elif word != key or equals:
        known = nearest(key, known_keys(parser))
        meant = f"did you mean --{known}?" if known else "options begin with two hyphens"
    else:
        kinds = [f"--{kind}={word}" for kind in Parser.classes if word in names_for(kind)]
        meant = f"did you mean {kinds[0]}?" if kinds else "every setting is typed as --KEY=VALUE"
    return f"{word} belongs to no option: {meant}"


def unknown(base: str, name: str, parser: Parser, made: str | None = None) -> str:
    """What is meant by a key that does not exist, or where to find those that do.

    Args:
        base: The key of the class that was to be made.
        name: The rest of the key.
        parser: The parser.
        made: The class.
    """
    key = ".".join(filter(None, (base, name))).replace(".init_args", "")
    if name == "class_path":
        return f"--{base} has more than class_path: the rest goes into init_args"
    cls = pkgutil.resolve_name(made) if made else None
    said = f"the key --{key} does not exist"
    if isinstance(cls, type) and base not in Parser.classes:
        own = list(vars(class_parser(cls, base).get_defaults().get(base, Namespace())))
        if near := nearest(key, [f"{base}.{argument}" for argument in own]):
            return f"{said}: did you mean --{near}?"
        return f"{said}: {cls.__name__} has {', '.join(own[:20]) or 'no settings'}"
    if near := nearest(key, known_keys(parser)):
        return f"{said}: did you mean --{near}?" if near != key else f"{said} there: it goes into init_args"
    section = key.partition(".")[0]
    named = named_classes(parser.args).get(section)
    help_for = f"--{section}={typed_name(named)} --help" if named else "--help"
    help_for = "--trainer.help" if section == "trainer" else help_for
    return f"{said}: python train.py {getattr(parser, 'subcommand', 'fit')} {help_for} lists what there is"


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


def known_keys(parser: Parser) -> list[str]:
    """All keys, those of the model and the data that are named included."""
    of_all = parser if hasattr(parser, "subcommand") else next(iter(parser._subcommands_action.choices.values()))
    keys = [o[2:] for action in of_all._actions for o in action.option_strings if re.fullmatch(r"--[\w.]+(?<!help)", o)]
    for key, cls in named_classes(parser.args).items():
        keys += class_parser(cls, key).get_defaults().keys()
    return [re.sub(r"\.init_args|\.class_path", "", key) for key in keys]


def missing(problem: Problem, keys: list[str], parser: Parser) -> str:
    """What has to be given."""
    if problem.key:
        of = f" by {problem.made.rpartition('.')[2]}" if problem.made else ""
        return f"--{problem.key}.{keys[0]} is needed{of}: give it"
    subcommand = getattr(parser, "subcommand", None) or keys[0].partition(".")[0]
    if subcommand in EVALUATIONS:
        return f"{subcommand} needs a trained model: give --ckpt_path (a file, last or best)"
    absent = [key for key in Parser.classes if any(given.endswith(key) for given in keys)]
    words = {"model": "a GAN, such as --model=DCGAN", "data": "a data set, such as --data=MNIST"}
    what = " and ".join(words[key] for key in absent)
    return f"training needs {what}, or a configuration, such as --config=configs/quickstart.yaml"


def no_class(problem: Problem, given: str) -> str:
    """What classes there are for a setting that names none."""
    named = re.search(r"Expected a dot import path string: (\S+)|class_path '(\S+)'|$", problem.reasons[0])
    typed = named[1] or named[2] or problem.value or ""
    given = given if problem.value else f"{given}{typed}"
    module, _, name = typed.rpartition(".")
    choices = classes_for(problem, module)
    lower = {choice.rpartition(".")[2].lower(): choice for choice in choices}
    few = len(choices) <= 20
    near = [n for n in lower if len(name) > 3 and name.lower() in n]
    near = near or difflib.get_close_matches(name.lower(), lower, 2, 0.5 if len(name) < 3 else 0.65)
    near = [lower[n] for n in near[: 1 if few else 2]]
    known = f" There are {', '.join(choices)}." if few and choices else ""
    if near:
        return f"{given} names no class for it: did you mean {' or '.join(near)}?{known}"
    if "." in typed or not known:  # of one's own
        return f"{given} names no class for it ({problem.reasons[0]}).{known}"
    return f"{given} names no class for it.{known}"


def classes_for(problem: Problem, module: str) -> list[str]:
    """The classes that a setting can name, as they are typed."""
    if problem.key in Parser.classes:
        return names_for(problem.key)
    owner = pkgutil.resolve_name(problem.owner) if problem.owner else SECTIONS.get(problem.key.partition(".")[0])
    annotation = _annotations(owner).get(problem.key.rpartition(".")[2]) if isinstance(owner, type) else None
    bases = set(classes_in(annotation))
    if nn.Module in bases:  # of which there are thousands
        try:
            found = vars(pkgutil.resolve_name(module or "kornia.augmentation"))
        except (ImportError, AttributeError, ValueError):
            return []
        classes = [cls for cls in found.values() if isinstance(cls, type) and issubclass(cls, nn.Module)]
        return [f"{module or 'kornia.augmentation'}.{cls.__name__}" for cls in classes]
    classes = [cls for base in bases for cls in subclasses(base)]
    names = [cls.__name__ for cls in classes]
    return [n if names.count(n) == 1 else path_of(c) for n, c in zip(names, classes, strict=True)]


def typed_name(cls: type) -> str:
    """What a model or data set is called on the command line: its name, or the path of one's own."""
    return cls.__name__ if any(known.get(cls.__name__) is cls for known in Parser.classes.values()) else path_of(cls)


def path_of(cls: type) -> str:
    """The shortest path by which a class can be imported."""
    parts = cls.__module__.split(".")
    modules = (".".join(parts[:number]) for number in range(1, len(parts) + 1))
    return next(f"{m}.{cls.__name__}" for m in modules if getattr(sys.modules.get(m), cls.__name__, None) is cls)


def classes_in(annotation: Any) -> Iterator[type]:
    """The classes of which a setting can name a subclass."""
    for member in _members(annotation):
        if get_origin(member) is not None:
            of = get_args(member)
            yield from classes_in(of[-1] if get_origin(member) is collections.abc.Callable else of[0])
        elif isinstance(member, type) and member.__module__ != "builtins":
            yield member


def subclasses(base: type) -> list[type]:
    """All that can be imported and are no drafts for others."""
    found = [cls for sub in base.__subclasses__() for cls in (sub, *subclasses(sub))]
    found = [cls for cls in found if getattr(sys.modules.get(cls.__module__), cls.__name__, None) is cls]
    return [c for c in dict.fromkeys(found) if not c.__name__.startswith("_") and not inspect.isabstract(c)]
