"""What a run folder holds of a run, read as data: its settings, its scores, its curves and what it cost."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.compute import FILE as COST
from callbacks.runs.find import read_config
from callbacks.scores.history import Mode, history_in

SEED = "seed_everything"
# Where a run stands and what it shows, and not what it does.
OUTWARD = (
    "trainer.logger",
    "trainer.callbacks",
    "trainer.enable_progress_bar",
    "trainer.default_root_dir",
    "trainer.num_nodes",
    "name",
    "ckpt_path",
)
STATE = "study.json"  # how the runs of a study stand, beside their folders


@dataclass
class Moment:
    """What was scored after a generator update: values by name, and by the same names what they depend on."""

    step: int
    images: float | None
    seconds: float | None
    scores: dict[str, float] = field(default_factory=dict)
    protocols: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A run as its folder tells it.

    Attributes:
        folder: The folder.
        settings: All settings, flat: ``model.loss`` for the loss's class, ``model.loss.weight`` for an argument of it.
        moments: What was scored, in order of steps.
        monitor: The score that chooses the best moment; empty where nothing was scored.
        mode: Whether its smallest or largest value is the best.
        curves: Columns of metrics.csv: a list of (step, value) by name.
        cost: Parameters, multiply-adds, images a second, minutes and peak memory, as far as they are known.
        asked: Of a study's run, the settings by which it differs from the others, as its file has them.
        status: Of a study's run, how it stands.
    """

    folder: Path
    settings: dict[str, Any]
    moments: list[Moment]
    monitor: str
    mode: Mode
    curves: dict[str, list[tuple[int, float]]]
    cost: dict[str, float]
    asked: dict[str, Any] = field(default_factory=dict)
    status: str = ""

    def of(self, axis: str) -> Any:
        """The value of a setting: a class by its name, or together with its arguments, where it has any."""
        if axis in self.asked:
            return self.asked[axis]
        own = {key[len(axis) + 1 :]: value for key, value in self.settings.items() if key.startswith(f"{axis}.")}
        name = self.settings.get(axis)
        return {"class_path": name, "init_args": own} if own else name

    def best(self) -> Moment | None:
        """The moment that the monitor chooses."""
        scored = [m for m in self.moments if m.scores.get(self.monitor, float("nan")) == m.scores.get(self.monitor)]
        choose = max if self.mode == "max" else min
        return choose(scored, key=lambda m: m.scores[self.monitor], default=None)

    def final(self) -> Moment | None:
        """The last one."""
        return self.moments[-1] if self.moments else None


def runs_in(folders: list[Path]) -> list[Path]:
    """The run folders among some folders, or right inside of these, each once.

    Raises:
        MisconfigurationException: There is none in one of them.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        inside = (
            [folder] if (folder / "config.yaml").is_file() else sorted(p.parent for p in folder.glob("*/config.yaml"))
        )
        if not inside:
            wrong = "holds no run" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
            raise MisconfigurationException(f"{folder} {wrong}: name folders of runs, which hold a config.yaml")
        found |= dict.fromkeys(path.resolve() for path in inside)
    return list(found)


def read(folder: Path) -> Found:
    """A run folder.

    Raises:
        MisconfigurationException: Its config.yaml is damaged.
    """
    rows = _rows(folder / "metrics.csv")
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step":
                curves.setdefault(name, []).append((int(row["step"]), value))
    seconds, images = (dict(curves.get(name, [])) for name in ("time/seconds", "time/images"))
    moments: dict[int, Moment] = {}
    history, monitor, mode = scored_in(folder) or ([], "", "min")
    for entry in history:
        step = entry["step"]
        moment = moments.setdefault(step, Moment(step, images.get(step), seconds.get(step)))
        moment.scores |= entry["scores"]
        moment.protocols |= dict.fromkeys(entry["scores"], entry.get("protocol", {}))
    speeds = [value for _, value in curves.get("speed/images_per_second", [])]
    cost = _numbers(folder / COST)
    last = max((step for step in seconds if seconds[step] and step in images), default=None)
    if speeds:
        cost["images/s"] = median(speeds)
    elif last is not None:
        cost["images/s"] = images[last] / seconds[last]
    if seconds:
        cost["minutes"] = max(seconds.values()) / 60
    settings = {key: value for key, value in flat(read_config(folder / "config.yaml")) if not key.startswith(OUTWARD)}
    ordered = [moments[step] for step in sorted(moments)]
    return Found(folder, settings, ordered, monitor, mode, curves, cost, *asked_of(folder))


def scored_in(folder: Path) -> tuple[list[dict[str, Any]], str, Mode] | None:
    """All that was scored in a run's folder, the score that chose its best checkpoint, and its mode; None: nothing."""
    files = [folder / "quality.json", folder / "scores.json"]  # the first one's first chooses, see BestCheckpoint
    found = []
    for file in files:
        if (history := history_in(file)) is not None:
            found.append(history)
        elif file.is_file():
            rank_zero_warn(f"{file} is damaged: its scores are left out")
    if not found:
        return None
    entries = [entry for history, *_ in found for entry in history]
    numbers = [{k: float(v) for k, v in entry["scores"].items() if v is not None} for entry in entries]
    return [entry | {"scores": each} for entry, each in zip(entries, numbers, strict=True)], *found[0][1:]


