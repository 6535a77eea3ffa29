"""A comparison as files that can be pasted into a report: a table, a page, curves and samples."""

import base64
import csv
import html
import io
import json
import re
from collections.abc import Callable
from importlib import resources
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from callbacks.pictures.curves import colour_of, curves
from callbacks.pictures.images import grid, labelled, write_image
from callbacks.runs.files import whole
from callbacks.studies.comparison import RULE, Comparison, Group

COSTS = {"images/s": "{:,.0f}", "minutes": "{:.1f}"}
AXES = {"images": "time/images", "minutes": "time/seconds", "steps": ""}
SHOWN = 12  # images in a row of samples
LONG = 80  # characters of a name in a picture


def write(found: Comparison, folder: Path, title: str, draw: Callable[[Path, int], Tensor | None]) -> list[Path]:
    """Write ``compare.md``, ``compare.csv``, ``compare.html``, ``curves.png`` and ``samples.png``.

    Args:
        found: The comparison.
        folder: Where to.
        title: What was compared.
        draw: Gives so many images (N, C, H, W) in [-1, 1] of the run in a folder, of the same noise for all of one
            kind; None where there is nothing to draw from.

    Returns:
        The files that were written: pictures only where there is something to show.
    """
    written = []

    def keep(name: str, text: str) -> None:
        with whole(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
        written.append(folder / name)

    keep("compare.md", f"# {title}\n\n{about(found)}\n\n{markdown(found)}\n\n{RULE}\n")
    keep("compare.csv", as_csv(found))
    pictures = {}
    lines = {name: lines_of(group, found.monitor) for name, group in zip(names(found), found.groups, strict=True)}
    if any(lines.values()):  # those of which there are none keep their colour
        pictures["curves.png"] = curves(lines, "images seen", found.monitor)
    if (samples := samples_of(found, draw)) is not None:
        pictures["samples.png"] = samples
    for name, picture in pictures.items():
        write_image(picture, folder / name)
        written.append(folder / name)
    keep("compare.html", page(found, title, folder / "samples.png" if samples is not None else None))
    return written


def about(found: Comparison) -> str:
    """What is in the table, in a sentence or three."""
    runs = sum(len(group.runs) for group in found.groups)
    text = f"{runs} runs of {len(found.groups)} settings"
    if found.monitor:
        text += f", sorted by the best {found.monitor} ({'larger' if found.mode == 'max' else 'smaller'} is better)"
    text += "; medians over seeds, with the least and the largest."
    several = [name for name, protocols in found.protocols.items() if len(protocols) > 1]
    if several:
        differing = sorted(
            {k for n in several for p in found.protocols[n] for k in p if _differs(found.protocols[n], k)}
        )
        text += (
            f" Scores were taken under protocols that differ in {', '.join(differing)}, and are no numbers to compare: "
            "each has a column of its own."
        )
    if found.tied:
        more = f" and {len(found.tied) - 8} more" if len(found.tied) > 8 else ""
        text += f" Along with these settings others differ: {', '.join(found.tied[:8])}{more}."
    return text


def head(found: Comparison) -> list[str]:
    """Titles of the columns."""
    scores = [f"{column.label} {which}" for column in found.columns for which in ("best", "final")]
    return (
        [*found.axes, "runs", *scores[:1], "", *scores[1:], *costs(found)]
        if scores
        else [*found.axes, "runs", *costs(found)]
    )


def costs(found: Comparison) -> list[str]:
    return list(dict.fromkeys(name for group in found.groups for run in group.runs for name in run.cost))


def cells(found: Comparison) -> list[list[dict[str, Any]]]:
    """The rows of the table: of every cell what is shown, its spread and what it is sorted by."""
    table = []
    for row in found.rows():
        line = [
            {"text": str(row[axis]), "value": row[axis] if not isinstance(row[axis], list | dict) else str(row[axis])}
            for axis in found.axes
        ]
        notes = [f"{row['scored']} scored"] * (row["scored"] < row["runs"])
        notes += [f"{row['failed']} failed"] * bool(row["failed"])
        line.append({"text": ", ".join([str(row["runs"]), *notes]), "value": row["runs"]})
        for number, name in enumerate(
            f"{column.label} {which}" for column in found.columns for which in ("best", "final")
        ):
            value, low, high = row[name], row[f"{name} low"], row[f"{name} high"]
            spread = f"({number_of(low)} to {number_of(high)})" if value is not None and low != high else ""
            line.append({"text": "" if value is None else number_of(value), "value": value, "spread": spread})
            if number == 0:
                line.append({"text": row["told apart"], "value": row["told apart"]})
        for name in costs(found):
            value = row.get(name)
            line.append({"text": "" if value is None else COSTS.get(name, "{:,.4g}").format(value), "value": value})
        table.append(line)
    return table


def number_of(value: float) -> str:
    return f"{value:.4g}"


def markdown(found: Comparison) -> str:
    """The table in Markdown."""
    titles = head(found)
    lines = [titles, ["---"] * len(titles)]
    lines += [[f"{cell['text']} {cell.get('spread', '')}".strip() for cell in row] for row in cells(found)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def as_csv(found: Comparison) -> str:
    """All of ``Comparison.rows``, a line a group."""
    rows = [row | {"folders": " ".join(row["folders"])} for row in found.rows()]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def name_of(group: Group) -> str:
    """What sets a group apart, in a line."""
    return ", ".join(f"{axis.rpartition('.')[2]}={value}" for axis, value in group.settings.items()) or "all"


def names(found: Comparison) -> list[str]:
    """What sets each group apart, as a picture has room for it; where the middle is left out and missed, by number."""
    whole = [name_of(group) for group in found.groups]
    cut = [name if len(name) <= LONG else f"{name[: LONG // 3]}…{name[LONG // 3 - LONG + 1 :]}" for name in whole]
    return [name if cut.count(name) == 1 else f"{number}: {name}" for number, name in enumerate(cut, 1)]


def lines_of(group: Group, score: str) -> list[list[tuple[float, float]]]:
    """A score over images seen, or over steps where these were not kept; a line a run."""
    lines = [
        [(moment.images or moment.step, moment.scores[score]) for moment in run.moments if score in moment.scores]
        for run in group.runs
    ]
    return [points for line in lines if (points := [(x, y) for x, y in line if isfinite(y)])]


def samples_of(found: Comparison, draw: Callable[[Path, int], Tensor | None]) -> Tensor | None:
    """A picture of a row of samples a group, of its first run that can be drawn from."""
    rows, shown = [], []
    for name, group in zip(names(found), found.groups, strict=True):
        images = next((i for run in group.runs if (i := draw(run.folder, SHOWN)) is not None), None)
        if images is not None:
            rows.append(images[:SHOWN].float().cpu())
            shown.append(name)
    if not rows:
        return None
    channels, side = (max(row.shape[dim] for row in rows) for dim in (1, -1))
    side = max(side, 32)
    rows = [interpolate(row.expand(-1, channels, -1, -1) if row.shape[1] == 1 else row, (side, side)) for row in rows]
    return labelled(grid(torch.cat(rows), SHOWN), shown, LONG + 5)


def page(found: Comparison, title: str, samples: Path | None) -> str:
    """One self-contained page."""
    lines: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    for number, group in enumerate(found.groups):
        for run in group.runs:
            places = {axis: dict(run.curves.get(column, [])) for axis, column in AXES.items() if column}
            for name, curve in run.curves.items():
                if name.partition("/")[0] not in ("loss", "score", "quality", "health", "critic"):
                    continue
                names[name] = None
                lines.append(
                    {
                        "name": name,
                        "group": number,
                        "run": run.folder.name,
                        "values": [value for _, value in curve],
                        "steps": [step for step, _ in curve],
                        "images": [places["images"].get(step) for step, _ in curve],
                        "minutes": [s / 60 if (s := places["minutes"].get(step)) else None for step, _ in curve],
                    }
                )
    first = [found.monitor] if found.monitor in names else []
    content = {
        "about": about(found),
        "rule": RULE,
        "head": head(found),
        "rows": cells(found),
        "groups": [name_of(group) for group in found.groups],
        "colours": [colour_of(number) for number in range(len(found.groups))],
        "curves": {
            "names": [*first, *(name for name in names if name not in first)],
            "axes": list(AXES),
            "lines": lines,
        },
        "samples": [f"data:image/png;base64,{base64.b64encode(samples.read_bytes()).decode()}"] if samples else [],
    }
    text = resources.files("callbacks.studies").joinpath("page.html").read_text(encoding="utf-8")
    data = json.dumps(_finite(content), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    filled = {"TITLE": html.escape(title), "DATA": data}
    return re.sub("TITLE|DATA", lambda match: filled[match[0]], text)  # neither in what is filled in


def _finite(value: Any) -> Any:
    """The same without infinite numbers and such as are none, which JSON does not have."""
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value


def _differs(protocols: list[dict[str, Any]], key: str) -> bool:
    return len({str(protocol.get(key)) for protocol in protocols}) > 1
