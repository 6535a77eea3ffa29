"""Files of pictures: finding them, and reading them one by one."""

import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import Dataset

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # to PIL, MPO of some phones is JPEG
SYSTEM = {  # what operating systems and archives leave in folders
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "lost+found", "$recycle.bin", "@eadir"),
    "system volume information",
}
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation", "holdout"),  # comes before test
    "test": ("test", "testing"),
}
CHUNK = 64  # images a task of the thread pool
LISTED = 20  # broken images that are named


# Finding them


@cache
def formats() -> tuple[str, ...]:
    """Those of FORMATS that the installed PIL can read."""
    from PIL import Image

    known = set(Image.registered_extensions().values())  # of AVIF and WebP only where PIL was built with them
    return tuple(kind for kind in FORMATS if kind in known and kind in Image.OPEN)


@cache
def endings() -> tuple[str, ...]:
    """What the names of pictures end in, in alphabetical order."""
    from PIL import Image

    return tuple(sorted(ending for ending, kind in Image.registered_extensions().items() if kind in formats()))


class Walk(NamedTuple):
    """What is in a folder and its sub-folders: pictures in alphabetical order, and what else is there.

    Others are counted by their endings; of the folders that cannot be read, there is the reason.
    """

    pictures: list[Path]
    others: Counter[str]
    unreadable: list[str]


def walk(folder: Path) -> Walk:
    """Look through a folder; hidden files and folders, and those of operating systems, are none.

    Links are followed, but to no folder that is gone through anyway, nor back to where they came from: whatever is
    linked, there is an end. A link to nothing under a picture's name is a (broken) picture.
    """
    found = Walk([], Counter(), [])
    root = folder.resolve()
    seen = {_identity(place) for place in root.parents} - {None}
    for link in _without_links(folder, seen, found):
        inside, links = set(seen), deque([link])
        while links:
            links.extend(_without_links(links.popleft(), inside, found))
    found.pictures.sort()
    return found


def _without_links(folder: Path, seen: set[tuple[int, int] | None], found: Walk) -> list[Path]:
    """Look through what lies in a folder, as far as it was not seen; gives the links to folders."""
    links, folders = [], deque([folder])
    while folders:
        current = folders.popleft()
        identity = _identity(current)
        if identity in seen:
            continue
        if identity:
            seen.add(identity)
        try:
            with os.scandir(current) as listed:
                entries = sorted((e for e in listed if not _is_ignored(e.name)), key=lambda entry: entry.name)
        except FileNotFoundError:  # it has gone since it was seen
            continue
        except OSError as error:
            found.unreadable.append(fault(current, error))
            continue
        for entry in entries:
            path = current / entry.name
            kind = _kind(entry)
            if kind == "folder":
                (links if entry.is_symlink() else folders).append(path)
            elif kind != "special" and path.suffix.lower() in endings():
                found.pictures.append(path)
            else:
                found.others[path.suffix.lower() if kind == "file" else kind] += 1
    return links


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _kind(entry: os.DirEntry[str]) -> str:
    """ "file", "folder", "link" to nothing (or in a circle), or "special": pipes and devices, which might never end."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() else "special" if Path(entry.path).exists() else "link"
    except OSError:
        return "link"


def counted(others: Counter[str]) -> str:
    """Files that are no pictures, by their endings, such as "10 .psd, 2 without an ending"."""
    words = {"": "without an ending", "link": "linked to nothing", "special": "that are no files"}
    parts = [f"{count} {words.get(ending, ending)}" for ending, count in others.most_common(6)]
    return ", ".join(parts + (["..."] if len(others) > len(parts) else []))


def is_folder(path: Path) -> bool:
    """Whether there is a folder, as far as anybody may see."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """The same of a file."""
    try:
        return path.is_file()
    except OSError:
        return False


def folders_in(folder: Path) -> list[Path]:
    """The sub-folders of a folder that are looked into, links to folders included, in alphabetical order."""
    try:
        with os.scandir(folder) as listed:
            return sorted(folder / e.name for e in listed if not _is_ignored(e.name) and _kind(e) == "folder")
    except OSError:
        return []


def split_of(name: str) -> str | None:
    """ "train", "val" or "test" where that is what a folder's name says, as Training, valid, test_set, train2017 do."""
    word = re.fullmatch(r"([a-z]+?)[ _.-]?(set|data|images|split)?[ _.-]?\d*", name.lower())
    return next((split for split, words in SPLITS.items() if word and word[1] in words), None)


def splits_among(folders: Iterable[Path], domain: str = "") -> dict[str, Path]:
    """Which of some folders are splits: "train", "val", "test", as far as they are there.

    Args:
        folders: Folders beside each other.
        domain: "A" or "B" to look for folders of a domain, such as trainA.

    Raises:
        MisconfigurationException: Two of them are the same split.
    """
    found: dict[str, Path] = {}
    for path in folders:
        name = path.name
        if domain:
            name = name[:-1] if name[-1:].upper() == domain else ""
        if split := split_of(name):
            if split in found:
                raise MisconfigurationException(
                    f"{path.parent} holds both {found[split].name} and {path.name}: --data.data_dir must hold one "
                    f"folder {split}{domain}"
                )
            found[split] = path
    return found


