"""``train.py study`` and ``train.py compare``: what their words mean, and what is said."""

import random
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import isfinite
from operator import mul
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from tqdm import tqdm

from callbacks.command_line.config_files import load, options_in
from callbacks.runs.record import say
from callbacks.scores.history import Mode
from callbacks.studies import report
from callbacks.studies.comparison import Comparison, comparison
from callbacks.studies.found import scored_in
from callbacks.studies.runner import Planned, Study
from callbacks.studies.search import Bayesian, Search
from callbacks.studies.sweep import SEED, Sweep, read_sweep
from callbacks.studies.trial import Limits, attempt, pace

Draw = Callable[[Path, int], Tensor | None]
Check = Callable[[list[str], str, str], str | Limits]
MAX_RUNS = 200
GOALS: dict[str, Mode] = {"minimize": "min", "maximize": "max"}
STUDY = """\
usage: python train.py study FILE [--seeds=[0,1,2]] [--jobs=N] [--run_dir=FOLDER] [--config=BASE ...] [--KEY=VALUE ...]

Runs what a file asks for, which is that of a Weights & Biases sweep, a process a run, and ends with a comparison of
them in the study's folder. The same command goes on with a study that was stopped; finished runs are not run again.

  --seeds=[0,1,2]    Every combination is run with each of these seeds.
  --jobs=N           Runs at a time; by default one a GPU or, on a processor, one a core, with a thread each.
  --max_runs=200     A study of more runs is refused.
  --run_dir=FOLDER   The study's folder; by default runs/NAME, by the name of the file.
  --config=BASE      Configurations before those of the file.
  --KEY=VALUE        What else is the same for all runs, such as --trainer.max_steps=100; it wins over the file.
"""
COMPARE = """\
usage: python train.py compare RUN|STUDY [RUN|STUDY ...] [--axes=[model.loss,...]] [--metric=SCORE] [--run_dir=FOLDER]

Writes compare.md, compare.csv, compare.html, curves.png and samples.png: what sets runs apart against how they came
out, medians and ranges over seeds. A folder of runs, such as a study's, stands for all of them.

  --axes=[KEY,...]   Settings by which they are told apart; by default as few of those that differ as suffice.
  --metric=SCORE     What decides, such as score/kid; by default what chose the best checkpoints.
  --goal=maximize    For a metric of which it is not known whether a small value (minimize) or a large one is good.
  --run_dir=FOLDER   Where the files go; by default the one folder that is named, or else runs/compare.
"""


