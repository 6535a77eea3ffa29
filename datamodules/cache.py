"""Pictures decoded and resized once, into one file that is read by index ever after."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException


def fit_image(picture: Any, channels: int, size: int) -> np.ndarray:
    """A PIL picture as uint8 (C, S, S): grey or RGB, shorter side resized to S, the centre cut out.

    Lanczos resampling with antialiasing, as the data sets of the StyleGAN papers were made.
    """
    from PIL import Image

    picture = picture.convert("L" if channels == 1 else "RGB")
    width, height = picture.size
    scale = size / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - size) // 2, (height - size) // 2
    pixels = np.asarray(picture.crop((left, top, left + size, top + size)))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def fingerprint(files: Iterable[Path], *settings: Any) -> str:
    """A short name for files as they are now (path, size, time of change) and the settings they are read with."""
    digest = hashlib.sha256(repr(settings).encode())
    for path in files:
        status = path.stat()
        digest.update(f"{path}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def build(
    path: Path, items: Sequence[Any], decode: Callable[[Any], np.ndarray], shape: tuple[int, int, int], workers: int
) -> None:
    """Write ``decode(item)``, uint8 of the given shape, for every item into one ``.npy`` file (N, C, H, W).

    Nothing is done when the file is there. It is written under another name and moved when it is complete.

    Raises:
        MisconfigurationException: Items cannot be decoded, or the folder cannot be written to.
    """
    if _is_whole(path, (len(items), *shape)):
        return
    from tqdm import tqdm

    broken: list[str] = []

    def decoded(item: Any) -> np.ndarray | None:
        try:
            return decode(item)
        except (OSError, ValueError, SyntaxError) as error:  # what PIL raises on files that are no pictures
            broken.append(f"{item} ({error})")
            return None

    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(len(items), *shape))
    except OSError as error:
        raise MisconfigurationException(
            f"Resized images cannot be kept in {path.parent} ({error.strerror}): set --data.cache_dir to a folder "
            "that can be written to"
        ) from error
    with ThreadPoolExecutor(max(1, workers)) as pool:
        bar = tqdm(pool.map(decoded, items), total=len(items), desc="Resizing images", unit="img", leave=False)
        for i, image in enumerate(bar):
            if image is not None:
                images[i] = image
    if broken:
        partial.unlink()
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise MisconfigurationException(f"Broken image {broken[0]}{more}: mend or remove it")
    images.flush()
    partial.replace(path)


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        return np.load(path, mmap_mode="r").shape == shape
    except (OSError, ValueError, EOFError):
        return False
