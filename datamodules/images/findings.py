"""What is found in folders of pictures, and what is said about it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from datamodules.images.broken import BrokenImages, NoImages, faults_of, listing
from datamodules.images.folders import Walk, counted, is_file, is_folder, walk
from datamodules.images.pictures import NamedPictures, endings, is_see_through, open_picture, upright


class Findings:
    """Looks for pictures, each folder once, and says what was left out or changed, each sentence once."""

    channels: int
    things: str = "images"
    """What there is a number of."""
    background: str
    cache_dir: Path
    num_workers: int
    predict_dir: str | None
    skip_broken: bool

    def __init__(self) -> None:
        super().__init__()
        self._walks: dict[Path, Walk] = {}
        self._see_through: set[str] = set()  # items, while they are decoded
        self._said: set[str] = set()

    def pictures_in(self, folder: Path, key: str = "data_dir") -> list[Path]:
        """The pictures in a folder, which --data.``key`` leads to, and its sub-folders, in alphabetical order.

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
        """A PIL picture as it is to be seen, in 8 bits, grey or RGB; what is transparent in it is said, by its name."""
        if is_see_through(picture):
            self._see_through.add(str(name))
        return upright(picture, self.channels, self.background)

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
        paths = self._usable(paths, lambda _, path: self.upright(open_picture(path), path))
        self._say_ground()
        pictures = NamedPictures(folder, paths, self.channels, self.background)
        return DataLoader(pictures, collate_fn=lambda batch: batch[0])

    def _usable(self, paths: list[Path], look: Callable[[int, Path], Any]) -> list[Path]:
        """The pictures that can be looked at, if others may be left out."""
        if broken := faults_of(paths, look, self.num_workers, "Looking at images"):
            self.leave_out(broken)
            paths = [path for number, path in enumerate(paths) if number not in broken]
            self._require(paths)
        return paths

    def leave_out(self, faults: Mapping[Any, str], *words: str) -> None:
        """Say that images are left out, if they may be (``skip_broken``).

        Args:
            faults: What is wrong with each, by number or path.
            words: See BrokenImages.

        Raises:
            BrokenImages: They may not.
        """
        named = list(dict.fromkeys(faults.values()))  # once, whatever was to be made of a file
        things = self.things if len(named) > 1 else self.things.removesuffix("s")
        if not self.skip_broken:
            if len(named) > 1:
                self._say(f"{len(named)} broken {things}:\n{listing(named)}")
            raise BrokenImages(faults, *words)
        were = "were" if len(named) > 1 else "was"
        self._say(f"{len(named)} broken {things} {were} left out (--data.skip_broken):\n{listing(named)}")

    def _require(self, kept: Sequence[Any]) -> None:
        if not kept:
            raise MisconfigurationException(
                f"--data.skip_broken=true leaves no {self.things}: all are broken; mend them, or name other ones"
            )

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
