"""The images that ``predict`` makes, in a folder or a zip file."""

import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks.pictures.images import FORMATS, folder_of, grid, to_uint8, write_image
from callbacks.runs.files import PARTIAL, reason, whole
from callbacks.runs.ranks import agreed

UNFINISHED = ".unfinished"  # file that says, while images are missing in a folder, what they are made of
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # when all files of a zip were made, so that the same images make the same file


class ImageWriter(BasePredictionWriter):
    """Write the images that ``predict`` makes: a file each, and ``grid.png`` of the first ones.

    Their names are what ``module.predict_names(batch)`` says, or numbers. Images that come with names (a dictionary
    from name to image) are written under these, without a grid. All are in the run's folder ``images`` or, whole or not
    at all, in a zip file, whose names have no folders: those that a name has stand before it, as in ``deep_er_a.png``.

    Args:
        columns: Images in a row of the grid, which is square.
        format: "png", "jpg" or "jpeg" (of quality 95).
        zip: The zip file, in place of a folder.
        identity: What the images are made of, in a word: the folder holds it while images are missing, the zip file
            as its comment.

    Attributes:
        planned: Names of all images that there are to be, where somebody knows; others than these are no images.

    Raises:
        MisconfigurationException: An image cannot be written, or in the end one is missing.
    """

    def __init__(
        self, columns: int = 8, format: str = "png", zip: str | Path | None = None, identity: str = ""
    ) -> None:
        super().__init__(write_interval="batch")
        if format not in FORMATS:
            raise MisconfigurationException(f"--predict_format={format} must be png, jpg or jpeg")
        self.columns = columns
        self.format = format
        self.zip = None if zip is None else Path(zip)
        self.identity = identity
        self.planned: list[str] | None = None
        self.folder: Path | None = None
        self._numbered = False  # and so with a grid

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.folder = Path(trainer.strategy.broadcast(str(folder_of(trainer)))) / "images"
        self._numbered = False
        if self.identity and trainer.is_global_zero:
            path = self.folder / UNFINISHED
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self.identity)
            except OSError as error:
                raise self._unwritten(path, error) from error

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Tensor | dict[str, Tensor],
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        if isinstance(prediction, Tensor):
            self._numbered = True
            named = hasattr(pl_module, "predict_names")
            names = pl_module.predict_names(batch) if named else [f"{number:05d}" for number in batch_indices or ()]
            prediction = dict(zip(names, prediction.cpu(), strict=True))
        for name, image in prediction.items():
            self._write(to_uint8(image), f"{name}.{self.format}")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.strategy.barrier()  # all have written theirs
        with agreed(trainer):
            if trainer.is_global_zero:
                self._finish()

    # What they do

    def _finish(self) -> None:
        """Count the images, and give them their last form."""
        assert self.folder is not None
        files = files_in(self.folder, self.format)
        names = sorted(files) if self.planned is None else self.planned
        missing = [name for name in names if name not in files]
        if missing:
            raise MisconfigurationException(
                f"{len(names):,} images were asked for, and {len(names) - len(missing):,} are in {self.folder}: "
                f"{missing[0]}.{self.format}{' and others are' if missing[1:] else ' is'} missing; the same command "
                "makes them"
            )
        paths = [files[name] for name in names]
        if self.zip is not None:
            self._pack(dict(zip(flat(names), paths, strict=True)))
            for path in paths:
                path.unlink()
        elif self._numbered:
            first = paths[: self.columns**2]
            self._write(grid(torch.stack([_read(path) for path in first]), self.columns), "grid.png")
        (self.folder / UNFINISHED).unlink(missing_ok=True)
        if self.zip is not None:
            inner = (path for path in self.folder.rglob("*") if path.is_dir())
            for folder in (*sorted(inner, reverse=True), self.folder):
                with suppress(OSError):  # other files are in it
                    folder.rmdir()

    def _pack(self, files: dict[str, Path]) -> None:
        """Make the zip file; images are not compressed once more."""
        assert self.zip is not None
        try:
            for left in self.zip.parent.glob(f".{self.zip.name}.*{PARTIAL}"):  # by a process that was killed
                left.unlink()
            with whole(self.zip) as partial, zipfile.ZipFile(partial, "w") as packed:
                packed.comment = self.identity.encode()
                for name, path in files.items():
                    packed.writestr(zipfile.ZipInfo(f"{name}.{self.format}", LONG_AGO), path.read_bytes())
        except OSError as error:
            raise MisconfigurationException(
                f"--predict_zip={self.zip} cannot be written ({reason(error)}): make room there, or name another file; "
                f"the images are in {self.folder}"
            ) from error

    def _write(self, image: Tensor, name: str) -> None:
        assert self.folder is not None
        path = self.folder / name
        try:
            write_image(image, path)
        except OSError as error:
            raise self._unwritten(path, error) from error

    def _unwritten(self, path: Path, error: OSError) -> MisconfigurationException:
        return MisconfigurationException(
            f"the image {path} cannot be written ({reason(error)}): make room there, or give a folder that can be "
            "written to with --run_dir"
        )


def files_in(folder: Path, format: str) -> dict[str, Path]:
    """The images of a format in a folder of predictions and its sub-folders by their names, without the grid."""
    found = {p.relative_to(folder).with_suffix("").as_posix(): p for p in folder.rglob(f"*.{format}")}
    return {name: path for name, path in found.items() if name != "grid" and path.name[0] != "."}


def flat(names: list[str]) -> list[str]:
    """Names without folders.

    Raises:
        MisconfigurationException: Two become one.
    """
    found: dict[str, str] = {}
    for name in names:
        plain = name.replace("/", "_")
        if plain in found:
            raise MisconfigurationException(
                f"{name} and {found[plain]} would both be {plain} in a zip file without folders: rename one of them"
            )
        found[plain] = name
    return list(found)


def _read(path: Path) -> Tensor:
    """An image as it was written, float (C, H, W) in [-1, 1]."""
    from torchvision.io import read_image

    return read_image(str(path)).float() / 127.5 - 1
