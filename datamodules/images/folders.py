"""Folders of pictures: what is in them, and which of them are splits or domains."""

import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.images.broken import fault
from datamodules.images.pictures import endings

SYSTEM = {  # what operating systems and archives leave in folders
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "lost+found", "$recycle.bin", "@eadir"),
    "system volume information",
}
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation", "holdout"),  # comes before test
    "test": ("test", "testing"),
}
is_file, is_folder = os.path.isfile, os.path.isdir  # as far as anybody may see


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
    links: list[Path] = []
    folders = deque([folder])
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
    """Which of folders beside each other are "train", "val" and "test"; of a domain "A" or "B", such as trainA.

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
