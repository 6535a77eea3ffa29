"""Images that cannot be used: what is wrong with them, and how it is said."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

CHUNK = 64  # images a task of the thread pool
LISTED = 20  # broken images that are named


class NoImages(MisconfigurationException):
    """A folder is not there, or holds no images."""


class BrokenImages(MisconfigurationException):
    """Images that cannot be used.

    Args:
        faults: What ``fault`` says of each, by the image's number.
        what: What is wrong with them.
        remedy: What to do with {it}, but for leaving them out.
    """

    def __init__(
        self, faults: Mapping[Any, str], what: str = "Broken image ", remedy: str = "mend or remove {it}"
    ) -> None:
        self.faults = dict(faults)
        named = list(dict.fromkeys(self.faults.values()))  # once, whatever was made of a file
        more, it = (f" and {len(named) - 1} more", "them") if len(named) > 1 else ("", "it")
        first = named[0] if len(named[0]) < 250 else f"...{named[0][-247:]}"
        remedy = remedy.format(it=it)
        super().__init__(f"{what}{first}{more}: {remedy}, or leave {it} out with --data.skip_broken=true")


def listing(faults: Sequence[str]) -> str:
    """The first of some faults, one a line."""
    rest = [f"  and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
    return "\n".join([*(f"  {text}" for text in faults[:LISTED]), *rest])


def fault(item: Any, error: BaseException) -> str:
    """An item and what is wrong with it, in one line of characters that can be printed."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(f"{item} ({reason})".encode(errors="backslashreplace").decode().split())


@contextmanager
def named_if_broken(path: Path) -> Iterator[None]:
    """Inside, whatever PIL raises on bytes that are no picture becomes BrokenImages."""
    try:
        yield
    except Exception as error:
        raise BrokenImages({path: fault(path, error)}) from error


def faults_of(items: Sequence[Any], use: Callable[[int, Any], Any], workers: int, title: str) -> dict[int, str]:
    """Call ``use(number, item)`` in threads (PIL works outside Python's lock); faults by number, where it raised."""
    from tqdm import tqdm

    def chunk(start: int) -> dict[int, str]:
        broken = {}
        for number in range(start, min(start + CHUNK, len(items))):
            if stopped.is_set():
                break
            try:
                use(number, items[number])
            except Exception as error:  # whatever PIL raises on bytes that are no picture
                broken[number] = fault(items[number], error)
        return broken

    broken: dict[int, str] = {}
    stopped = Event()
    with (
        ThreadPoolExecutor(max(1, workers)) as pool,
        tqdm(total=len(items), desc=title, unit="img", leave=False) as bar,
    ):
        starts = range(0, len(items), CHUNK)
        try:
            for start, found in zip(starts, pool.map(chunk, starts), strict=True):
                broken |= found
                bar.update(min(CHUNK, len(items) - start))
        finally:
            stopped.set()  # a signal, upon which nobody waits for minutes until large images are done
    return broken
