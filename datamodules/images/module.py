"""What every data set shares: resized once, kept in memory or streamed, scaled and mirrored on the device."""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules.images.augmentation import Augmentation
from datamodules.images.cache import LOOKED_INTO, build, content, fingerprint, fit_image, hold, supersede
from datamodules.images.loader import ImageBatch, Loader, UnpairedLoader
from datamodules.images.pictures import (
    BrokenImages,
    NamedPictures,
    NoImages,
    Walk,
    counted,
    endings,
    faults_of,
    is_file,
    is_folder,
    is_see_through,
    listing,
    open_picture,
    upright,
    walk,
)

NAMED = 12  # classes that are named when training begins


class Split(NamedTuple):
    """What a split is made of: one item an image, the label of each (None without labels), and a name for them.

    The files that they come from are in the order in which the data set gives them.
    """

    items: Sequence[Any]
    labels: list[Any] | None
    name: str
    files: list[Path]
    whole: str
    """The name with what is broken."""


class ImageDataModule(LightningDataModule, ABC):
    """Images, with class labels if the data has them.

    Batches are ``ImageBatch(image, label)``: images (N, C, H, W), uint8 from the loaders and float in [-1, 1] after
    the transfer to the device; labels int64 (N,), or None.

    Args:
        data_dir: Folder of the data set.
        image_size: Height and width of the images.
        batch_size: Images a batch, on each device.
        num_workers: Threads that decode images the first time, and that read them ahead where they are streamed.
        resident_bytes: Resized images up to this size are kept in memory (on the GPU where they fit), larger sets are
            streamed from disk.
        cache_dir: Folder for the resized images; by default ``.cache`` in data_dir.
        load_size: Training images are resized to this and cut out at random at image_size (286 for 256 in pix2pix and
            CycleGAN); by default they are resized to image_size.
        horizontal_flip: Mirror every second training image; wrong for digits and letters.
        classes: Names of the only classes to use, which are then labelled in this order; by default all.
        predict_dir: Folder of images, of any size, that ``predict`` translates, or a single one.
        background: Colour behind what is transparent in images: a name such as white or black, or "#rrggbb".
        skip_broken: Leave out images that cannot be used, and say which; by default they are refused.
        seed: Seed of the order of the training images; by default 0, on the command line ``--seed_everything``.
        augment: Modules that change training images (N, C, H, W) in [0, 1], such as any of ``kornia.augmentation``;
            they come after cutting out and mirroring. Both images of a pair are changed alike.
        oversample: How many times the training images of a class, by its name, come in an epoch; by default once. An
            image of several attributes comes as often as any of them says.

    Raises:
        MisconfigurationException: An argument is out of range.
    """

    channels: int
    layers: int = 1
    """Pictures that are kept as one item: 2 for pairs."""
    scale: int = 1
    """How many times larger the target of a pair is than its source."""
    val_split: str = "test"
    """The split that scores compare with: "test", or "train" where there is no test set."""
    other_data: bool = False
    """Whether training may go on from a checkpoint of other images, which it then begins to go through."""
    offers: Mapping[str, str] = {"images": "", "images with classes": ""}
    """What its batches can be, for a model to know whether they are for it, and the setting that makes them so."""
    things: str = "images"
    """What there is a number of."""
    direction: str | None = None
    """Of two domains, A and B, "AtoB" or "BtoA": which is the source; checkpoints keep it for ``predict``."""

    def __init__(
        self,
        data_dir: str = "data",
        image_size: Annotated[int, "[1, 4096]"] = 32,
        batch_size: Annotated[int, "[1, inf)"] = 64,
        num_workers: Annotated[int, "[0, 256]"] = 2,
        resident_bytes: Annotated[int, "[0, inf)"] = 2 * 2**30,
        cache_dir: str | None = None,
        load_size: Annotated[int, "[1, 4096]"] | None = None,
        horizontal_flip: bool = False,
        classes: list[str] | None = None,
        predict_dir: str | None = None,
        background: str = "white",
        skip_broken: bool = False,
        seed: Annotated[int, "[0, 4294967295]"] | None = None,
        augment: list[nn.Module] | None = None,
        oversample: dict[str, Annotated[int, "[1, 1000]"]] | None = None,
    ) -> None:
        super().__init__()
        oversample = oversample or {}
        for name, value, least in (
            ("image_size", image_size, 1),
            ("load_size", load_size or image_size, image_size),
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed or 0, 0),
            *((f"oversample.{key}", times, 1) for key, times in oversample.items()),
        ):
            if value < least:
                raise MisconfigurationException(f"--data.{name} must be at least {least}; got {value}")
        if background != "white":
            from PIL import ImageColor

            try:
                ImageColor.getrgb(background)
            except ValueError:
                raise MisconfigurationException(
                    f'--data.background={background} is no colour: give a name, such as black, or "#rrggbb"'
                ) from None
        self.data_dir = Path(data_dir)
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.resident_bytes = resident_bytes
        self.cache_dir = Path(cache_dir) if cache_dir else self.data_dir / ".cache"
        self._load_size = load_size
        self.horizontal_flip = horizontal_flip
        self.classes = classes
        self.predict_dir = predict_dir
        self.background = background
        self.skip_broken = skip_broken
        self.seed = seed or 0
        self.augmentation = Augmentation(augment or [])
        self.oversample = oversample
        self._splits: dict[str, Split] = {}
        self._walks: dict[Path, Walk] = {}
        self._unfit: dict[Path, str] = {}  # files that could not be made items of, and why
        self._see_through: set[str] = set()  # items, while they are decoded
        self._said: set[str] = set()
        self._resident: dict[tuple[Path, torch.device], Tensor] = {}  # shared by training and validation loaders
        self._train_loader: Loader | UnpairedLoader | None = None
        self._resume: dict[str, Any] | None = None
        self._begins_anew = False
        self._source: dict[str, str] | None = None

    # What a data set provides

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the labels number; empty when there are no labels."""
        return ()

    @abstractmethod
    def items(self, split: str) -> tuple[Sequence[Any], list[Any] | None, list[Path]]:
        """What "train" or "test" (or another of ``splits``) is made of.

        Returns:
            What ``open`` makes pictures of, one item an image; their labels, if any; the files under data_dir that
            they come from.
        """

    def open(self, item: Any) -> Any:
        """The PIL picture of an item, or a tuple of ``layers`` pictures; by default items are files."""
        return open_picture(item)

    def selection(self) -> tuple[Any, ...]:
        """Settings that decide which of the images in the files are taken; they go into the images' name."""
        return (self.classes,) if self.classes else ()

    def splits(self) -> set[str]:
        """The names that ``items`` is asked for."""
        return {"train", self.val_split}

    def assemble(self, image: Tensor, label: Tensor | None) -> Any:
        """The batch that the model gets, from images (N, layers * C, H, W) in [-1, 1] and their labels."""
        return ImageBatch(image, label)

    # What follows

    def __str__(self) -> str:
        return type(self).__name__  # Lightning would look for what its loaders lack, images being another kind of batch

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the classes (or attributes) that the labels tell apart."""
        return tuple(self.classes or self.class_names)

    @property
    def num_classes(self) -> int:
        """How many classes the labels tell apart; 0 when there are no labels."""
        return len(self.domains)

    @property
    def load_size(self) -> int:
        """Height and width of the training images as they are kept."""
        return self._load_size or self.image_size

    @property
    def gives(self) -> str | None:
        """Which of the kinds in ``offers`` its batches are; None where a class of one's own does not say."""
        if len(self.offers) == 1:
            return next(iter(self.offers))
        if type(self).assemble is not ImageDataModule.assemble:
            return None
        return "images with classes" if self.num_classes else "images"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.image_size, self.image_size

    def reference(self, split: str) -> str:
        """A name for exactly these images: data set, split, size, channels and the state of the source files."""
        return self._split(split).name

    def count(self, split: str) -> int:
        """How many images there are."""
        return len(self._split(split).items)

    def _split(self, split: str) -> Split:
        if split not in self._splits:
            items, labels, files = self._items(split)
            channels, height, width = shape = self._stored_shape(split)
            # In a folder that several data sets may share, the same settings of two of them are not the same.
            shared = None if self.cache_dir.parent == self.data_dir else str(self.data_dir.resolve())
            settings = type(self).__qualname__, shape, self.background, shared, *self.selection()
            key = f"{fingerprint([], self.data_dir, *settings)[:8]}-{self._state(items, files)}"
            name = whole = f"{type(self).__name__.lower()}-{split}-{height}x{width}x{channels}-{key}"
            if broken := self._broken(whole):
                kept = [number for number in range(len(items)) if number not in broken]
                items, labels = [items[number] for number in kept], labels and [labels[number] for number in kept]
                name += "-" + hashlib.sha256(repr(sorted(broken)).encode()).hexdigest()[:8]
                self._require(items)
            self._splits[split] = Split(items, labels, name, files, whole)
        return self._splits[split]

    def _state(self, items: Sequence[Any], files: list[Path]) -> str:
        """A name for images as they are now: their files, and what they show where no file or lab's class tells."""
        state = fingerprint(files, self.data_dir)
        known = type(self).open.__module__.startswith(f"{__package__}.")
        if known if files else type(self).selection is not ImageDataModule.selection:
            return state
        step = max(1, len(items) // LOOKED_INTO) if files else 1  # the files tell most of it
        looked_into = (items[number] for number in range(0, len(items), step))
        return fingerprint([], self.data_dir, state, content(looked_into, self._opened))

    def _items(self, split: str) -> tuple[Sequence[Any], list[Any] | None, list[Path]]:
        items, labels, files = self.items(split)
        return (*self._of_classes(items, labels), files) if self.classes else (items, labels, files)

    def _of_classes(self, items: Sequence[Any], labels: list[Any] | None) -> tuple[list[Any], list[int]]:
        """The items of the wanted classes, and the new numbers of these."""
        assert self.classes is not None
        for number, name in enumerate(self.classes):
            if name in self.classes[:number]:
                raise MisconfigurationException(f"--data.classes={name} must be there once")
            if name not in self.class_names or labels is None:
                known = f"of {', '.join(self.class_names)}" if self.class_names else "left out: there are no classes"
                raise MisconfigurationException(f"--data.classes={name} must be {known}")
        numbers = {self.class_names.index(name): number for number, name in enumerate(self.classes)}
        kept = [(item, numbers[label]) for item, label in zip(items, labels or [], strict=True) if label in numbers]
        return [item for item, _ in kept], [label for _, label in kept]

    def _stored_shape(self, split: str) -> tuple[int, int, int]:
        """Shape of an item as it is kept; training images leave room to be cut out of."""
        size = self.load_size if split.startswith("train") else self.image_size
        return self.layers * self.channels, size, size

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
        broken: dict[Any, str] = dict(self._unfit)
        before = set(self.cache_dir.glob("*.npy"))
        for split in splits:
            broken |= {(split, number): text for number, text in self._keep(split).items()}
        if set(self.cache_dir.glob("*.npy")) - before:
            self._say_kept()
        if broken:
            self.leave_out(broken)
        if self.skip_broken:
            self._introduce()
        self._say_ground()

    def _forget(self) -> None:
        """Look at the files anew when they are asked for."""
        self._splits.clear()
        self._walks.clear()
        self._unfit.clear()
        self._source = None

    def _introduce(self) -> None:
        """Say how the files were understood: a folder may be read otherwise than it was meant."""
        if self.trainer is not None and self.trainer.state.fn != "fit":
            return
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

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            rank_zero_info(text.encode(errors="backslashreplace").decode())

    def _say_others(self) -> None:
        """Say what is in the folders, and is not read."""
        others: Counter[str] = sum((walked.others for walked in self._walks.values()), Counter())
        if number := others.total():
            were = "s were" if number > 1 else " was"
            self._say(f"{number} file{were} left out: {counted(others)}")
        if closed := [text for walked in self._walks.values() for text in walked.unreadable]:
            self._say(f"Folders that cannot be read were left out:\n{listing(closed)}")

    def _say_kept(self) -> None:
        size = sum(path.stat().st_size for path in self.cache_dir.glob("*.npy")) / 1e6
        self._say(
            f"Resized images are kept in {self.cache_dir} ({size:,.1f} MB now), which can be deleted when no "
            "run uses it"
        )

    def _say_ground(self) -> None:
        if number := len(self._see_through):
            are = f"{self.things} are" if number > 1 else f"{self.things.removesuffix('s')} is"
            self._say(f"{number} {are} transparent in part, now on {self.background} ground (--data.background)")

    # Files

    def pictures_in(self, folder: Path, key: str = "data_dir") -> list[Path]:
        """The pictures in a folder and its sub-folders, in alphabetical order; looked for once.

        Args:
            folder: The folder.
            key: The setting under --data that names it or its parent.

        Raises:
            MisconfigurationException: There is no such folder, it cannot be read in part, or it holds no pictures.
        """
        if folder not in self._walks:
            if not is_folder(folder):
                raise NoImages(f"{folder} is not a folder: set --data.{key} to one that holds images")
            self._walks[folder] = walk(folder)
        pictures, others, closed = self._walks[folder]
        if closed and not self.skip_broken:
            more = f", and {len(closed) - 1} more" if len(closed) > 1 else ""
            raise MisconfigurationException(
                f"The folder {closed[0]}{more} cannot be read: allow it, or leave it out with --data.skip_broken=true"
            )
        if not pictures:
            only = f"; only {counted(others)}" if others else ""
            raise NoImages(
                f"{folder} holds no images ({', '.join(endings())}{only}): set --data.{key} to a folder that does"
            )
        return pictures

    def upright(self, picture: Any, name: Any) -> Any:
        """A PIL picture as it is to be seen, in 8 bits, grey or RGB; of an item or a file."""
        if is_see_through(picture):
            self._see_through.add(str(name))
        return upright(picture, self.channels, self.background)

    # What is broken

    def _require(self, kept: Sequence[Any]) -> None:
        if not kept:
            raise MisconfigurationException(
                f"--data.skip_broken=true leaves no {self.things}: all are broken; mend them, or name other ones"
            )

    def leave_out(self, faults: Mapping[Any, str], *words: str) -> None:
        """Say that images are left out, if they may be (``skip_broken``).

        Args:
            faults: What is wrong with each, by number or path.
            words: See BrokenImages.

        Raises:
            BrokenImages: They may not.
        """
        named = list(dict.fromkeys(faults.values()))  # once, whatever was to be made of a file
        if self.skip_broken:
            were = f"{self.things} were" if len(named) > 1 else f"{self.things.removesuffix('s')} was"
            self._say(f"{len(named)} broken {were} left out (--data.skip_broken):\n{listing(named)}")
            return
        if len(named) > 1:
            self._say(f"{len(named)} broken {self.things}:\n{listing(named)}")
        raise BrokenImages(faults, *words)

    def _keep(self, split: str) -> dict[int, str]:
        """Decode and resize a split; gives the faults of what cannot be, which is left out if it may be."""
        while True:
            path, (items, *_, whole) = self._cache(split), self._split(split)
            broken = self._broken(whole)
            shape = self._stored_shape(split)  # which may depend on what the items are
            try:
                if build(path, items, partial(self._decode, shape), shape, self.num_workers):
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
            items, _, _ = self._items(split)
            found = [items[number] for number in broken if number < len(items)]
            use = partial(self._decode, self._stored_shape(split))
            if len(faults_of(found, lambda _, item: use(item), self.num_workers, "Trying again")) < len(broken):
                self._notes(whole).unlink(missing_ok=True)
                del self._splits[split]

    # Keeping them

    def _cache(self, split: str) -> Path:
        return self.cache_dir / f"{self._split(split).name}.npy"

    def _opened(self, item: Any) -> tuple[Any, ...]:
        opened = self.open(item)
        return opened if isinstance(opened, tuple) else (opened,)

    def _decode(self, shape: tuple[int, int, int], item: Any) -> np.ndarray:
        pictures = self._opened(item)
        if any(map(is_see_through, pictures)):
            self._see_through.add(str(item))
        return np.concatenate([fit_image(picture, self.channels, shape[-1], self.background) for picture in pictures])

    def setup(self, stage: str) -> None:
        """Check that there is a batch in the data, and what to do with it, before anything is trained."""
        if not self._splits:  # the first rank has looked since this one did
            self._forget()
        world_size = self.trainer.world_size if self.trainer else 1
        count = min(len(self._split(split).items) for split in self.splits() if split.startswith("train"))
        if stage == "fit" and self.batch_size * world_size > count:
            devices = f" on each of {world_size} devices" if world_size > 1 else ""
            raise MisconfigurationException(
                f"--data.batch_size={self.batch_size}{devices} is more than the {count} training images: "
                f"set it to {max(1, count // world_size)} or less"
            )
        if stage == "fit":
            train = [self._split(split) for split in self.splits() if split.startswith("train")]
            self.augmentation.check(self.channels, self.image_size, all(split.labels is not None for split in train))
            for name in self.oversample:
                if name not in self.domains:
                    known = f"of {', '.join(self.domains)}" if self.domains else "left out: there are no classes"
                    raise MisconfigurationException(f"--data.oversample={name} must be {known}")

    def train_dataloader(self) -> Loader | UnpairedLoader:
        """Shuffled batches of the training images."""
        self._train_loader = self._loader("train", shuffle=True)
        share = getattr(self.trainer, "overfit_batches", 0)  # a number of batches, or a part of them
        self._train_loader.repeat(int(share * len(self._train_loader)) if isinstance(share, float) else share)
        if self._resume:
            self._train_loader.load_state_dict(self._resume)
            self._resume = None
        if self._begins_anew:  # but Lightning would restore the loader's state
            self._train_loader.load_state_dict = lambda _: None  # type: ignore[method-assign]
        return self._train_loader

    def val_dataloader(self) -> Any:
        """All images of ``val_split``, in order."""
        return self._loader(self.val_split, shuffle=False)

    def test_dataloader(self) -> Any:
        """The same as the validation batches."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader:
        """The images of ``predict_dir`` one by one, (C, H, W) in [-1, 1], each with its name.

        All are read once before, so that a broken one is found before the first is translated.

        Raises:
            BrokenImages: Images cannot be read.
            MisconfigurationException: There are none, or two would have results of one name.
        """
        if self.predict_dir is None:
            raise MisconfigurationException("predict translates a folder of images: name it with --data.predict_dir")
        folder = Path(self.predict_dir)
        if is_file(folder):
            paths, folder = [folder], folder.parent
        else:
            paths = self.pictures_in(folder, "predict_dir")
            self._say_others()
        NamedPictures(folder, paths, self.channels)  # which has names for all, or says that it has not
        broken = faults_of(
            paths, lambda _, path: self.upright(open_picture(path), path), self.num_workers, "Looking at images"
        )
        if broken:
            self.leave_out(broken)
            paths = [path for number, path in enumerate(paths) if number not in broken]
            self._require(paths)
        self._say_ground()
        pictures = NamedPictures(folder, paths, self.channels, self.background)
        return DataLoader(pictures, collate_fn=lambda batch: batch[0])

    def ordered(self, split: str) -> Any:
        """All images of "train" or ``val_split``, in order, on every rank; training's own loader is left alone."""
        return self._loader(split, shuffle=False, ranks=(0, 1))

    def state_dict(self) -> dict[str, Any]:
        """The training loader's state, and what it goes through, for checkpoints.

        Lightning restores the state of a loader by itself, but not at the end of an epoch (without max_steps) nor
        when the loader was made early; the data module's own state it always restores.
        """
        if self._train_loader is None:
            return {}
        return self._train_loader.state_dict() | {"source": self.origin(), "direction": self.direction}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next training loader go on where ``state_dict`` was taken.

        Raises:
            MisconfigurationException: It was taken on other images, from another place.
        """
        if self.trainer is not None and self.trainer.state.fn != "fit":  # scoring a checkpoint resumes nothing
            return
        before, now = state.get("source"), self.origin()  # an old checkpoint does not say
        # A folder may get more images, and the same images may be moved.
        if before and before["images"] != now["images"] and before | {"images": ""} != now | {"images": ""}:
            was, here = (f"{source['class']} in {source['data_dir']}" for source in (before, now))
            if not self.other_data:
                raise MisconfigurationException(
                    f"the checkpoint was trained on {was}, and {here} holds other images: name the former with --data "
                    "and --data.data_dir, or begin another run from the checkpoint with a new --run_dir"
                )
            rank_zero_info(f"The checkpoint was trained on {was}: training begins with the first epoch of {here}")
            self._begins_anew = True
        else:
            self._resume = state

    def origin(self) -> dict[str, str]:
        """Where the training images come from, and a name for them that copies elsewhere share."""
        if self._source is None:
            splits = [self._split(split) for split in sorted(self.splits()) if split.startswith("train")]
            names = [
                fingerprint(split.files, self.data_dir, *self.selection(), times=False)
                if split.files
                else split.whole.rpartition("-")[2]
                for split in splits
            ]
            data_dir = str(self.data_dir.resolve())
            self._source = {"class": type(self).__name__, "data_dir": data_dir, "images": "-".join(names)}
        return self._source

    def _loader(self, split: str, shuffle: bool, ranks: tuple[int, int] | None = None) -> Any:
        return self._one_loader(split, shuffle, ranks)

    def _one_loader(
        self,
        split: str,
        shuffle: bool,
        ranks: tuple[int, int] | None = None,
        chosen: Tensor | None = None,
        stream: int = 0,
    ) -> Loader:
        """A loader of some images of a split; loaders of another ``stream`` go through them in another order."""
        rank, world_size = ranks or ((self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1))
        images, labels = self._images(split), self._split(split).labels
        device = images.device if isinstance(images, Tensor) else None
        if shuffle and chosen is None and self.oversample:
            chosen = self._repeated(torch.tensor(labels))
        return Loader(
            images,
            None if labels is None else torch.tensor(labels, device=device),
            self.batch_size,
            shuffle,
            seed=self.seed + (stream << 32),
            rank=rank,
            world_size=world_size,
            num_workers=self.num_workers,
            chosen=chosen,
        )

    def _repeated(self, labels: Tensor) -> Tensor:
        """The numbers of the images of an epoch, (M,), from their labels (N,) or attributes (N, A)."""
        times = torch.tensor([self.oversample.get(name, 1) for name in self.domains])
        each = times[labels] if labels.ndim == 1 else (times * labels).amax(1).clamp(min=1)
        return torch.arange(len(labels)).repeat_interleave(each)

    def _images(self, split: str) -> Tensor | Path:
        path = self._cache(split)
        if not path.exists():  # this rank finds other files than the first has resized
            raise MisconfigurationException(
                f"The images in --data.data_dir={self.data_dir} have changed since they were resized: start again"
            )
        size = path.stat().st_size
        if size > self.resident_bytes:
            return path
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if device.type != "cuda" or torch.cuda.mem_get_info(device)[0] < 4 * size:  # the networks need most of it
            device = torch.device("cpu")
        if (path, device) not in self._resident:
            # Mapped, so that on the CPU nothing is copied and the processes of a machine share it.
            self._resident[path, device] = torch.from_numpy(np.load(path, mmap_mode="c")).to(device)
        return self._resident[path, device]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """uint8 to float in [-1, 1], in training cut out, mirrored and augmented at random; on the device, by batches.

        The images are float32, or what the model computes in where that is another type (``precision=64-true``).
        """
        image, label = self._finished(batch.image), batch.label
        if self._training:
            image, label = self.augmentation.mixed(image, label)
        return self.assemble(image, label)

    @property
    def _training(self) -> bool:
        return bool(self.trainer and self.trainer.training)

    def _finished(self, image: Tensor) -> Tensor:
        """The pixels that the model sees, of uint8 images as they are kept."""
        if self.load_size > self.image_size:
            image = cut_out(image, self.image_size, at_random=self._training)
        image = self._as_float(image)
        if self.horizontal_flip and self._training:
            mirrored = torch.rand(len(image), 1, 1, 1, device=image.device) < 0.5
            image = torch.where(mirrored, image.flip(-1), image)
        return self.augmentation(image, self.layers) if self._training else image

    def _as_float(self, image: Tensor) -> Tensor:
        """uint8 images in [-1, 1], in the type that the model computes in."""
        if image.device.type == "cpu":  # NumPy takes memory in large pages, which is faster for large images
            image = torch.from_numpy(np.empty(image.shape, np.float32)).copy_(image)
        image = image.float().div_(127.5).sub_(1)
        module = self.trainer.lightning_module if self.trainer else None
        return image.to(module.dtype) if module else image


def cut_out(images: Tensor, size: int, at_random: bool) -> Tensor:
    """Square parts (N, C, size, size) of larger images (N, C, S, S): the centres, or each at a place of its own."""
    room = images.shape[-1] - size
    if not at_random:
        return images[..., room // 2 : room // 2 + size, room // 2 : room // 2 + size]
    top, left = torch.randint(room + 1, (2, len(images), 1), device=images.device) + torch.arange(
        size, device=images.device
    )
    number = torch.arange(len(images), device=images.device)[:, None, None]
    return images[number, :, top[:, :, None], left[:, None, :]].permute(0, 3, 1, 2)
