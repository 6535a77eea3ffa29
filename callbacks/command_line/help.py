"""What can be set, and what it means."""

import argparse
import re
import shutil
import textwrap
from typing import Annotated, Any, Literal, get_args, get_origin

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from callbacks.command_line.annotations import members, spelled
from callbacks.command_line.classes import (
    CLASSES,
    PARTS,
    class_parser,
    classes_in,
    named_classes,
    names_for,
    public,
    typed_name,
)
from callbacks.runs.settings import SECTIONS

DESCRIPTION = """
Train, score and sample GANs. Without a subcommand it trains:

  python train.py --config configs/quickstart.yaml
  python train.py --config configs/dcgan/mnist.yaml --data.batch_size=32 --trainer.max_steps=1000
  python train.py --config configs/dcgan/mnist.yaml --config mine.yaml      (later files win)
  python train.py --config configs/dcgan/image_folder.yaml --data.data_dir=my_images --data.image_size=64
  python train.py --config configs/dcgan/mnist.yaml --model.generator_optimizer.lr=1e-4
  python train.py --config configs/dcgan/mnist.yaml --model.generator_optimizer=RMSprop
  python train.py --config configs/dcgan/mnist.yaml --trainer.max_time=00:04:30:00   (days:hours:minutes:seconds)
  python train.py --config configs/dcgan/mnist.yaml --trainer.devices=2 --trainer.precision=16-mixed
  python train.py --config configs/dcgan/mnist.yaml --ckpt_path=last        (goes on where the newest run stopped)
  python train.py --config configs/dcgan/mnist.yaml --print_config          (the complete settings, nothing run)

From a checkpoint, with the settings of the run that wrote it:

  python train.py validate --ckpt_path=RUN/checkpoints/best.ckpt            (prints the scores; so does test)
  python train.py predict --ckpt_path=RUN/checkpoints/best.ckpt --model.predict_images=1000
  python train.py predict --ckpt_path=RUN/checkpoints/best.ckpt --data.predict_dir=my_images   (translates them)
  python train.py predict --ckpt_path=RUN/checkpoints/best.ckpt --predict_format=jpg --predict_zip=images.zip

To show and to give away (with pip install -e '.[export]'):

  python train.py explore --ckpt_path=RUN/checkpoints/best.ckpt             (one HTML file to try the generator out)
  python train.py export --ckpt_path=RUN/checkpoints/best.ckpt              (ONNX, safetensors and a model card)

Many runs, and runs side by side:

  python train.py study configs/studies/losses.yaml                         (a grid or a sample of settings)
  python train.py compare runs/losses                                       (tables, curves and samples; or RUN RUN ...)

What can be set, and what it means:

  python train.py fit --help                                                (runs, pictures, scores, checkpoints)
  python train.py fit --config configs/dcgan/mnist.yaml --help              (a GAN and a data set, too)
  python train.py fit --model=DCGAN --data=MNIST --help                     (the same, by name)
  python train.py fit --trainer.help                                        (all of the Trainer's options)

Without --trainer.precision it is bf16-mixed where the machine has instructions for bfloat16, and 32-true elsewhere.
"""
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
    "predict_format=png": "What predict writes (after a training if given): png, jpg or jpeg.",
    "predict_zip=FILE": "Zip file for the images, instead of a folder; also after a training.",
    "seed_everything=0": "Seed of all random numbers; true draws one.",
}
KINDS = {
    type(None): "null",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word",
    list: "a list, such as [a,b] (or += in place of =)",
    dict: "a mapping, such as {a: 1}",
}


def help_of(parser: LightningArgumentParser, subcommand: str, words: list[str]) -> str:
    """What can be set: for the run, its callbacks, and the GAN and data set that are named among the words."""
    command = f"python train.py {subcommand}"
    lines = [f"usage: {command} [--config=FILE ...] [--KEY=VALUE ...]", "", "The run:"]
    lines += [line for key, text in OF_RUN.items() for line in entry(f"--{key}", text)]
    classes = named_classes(words)
    for key in CLASSES:
        if key in classes:
            lines += listed(class_parser(classes[key], key), key, f"--{key}={typed_name(classes[key])}: ")
        else:
            lines += ["", f"With --{key}=NAME or a configuration that names one, its settings are listed here, too:"]
            lines += entry(f"--{key}=NAME", f"One of {', '.join(names_for(key))}, or the class path of your own.")
    for key in [key for key in parser.callback_keys if subcommand == "fit" or key in SECTIONS]:
        lines += listed(parser, key, brief=True)
    lines += listed(parser, "trainer", "Of Lightning's Trainer, all of whose options --trainer.help lists", brief=True)
    return "\n".join([*lines, ""])


def listed(parser: LightningArgumentParser, key: str = "", title: str = "", brief: bool = False) -> list[str]:
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
            kinds = members(getattr(action, "_typehint", None))
            for interval in [get_args(kind)[1] for kind in kinds if get_origin(kind) is Annotated][:1]:
                text = f"{text.rstrip('.')}; {spelled(interval)}."
            for base in PARTS.keys() & set(kinds):
                text += f" There are {', '.join(name for name in PARTS[base] if '.' not in name)}."
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
        return public(str(value["class_path"]))
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


def kinds_of(hint: Any) -> str:
    """The types that a value may be of, as one types them."""
    words: list[str] = []
    for member in members(hint):
        origin = get_args(member)[0] if get_origin(member) is Annotated else get_origin(member) or member
        if origin is Literal:
            words += map(written, get_args(member))
        elif any(classes_in(member)):
            words.append("the name of a class")
        else:
            kind = next((k for k in (list, dict) if isinstance(origin, type) and issubclass(k, origin)), origin)
            words.append(KINDS.get(kind, getattr(kind, "__name__", str(kind))))
    words = list(dict.fromkeys(word for word in words if word != "null")) + ["null"] * ("null" in words)
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
