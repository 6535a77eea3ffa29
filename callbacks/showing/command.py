"""``train.py export`` and ``train.py explore``: what their words mean, and what is said."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tqdm import tqdm

from callbacks.command_line.config_files import load
from callbacks.runs.files import whole
from callbacks.runs.find import find_checkpoint, run_of
from callbacks.runs.record import say
from callbacks.showing.card import card
from callbacks.showing.facts import facts_of, lines, neighbors
from callbacks.showing.page import page
from callbacks.showing.runtime import runtime
from callbacks.studies.command import split

EXPORT = """\
usage: python train.py export --ckpt_path=FILE [--run_dir=RUN] [--export_dir=FOLDER] [--model=CLASS]

Writes a trained generator for other programs: ONNX files, which are compared with PyTorch in ONNX Runtime, safetensors,
and a model card, README.md; gans.from_export(FOLDER) builds the model again. Needs pip install -e '.[export]'.

  --ckpt_path=FILE      A checkpoint, or last or best: those of the newest run or of --run_dir.
  --run_dir=RUN         The run whose last or best checkpoint is meant.
  --export_dir=FOLDER   Where the files go; by default export-STEP in the run's folder, or beside the checkpoint.
  --model=CLASS         The class path of a GAN of your own.
"""
EXPLORE = """\
usage: python train.py explore --ckpt_path=FILE [--run_dir=RUN] [--page=FILE] [--runtime=FOLDER] [--model=CLASS]

Writes one HTML file that anyone can open, without a server and offline, to try a trained generator out: samples, walks
and directions, or translations of images that are dropped or drawn. Needs pip install -e '.[export]'.

  --ckpt_path=FILE      A checkpoint, or last or best: those of the newest run or of --run_dir. Of several, [FILE,FILE],
                        the page shows side by side what they make of the same noise or image.
  --run_dir=RUN         The run whose last or best checkpoint is meant.
  --page=FILE           Where the page goes; by default explore.html in the (first) run's folder.
  --runtime=FOLDER      The folder dist of the package onnxruntime-web; by default npm or a download fetches it once.
  --model=CLASS         The class path of a GAN of your own.
"""
HELP = {"export": EXPORT, "explore": EXPLORE}
OPTIONS = {
    "export": ("ckpt_path", "run_dir", "export_dir", "model"),
    "explore": ("ckpt_path", "run_dir", "page", "runtime", "model"),
}


@dataclass(frozen=True)
class Tools:
    """What the commands need to know of GANs.

    Attributes:
        load: Gives the model of a checkpoint, of the lab's or of a class that is named.
        described: What a model is, as plain values.
        write: Writes its files into a folder; gives the name of each, and by how much a network differs from PyTorch.
        shown: What a page needs of it: plain values and networks.
        tolerance: By how much a network may differ.
    """

    load: Callable[[Path, str | None], Any]
    described: Callable[[Any], dict[str, Any]]
    write: Callable[..., Any]
    shown: Callable[[Any], tuple[dict[str, Any], dict[str, bytes]]]
    tolerance: float


def showing(words: list[str], tools: Tools) -> None:
    """Do what ``train.py export ...`` or ``train.py explore ...`` asks for.

    Args:
        words: Of the command line.
        tools: What it needs.

    Raises:
        MisconfigurationException: An option is wrong, or a file cannot be read, exported or written.
    """
    command, *rest = words
    if {"-h", "--help"} & set(rest):
        say(HELP[command])
        return
    given = _options(command, rest)
    wanted = given.get("ckpt_path")
    if not wanted:
        raise MisconfigurationException(f"{command} needs a trained model: give --ckpt_path (a file, last or best)")
    try:
        names = [str(name) for name in load(wanted)] if wanted.startswith("[") else [wanted]
    except yaml.YAMLError:
        names = []
    if not names or (command == "export" and len(names) > 1):
        several = " or several, as [FILE,FILE]" * (command == "explore")
        raise MisconfigurationException(f"--ckpt_path={wanted} must name one checkpoint{several}")
    paths = [path for name in names if (path := find_checkpoint(name, given.get("run_dir")))]
    if command == "export":
        export(paths[0], given.get("export_dir"), given.get("model"), tools)
    else:
        explore(paths, given, tools)


def _options(command: str, words: list[str]) -> dict[str, str]:
    stray, given, others = split(words, OPTIONS[command])
    if others:
        raise MisconfigurationException(
            f"{others[0].partition('=')[0]} is no option of {command}: there are "
            f"{', '.join(f'--{name}' for name in OPTIONS[command])}"
        )
    if stray:
        raise MisconfigurationException(f"{stray[0]} belongs to no option of {command}: give --ckpt_path={stray[0]}")
    return given


def export(checkpoint: Path, to: str | None, cls: str | None, tools: Tools) -> None:
    """Write a checkpoint's generator for other programs."""
    model = tools.load(checkpoint, cls)
    values = tools.described(model)
    run = run_of(checkpoint)
    folder = Path(to) if to else (run or checkpoint.parent) / f"export-{values['step']:07d}"
    if folder.exists() and not folder.is_dir():
        raise MisconfigurationException(f"--export_dir={folder} is a file: name a folder")
    files: dict[str, float | None] = {}
    bar = tqdm(
        total=len(values["networks"]) + 1,
        desc="exporting",
        unit="file",
        leave=False,
        delay=1,
        file=sys.stdout,
        disable=None,
    )
    with bar:
        for name, error in tools.write(model, folder):
            files[name] = error
            bar.update()
    text, readme = card(values, facts_of(checkpoint, values["step"]), files, tools.tolerance), folder / "README.md"
    kept = readme.exists() and readme.read_text(encoding="utf-8", errors="replace") != text  # somebody has filled it in
    with whole(folder / "README.new.md" if kept else readme) as partial:
        partial.write_text(text, encoding="utf-8")
    for name, error in files.items():
        size = f"{(folder / name).stat().st_size / 2**20:.1f} MiB"
        told = "" if error is None else f", differs from PyTorch by {error:.1e} at most ({tools.tolerance:g} allowed)"
        say(f"{name:<24} {size}{told}")
    say(f"{'README.md':<24} " + ("as it was; the new one is README.new.md" if kept else "the model card"))
    say(f"exported to {folder}")


