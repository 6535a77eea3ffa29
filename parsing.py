"""How settings are read: the parser, its help, and one sentence for what is wrong with them."""

import argparse
import collections.abc
import difflib
import inspect
import pkgutil
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_args, get_origin

import yaml
from jsonargparse import Namespace, set_loader
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

import datamodules
import gans
from callbacks.config_files import Loader, settings_in, text_of
from callbacks.runs import EVALUATIONS, options_in
from callbacks.settings import SECTIONS, _annotations, _members, masked, without_typed_secrets
from gans import checkpoints
from gans.losses import AdversarialLoss
from gans.penalties import Penalty

set_loader("yaml", lambda text: yaml.load(text, Loader), exceptions=(yaml.YAMLError,))

SUBCOMMANDS = ("fit", *EVALUATIONS)
OF_DATA = ("image_shape", "num_classes", "domains", "scale")  # what the data tells the model
LINKED = {"model": OF_DATA, "data": ("seed",)}  # what cannot be typed, since something else says it
PACKAGES = {"model": gans, "data": datamodules}
# Of the Trainer's forty options, those that most people need.
OF_TRAINER = (
    *("max_steps", "max_time", "val_check_interval", "limit_val_batches", "log_every_n_steps"),
    *("accelerator", "devices", "num_nodes", "precision", "logger", "callbacks"),
)


def named(classes: Iterable[type]) -> dict[str, type]:
    """Classes by the names that a configuration may call them by."""
    return {
        f"{package}{cls.__name__}": cls
        for cls in classes
        if not inspect.isabstract(cls)
        for package in ("", f"{cls.__module__}.", f"{cls.__module__.partition('.')[0]}.")
    }


# What a run folder may name; whatever else it names is refused.
CLASSES = {
    key: named(getattr(package, name) for name in package.__all__ if hasattr(getattr(package, name), "setup"))
    for key, package in PACKAGES.items()
}
PARTS: dict[type, dict[str, type]] = {
    base: named(cls for cls in checkpoints.lab_parts().values() if issubclass(cls, base))
    for base in (AdversarialLoss, Penalty)
}
NAMES = {key: [name for name in classes if "." not in name] for key, classes in CLASSES.items()}

