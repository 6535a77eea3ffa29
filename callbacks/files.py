"""Files that appear whole or not at all, whoever else writes them at the same time."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"  # how the names of unfinished files end


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; when all went well, what lies there is safely on disk as ``path``.

    The name is hidden and this process's own. Whatever goes wrong, the former file stays and nothing else is left, but
    for a process that was killed, whose unfinished file ends in ".partial".

    Args:
        path: The file; its folder is made where it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}{PARTIAL}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def tidy(folder: Path) -> None:
    """Remove the unfinished files that killed processes left in a folder that nobody else writes to now."""
    for path in folder.glob(f"**/.*{PARTIAL}"):
        path.unlink(missing_ok=True)
