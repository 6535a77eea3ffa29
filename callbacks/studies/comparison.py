"""Runs side by side: what sets them apart against how they came out, medians and ranges over seeds."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.scores.history import Mode, mode_of
from callbacks.studies.found import SEED, Found, Moment, labels, read, runs_in

# A setting is better than another if a run of the one beats a run of the other so often, and by the bootstrap more than
# every second time for sure (Bouthillier et al. 2021, arXiv 2103.03098, section 4 and appendix C: 0.75, 95 %).
OFTEN = 0.75
RESAMPLED, SURE = 1000, 0.025
RULE = (
    "~: not told apart from the first row: of the pairs of their runs, one of each, fewer than 3 of 4 come out in this "
    "order, or the 95 % interval of that share (bootstrap over runs) begins at a half or below (Bouthillier et al. "
    "2021, arXiv 2103.03098); ?: not to be told, for want of a second run or of the first row's score."
)
Cell = float | str | int | None


@dataclass(frozen=True)
class Column:
    """A score under one protocol, and where its values are found."""

    score: str
    protocol: int  # its number among those of this score
    label: str


@dataclass(frozen=True)
class Group:
    """The runs that differ by nothing but the seed."""

    settings: dict[str, Any]  # those by which groups differ
    runs: tuple[Found, ...]


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` finds, from which tables, pages and pictures are made."""

    axes: tuple[str, ...]
    groups: tuple[Group, ...]  # the best first
    monitor: str
    mode: Mode
    columns: tuple[Column, ...]
    protocols: dict[str, list[dict[str, Any]]]  # of each score
    tied: tuple[str, ...]  # settings that differ, too, but along with an axis

    def values(self, group: Group, column: Column, which: str = "best") -> list[float]:
        """A score of each run of a group, at its best or final moment, where it has one under the column's protocol."""
        found = []
        for run in group.runs:
            moment = run.best() if which == "best" else run.final()
            if (
                moment is not None
                and moment.protocols.get(column.score) == self.protocols[column.score][column.protocol]
            ):
                found.append(moment.scores[column.score])
        return found

    def verdict(self, group: Group) -> str:
        """Whether a group is told apart from the first: nothing, ``~`` or ``?``, see RULE."""
        if group is self.groups[0] or not self.columns:
            return ""
        first, own = (self.values(g, self.columns[0]) for g in (self.groups[0], group))
        if min(len(first), len(own)) < 2:
            return "?"
        return "" if is_better(first, own, self.mode) else "~"

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary a group: its settings, its runs, and medians and ranges of all scores and costs."""
        found = []
        for group in self.groups:
            row: dict[str, Any] = dict(group.settings) | {"runs": len(group.runs), "told apart": self.verdict(group)}
            row["failed"] = sum(run.status == "failed" for run in group.runs)
            row["scored"] = sum(bool(run.moments) for run in group.runs)
            for column in self.columns:
                for which in ("best", "final"):
                    row |= _spread(f"{column.label} {which}", self.values(group, column, which))
            names = dict.fromkeys(name for run in group.runs for name in run.cost)
            for name in names:
                values = [run.cost[name] for run in group.runs if name in run.cost]
                row[name] = median(values)
            row["folders"] = [str(run.folder) for run in group.runs]
            found.append(row)
        return found


def compare(
    *folders: str | Path, axes: Sequence[str] = (), metric: str = "", mode: Mode | None = None
) -> list[dict[str, Any]]:
    """How runs came out, a dictionary for each of the settings that were tried, the best first.

    Args:
        folders: Folders of runs, or of studies, whose runs are all taken.
        axes: Settings by which they are told apart; by default as few of those that differ as suffice.
        metric: The score that decides; by default the one that chose the best checkpoints.
        mode: Whether its smallest or largest value is the best, where the runs do not say it.

    Returns:
        The settings that differ, "runs", of which so many "failed" in a study and so many are "scored", "told apart"
        (see RULE), of every score "NAME best" and "NAME final", medians over seeds, each with its "NAME best low" and
        "NAME best high", what the runs cost, and their "folders".

    Raises:
        MisconfigurationException: A folder holds no run, or none that can be read; no run has the metric, or the mode
            is not its own.
    """
    return comparison([Path(folder) for folder in folders], axes, metric, mode).rows()


def comparison(folders: list[Path], axes: Sequence[str] = (), metric: str = "", mode: Mode | None = None) -> Comparison:
    """See ``compare``."""
    runs, damaged = [], []
    for folder in runs_in(folders):
        try:
            runs.append(read(folder))
        except MisconfigurationException:
            damaged.append(folder / "config.yaml")
    if not runs:
        what = f"{damaged[0]} is damaged" if damaged else "there is nothing to compare"
        raise MisconfigurationException(f"{what}: name folders of runs")
    for path in damaged:
        rank_zero_warn(f"{path} is damaged: this run is left out")
    known = sorted({name for moment in moments_of(runs) for name in moment.scores})
    if metric and metric not in known:
        raise MisconfigurationException(f"--metric={metric} is a score of none of them; there are {', '.join(known)}")
    monitor = metric or next((run.monitor for run in runs if run.monitor), "")
    own = next((run.mode for run in runs if run.monitor == monitor), None)
    if own and mode and own != mode:
        better = "larger" if own == "max" else "smaller"
        raise MisconfigurationException(f"goal: {monitor} is the better the {better} it is: leave the other goal out")
    best = own or mode or mode_of(monitor)
    runs = [replace(run, monitor=monitor, mode=best) for run in runs]  # one decides for all
    if not axes and len({run.folder.parent for run in runs}) == 1 and all(run.asked for run in runs):
        asked = dict.fromkeys(key for run in runs for key in run.asked)
        axes = [key for key in asked if len({str(run.asked.get(key)) for run in runs}) > 1]
    keys = {*keys_of(runs), *(key for run in runs for key in run.asked)}
    for axis in axes:
        if axis not in keys and not any(key.startswith(f"{axis}.") for key in keys):
            raise MisconfigurationException(f"--axes={axis} is a setting of none of them; try --axes=[model.loss]")
    chosen = list(axes) or refining(runs)

    def value(run: Found, axis: str) -> Any:
        return run.of(axis) if axes else run.settings.get(axis)

    grouped: dict[tuple[str, ...], list[Found]] = {}
    for run in runs:
        alike = grouped.setdefault(tuple(str(value(run, axis)) for axis in chosen), [])
        same = next((other for other in alike if other.settings == run.settings), None)
        if same is None:
            alike.append(run)
        else:  # which is no second seed
            rank_zero_warn(f"{run.folder} is left out: its settings and seed are those of {same.folder}")
    shown = {axis: labels(value(run, axis) for run in runs) for axis in chosen}
    groups = [
        Group({axis: shown[axis][str(value(several[0], axis))] for axis in chosen}, tuple(several))
        for several in grouped.values()
    ]
    protocols: dict[str, list[dict[str, Any]]] = {}
    for moment in moments_of(runs):
        for name, protocol in moment.protocols.items():
            several = protocols.setdefault(name, [])
            if protocol not in several:
                several.append(protocol)
    whole = [name for name in protocols if name.removesuffix("_std") not in protocols.keys() - {name}]
    names = sorted(whole, key=lambda name: name != monitor)
    columns = [
        Column(name, number, labelled(name, protocols[name], number))
        for name in names
        for number in range(len(protocols[name]))
    ]
    differing = [key for key in keys_of(runs) if len({str(run.settings.get(key)) for run in runs}) > 1]
    tied = tuple(
        key
        for key in differing
        if key != SEED and not any(key == axis or key.startswith(f"{axis}.") for axis in chosen)
    )
    found = Comparison(tuple(chosen), tuple(groups), monitor, best, tuple(columns), protocols, tied)

    def place(group: Group) -> tuple[int, float]:
        """Those without the first column's score come last."""
        for number, column in enumerate(columns):
            if values := found.values(group, column):
                return number, median(values) * (-1 if best == "max" else 1)
        return len(columns), 0.0

    return replace(found, groups=tuple(sorted(groups, key=place)))