DESCRIPTION = """
Train, score and sample GANs. Without a subcommand it trains:

  python train.py --config configs/quickstart.yaml
  python train.py --config configs/dcgan/mnist.yaml --data.batch_size=32 --trainer.max_steps=1000
  python train.py --config configs/dcgan/mnist.yaml --config mine.yaml      (later files win)
  python train.py --config configs/dcgan/image_folder.yaml --data.data_dir=my_images --data.image_size=64
  python train.py --config configs/dcgan/mnist.yaml --model.generator_optimizer.lr=1e-4
  python train.py --config configs/dcgan/mnist.yaml --model.generator_optimizer=torch.optim.RMSprop
  python train.py --config configs/dcgan/mnist.yaml --trainer.devices=2 --trainer.precision=16-mixed
  python train.py --config configs/dcgan/mnist.yaml --ckpt_path=last        (goes on where the newest run stopped)
  python train.py --config configs/dcgan/mnist.yaml --print_config          (the complete settings, nothing run)

From a checkpoint, with the settings of the run that wrote it:

  python train.py validate --ckpt_path=RUN/checkpoints/best.ckpt            (prints the scores; so does test)
  python train.py predict --ckpt_path=RUN/checkpoints/best.ckpt --model.predict_images=1000
  python train.py predict --ckpt_path=RUN/checkpoints/best.ckpt --data.predict_dir=my_images   (translates them)

What can be set, and what it means:

  python train.py fit --help                                                (runs, pictures, scores, checkpoints)
  python train.py fit --config configs/dcgan/mnist.yaml --help              (a GAN and a data set, too)
  python train.py fit --model=DCGAN --data=MNIST --help                     (the same, by name)
  python train.py fit --trainer.help                                        (all of the Trainer's options)

Without --trainer.precision it is bf16-mixed where the machine has instructions for bfloat16, and 32-true elsewhere.
"""
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
    """

    file = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        if "://" in str(path):
            return super().parse_path(path, *args, **kwargs)
        before, Parser.file = Parser.file, str(path)
        try:
            text = text_of(Path("/dev/stdin" if str(path) == "-" else path))
            settings_in(text)
            return self.parse_string(text, *args, **kwargs)
        except ValueError as error:
            raise MisconfigurationException(f"--config={path} cannot be read: {error}") from error
        finally:
            Parser.file = before

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # the parser of a class; the whole one says in which place
            raise argparse.ArgumentError(None, message) from ex
        fail(one_sentence(message, self))

    def format_help(self) -> str:
        if hasattr(self, "subcommand"):
            return help_of(self, self.subcommand, self.args)
        return self.description if self._subcommands_action else "\n".join(listed(self))


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
    for key, names in NAMES.items():
        if key in classes:
            lines += listed(class_parser(classes[key], key), key, f"--{key}={classes[key].__name__}: ")
        else:
            lines += ["", f"With --{key}=NAME or a configuration that names one, its settings are listed here, too:"]
            lines += entry(f"--{key}=NAME", f"One of {', '.join(names)}, or the class path of your own.")
    for key in [key for key in parser.callback_keys if subcommand == "fit" or key in SECTIONS]:
        lines += listed(parser, key, brief=True)
    lines += listed(parser, "trainer", "Of Lightning's Trainer, all of whose options --trainer.help lists: ", True)
    return "\n".join([*lines, ""])


def listed(parser: Parser, key: str, title: str = "", brief: bool = False) -> list[str]:
    """The settings under a key with their defaults and what they mean; in brief, only the first sentence of it."""
    lines = []
    defaults = parser.get_defaults()
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if a.dest.startswith(f"{key}.") and a.default != argparse.SUPPRESS]
        if brief and key == "trainer":
            actions = [a for a in actions if a.dest.partition(".")[2] in OF_TRAINER]
        if actions:
            about = title.rstrip(": ") if brief and title else f"{title}{group.title}"
            lines += ["", f"{plain_text(about).rstrip('.:')}:"]
        for action in actions:
            text, default = plain_text(action.help or ""), defaults.get(action.dest)
            if brief:
                text = re.split(r"(?<=[.;])\s", text)[0]
            if str(action.metavar).startswith("{") and "true" not in str(action.metavar):
                text += f" One of {action.metavar.strip('{}').replace(',', ', ')}."
            if isinstance(default, Namespace) and default.get("init_args"):
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
    width = min(120, shutil.get_terminal_size((110, 24)).columns)
    column = 36
    lines = textwrap.wrap(text, max(30, width - column), break_on_hyphens=False) or [""]
    first = [f"  {head}"] if len(head) > column - 4 else []
    beside = [f"{'' if first or i else f'  {head}':<{column}}{line}".rstrip() for i, line in enumerate(lines)]
    return first + beside


def class_parser(cls: type, key: str) -> Parser:
    """A parser of a class's arguments alone, as they are typed."""
    parser = Parser(exit_on_error=False)
    parser.add_class_arguments(cls, key, skip=set(LINKED[key]), fail_untyped=False)
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
            found |= {key: settings[key] for key in PACKAGES if settings.get(key)}
        elif option in ("--model", "--data"):
            found[option[2:]] = value
    classes = {}
    for key, value in found.items():
        name = str(value.get("class_path") if isinstance(value, dict) else value)
        try:
            classes[key] = CLASSES[key].get(name) or pkgutil.resolve_name(name)
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

NO_CLASS = "Expected a dot import path|.*has no attribute|No module named|Import path|Unexpected import|Not a valid"