def split(words: list[str], known: tuple[str, ...]) -> tuple[list[str], dict[str, str], list[str]]:
    """The words that are no options, the options that are known, by name, and all others, each one word."""
    plain: list[str] = []
    own: dict[str, str] = {}
    others: list[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            plain.append(word)
        elif name[2:] in known:
            if not equals:
                place += 1
                value = words[place] if place < len(words) else ""
            own[name[2:]] = value
        else:
            if not equals and place + 1 < len(words) and not words[place + 1].startswith("-"):
                place += 1
                word = f"{word}={words[place]}"
            others.append(f"--config{word[2:]}" if word.startswith("-c=") else word)
        place += 1
    return plain, own, others


def whole_number(option: str, text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise MisconfigurationException(f"--{option} must be a whole number from 1 on; got {text}")
    return int(text)


def studies(words: list[str], run: Callable[..., Any], load: Callable[[Path], Any]) -> None:
    """What ``train.py study ...`` and ``train.py compare ...`` do.

    Args:
        words: Of the command line.
        run: Does what a command line of one run asks for, or only builds everything, which it gives.
        load: Gives the model of a checkpoint.
    """

    def drawn(folder: Path, count: int) -> Tensor | None:
        for kind in ("best", "last"):
            with suppress(MisconfigurationException):  # missing or damaged
                model = load(folder / "checkpoints" / f"{kind}.ckpt")
                if not hasattr(model, "sample"):
                    return None
                torch.manual_seed(0)
                return model.sample(count)
        return None

    if words[0] == "compare":
        compare(words[1:], drawn)
    else:
        study(words[1:], partial(attempt, partial(run, only_builds=True)), partial(pace, run), drawn)


def study(
    words: list[str],
    check: Check,
    pace: Callable[[list[str]], Limits | None],
    draw: Draw,
) -> None:
    """Run a study, and compare its runs.

    Args:
        words: Of the command line, behind ``study``.
        check: See ``trial.attempt``.
        pace: See ``trial.pace``.
        draw: See ``report.write``.

    Raises:
        MisconfigurationException: The file, an option or a combination of settings is wrong.
    """
    if {"-h", "--help"} & set(words):
        say(STUDY)
        return
    plain, own, others = split(words, ("seeds", "jobs", "max_runs", "run_dir"))
    if len(plain) != 1:
        raise MisconfigurationException(
            f"study takes one file, such as configs/studies/losses.yaml; got {plain or 'none'}"
        )
    sweep = read_sweep(plain[0])
    if "seeds" in own:
        try:
            seeds = load(own["seeds"])
        except yaml.YAMLError:
            seeds = None
        seeds = seeds if isinstance(seeds, list) else [seeds]
        if sweep.method == "bayes":
            raise MisconfigurationException("--seeds goes with method grid or random, and not with bayes")
        if not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
            raise MisconfigurationException(
                f"--seeds must be a list of whole numbers, such as [0,1,2]; got {own['seeds']}"
            )
        sweep = sweep.with_seeds(seeds)
    for option, _ in options_in(others):
        if option.lstrip("-") in sweep.axes and option != "--config":
            raise MisconfigurationException(f"{option} is what {plain[0]} varies: leave it out, or change the file")
    most = whole_number("max_runs", own["max_runs"]) if "max_runs" in own else MAX_RUNS
    if len(sweep) > most:
        raise MisconfigurationException(f"{plain[0]} asks for {len(sweep):,} runs, and --max_runs is {most}")
    folder = Path(own.get("run_dir") or Path("runs") / sweep.name)
    before = [word for word in others if word.startswith("--config=")]
    after = [word for word in others if word not in before]
    jobs = whole_number("jobs", own["jobs"]) if "jobs" in own else None
    made = Study(sweep, folder, sys.argv[0], before, after, jobs)
    made.open()
    search = Bayesian(sweep) if sweep.method == "bayes" else Search(sweep)
    unfinished = try_out(made, check)
    left = len(sweep) - sum(run.status == "finished" for run in made.runs.values())
    jobs, told = made.jobs or 1, ""
    if unfinished and left and (paces := pace(unfinished[0][0].words)):
        whole = [min(map(mul, limits, paces)) + time.process_time() for _, limits in unfinished]  # and begin, as this
        seconds = sum(whole) / len(whole) * left / jobs
        told = f", about {_time(seconds)} in all, {jobs} at a time, and what scoring takes" * isfinite(seconds)
    say(f"study {sweep.name}: {left} of {len(sweep)} runs to make in {folder}{told}")
    made.run(search)
    failed = [run for run in made.runs.values() if run.status == "failed"]
    for run in failed:
        say(f"failed           {run.name}: {run.told}")
    if made.stopped is not None:
        say("to go on:\n" + shlex.join(["python", sys.argv[0], "study", *words]))
        sys.exit(128 + made.stopped)
    done = [folder / run.name for run in made.runs.values() if (folder / run.name / "config.yaml").is_file()]
    if done:
        metric = sweep.metric if any(map(scored_in, done)) else ""
        found = comparison(done, (), metric, GOALS.get(sweep.goal))
        write(found, folder, f"Study {sweep.name}", draw)
    if failed:
        sys.exit(1)


def try_out(made: Study, check: Check) -> list[tuple[Planned, Limits]]:
    """All runs that are not finished, each with its limits; of a search, some that it may come to.

    Raises:
        MisconfigurationException: One of them cannot be run.
    """
    sweep, wrong, found = made.sweep, [], []
    combinations = samples_of(sweep) if sweep.method == "bayes" else list(sweep.settings())
    known: dict[str, str | Limits] = {}  # by settings but for the seed
    shown: dict[str, Any] = {"desc": "checking", "unit": "run", "leave": False, "delay": 3, "disable": None}
    for settings in tqdm(combinations, file=sys.stdout, **shown):
        planned = made.planned(settings)
        if planned.name in made.runs and made.runs[planned.name].status == "finished":
            continue
        key = str({name: value for name, value in settings.items() if name != SEED})
        if key not in known:
            path = made.folder / planned.name
            is_file = path.exists() and not path.is_dir()
            known[key] = f"{path} is a file" if is_file else check(planned.words, sweep.metric, sweep.goal)
            if isinstance(told := known[key], str):
                wrong.append(f"{planned.name}: {told}")
        if not isinstance(limits := known[key], str):
            found.append((planned, limits))
    if wrong:
        more = f" (and {len(wrong) - 1} more: {', '.join(w.partition(':')[0] for w in wrong[1:6])})" * (len(wrong) > 1)
        raise MisconfigurationException(f"{sweep.path} asks for what cannot be run: {wrong[0]}{more}")
    return found


def samples_of(sweep: Sweep) -> list[dict[str, Any]]:
    """Settings that a search may come to: some at random, and every value that is named."""
    first = sweep.draw(random.Random(0))
    named = [(key, value) for key, p in sweep.parameters.items() for value in p.get("values", [])]
    return [first, *(first | {key: value} for key, value in named if first[key] != value)]


def compare(words: list[str], draw: Draw) -> None:
    """Compare runs.

    Args:
        words: Of the command line, behind ``compare``.
        draw: See ``report.write``.

    Raises:
        MisconfigurationException: A folder holds no run, or an option is unknown.
    """
    if {"-h", "--help"} & set(words):
        say(COMPARE)
        return
    plain, own, others = split(words, ("axes", "metric", "goal", "run_dir"))
    if others:
        raise MisconfigurationException(
            f"{others[0]} is no option of compare: there are --axes, --metric, --goal and --run_dir"
        )
    if not plain:
        raise MisconfigurationException("compare takes folders of runs or of a study, such as runs/dcgan-mnist/*")
    axes = load(own["axes"]) if "axes" in own else []
    axes = axes if isinstance(axes, list) else [axes]
    folders = [Path(word) for word in plain]
    one = len(folders) == 1 and not (folders[0] / "config.yaml").is_file()
    folder = Path(own.get("run_dir") or (folders[0] if one else Path("runs") / "compare"))
    if own.get("goal", "minimize") not in GOALS:
        raise MisconfigurationException(f"--goal must be minimize or maximize; got {own['goal']}")
    mode = GOALS[own["goal"]] if "goal" in own else None
    found = comparison(folders, axes, own.get("metric", ""), mode)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MisconfigurationException(
            f"--run_dir={folder} cannot be written to: {error.strerror or error}"
        ) from error
    write(found, folder, f"Comparison of {', '.join(plain)[:100]}", draw)


def write(found: Comparison, to: Path, title: str, draw: Draw) -> None:
    """Write a comparison's files and print its table."""
    say(report.markdown(found))
    say(report.RULE)
    for path in report.write(found, to, title, draw):
        say(f"{path.suffix[1:]:<17}{path}")


def _time(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
