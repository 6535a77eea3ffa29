"""A study's file, which is that of a Weights & Biases sweep: what it may say, and the runs that it asks for.

So ``wandb sweep`` takes the very same file; what a sweep has no key for is said in its own words: base configurations
in ``command``, seeds as the parameter ``seed_everything``, a budget as ``trainer.max_steps`` or ``budget.images``.
"""

import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.command_line.config_files import settings_of
from callbacks.studies.found import SEED, brief, labels

METHODS = ("grid", "random", "bayes")
HYPERBAND = {"min_iter": 1, "eta": 2}  # and the least of each
OWN = ("run_dir", "name", "ckpt_path")  # what a study says itself of each run
KEYS = {  # of a sweep's file; what only a server can do with some of them is none of a study's business
    *("method", "metric", "parameters", "command", "program", "name", "run_cap", "description", "early_terminate"),
    *("project", "entity", "apiVersion", "kind"),
}
LARGEST_EXPONENT = 700  # of e, that is still a number
DEFAULT_COMMAND = ["${env}", "${interpreter}", "${program}", "${args}"]

# Of each distribution, the keys that it needs and those that it may have, and how to draw from it.
Draw = Callable[[random.Random, dict[str, Any]], Any]
DISTRIBUTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...], Draw]] = {
    "constant": (("value",), (), lambda _, p: p["value"]),
    "categorical": (("values",), (), lambda r, p: r.choice(p["values"])),
    "categorical_w_probabilities": (
        ("values", "probabilities"),
        (),
        lambda r, p: r.choices(p["values"], p["probabilities"])[0],
    ),
    "int_uniform": (("min", "max"), (), lambda r, p: r.randint(p["min"], p["max"])),
    "uniform": (("min", "max"), (), lambda r, p: r.uniform(p["min"], p["max"])),
    "q_uniform": (("min", "max"), ("q",), lambda r, p: _rounded(r.uniform(p["min"], p["max"]), p)),
    "log_uniform": (("min", "max"), (), lambda r, p: math.exp(r.uniform(p["min"], p["max"]))),
    "log_uniform_values": (
        ("min", "max"),
        (),
        lambda r, p: math.exp(r.uniform(math.log(p["min"]), math.log(p["max"]))),
    ),
    "q_log_uniform_values": (
        ("min", "max"),
        ("q",),
        lambda r, p: _rounded(math.exp(r.uniform(math.log(p["min"]), math.log(p["max"]))), p),
    ),
    "normal": ((), ("mu", "sigma"), lambda r, p: r.gauss(p.get("mu", 0.0), p.get("sigma", 1.0))),
    "q_normal": ((), ("mu", "sigma", "q"), lambda r, p: _rounded(r.gauss(p.get("mu", 0.0), p.get("sigma", 1.0)), p)),
    "log_normal": ((), ("mu", "sigma"), lambda r, p: r.lognormvariate(p.get("mu", 0.0), p.get("sigma", 1.0))),
    "beta": ((), ("a", "b"), lambda r, p: r.betavariate(p.get("a", 1.0), p.get("b", 1.0))),
}


