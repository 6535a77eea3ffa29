"""What two runs' metrics have in common: all but how long they took."""

import csv
from pathlib import Path

TIMES = "time/", "speed/"  # how the names of such metrics begin


def rows(run: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics.csv, without what no other run has alike."""
    with (run / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not name.startswith(TIMES)} for row in lines]
