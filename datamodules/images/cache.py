"""Pictures decoded and resized once, into one file that is read by index ever after."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.images.broken import BrokenImages, faults_of

try:
    import fcntl
except ImportError:  # Windows has no locks that end with their process and fit here
    fcntl = None  # type: ignore[assignment]

LOOKED_INTO = 16  # files of a data set, to tell it from another
_held: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()  # files that are read, by who reads them


def digest(*values: Any) -> str:
    """A short name for plain values."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def fingerprint(files: Sequence[Path], root: Path, times: bool = True) -> str:
    """A short name for files as they are now: path under root, size, times of change.

    The second of the times, that of the file's entry, cannot be set: another picture of the same size in its place is
    noticed even where its date was kept. It is there for nothing, where reading a part of every file takes seconds for
    10,000 of them. A folder that was copied together with its resized images has these made once more.

    Without ``times``, copies of the files elsewhere have the same name; some of them are looked into instead, because
    files of equal names and sizes may well be other pictures.
    """
    found, above = hashlib.sha256(b"()"), f"{root}{os.sep}"
    for path in files:
        found.update(os.fsencode(str(path).removeprefix(above)))
        try:
            status = path.stat()
        except OSError:  # a link to nothing, or it has gone since it was found: a broken image
            found.update(b"|\n")
            continue
        changed = f"|{status.st_mtime_ns}|{status.st_ctime_ns}" if times else ""
        found.update(f"|{status.st_size}{changed}\n".encode())
    for path in () if times else files[:: max(1, len(files) // LOOKED_INTO)]:
        with contextlib.suppress(OSError), path.open("rb") as file:
            found.update(file.read(2**16))
    return found.hexdigest()[:16]


def content(items: Iterable[Any], pictures_of: Callable[[Any], Iterable[Any]]) -> str:
    """A short name for the PIL pictures that are made of items: of 60,000 of 28x28 pixels in a second."""
    found = hashlib.sha256()
    for item in items:
        with contextlib.suppress(Exception):  # a broken image, which is named when it is decoded
            for picture in pictures_of(item):
                found.update(f"{picture.mode}{picture.size}{picture.getpalette()}".encode())
                found.update(picture.tobytes())
        found.update(b"|")
    return found.hexdigest()[:16]


def build(
    path: Path, items: Sequence[Any], decode: Callable[[Any], np.ndarray], shape: tuple[int, int, int], workers: int
) -> bool:
    """Write ``decode(item)``, uint8 of the given shape, for every item into one ``.npy`` file (N, C, H, W).

    It is written under a name of its own (nodes may share the folder) and moved when it is complete. What a process
    that was killed has left is removed.

    Returns:
        Whether there was something to do: the file was not there or not whole.

    Raises:
        BrokenImages: Items cannot be decoded.
        MisconfigurationException: The folder cannot hold the file.
    """
    if _is_whole(path, (len(items), *shape)):
        return False
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    lock = None
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _tidy(path.parent)
            needed, free = len(items) * int(np.prod(shape)), shutil.disk_usage(path.parent).free
            if needed > free:
                raise OSError(0, f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")
            partial.touch()
            lock = _locked(partial, alone=True)
            images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(len(items), *shape))
            _allocate(partial, images.offset)
        except OSError as error:
            raise MisconfigurationException(
                f"Resized images cannot be kept in {path.parent} ({error.strerror}): set --data.cache_dir to a folder "
                "that can be written to"
            ) from error
        broken = faults_of(items, lambda i, item: images.__setitem__(i, decode(item)), workers, "Resizing images")
        if broken:
            raise BrokenImages(broken)
        images.flush()
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):  # where there is no folder
            partial.unlink(missing_ok=True)
        if lock is not None:
            lock.close()
    return True


def _allocate(path: Path, start: int) -> None:
    """Take the room for a file, zeros from a start on, or OSError: a mapped file on a full disk kills the process."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        try:
            os.posix_fallocate(file.fileno(), 0, end)
        except (AttributeError, OSError) as error:  # macOS and Windows have none, nor have some file systems
            if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            for position in range(file.seek(start), end, 2**24):
                file.write(bytes(min(2**24, end - position)))


def hold(owner: Any, path: Path) -> None:
    """Keep a file from being superseded while its owner lives: a run of another process may still go through it."""
    if (file := _locked(path)) is not None:
        _held.setdefault(owner, []).append(file)


def supersede(folder: Path, name: str) -> None:
    """Remove what was made of a data set when its files were others, unless somebody still reads it.

    Names of files begin with the data set and its settings, a hyphen, and the state of its files.
    """
    same, _, state = name.rpartition("-")
    for path in folder.glob(f"{same}-*"):
        found = re.match(r"([0-9a-f]{16})\b", path.name.removeprefix(f"{same}-"))
        if found and found[1] != state and (lock := _locked(path, alone=True)) is not None:
            path.unlink(missing_ok=True)
            lock.close()


def _tidy(folder: Path) -> None:
    """Remove the unfinished files whose writers are no more; those that are written to now are locked."""
    for path in folder.glob(".*.npy.*"):
        with contextlib.suppress(OSError):  # another process may do the same
            # An empty one may have been made just now, to be locked.
            if path.stat().st_size and (lock := _locked(path, alone=True)) is not None:
                path.unlink()
                lock.close()


def _locked(path: Path, alone: bool = False) -> Any:
    """The file, open and locked until it is closed; None where it is gone or in use, or there are no locks."""
    if fcntl is None:
        return None
    file = None
    try:
        file = path.open("rb+" if alone else "rb")
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError:
        if file is not None:
            file.close()
        return None
    return file


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        return np.load(path, mmap_mode="r").shape == shape
    except (OSError, ValueError, EOFError):
        return False