@dataclass(frozen=True)
class Sweep:
    """What a study's file says.

    Attributes:
        path: The file.
        name: Of the study.
        method: "grid", "random" or "bayes".
        metric: Name of the score that decides, or empty: the first that a run has.
        goal: "minimize" or "maximize", or empty: as is known of the metric.
        parameters: Settings by their keys on the command line: a distribution and its numbers each.
        command: Words of a run, with ``${args}`` for what differs.
        runs: How many there are at most, apart from seeds; None for all of a grid.
        early_terminate: Hyperband's "min_iter", the scores after which a run may be ended, and "eta"; empty: none is.
        seeds: With each of which every combination is run, instead of those that the file may name.
    """

    path: Path
    name: str
    method: str
    metric: str
    goal: str
    parameters: dict[str, dict[str, Any]]
    command: list[str]
    runs: int | None
    early_terminate: dict[str, Any]
    seeds: tuple[int, ...] = ()

    @property
    def axes(self) -> list[str]:
        """Settings of which there is more than one value."""
        several = [key for key, p in self.parameters.items() if len(p.get("values", (1, 2))) > 1 and "value" not in p]
        return several + [SEED] * (len(self.seeds) > 1)

    def with_seeds(self, seeds: list[int]) -> "Sweep":
        """The same, with each of some seeds for every combination of all else."""
        parameters = {key: p for key, p in self.parameters.items() if key != SEED}
        return replace(self, parameters=parameters, seeds=tuple(dict.fromkeys(seeds)))

    def settings(self) -> Iterator[dict[str, Any]]:
        """The runs' settings, of a grid or drawn at random, the same ones every time, none of them twice."""
        for combination in self._grid() if self.method == "grid" else self._drawn():
            if self.seeds:
                yield from (combination | {SEED: seed} for seed in self.seeds)
            else:
                yield combination

    def _grid(self) -> Iterator[dict[str, Any]]:
        choices = product(*(_values(p) for p in self.parameters.values()))
        for chosen in islice(choices, self.runs):
            yield dict(zip(self.parameters, chosen, strict=True))

    def _drawn(self) -> Iterator[dict[str, Any]]:
        source, known = random.Random(0), set[str]()
        for _ in range(100 * (self.runs or 0)):  # of a few values there may be fewer combinations
            combination = self.draw(source)
            if str(combination) not in known:
                known.add(str(combination))
                yield combination
            if len(known) == self.runs:
                return

    def draw(self, source: random.Random) -> dict[str, Any]:
        """Settings at random."""
        return {key: DISTRIBUTIONS[p["distribution"]][2](source, p) for key, p in self.parameters.items()}

    def __len__(self) -> int:
        if self.method == "bayes":
            return self.runs or 0
        if self.method == "random":
            return sum(1 for _ in self.settings())
        grid = math.prod(len(_values(p)) for p in self.parameters.values())
        return min(grid, self.runs or grid) * max(1, len(self.seeds))

    def words(self, settings: dict[str, Any]) -> list[str]:
        """A run's words behind ``train.py``, as ``wandb agent`` would put them."""
        # Which the agent itself uses: so both make the same words of a setting.
        from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

        # Configurations first, since what is typed behind them wins.
        ordered = sorted(settings, key=lambda key: key != "config")
        macros = create_sweep_command_args({"args": {key: {"value": settings[key]} for key in ordered}})
        words: list[str] = []
        for word in create_sweep_command(list(self.command)):
            macro = re.fullmatch(r"\$\{(\w+)\}", str(word))
            if macro and macro[1] in ("env", "interpreter", "program"):
                words = []  # what stands before the program is of the machine
            elif macro and isinstance(macros.get(macro[1]), list):
                words += macros[macro[1]]
            else:
                words.append(str(word))
        return words

    def name_of(self, settings: dict[str, Any]) -> str:
        """What sets a run apart, such as ``loss=Hinge,seed=1``."""
        ends = [key.rpartition(".")[2] for key in self.axes]
        words = []
        for key in sorted(self.axes, key=lambda key: key == SEED):
            end = key.rpartition(".")[2]
            label = "seed" if key == SEED else end if ends.count(end) == 1 else key
            value = settings[key]
            known = labels(self.parameters.get(key, {}).get("values", [value]))
            shown = f"{value:.4g}" if isinstance(value, float) else str(known.get(str(value), brief(value)))
            words.append(shown if key == "config" else f"{label}={shown}")
        return re.sub(r"[^\w.=,+-]+", "_", ",".join(words))[:120].strip(",_") or "run"


def read_sweep(path: str) -> Sweep:
    """A study's file.

    Raises:
        MisconfigurationException: It cannot be read, or says what it may not.
    """
    content = settings_of("study", path)

    def wrong(what: str) -> MisconfigurationException:
        return MisconfigurationException(f"{path}: {what}")

    for key in content:
        if key not in KEYS:
            raise wrong(f"the key {key} is unknown; there are {', '.join(sorted(KEYS))}")
    method = content.get("method")
    if method not in METHODS:
        raise wrong(f"method must be one of {', '.join(METHODS)}; got {method}")
    metric = content.get("metric") or {}
    if not isinstance(metric, dict) or metric.keys() - {"name", "goal", "target"}:
        raise wrong("metric must have a name and a goal, such as {name: score/fid, goal: minimize}")
    if not re.match("(score|quality)/.", str(metric.get("name", "score/fid"))):
        raise wrong(f"metric.name must be the name of a score, such as score/fid; got {metric['name']}")
    if metric.get("goal", "minimize") not in ("minimize", "maximize"):
        raise wrong(f"metric.goal must be minimize or maximize; got {metric['goal']}")
    if method == "bayes" and not {"name", "goal"} <= metric.keys():
        raise wrong("method bayes needs a metric with its goal, such as {name: score/fid, goal: minimize}")
    name = content.get("name", Path(path).stem)
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w .,=+-]*", name):
        raise wrong(f"name must be one of letters, digits and -_.,=+, as a folder is named by it; got {name!r}")
    program = content.get("program", "train.py")
    if Path(str(program)).name != "train.py":
        raise wrong(f"program must be train.py, whose settings are tried; got {program}")
    given = content.get("parameters")
    if not isinstance(given, dict) or not given:
        raise wrong("parameters must name the settings that differ, such as model.loss: {values: [Hinge, Wasserstein]}")
    parameters = {key: parameter(key, value, method, wrong) for key, value in given.items()}
    command = content.get("command", DEFAULT_COMMAND)
    if not isinstance(command, list) or "${program}" not in command or not any("${args" in str(w) for w in command):
        raise wrong("command must be a list of words with ${program} and ${args} among them")
    runs = content.get("run_cap")
    if runs is not None and (type(runs) is not int or runs < 1):
        raise wrong(f"run_cap must be a whole number from 1 on; got {runs}")
    if runs is None and method != "grid":
        raise wrong(f"method {method} has no end: give run_cap, the number of runs")
    early = content.get("early_terminate") or {}
    whole = {"type": "hyperband", "eta": 3} | early if isinstance(early, dict) else {}
    if early and (
        whole.keys() != {"type", *HYPERBAND}
        or whole["type"] != "hyperband"
        or not all(type(whole[key]) is int and whole[key] >= least for key, least in HYPERBAND.items())
    ):
        form = "{type: hyperband, min_iter: SCORES, at least 1, eta: 3, at least 2}"
        raise wrong(f"early_terminate must be {form}; got {early}")
    if early and method != "bayes":
        raise wrong(f"early_terminate goes with method bayes; got {method}")
    goal = metric.get("goal", "")
    return Sweep(Path(path), name, method, metric.get("name", ""), goal, parameters, command, runs, early)


