"""Pictures decoded and resized once, into one file that is read by index ever after."""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.pictures import BrokenImages, faults_of, upright

LOOKED_INTO = 16  # files of a data set, to tell it from another
THIN = 4  # times as long as wide


def fit_image(picture: Any, channels: int, size: int, background: str = "white") -> np.ndarray:
    """A PIL picture as uint8 (C, S, S): upright, grey or RGB, shorter side resized to S, the centre cut out.

    Lanczos resampling with antialiasing, as the data sets of the StyleGAN papers were made.
    """
    from PIL import Image

    picture = upright(picture, channels, background)
    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    if max(width, height) > THIN * size:  # the centre alone is resized: the whole would have gigabytes
        x, y = picture.width / width, picture.height / height
        right, bottom = min((left + size) * x, picture.width), min((top + size) * y, picture.height)
        picture = picture.resize((size, size), Image.Resampling.LANCZOS, box=(left * x, top * y, right, bottom))
    else:
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        picture = picture.crop((left, top, left + size, top + size))
    pixels = np.asarray(picture)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def fingerprint(files: Sequence[Path], root: Path, *settings: Any, times: bool = True) -> str:
    """A short name for files as they are now (path under root, size, time of change) and the settings for them.

    Without ``times``, copies of the files elsewhere have the same name; some of them are looked into instead, because
    files of equal names and sizes may well be other pictures.
    """
    digest = hashlib.sha256(repr(settings).encode())
    for path in files:
        digest.update(os.fsencode(path.relative_to(root)))
        try:
            status = path.stat()
        except OSError:  # a link to nothing, or it has gone since it was found: a broken image
            digest.update(b"|\n")
            continue
        changed = f"|{status.st_mtime_ns}" if times else ""
        digest.update(f"|{status.st_size}{changed}\n".encode())
    for path in () if times else files[:: max(1, len(files) // LOOKED_INTO)]:
        with contextlib.suppress(OSError), path.open("rb") as file:
            digest.update(file.read(2**16))
    return digest.hexdigest()[:16]


def build(
    path: Path, items: Sequence[Any], decode: Callable[[Any], np.ndarray], shape: tuple[int, int, int], workers: int
) -> None:
    """Write ``decode(item)``, uint8 of the given shape, for every item into one ``.npy`` file (N, C, H, W).

    Nothing is done when the file is there and whole. It is written under a name of its own (nodes may share the
    folder) and moved when it is complete.

    Raises:
        BrokenImages: Items cannot be decoded.
        MisconfigurationException: The folder cannot hold the file.
    """
    if _is_whole(path, (len(items), *shape)):
        return
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        needed, free = len(items) * int(np.prod(shape)), shutil.disk_usage(path.parent).free
        if needed > free:  # writing to a mapped file on a full disk would kill the process
            raise OSError(0, f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")
        images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(len(items), *shape))
    except OSError as error:
        raise MisconfigurationException(
            f"Resized images cannot be kept in {path.parent} ({error.strerror}): set --data.cache_dir to a folder "
            "that can be written to"
        ) from error
    try:
        broken = faults_of(items, lambda i, item: images.__setitem__(i, decode(item)), workers, "Resizing images")
        if broken:
            raise BrokenImages(broken)
        images.flush()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        return np.load(path, mmap_mode="r").shape == shape
    except (OSError, ValueError, EOFError):
        return False
