"""Images in pairs, such as label maps and photographs: side by side in one file, as pix2pix's data sets come."""

from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from datamodules.images.folders import domains_among, folders_in, splits_among
from datamodules.images.loader import PairBatch, UnpairedBatch, UnpairedLoader
from datamodules.images.pictures import by_name, open_picture
from datamodules.images.splits import SplitFolders


class Pair(tuple[Path, ...]):
    """The file that a pair lies in, or its two files."""

    def __str__(self) -> str:
        return " and ".join(map(str, self))


class PairedFolder(SplitFolders):
    """Pairs of your own: ``train/*`` and ``val/*`` (or ``test/*``) under data_dir, a pair a file.

    The left half of every file is A and the right half B, of equal size (pix2pix's layout). Or A and B lie in files
    of the same name: ``trainA/1.png`` and ``trainB/1.png``, ``valA`` and ``valB`` (or ``testA`` and ``testB``), or
    folders A and B in those of the splits. These may have other names, as in ImageFolder. Where there is nothing to
    validate with, scores compare with the training images.

    Batches are ``PairBatch(source, target)``, both (N, C, S, S) in [-1, 1]. Both images of a pair are cut out and
    mirrored alike.

    Args:
        data_dir: The folder.
        direction: "AtoB" makes A the source and B the target, "BtoA" the other way round; also for ``predict``.
        paired: ``False`` forgets which images belong together: batches are ``UnpairedBatch(a, b)``, a being the source,
            each domain in an order of its own.
        channels: 3 for colour, 1 for grey; images are converted.
        **kwargs: See ImageDataModule.

    Raises:
        MisconfigurationException: There are no pairs, a file's pair is missing, or a file cannot be cut in half.
    """

    layers = 2
    offers = {"pairs": "--data.paired=true", "unpaired images": "--data.paired=false"}
    things = "pairs"

    def __init__(
        self,
        data_dir: str = "data",
        direction: Literal["AtoB", "BtoA"] = "AtoB",
        paired: bool = True,
        channels: Literal[1, 3] = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_dir=data_dir, **kwargs)
        self.direction = direction
        self.paired = paired
        self.channels = channels

    @property
    def gives(self) -> str:
        return "pairs" if self.paired else "unpaired images"

    def _folders(self) -> dict[str, list[Path]]:
        """The folder of every split, or its two folders."""
        there = folders_in(self.data_dir)
        apart = domains_among(there)
        joined = {name: [folder] for name, folder in splits_among(there).items()}
        within = {name: folders for name, folders in apart.items() if [folders[0].parent] == joined.get(name)}
        return apart | joined | within

    def items(self, split: str) -> tuple[list[Pair], None]:
        folders = self._folder(split)
        if not folders:
            raise MisconfigurationException(
                f"--data.data_dir={self.data_dir} holds no folder train with a pair of images side by side in every "
                "file, nor folders trainA and trainB with files of the same names"
            )
        if len(folders) == 2:
            a, b = map(self._by_name, folders)
            faults = {
                path: f"{path} has no counterpart of the same name in {folder}"
                for one, other, folder in ((a, b, folders[1]), (b, a, folders[0]))
                for name, path in one.items()
                if name not in other
            }
            if faults:
                self.leave_out(faults, "", "remove {it}")
            pairs = [Pair((path, b[name])) for name, path in a.items() if name in b]
        else:
            pairs = [Pair((path,)) for path in self.pictures_in(folders[0])]
        return pairs, None

    def name_of(self, path: Path) -> str:
        """What a file of A and its counterpart in B have in common."""
        return path.stem

    def _by_name(self, folder: Path) -> dict[Path, Path]:
        paths = {path: path.relative_to(folder).with_name(self.name_of(path)) for path in self.pictures_in(folder)}
        return by_name(paths, paths.__getitem__, "be of one pair")

    def open(self, item: Pair, split: str) -> tuple[Any, Any]:
        if len(item) == 2:
            return open_picture(item[0]), open_picture(item[1])
        both = self.upright(open_picture(item[0]), item)
        width, height = both.size
        if width % 2:
            raise ValueError(f"{width}x{height} pixels are not two images of one size side by side")
        return both.crop((0, 0, width // 2, height)), both.crop((width // 2, 0, width, height))

    def reference(self, split: str) -> str:
        return f"{super().reference(split)}-{self.direction}"

    def _loader(self, split: str, shuffle: bool, ranks: tuple[int, int] | None = None) -> Any:
        loader = self._one_loader(split, shuffle, ranks)
        if self.paired:
            return loader
        return UnpairedLoader(loader, self._one_loader(split, shuffle, ranks, stream=1))

    def assemble(self, image: Tensor, label: Tensor | None) -> PairBatch:
        a, b = image.chunk(2, 1)
        return PairBatch(a, b) if self.direction == "AtoB" else PairBatch(b, a)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> PairBatch | UnpairedBatch:
        if not isinstance(batch, UnpairedBatch):
            return super().on_after_batch_transfer(batch, dataloader_idx)
        sources, targets = (self.assemble(self._finished(image), None) for image in batch)
        return UnpairedBatch(sources.source, targets.target)
