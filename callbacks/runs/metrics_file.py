"""A run's metrics as a CSV file that survives interruption."""

import csv
import io
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from callbacks.runs.files import unwritten, whole

TIME = "time/seconds"
Rows = list[list[str]]


class MetricsFile(Logger):
    """Append what is logged to a folder's ``metrics.csv``: a row a moment, a column a metric, empty without a value.

    A resumed run goes on in the same file. Where it stands in it is what ``cut`` says; where nobody does, rows from its
    first step on are dropped, because it writes them again. (Lightning's CSVLogger deletes the file of an earlier run.)
    ``time/seconds`` is how long the run has taken by then, without the time for which it was interrupted.

    Rows that cannot be written, to a full disk for instance, are kept until they can be. What is damaged in the file is
    left out, and said.
    """

    name = version = ""  # Lightning then puts its checkpoints right under the folder

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._columns: list[str] | None = None  # of the file; None until this process has read it
        self._written = 0  # rows in it
        self._began = False  # whether the rows that this process writes again were dropped
        self._kept: int | None = None  # rows that were not
        self._warned = False
        self._pending: list[dict[str, Any]] = []
        self._began_at = time.monotonic()
        self._before = 0.0  # seconds that the run had taken when this process began, or as good as that

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @property
    @rank_zero_experiment
    def experiment(self) -> None:
        """No object behind it."""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder holds the complete configuration."""

    @property
    def rows(self) -> int:
        """Rows so far, those that wait for room on the disk included; 0 on ranks that write none."""
        if rank_zero_only.rank:
            return 0
        if self._columns is None:
            try:
                self._take(*self._read())
            except OSError as error:
                unwritten("metrics", self.path, error)
        return self._written + len(self._pending)

    @rank_zero_only
    def cut(self, rows: int) -> None:
        """Drop all rows after the first ``rows``, and the columns that came with them."""
        self._pending = self._pending[: max(0, rows - self._written)]
        self._began, self._kept = False, rows
        try:
            self._begin()
        except OSError as error:  # and tried again with the next row
            unwritten("metrics", self.path, error)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._pending.append(
            {"step": step or 0, TIME: time.monotonic() - self._began_at}
            | {name: float(value) for name, value in metrics.items() if name != "epoch"}
        )
        self.finalize()

    @rank_zero_only
    def finalize(self, status: str = "") -> None:
        """Write what waits."""
        if not self._pending:
            return
        try:
            if self._written and not self.path.exists():
                rank_zero_warn(f"{self.path} is gone, and begun again")
                self._take([], [])
            if not self._began:
                self._begin()
            assert self._columns is not None
            new = [name for name in dict.fromkeys(n for row in self._pending for n in row) if name not in self._columns]
            if new:
                columns, rows = self._read()
                self._write(columns + new, [row + [""] * len(new) for row in rows])
            self._append()
        except OSError as error:
            unwritten("metrics", self.path, error)

    def _begin(self) -> None:
        """Drop the rows that this process writes again, and the columns that came with them."""
        columns, rows = self._read()
        if self._kept is not None:
            rows = rows[: self._kept]
        elif rows:
            place, step = columns.index("step"), self._pending[0]["step"]
            rows = [row for row in rows if int(row[place]) < step]
        if rows and TIME in columns:
            now = time.monotonic() - self._began_at
            taken = float(rows[-1][columns.index(TIME)] or 0)
            self._before = taken - (self._pending[0][TIME] if self._pending else now)
        used = [i for i in range(len(columns)) if any(row[i] for row in rows)]
        self._write([columns[i] for i in used], [[row[i] for i in used] for row in rows])
        self._began = True

    def _append(self) -> None:
        text = io.StringIO(newline="")
        rows = [row | {TIME: round(self._before + row[TIME], 3)} for row in self._pending]
        csv.DictWriter(text, self._columns or []).writerows(rows)
        lines = text.getvalue().encode()
        with self.path.open("ab", buffering=0) as file:
            end = file.seek(0, io.SEEK_END)
            try:
                while lines:
                    lines = lines[file.write(lines) :]
            except OSError:
                file.truncate(end)  # half a row
                raise
        self._written += len(self._pending)
        self._pending.clear()

    def _write(self, columns: list[str], rows: Rows) -> None:
        if columns:
            with whole(self.path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([columns, *rows])
        else:
            self.path.unlink(missing_ok=True)
        self._take(columns, rows)

    def _take(self, columns: list[str], rows: Rows) -> None:
        self._columns, self._written = columns, len(rows)

    def _read(self) -> tuple[list[str], Rows]:
        """The columns of the file, and its rows of the file that are whole; what else it holds is said."""
        if not self.path.exists():
            return [], []
        header, *lines = self.path.read_bytes().split(b"\n")
        columns = _cells(header) if lines else None
        if columns is None or "step" not in columns:
            damaged = self.path.with_name(f"{self.path.name}.damaged")
            self.path.replace(damaged)
            rank_zero_warn(
                f"{self.path} has no line with the names of the metrics: it is kept as {damaged} and begun again"
            )
            return [], []
        rows = [_row(line, columns) for line in lines[:-1]]
        whole_rows = [row for row in rows if row is not None]
        lost = len(rows) - len(whole_rows) + bool(lines and lines[-1])
        if lost and not self._warned:
            self._warned = True
            rank_zero_warn(f"{self.path} is damaged: {lost} of its lines are not whole and left out")
        return columns, whole_rows


def _cells(line: bytes) -> list[str] | None:
    """The values of a line; None where it is not one of a CSV file."""
    try:
        (cells,) = csv.reader([line.decode()], strict=True)
    except (ValueError, csv.Error):
        return None
    return None if b"\0" in line else cells


def _row(line: bytes, columns: list[str]) -> list[str] | None:
    """The values of a line that is whole: as many numbers as columns, or nothing in their place."""
    cells = _cells(line)
    if cells is None or len(cells) != len(columns):
        return None
    try:
        int(cells[columns.index("step")])
        [float(cell) for cell in cells if cell]
    except ValueError:
        return None
    return cells