def explore(checkpoints: list[Path], given: dict[str, str], tools: Tools) -> None:
    """Write a page on which generators can be tried out."""
    to = given.get("page")
    path = Path(to) if to else (run_of(checkpoints[0]) or checkpoints[0].parent) / "explore.html"
    if path.is_dir() or path.suffix.lower() not in (".html", ".htm"):
        raise MisconfigurationException(f"--page={to} must name a file that ends in .html")
    loaded = [tools.load(checkpoint, given.get("model")) for checkpoint in checkpoints]
    if len({"images" in tools.described(model)["networks"]["generator"]["inputs"] for model in loaded}) > 1:
        raise MisconfigurationException(
            "--ckpt_path names GANs that turn noise into images and others that translate: give pages of their own"
        )
    files = runtime(given.get("runtime"))
    models, networks = [], []
    pairs = list(zip(checkpoints, loaded, strict=True))
    for checkpoint, model in tqdm(
        pairs, desc="exporting", unit="network", leave=False, delay=1, file=sys.stdout, disable=None
    ):
        values, of_model = tools.shown(model)
        facts = facts_of(checkpoint, values["step"])
        ways = [" to ".join(sides) for sides in (facts.sides, facts.sides[::-1])]
        labels = {"BtoA": "source", "AtoB": "target"}.get(facts.direction or "", "")
        usable = labels == "source" or "generator_back" in values["networks"]
        more: dict[str, Any] = {
            "facts": lines(facts, values),
            "data": facts.data,
            "background": str(facts.settings.get("background") or "white"),
            "colours": dict(getattr(facts.data_class, "colours", {})) if usable else {},
            "labels_are": labels,
            "directions_of_data": ways[::-1] if facts.direction == "BtoA" else ways,
            "neighbors": neighbors(checkpoint, values["step"]) if "directions" in values else None,
        }
        models.append(values | more)
        networks.append(of_model)
    alone = len(models) == 1
    for values in models:
        on, step = f" on {values['data']}" if values["data"] else "", f"step {values['step']:,}"
        values["title"] = f"{values['gan']}{on}" if alone else f"{values['gan']}{on}, {step}"
        values["facts"] = [step, *values["facts"]] if alone else values["facts"]
    title = " and ".join(dict.fromkeys(values["title"] for values in models))
    try:
        with whole(path) as partial:
            partial.write_text(page(title, models, networks, files), encoding="utf-8")
    except OSError as error:
        raise MisconfigurationException(f"--page={path} cannot be written ({error.strerror or error})") from error
    say(f"page             {path} ({path.stat().st_size / 2**20:.1f} MiB; open it in a browser)")
