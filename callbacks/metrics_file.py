"""A run's metrics as a CSV file that survives interruption."""

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only


class MetricsFile(Logger):
    """Append what is logged to ``metrics.csv``: one row a moment, one column a metric, empty where there is no value.

    A resumed run goes on in the same file; rows after the step it resumed from are dropped, because it writes them
    again. (Lightning's CSVLogger deletes the file of an earlier run.)

    Args:
        folder: Folder of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._columns: list[str] | None = None

    @property
    def name(self) -> str:
        """Empty, as is the version: Lightning then puts its checkpoints right under the folder."""
        return ""

    @property
    def version(self) -> str:
        return ""

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

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step or 0} | {name: float(value) for name, value in metrics.items() if name != "epoch"}
        if self._columns is None or not row.keys() <= set(self._columns):
            self._rewrite(row)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns or []).writerow(row)

    def _rewrite(self, row: dict[str, float]) -> None:
        """Read the file, if any, and write it again with the row's columns added."""
        rows: list[dict[str, Any]] = []
        columns: list[str] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                reader = csv.DictReader(file)
                columns = list(reader.fieldnames or [])
                rows = list(reader)
        if self._columns is None:  # the first row of this process
            rows = [r for r in rows if int(r["step"]) < row["step"]]
        self._columns = columns + [name for name in row if name not in columns]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(".metrics.csv.partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self.path)
