"""What a data set says of itself, and how its images are decoded and resized, once and for all."""

import inspect
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.images.broken import BrokenImages, faults_of
from datamodules.images.cache import LOOKED_INTO, build, content, digest, fingerprint, hold, supersede
from datamodules.images.findings import Findings
from datamodules.images.pictures import fit_image, is_see_through, open_picture

NAMED = 12  # classes that are named when training begins
PLAIN = str, int, float, bool, tuple, list, dict


class Split(NamedTuple):
    """What a split is made of: one item an image, the label of each (None without labels), and a name for them."""

    items: Sequence[Any]
    labels: Sequence[Any] | None
    name: str
    whole: str
    """The name with what is broken."""


class DataSet(Findings, ABC):
    """Where images are and how to open one; see ImageDataModule for the settings."""

    layers: int = 1
    """Pictures that are kept as one item: 2 for pairs."""
    val_split: str = "test"
    """The split that scores compare with: "test", or "train" where there is no test set."""
    class_names: Sequence[str] = ()
    """What the labels number; empty when there are no labels."""
    data_dir: Path
    image_size: int
    classes: list[str] | None
    _load_size: int | None
    _shared_settings: Collection[str]
    _given: dict[str, tuple[Sequence[Any], Sequence[Any] | None, list[Path]]]
    _splits: dict[str, Split]
    _origin: dict[str, str]
    _identities: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self._forget()

    # What a data set provides

    @abstractmethod
    def items(self, split: str) -> tuple[Sequence[Any], Sequence[Any] | None]:
        """What "train" or "test" (or another of ``splits``) is made of.

        Returns:
            What ``open`` makes pictures of, one item an image, such as paths, arrays or numbers; their labels, from 0
            on, or None.
        """

    def open(self, item: Any, split: str) -> Any:
        """The PIL picture of an item of a split, or a tuple of ``layers`` pictures.

        By default items are paths of files, uint8 arrays (H, W) or (H, W, 3), or pictures themselves.
        """
        from PIL import Image

        if isinstance(item, Image.Image):
            return item
        return Image.fromarray(item) if isinstance(item, np.ndarray) else open_picture(item)

    def identity(self, split: str) -> Any:
        """A plain value (numbers, strings, tuples of them) that tells the images of a split from all others.

        Resized images, real statistics of scores and resumed runs are known by it; copies elsewhere share it. By
        default it is a name for the files and, where these do not tell all, for what ``open`` shows: of all items that
        come from no file, or of some from files and the settings of a class with an ``open`` of its own. A data set
        with a faster or a better answer gives its own.
        """
        items, _, files = self._found(split)
        state = fingerprint(files, self.data_dir, times=False)
        of_lab = type(self).open.__module__.startswith(f"{__package__.partition('.')[0]}.")
        if files and of_lab:
            return state
        own = inspect.signature(type(self).__init__).parameters.keys() - self._shared_settings
        settings = [(name, value) for name, value in sorted(vars(self).items()) if name in own and type(value) in PLAIN]
        step = max(1, len(items) // LOOKED_INTO) if files else 1
        shown = (items[number] for number in range(0, len(items), step))
        return digest(state, content(shown, partial(self._opened, split)), *settings)

    def files_of(self, items: Sequence[Any]) -> list[Path]:
        """The files that items come from, whose changes are noticed: by default all paths in them, one by one."""
        parts = (part for item in items for part in (item if isinstance(item, tuple) else (item,)))
        return [part for part in parts if isinstance(part, Path)]

    def splits(self) -> set[str]:
        """The names that ``items`` is asked for."""
        return {"train", self.val_split}

    # What follows

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the classes (or attributes) that the labels tell apart."""
        return tuple(self.classes or self.class_names)

    @property
    def load_size(self) -> int:
        """Height and width of the training images as they are kept."""
        return self._load_size or self.image_size

    def count(self, split: str) -> int:
        """How many images there are."""
        return len(self._split(split).items)

    def reference(self, split: str) -> str:
        """A name for exactly these images and labels, at this size: see ``identity``."""
        _, labels, name, _ = self._split(split)
        return name if labels is None else f"{name}-{digest(list(labels))[:8]}"

    def origin(self) -> dict[str, str]:
        """Where the training images come from, if from files, and a name for them that copies elsewhere share."""
        if not self._origin:
            splits = [split for split in sorted(self.splits()) if split.startswith("train")]
            names = [str(self._identity(split)) for split in splits]
            if self.classes:
                names.append(digest(self.classes))
            self._origin = {"class": type(self).__name__, "images": "-".join(names)}
            if any(self._found(split)[2] for split in splits):
                self._origin["data_dir"] = str(self.data_dir.resolve())
        return self._origin

    def _forget(self) -> None:
        """Look at the files anew when they are asked for."""
        self._given, self._splits, self._origin, self._identities = {}, {}, {}, {}
        self._walks.clear()

    def _identity(self, split: str) -> Any:
        """``identity``, which may go through all images, once for all that asks."""
        if split not in self._identities:
            self._identities[split] = self.identity(split)
        return self._identities[split]

    def _found(self, split: str) -> tuple[Sequence[Any], Sequence[Any] | None, list[Path]]:
        """The items of a split, of the wanted classes, with their labels, and the files that all items come from."""
        if split not in self._given:
            items, labels = self.items(split)
            files = self.files_of(items)
            if self.classes:
                items, labels = self._of_classes(self.classes, items, labels)
            self._given[split] = items, labels, files
        return self._given[split]

    def _of_classes(
        self, classes: list[str], items: Sequence[Any], labels: Sequence[Any] | None
    ) -> tuple[list[Any], list[int]]:
        """The items of the wanted classes, and the new numbers of these."""
        for number, name in enumerate(classes):
            if name in classes[:number]:
                raise MisconfigurationException(f"--data.classes={name} must be there once")
            if name not in self.class_names or labels is None:
                known = f"of {', '.join(self.class_names)}" if self.class_names else "left out: there are no classes"
                raise MisconfigurationException(f"--data.classes={name} must be {known}")
        numbers = {self.class_names.index(name): number for number, name in enumerate(classes)}
        kept = [(item, numbers[label]) for item, label in zip(items, labels or [], strict=True) if label in numbers]
        return [item for item, _ in kept], [label for _, label in kept]

    def _split(self, split: str) -> Split:
        if split not in self._splits:
            items, labels, files = self._found(split)
            channels, height, width = shape = self._stored_shape(split)
            # In a folder that several data sets may share, the same settings of two of them are not the same.
            shared = None if self.cache_dir.parent == self.data_dir else str(self.data_dir.resolve())
            chosen = [self.classes] if self.classes else []
            settings = type(self).__qualname__, shape, self.background, shared, *chosen
            state = digest(fingerprint(files, self.data_dir), self._identity(split))
            key = f"{height}x{width}x{channels}-{digest(*settings)[:8]}-{state}"
            name = whole = f"{type(self).__name__.lower()}-{split}-{key}"
            if broken := self._broken(whole):
                kept = [number for number in range(len(items)) if number not in broken]
                items, labels = [items[number] for number in kept], labels and [labels[number] for number in kept]
                name += f"-{digest(*sorted(broken))[:8]}"
                self._require(items)
            self._splits[split] = Split(items, labels, name, whole)
        return self._splits[split]

    def _stored_shape(self, split: str) -> tuple[int, int, int]:
        """Shape of an item as it is kept; training images leave room to be cut out of."""
        size = self.load_size if split.startswith("train") else self.image_size
        return self.layers * self.channels, size, size

    # Decoding them

    def prepare_data(self) -> None:
        """Decode and resize, once and for all; say what there is.

        Raises:
            BrokenImages: Images cannot be used.
            MisconfigurationException: There are none, or there is no room for them.
        """
        self._forget()
        splits = sorted(self.splits())
        if self.skip_broken:
            for split in splits:
                self._try_again(split)
        for split in splits:
            self._split(split)
        if not self.skip_broken:  # what was misunderstood can be stopped before it is resized
            self._introduce()
        broken: dict[Any, str] = {}
        before = set(self.cache_dir.glob("*.npy"))
        for split in splits:
            broken |= {(split, item): text for item, text in self._keep(split).items()}
        if set(self.cache_dir.glob("*.npy")) - before:
            self._say_kept()
        if broken:
            self.leave_out(broken)
        if self.skip_broken:
            self._introduce()
        self._say_ground()

    def _introduce(self) -> None:
        """Say how the files were understood: a folder may be read otherwise than it was meant."""
        classes = ""
        if self.domains and any(self._split(split).labels is not None for split in self.splits()):
            more = f", … ({len(self.domains)})" if len(self.domains) > NAMED else ""
            classes = f", classes {', '.join(self.domains[:NAMED])}{more}"
        self._say(f"{self._number('train')} {self.things}{classes}; {self._number('test')} held out")
        self._say_others()

    def _number(self, part: str) -> str:
        """How many images there are to train or test with."""
        splits = [split for split in sorted(self.splits()) if split.startswith(part)]
        return " and ".join(f"{len(self._split(split).items):,}" for split in splits) or "0"

    def _keep(self, split: str) -> dict[Any, str]:
        """Decode and resize a split; gives the faults of what cannot be, which is left out if it may be."""
        while True:
            path, (items, *_, whole) = self._cache(split), self._split(split)
            broken, shape = self._broken(whole), self._stored_shape(split)
            try:
                if build(path, items, partial(self._decode, split, shape), shape, self.num_workers):
                    supersede(self.cache_dir, whole)
                hold(self, path)
                return broken
            except BrokenImages as error:
                if not self.skip_broken:
                    return error.faults
                kept = [number for number in range(len(items) + len(broken)) if number not in broken]
                self._note(whole, broken | {kept[number]: text for number, text in error.faults.items()})
                del self._splits[split]

    def _broken(self, whole: str) -> dict[int, str]:
        """What was found to be broken when a split was decoded: faults by number."""
        if not self.skip_broken:
            return {}
        try:
            return {int(number): str(text) for number, text in json.loads(self._notes(whole).read_text()).items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def _note(self, whole: str, broken: dict[int, str]) -> None:
        partial_file = self._notes(whole).with_suffix(f".{os.getpid()}")
        partial_file.write_text(json.dumps(broken))
        partial_file.replace(self._notes(whole))

    def _notes(self, whole: str) -> Path:
        return self.cache_dir / f"{whole}.broken.json"

    def _try_again(self, split: str) -> None:
        """Forget what was broken if a part of it can be read now, such as a file that nobody was allowed to read."""
        whole = self._split(split).whole
        if broken := self._broken(whole):
            items, *_ = self._found(split)
            found = [items[number] for number in broken if number < len(items)]
            use = partial(self._decode, split, self._stored_shape(split))
            if len(faults_of(found, lambda _, item: use(item), self.num_workers, "Trying again")) < len(broken):
                self._notes(whole).unlink(missing_ok=True)
                del self._splits[split]

    def _cache(self, split: str) -> Path:
        return self.cache_dir / f"{self._split(split).name}.npy"

    def _opened(self, split: str, item: Any) -> tuple[Any, ...]:
        opened = self.open(item, split)
        return opened if isinstance(opened, tuple) else (opened,)

    def _decode(self, split: str, shape: tuple[int, int, int], item: Any) -> np.ndarray:
        pictures = self._opened(split, item)
        if any(map(is_see_through, pictures)):
            self._see_through.add(str(item))
        return np.concatenate([fit_image(picture, self.channels, shape[-1], self.background) for picture in pictures])
