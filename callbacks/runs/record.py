"""What is written down of a run (a name that sets it apart, its settings and versions), and said at its end."""

import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from callbacks.command_line.config_files import options_in
from callbacks.runs.secrets import masked, without_secrets
from callbacks.samples import Samples

ROOT = Path(__file__).parents[2]


def title_of(arguments: list[str]) -> str:
    """What sets a run apart: its configuration files and the settings typed beside them, such as mnist,loss=Hinge."""
    words: list[str] = []
    for key, value in options_in(arguments):
        key = key.lstrip("-").rstrip("+")
        if key in ("config", "c"):
            words += [Path(value).stem] if value.endswith((".yaml", ".yml", ".json")) else []
        elif key.partition(".")[0] in ("model", "data", "ema", "seed_everything") or key == "trainer.precision":
            short = value.rstrip("/").rpartition("/")[2]  # of a path its end, of a class its name
            short = short.rpartition(".")[2] if re.fullmatch(r"[A-Za-z_][\w.]*", short) else short
            words.append(f"{key.rpartition('.')[2]}={short}")
    return ",".join(words)


def record(config: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a configuration: no secrets, and what a run does but not where it stands."""
    return {key: value for key, value in without_secrets(config).items() if key not in ("ckpt_path", "run_dir", "name")}


def changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What is other than in an earlier configuration, such as ``model.generator_optimizer.lr 0.0002 -> 1e-05``."""

    def brief(value: Any) -> str:
        value = value.get("class_path", "...").rpartition(".")[2] if isinstance(value, dict) else value
        return str(value).rpartition(".")[2] if re.fullmatch(r"[A-Za-z_][\w.]*", str(value)) else str(value)[:60]

    def differences(before: Any, now: Any, key: str) -> Iterator[str]:
        if isinstance(before, dict) and isinstance(now, dict):
            for name in [name for name in before if name in now]:  # others come and go with versions and classes
                yield from differences(before[name], now[name], f"{key}.{name}")
        elif before != now:
            key = key[1:].replace(".init_args", "").replace(".class_path", "")
            yield f"{key} {brief(before)} -> {brief(now)}"

    return ", ".join(differences(before, now, ""))


def versions() -> dict[str, str | None]:
    """What the program was: the lab's version and git revision, where there is one, and those of what it needs most."""
    try:
        lab = metadata.version("gan-lab")
    except metadata.PackageNotFoundError:  # not installed
        lab = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return {
        "gan-lab": lab,
        "revision": revision(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "lightning": lightning.__version__,
    }


def revision() -> str | None:
    """The commit that the lab is at, with a word on uncommitted changes; None without git."""
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty= with uncommitted changes"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=2, env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


@rank_zero_only
def say(line: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        print(line, flush=True)


@rank_zero_only
def summarise(trainer: Trainer, folder: Path) -> None:
    """Where the results are."""
    if trainer.fast_dev_run:
        return
    say(f"run folder       {folder}")
    for name in ("best", "last"):
        path = folder / "checkpoints" / f"{name}.ckpt"
        if path.exists():
            say(f"{name} checkpoint  {path}")
    samples = next((c for c in trainer.callbacks if isinstance(c, Samples)), None)
    if samples and samples.latest:
        say(f"sample picture   {samples.latest}")
    if offline := sorted((folder / "wandb").glob("offline-run-*")):
        say(f"to upload        wandb sync {' '.join(map(str, offline))}")


def stop(trainer: Trainer, folder: Path, typed: list[str], number: int, validated: bool) -> None:
    """Say how to go on, and leave; SIGTERM, which asked for no more, has got what it wanted and is no failure."""
    last = folder / "checkpoints" / "last.ckpt"
    words = [w for i, w in enumerate(typed) if "--ckpt_path" not in (w.partition("=")[0], *typed[i - 1 : i])]
    when = f"after step {trainer.global_step:,}" + ("" if validated else ", which is not validated")
    kept = last.exists()  # not with --trainer.enable_checkpointing=false
    say(f"stopped by {signal.Signals(number).name} {when}{'; to go on:' if kept else ''}")
    if kept:
        say(shlex.join(["python", sys.argv[0], *masked(words), f"--ckpt_path={last}"]))
    by_scheduler = number not in (signal.SIGINT, signal.SIGHUP)
    sys.exit(0 if by_scheduler or not trainer.is_global_zero else 128 + number)