def flat(settings: dict[str, Any], key: str = "") -> Iterator[tuple[str, Any]]:
    """Settings as a configuration nests them, by keys as they are typed; classes by their names alone."""
    for name, value in settings.items():
        inner = key if name in ("class_path", "init_args") else f"{key}.{name}" if key else name
        if isinstance(value, dict) and value:
            yield from flat(value, inner)
        else:
            yield inner, brief(value) if name == "class_path" else value


def asked_of(folder: Path) -> tuple[dict[str, Any], str]:
    """What a study asked of the run in a folder beside its file, without the seed, and its status; nothing without."""
    try:
        runs = json.loads((folder.parent / STATE).read_bytes())["runs"]
        run = next(run for run in runs if run["name"] == folder.name)
        return {key: value for key, value in run["settings"].items() if key != SEED}, run.get("status", "")
    except (OSError, ValueError, TypeError, KeyError, StopIteration, AttributeError):
        return {}, ""


def labels(values: Iterable[Any]) -> dict[str, Any]:
    """How a table shows each of several values of a setting, by ``str`` of it: as briefly as tells them apart."""
    several = {str(value): value for value in values}
    short = {key: brief(value) for key, value in several.items()}
    return short if len({*map(str, short.values())}) == len(short) else {k: brief(v, True) for k, v in several.items()}


def brief(value: Any, whole: bool = False) -> Any:
    """A setting as a table shows it: of classes and paths the ends, of lists the members; arguments if ``whole``."""
    if isinstance(value, dict) and "class_path" in value:
        inner = value.get("init_args") or {}
        told = ", ".join(f"{key}={brief(each, True)}" for key, each in inner.items()) if whole else ""
        return f"{brief(value['class_path'])}({told})" if told else brief(value["class_path"])
    if isinstance(value, list):
        return "+".join(str(brief(each, whole)) for each in value) or "none"
    if isinstance(value, str) and "/" in value:
        path = Path(value)
        return f"{path.parent.name}-{path.stem}" if whole else path.stem
    if isinstance(value, str) and value.replace(".", "").replace("_", "").isalnum() and not value[:1].isdigit():
        return value.rpartition(".")[2]
    return "none" if value is None else value


def _rows(path: Path) -> list[dict[str, float]]:
    """The numbers of a file of metrics, row by row; rows that are damaged are left out."""
    if not path.is_file():
        return []
    found = []
    with path.open(newline="", errors="replace") as file:
        for row in csv.DictReader(file):
            try:
                numbers = {name: float(value) for name, value in row.items() if name and value}
            except (TypeError, ValueError):
                continue
            if "step" in numbers:
                found.append(numbers)
    return found


def _numbers(path: Path) -> dict[str, float]:
    try:
        content = json.loads(path.read_bytes())
        return {str(name): float(value) for name, value in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