def problem_in(message: str) -> Problem:
    """The first branch of jsonargparse's tree of causes."""
    keys: list[str] = []
    reasons: list[str] = []
    owner = made = value = None
    for line in message.splitlines():
        line = re.sub(r".* expects a function or a callable class: ", "", line.strip(" -"))
        if found := re.match(r'Parser key "([^"]*)":\s*(.*)', line):
            if reasons:
                break
            keys.append(found[1])
            owner, line = made, found[2]
        if found := re.match(r"Problem with given class_path '([^']+)':", line):
            made = found[1]
        elif found := re.match(r"Given value: (.*)", line):
            if nested := re.match(r"NestedArg\(key='([^']+)', val=(.*)\)$", found[1]):
                if not ".".join(keys).endswith(nested[1].rstrip("+")) and "Option" not in reasons[0]:
                    keys.append(nested[1])
                found = [nested[2].strip("'")] * 2
            value = value or found[1]
            break
        elif line and not NOISE.match(line):
            reason, _, rest = line.partition(" Got value: ")
            if found := re.search(r"Namespace\(class_path='([^']+)'", rest):
                made = found[1]
            value = value or rest.partition(". Got value: ")[0] or None
            reasons.append(reason.rstrip("."))
    key = re.sub(rf"^({'|'.join(SUBCOMMANDS)})\.|\.init_args|\.class_path$", "", ".".join(keys))
    return Problem(key, reasons, None if str(value).startswith(("Namespace(", "{")) else value, owner, made)


def one_sentence(message: str, parser: Parser) -> str:
    """The innermost cause in jsonargparse's tree of causes, and what was probably meant."""
    problem = problem_in(message)
    reason = problem.reasons[0] if problem.reasons else message
    where = f" (in {Parser.file})" if Parser.file else ""
    if found := re.match(r"unrecognized arguments: (.*)", reason):
        return stray(next((word for word in parser.args if found[1].startswith(word)), found[1]), parser)
    if found := re.search(r"Option '(.+)' is not accepted|does not accept option '(.+)'", reason):
        key = ".".join(filter(None, (problem.key, found[1] or found[2])))
        return unknown(key, parser, problem.made) + where
    if found := re.match(r"the following arguments are required: (.*)", reason):
        return missing(problem, found[1].split(", "), parser) + where
    if found := re.match(r"argument (?:\S+/)?(--\S+): expected one argument", reason):
        words = [word for word in parser.args if word.startswith(found[1]) and "=" not in word]
        return f"{words[-1] if words else found[1]} is given no value: {words[-1] if words else found[1]}=VALUE"
    if problem.key == "config":
        return f"--config={problem.value or option_of(parser, '--config')} cannot be read: {reason}"
    given = masked([f"--{problem.key}={problem.value or ''}"])[0]
    if found := re.match(r"Multiple subclasses with name (\w+)\. .*: (.*)", reason):
        return f"{given} is the name of several classes: give {' or '.join(found[2].split(', '))}{where}"
    if re.match(
        r"Expected a dot import path|.*has no attribute|No module named|Import path|Unexpected import|Not a valid subc",
        reason,
    ):
        return no_class(problem, given) + where
    expected = [kind for r in problem.reasons for kind in re.findall(r"^Expected an? (.*)", r)]
    if expected:
        return f"{given} must be {spelled(expected)}{where}"
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
    "list": "a list, such as [a,b]",
    "dict": "a mapping, such as {a: 1}",
}


def spelled(expected: list[str]) -> str:
    """The types that a value may be of, as one types them."""
    words: list[str] = []
    for kind in expected:
        if kind.startswith("typing.Literal["):
            words += re.findall(r"[\w.-]+", kind.partition("[")[2])
        else:
            name = re.sub(r"<class '([\w.]+)'>", r"\1", kind).rpartition(".")[2]
            words.append(KINDS.get(name, name))
    words = list(dict.fromkeys(word for word in words if word != "null")) + ["null"] * ("null" in words)
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def stray(word: str, parser: Parser) -> str:
    """What a word of the command line was probably meant to be, which is no option."""
    key, equals, _ = word.lstrip("-\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}").partition("=")
    if word.startswith("--") and key:
        return unknown(key, parser)
    near = difflib.get_close_matches(word.lower(), (*SUBCOMMANDS, "train"), 1)
    if near and not equals:
        meant = (
            f"did you mean {near[0].replace('train', 'fit')}? There are {', '.join(SUBCOMMANDS)}; without one it trains"
        )
    elif word.endswith((".yaml", ".yml", ".json")):
        meant = f"did you mean --config={word}?"
    elif word.endswith(".ckpt"):
        meant = f"did you mean --ckpt_path={word}?"
    elif word != key or equals:
        known = nearest(key, known_keys(parser))
        meant = f"options begin with two hyphens{known and f': did you mean --{known}?'}"
    else:
        kinds = [f"--{kind}={word}" for kind, names in NAMES.items() if word in names]
        meant = f"did you mean {kinds[0]}?" if kinds else "every setting is typed as --KEY=VALUE"
    return f"{word} belongs to no option: {meant}"