def parameter(key: str, given: Any, method: str, wrong: Callable[[str], MisconfigurationException]) -> dict[str, Any]:
    """A parameter of the file, with its distribution.

    Raises:
        MisconfigurationException: It is not one.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", key):
        raise wrong(f"parameters.{key} is no setting's name")
    if key in OWN:
        raise wrong(f"parameters.{key} must be left out: each run has a folder of its own, by its settings")
    known = {name for needed, possible, _ in DISTRIBUTIONS.values() for name in (*needed, *possible)}
    if not isinstance(given, dict) or not given.keys() & {*known, "distribution", "parameters"}:
        raise wrong(f"parameters.{key} must say value, values or distribution; got {given}")
    if "parameters" in given:
        raise wrong(f"parameters.{key} is nested: write its settings as {key}.NAME")
    if "distribution" not in given:
        kinds = {"value": "constant", "probabilities": "categorical_w_probabilities", "values": "categorical"}
        whole = all(type(given.get(end)) is int for end in ("min", "max"))
        found = next((kind for name, kind in kinds.items() if name in given), "int_uniform" if whole else "uniform")
        given = given | {"distribution": found}
    name = given["distribution"]
    if not isinstance(name, str) or name not in DISTRIBUTIONS:
        raise wrong(f"parameters.{key}.distribution must be one of {', '.join(DISTRIBUTIONS)}; got {name}")
    needed, possible, _ = DISTRIBUTIONS[name]
    for unknown in given.keys() - {*needed, *possible, "distribution"}:
        has = ", ".join((*needed, *possible))
        raise wrong(f"parameters.{key}.{unknown} is unknown to {name}, which has {has}; or give value or values")
    for missing in (each for each in needed if each not in given):
        raise wrong(f"parameters.{key} has no {missing}, which {name} needs")
    if "values" in given and (not isinstance(given["values"], list) or not given["values"]):
        raise wrong(f"parameters.{key}.values must be a list with something in it; got {given['values']}")
    chances = given.get("probabilities", [1] * len(given.get("values", [])))
    if (
        not isinstance(chances, list)
        or not all(_is_number(p) and p >= 0 for p in chances)
        or (chances and not sum(chances))
    ):
        raise wrong(f"parameters.{key}.probabilities must be numbers from 0 on that are not all 0; got {chances}")
    if len(chances) != len(given.get("values", [])):
        raise wrong(f"parameters.{key} must have as many probabilities as values")
    for number in {"min", "max", "q", "mu", "sigma", "a", "b"} & given.keys():
        whole = name == "int_uniform"
        if not _is_number(given[number]) or (whole and type(given[number]) is not int):
            raise wrong(f"parameters.{key}.{number} must be a {'whole ' * whole}number; got {given[number]}")
    for number in {"q", "a", "b", "sigma"} & given.keys():
        if given[number] <= 0:
            raise wrong(f"parameters.{key}.{number} must be above 0; got {given[number]}")
    if "min" in given and not given["min"] <= given["max"]:
        raise wrong(f"parameters.{key}: min {given['min']} is above max {given['max']}")
    if "values" in name and "min" in given and given["min"] <= 0:
        raise wrong(f"parameters.{key}.min must be above 0 for {name}; got {given['min']}")
    if name == "log_uniform" and given["max"] > LARGEST_EXPONENT:
        raise wrong(f"parameters.{key}.max is an exponent of e for {name}; got {given['max']}: or log_uniform_values?")
    if key == SEED:
        for seed in [given["value"]] if "value" in given else given.get("values", []):
            if type(seed) is not int or seed < 0:
                raise wrong(f"parameters.{key} must be whole numbers from 0 on; got {seed}")
    if method == "grid" and not {"value", "values"} & given.keys() and name != "int_uniform":
        raise wrong(f"parameters.{key}: a grid needs values, and {name} has no end of them")
    return given


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _values(parameter: dict[str, Any]) -> list[Any]:
    if "value" in parameter:
        return [parameter["value"]]
    if "values" in parameter:
        return list({str(value): value for value in parameter["values"]}.values())
    return list(range(parameter["min"], parameter["max"] + 1))


def _rounded(value: float, parameter: dict[str, Any]) -> float:
    q = parameter.get("q", 1.0)
    return round(value / q) * q
