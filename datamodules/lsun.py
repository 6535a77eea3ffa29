"""LSUN: three million bedrooms, and other scenes, 256 px on the shorter side (Yu et al. 2015, 1506.03365)."""

import hashlib
import io
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, NamedTuple

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.images.broken import NoImages
from datamodules.images.folders import splits_in
from datamodules.images.pictures import open_picture
from datamodules.images.splits import SplitFolders

URL = "http://dl.yf.io/lsun/scenes"


class Record(NamedTuple):
    """An image in a database."""

    database: Path
    key: bytes

    def __str__(self) -> str:
        return f"{self.key.decode(errors='replace')} in {self.database}"


class Records(Sequence[Record]):
    """The images of a database; millions of keys are less than millions of records."""

    def __init__(self, database: Path, keys: list[bytes]) -> None:
        self.database = database
        self.keys = keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> Record:  # type: ignore[override]
        return Record(self.database, self.keys[number])


class LSUN(SplitFolders):
    """A category of LSUN, as databases or as files.

    ``<category>_train_lmdb`` and ``<category>_val_lmdb`` under data_dir are the splits as they are published (they need
    the package lmdb). Where there is no such folder, all images in data_dir and its sub-folders are taken, such as the
    JPEG files of the samples that go around, or those in folders of splits, as in ImageFolder. Where there is nothing
    to test with, scores compare with the training images.

    Args:
        data_dir: The folder.
        category: bedroom, church_outdoor, and so on; it only tells which databases to read.
        test_share: Share of the training images that is held back to test with, instead of the published test images.
            Which images it is depends on nothing but their names: keys, or paths under data_dir.
        **kwargs: See ImageDataModule.

    Raises:
        MisconfigurationException: test_share is out of range or leaves nothing to train or test with, there are no
            images, a database is damaged, or the package lmdb is missing.
    """

    channels = 3
    offers = {"images": ""}

    def __init__(
        self,
        data_dir: str = "data",
        category: str = "bedroom",
        test_share: Annotated[float, "[0, 1)"] = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_dir=data_dir, **kwargs)
        if not 0 <= test_share < 1:
            raise MisconfigurationException(f"--data.test_share must be at least 0 and less than 1; got {test_share}")
        self.category = category
        self.test_share = test_share

    @property
    def val_split(self) -> str:  # type: ignore[override]
        """ "test" where there are images to test with, else "train"."""
        return "test" if self.test_share else super().val_split

    def _folders(self) -> dict[str, Path]:
        """The databases, or the folders of files; without splits, data_dir for "train"."""
        found = {part: self.data_dir / f"{self.category}_{part}_lmdb" for part in ("train", "val")}
        if found["train"].is_dir():
            return {part: database for part, database in found.items() if database.is_dir()}
        return splits_in(self.data_dir) or {"train": self.data_dir}

    def items(self, split: str) -> tuple[Sequence[Record] | list[Path], None]:
        folder = self._folder("train" if self.test_share else split)
        if folder.parent == self.data_dir and folder.name.endswith("_lmdb"):
            return Records(folder, self._part(_keys(folder), split)), None
        try:
            paths = self.pictures_in(folder)
        except NoImages as error:
            name = f"{self.category}_train_lmdb"
            raise MisconfigurationException(
                f"--data.data_dir={self.data_dir} holds neither {name} nor images: unpack {name}.zip from {URL} there, "
                "or give a folder of LSUN's JPEG files"
            ) from error
        names = {os.fsencode(path.relative_to(self.data_dir).as_posix()): path for path in paths}
        return [names[name] for name in self._part(list(names), split)], None

    def files_of(self, items: Sequence[Any]) -> list[Path]:
        return [items.database / "data.mdb"] if isinstance(items, Records) else super().files_of(items)

    def _part(self, names: list[bytes], split: str) -> list[bytes]:
        """The names that belong to a split, in order, where images are held back."""
        if not self.test_share:
            return names
        count = round(self.test_share * len(names))
        if not 0 < count < len(names):
            raise MisconfigurationException(
                f"--data.test_share={self.test_share} of the {len(names)} images in {self.data_dir} leaves none to "
                f"{'train' if count else 'test'} with"
            )
        # The order of the names' hashes is as good as random, and the same everywhere and always
        test = set(sorted(names, key=lambda name: (hashlib.sha256(name).digest(), name))[:count])
        return [name for name in names if (name in test) == (split == "test")]

    def identity(self, split: str) -> Any:
        """The state of a database does not tell which of its images were taken."""
        files = super().identity(split)
        return (files, self.test_share) if self.test_share else files

    def open(self, item: Record | Path, split: str) -> Any:
        if isinstance(item, Path):
            return super().open(item, split)
        with _environment(item.database).begin() as transaction:
            return open_picture(io.BytesIO(transaction.get(item.key)))


def _keys(database: Path) -> list[bytes]:
    """The keys of all images of a database, in order."""
    try:
        import lmdb
    except ImportError as error:
        raise MisconfigurationException(
            f"{database} cannot be read without the package lmdb: pip install lmdb"
        ) from error
    try:
        with _environment(database).begin() as transaction:
            keys = list(transaction.cursor().iternext(keys=True, values=False))
    except lmdb.Error as error:
        raise MisconfigurationException(
            f"{database} is missing or damaged ({error}): unpack {database.name}.zip from {URL} anew"
        ) from error
    if not keys:
        raise MisconfigurationException(f"{database} holds no images: unpack {database.name}.zip from {URL} anew")
    return keys


_opening = Lock()


def _environment(database: Path) -> Any:
    """A database, which a process must not open twice: all threads share it, and data modules can be pickled."""
    with _opening:
        return _opened(database.resolve(), os.getpid())


@lru_cache
def _opened(database: Path, process: int) -> Any:  # noqa: ARG001  # a forked process must open it for itself
    import lmdb

    return lmdb.open(str(database), readonly=True, lock=False, readahead=False, max_spare_txns=32)