def unknown(key: str, parser: Parser, made: str | None = None) -> str:
    """What is meant by a key that does not exist, or where to find those that do."""
    path, _, name = key.rpartition(".")
    cls = pkgutil.resolve_name(made) if made else None
    own = []
    if isinstance(cls, type) and path not in PACKAGES:
        own = [
            f"{path}.{argument}" for argument in _annotations(cls) if argument not in ("return", "params", "optimizer")
        ]
    near = nearest(key, own) or nearest(key, known_keys(parser))
    if near:
        return f"the key --{key} does not exist: did you mean --{near}?"
    if own:
        return f"the key --{key} does not exist: {cls.__name__} has {', '.join(f'--{one}' for one in own)}"
    subcommand = getattr(parser, "subcommand", "fit")
    name = named_classes(parser.args).get(path.partition(".")[0])
    help_for = f"--{path}={name.__name__} --help" if name else "--trainer.help" if path == "trainer" else "--help"
    return f"the key --{key} does not exist: python train.py {subcommand} {help_for} lists what there is"


def nearest(key: str, known: list[str]) -> str:
    """The key that was probably meant: one of the same name elsewhere, or of a similar one; "" if there is none."""
    section, _, name = key.rpartition(".")
    for among in (known, [k for k in known if k.startswith(section.partition(".")[0])], known):
        names = {k.rpartition(".")[2] for k in among}
        cutoff = 1 if among is known and name in names else 0.6
        if like := difflib.get_close_matches(name, names, 1, cutoff):
            return difflib.get_close_matches(key, [k for k in among if k.rpartition(".")[2] == like[0]], 1, 0)[0]
    return next((k for k in known if re.search(rf"(\.|_|^){re.escape(name)}(_|$)", k)), "") if len(name) > 2 else ""


def known_keys(parser: Parser) -> list[str]:
    """All keys, those of the model and the data that are named included."""
    of_all = parser if hasattr(parser, "subcommand") else parser._subcommands_action.choices["fit"]
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
    absent = [key for key in PACKAGES if any(given.endswith(key) for given in keys)]
    words = {"model": "a GAN, such as --model=DCGAN", "data": "a data set, such as --data=MNIST"}
    what = " and ".join(words[key] for key in absent)
    return (
        f"training needs {what}, or a configuration, such as --config=configs/quickstart.yaml"
        if absent
        else f"give {keys[0]}"
    )


def no_class(problem: Problem, given: str) -> str:
    """What classes there are for a setting that names none."""
    module, _, name = (problem.value or "").rpartition(".")
    choices = classes_for(problem, module)
    lower = {choice.rpartition(".")[2].lower(): choice for choice in choices}
    few = len(choices) <= 20
    near = [lower[n] for n in difflib.get_close_matches(name.lower(), lower, 1 if few else 3, 0 if few else 0.5)]
    meant = f": did you mean {' or '.join(near)}?" if near else "" if choices else f": {problem.reasons[0]}"
    there_are = f" There are {', '.join(choices)}" if few and choices else ""
    return f"{given} is no class for it{meant}{there_are}"


def classes_for(problem: Problem, module: str) -> list[str]:
    """The classes that a setting can name, as they are typed."""
    if problem.key in NAMES:
        return NAMES[problem.key]
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
    return [n if names.count(n) == 1 else checkpoints.name_of(c) for n, c in zip(names, classes, strict=True)]


def classes_in(annotation: Any) -> Iterator[type]:
    """The classes of which a setting can name a subclass."""
    for member in _members(annotation):
        if get_origin(member) is not None:
            of = get_args(member)
            yield from classes_in(of[-1] if get_origin(member) is collections.abc.Callable else of[0])
        elif isinstance(member, type) and member.__module__ != "builtins":
            yield member


def subclasses(base: type) -> list[type]:
    """All that are no drafts for others."""
    found = [cls for sub in base.__subclasses__() for cls in (sub, *subclasses(sub))]
    return [c for c in dict.fromkeys(found) if not c.__name__.startswith("_") and not inspect.isabstract(c)]
