"""CelebA: 202,599 faces of celebrities, 178x218, with 40 attributes each (Liu et al. 2015, 1411.7766)."""

from collections.abc import Iterator
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.images.module import ImageDataModule

PARTITIONS = {"train": "0", "test": "2"}  # 1 is for validation


class CelebA(ImageDataModule):
    """Aligned faces, 162,770 to train on and 19,962 to test with, with the attributes asked for.

    Found under data_dir as torchvision lays them out (``celeba/img_align_celeba/*.jpg``,
    ``celeba/list_attr_celeba.txt``, ``celeba/list_eval_partition.txt``) or Kaggle does
    (``img_align_celeba/img_align_celeba/*.jpg``, ``list_attr_celeba.csv``, ``list_eval_partition.csv``), else
    downloaded by torchvision, which needs the package gdown.

    Labels are int64 (N, A), 1 for an attribute, in the order given, that a face has and 0 for one that it has not.

    Args:
        data_dir: The folder.
        attributes: Names of attributes, such as Male or Smiling; without any, there are no labels.
        **kwargs: See ImageDataModule.

    Raises:
        MisconfigurationException: There is no such attribute, or files are missing or damaged and cannot be downloaded.
    """

    channels = 3
    offers = {"images": "", "images with attributes": "--data.attributes=[Male,Young]"}

    def __init__(self, data_dir: str = "data", attributes: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(data_dir=data_dir, **kwargs)
        if self.classes:
            raise MisconfigurationException(
                "CelebA has attributes, no classes: set --data.attributes, not --data.classes"
            )
        self.class_names = self.attributes = tuple(attributes)

    def _files(self) -> tuple[Path, Path, Path] | None:
        """The folder of images, the list of their splits and that of their attributes."""
        for folder, suffix in product((self.data_dir / "celeba", self.data_dir), (".txt", ".csv")):
            for images in (folder / "img_align_celeba/img_align_celeba", folder / "img_align_celeba"):
                lists = folder / f"list_eval_partition{suffix}", folder / f"list_attr_celeba{suffix}"
                if images.is_dir() and all(path.is_file() for path in lists):
                    return images, *lists
        return None

    def prepare_data(self) -> None:
        """Download if need be; decode and resize, once and for all."""
        if self._files() is None:
            from torchvision import datasets

            try:
                datasets.CelebA(self.data_dir, download=True)
            except Exception as error:  # no network or package, Google Drive's quota, or whatever that leads to
                raise self._missing(str(error) or type(error).__name__) from error
        super().prepare_data()

    def _missing(self, reason: str = "not asked for") -> MisconfigurationException:
        reason = reason.splitlines()[0]
        return MisconfigurationException(
            f"CelebA is missing in {self.data_dir} and was not downloaded ({reason}): put img_align_celeba (unpacked), "
            "list_attr_celeba.txt and list_eval_partition.txt, from http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, "
            f"into {self.data_dir / 'celeba'}, or set --data.data_dir to the folder that holds celeba"
        )

    def items(self, split: str) -> tuple[list[Path], list[list[int]] | None]:
        if (files := self._files()) is None:
            raise self._missing()
        folder, partition, attributes = files
        names = [row[0] for row in _rows(partition) if row[1:] == [PARTITIONS[split]]]
        there = {path.name for path in folder.iterdir()}
        absent = [name for name in names if name not in there]
        if absent and self.skip_broken:
            self.leave_out({name: f"{name} (missing)" for name in absent})
            absent, names = [], [name for name in names if name in there]
        if absent or not names:
            what = f"{absent[0]}, one of {len(absent)} missing images that" if absent else f"any {split} image that"
            raise MisconfigurationException(
                f"{folder} does not hold {what} {partition} names: unpack or download CelebA anew"
            )
        paths = [folder / name for name in names]
        if not self.attributes:
            return paths, None
        has = self._read(attributes)
        try:
            return paths, [has[name] for name in names]
        except KeyError as error:
            raise MisconfigurationException(f"{attributes} has no row for {error}: download it anew") from error

    def _read(self, path: Path) -> dict[str, list[int]]:
        """The chosen attributes of every image."""
        rows = _rows(path)
        header = next(rows, [])
        if len(header) == 1:  # the published file begins with the number of images
            header = next(rows, [])
        columns = header[1:] if header[:1] == ["image_id"] else header
        for name in self.attributes:
            if name not in columns:
                nearest = get_close_matches(name.lower(), [column.lower() for column in columns], 1, cutoff=0)
                hint = next((f": did you mean {column}?" for column in columns if [column.lower()] == nearest), "")
                raise MisconfigurationException(f"--data.attributes={name} is no attribute in {path}{hint}")
        numbers = [columns.index(name) + 1 for name in self.attributes]
        try:
            return {row[0]: [int(row[number] == "1") for number in numbers] for row in rows}
        except IndexError as error:
            raise MisconfigurationException(f"{path} is damaged, a row is too short: download it anew") from error


def _rows(path: Path) -> Iterator[list[str]]:
    """The cells of every row of a table, separated by spaces or commas; empty rows are left out."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            row = line.replace(",", " ").split()
            if row:
                yield row