def splits_in(folder: Path) -> dict[str, Path]:
    """Which sub-folders are splits: "train" and, if any, "val" and "test"; none where all images are one.

    Raises:
        MisconfigurationException: There are images to test with, but none to train on.
    """
    found = splits_among(folders_in(folder))
    if found and "train" not in found:
        (name, *_) = (path.name for path in found.values())
        raise MisconfigurationException(
            f"{folder} holds a folder {name}, but none called train: --data.data_dir must hold both, or neither"
        )
    return found


def domains_among(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """The folders of domains A and B of each split: trainA and trainB, or A and B in train.

    Raises:
        MisconfigurationException: There are two such folders for one.
    """
    folders = list(folders)
    whole, *parts = (splits_among(folders, domain) for domain in ("", "A", "B"))
    found = {split: [part[split] for part in parts] for split in SPLITS if all(split in part for part in parts)}
    for split, folder in whole.items():
        inside = {path.name.upper(): path for path in folders_in(folder)}
        if inside.keys() == {"A", "B"}:
            found.setdefault(split, [inside["A"], inside["B"]])
    return found


def held_out(splits: Mapping[str, Any]) -> Any:
    """What scores compare with: of validation and test images the former; None without any."""
    return splits.get("val") or splits.get("test")


# Reading them


def open_picture(source: Any) -> Any:
    """The PIL picture in a file, given by its path or opened: of ``formats``, and no other.

    PIL goes by the content, and would start Ghostscript for PostScript under the name of a JPEG file.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(source, formats=formats())
    except UnidentifiedImageError:  # which repeats the file's name
        raise ValueError("it cannot be identified as an image") from None


def is_see_through(picture: Any) -> bool:
    """Whether a part of a PIL picture is transparent."""
    return _has_alpha(picture) and picture.convert("RGBA").getextrema()[3][0] < 255


def _has_alpha(picture: Any) -> bool:
    return picture.has_transparency_data and picture.mode[0] not in "IF"


def upright(picture: Any, channels: int, background: str = "white") -> Any:
    """A PIL picture in 8 bits, grey or RGB, turned as the camera was held, on a ground where it is transparent.

    Integers of 16 bits are divided by 256, unless none is above 255; floats are multiplied by 255.

    Raises:
        ValueError: Its pixels are of another range.
    """
    from PIL import Image, ImageCms, ImageColor, ImageOps

    picture = ImageOps.exif_transpose(picture)
    if _has_alpha(picture):
        ground = Image.new("RGBA", picture.size, (*ImageColor.getrgb(background)[:3], 255))
        picture = Image.alpha_composite(ground, picture.convert("RGBA"))
    elif picture.mode[0] in "IF":
        picture = Image.fromarray(_in_8_bits(np.asarray(picture), picture.mode))  # PIL would clip at 255
    elif picture.mode == "LAB":
        spaces = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        picture = ImageCms.profileToProfile(picture, *spaces, outputMode="RGB")
    return picture.convert("L" if channels == 1 else "RGB")


def _in_8_bits(pixels: np.ndarray, mode: str) -> np.ndarray:
    low, high = pixels.min(), pixels.max()
    if not 0 <= low <= high <= (1 if mode == "F" else 65535):  # nor NaN
        right = "8 or 16 bits" if mode != "F" else "8 or 16 bits, or to floats from 0 to 1"
        raise ValueError(f"its pixels, of PIL's mode {mode}, go from {low:.5g} to {high:.5g}: convert it to {right}")
    if mode == "F":
        return (pixels * 255).round().astype(np.uint8)
    return (pixels >> 8 if high > 255 else pixels).astype(np.uint8)


# What is broken


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
    """Call ``use(number, item)`` for every item, in threads (PIL works outside Python's lock).

    Returns:
        The faults of the items for which it raised an exception, by number.
    """
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


# Pictures one by one


def by_name(paths: Iterable[Path], name_of: Callable[[Path], Any], what: str) -> dict[Any, Path]:
    """Pictures by a name that goes without the ending.

    Raises:
        MisconfigurationException: Two of them have one name.
    """
    found: dict[Any, Path] = {}
    for path in paths:
        name = name_of(path)
        if name in found:
            raise MisconfigurationException(f"{path} and {found[name]} would {what}: rename one of them")
        found[name] = path
    return found


class NamedPictures(Dataset):
    """Pictures at their own sizes: float (C, H, W) in [-1, 1], and the path in their folder without the ending.

    Args:
        folder: The folder that their names begin in.
        paths: The pictures.
        channels: 3 for colour, 1 for grey; images are converted.
        background: Colour behind what is transparent.

    Raises:
        MisconfigurationException: There are two whose paths differ in the ending only.
    """

    def __init__(self, folder: Path, paths: Iterable[Path], channels: int, background: str = "white") -> None:
        self.channels = channels
        self.background = background
        named = by_name(
            paths,
            lambda path: path.relative_to(folder).with_suffix("").as_posix(),
            "have results of one name",
        )
        self.pictures = list(named.items())

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> tuple[Tensor, str]:
        name, path = self.pictures[number]
        with named_if_broken(path):
            pixels = np.array(upright(open_picture(path), self.channels, self.background))
        image = torch.from_numpy(pixels if pixels.ndim == 3 else pixels[..., None]).permute(2, 0, 1)
        return image.float().div_(127.5).sub_(1), name