def refining(runs: list[Found]) -> list[str]:
    """As few settings as tell apart all runs that differ by more than the seed, the first of several that would do."""
    kept: list[str] = []
    parts = 1
    for key in sorted(keys_of(runs), key=lambda key: (key.count("."), key.endswith("_optimizer"))):
        if key == SEED:
            continue
        finer = len({tuple(str(run.settings.get(name)) for name in (*kept, key)) for run in runs})
        if finer > parts:
            kept.append(key)
            parts = finer
    return kept


def keys_of(runs: Iterable[Found]) -> list[str]:
    """All settings of some runs, in their order."""
    return list(dict.fromkeys(key for run in runs for key in run.settings))


def moments_of(runs: Iterable[Found]) -> list[Moment]:
    return [moment for run in runs for moment in run.moments]


def labelled(score: str, protocols: list[dict[str, Any]], number: int) -> str:
    """A score's name, with what sets its protocol apart from the others under which there are values."""
    if len(protocols) == 1:
        return score
    keys = [key for key in protocols[number] if any(p.get(key) != protocols[number][key] for p in protocols)]

    def told(protocol: dict[str, Any], most: int | None) -> str:
        """Of what has many parts, such as the reference images' identity, the first ones."""
        parts = (f"{key} {'-'.join(str(protocol.get(key)).split('-')[:most])}" for key in keys)
        return f"{score} ({', '.join(parts)})"

    short = [told(protocol, 3) for protocol in protocols]
    return short[number] if short.count(short[number]) == 1 else told(protocols[number], None)


def is_better(first: list[float], second: list[float], mode: Mode) -> bool:
    """Whether values are better than others by Bouthillier et al.'s rule, see RULE."""
    source = random.Random(0)
    drawn = sorted(
        how_often(source.choices(first, k=len(first)), source.choices(second, k=len(second)), mode)
        for _ in range(RESAMPLED)
    )
    return how_often(first, second, mode) >= OFTEN and drawn[int(SURE * RESAMPLED)] > 0.5


def how_often(first: list[float], second: list[float], mode: Mode) -> float:
    """In how many of all pairs the first is better, ties counting half."""
    sign = -1 if mode == "min" else 1
    return sum(0.5 * ((sign * (a - b) > 0) + (sign * (a - b) >= 0)) for a, b in product(first, second)) / (
        len(first) * len(second)
    )


def _spread(name: str, values: list[float]) -> dict[str, Cell]:
    if not values:
        return {name: None, f"{name} low": None, f"{name} high": None}
    return {name: median(values), f"{name} low": min(values), f"{name} high": max(values)}
