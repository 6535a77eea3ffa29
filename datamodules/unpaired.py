"""Images of two domains that come without pairs, such as photographs and paintings."""

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.images.folders import domains_among, folders_in, is_folder
from datamodules.images.loader import UnpairedBatch, UnpairedLoader
from datamodules.images.splits import SplitFolders


class UnpairedFolder(SplitFolders):
    """Two domains of your own: ``trainA/*`` and ``trainB/*``, ``testA/*`` and ``testB/*`` under data_dir.

    This is CycleGAN's layout; ``train/A`` and ``train/B`` do as well, and other names of splits, as in ImageFolder.
    Without test folders, scores compare with the training images.

    Batches are ``UnpairedBatch(a, b)``, (N, C, S, S) in [-1, 1] each, a being the source. The domains are shuffled
    independently, and an epoch is as long as the longer one. Evaluation goes through both in order, and through the
    shorter again from its beginning.

    Args:
        data_dir: The folder.
        direction: "AtoB" makes A the source, "BtoA" makes B the source; also of what ``predict`` translates.
        channels: 3 for colour, 1 for grey; images are converted.
        **kwargs: See ImageDataModule.

    Raises:
        MisconfigurationException: A folder is missing or holds no images.
    """

    names = "trainA", "trainB"
    """What the sub-folders of the two domains are called, to train on."""

    offers = {"unpaired images": ""}

    def __init__(
        self,
        data_dir: str = "data",
        direction: Literal["AtoB", "BtoA"] = "AtoB",
        channels: Literal[1, 3] = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_dir=data_dir, **kwargs)
        self.direction = direction
        self.channels = channels

    def _folders(self) -> dict[str, list[Path]]:
        """The folders of A and B that are there, for "train" and, if any, "val" and "test"."""
        return domains_among(folders_in(self.data_dir))

    @property
    def source_folder(self) -> Path:
        """The folder of the training images that are translated."""
        return self._folder("train")[self.direction == "BtoA"]

    @property
    def target_folder(self) -> Path:
        """The folder of those that they are to look like."""
        return self._folder("train")[self.direction == "AtoB"]

    def splits(self) -> set[str]:
        return {f"{split}_{domain}" for split in ("train", self.val_split) for domain in "ab"}

    def items(self, split: str) -> tuple[list[Path], None]:
        name, _, domain = split.partition("_")
        source = (domain == "a") == (self.direction == "AtoB")
        found = self._folder(name)
        if not found:
            missing = next((n for n in self.names if not is_folder(self.data_dir / n)), self.names[0])
            raise MisconfigurationException(
                f"{self.data_dir / missing} is not a folder: --data.data_dir must hold {' and '.join(self.names)}, a "
                "domain each"
            )
        return self.pictures_in(found[0 if source else 1]), None

    def reference(self, split: str) -> str:
        """The images of the target domain, which scores compare with."""
        return super().reference(f"{split}_b")

    def _loader(self, split: str, shuffle: bool, ranks: tuple[int, int] | None = None) -> UnpairedLoader:
        domains = f"{split}_a", f"{split}_b"
        counts = [len(self._split(domain).items) for domain in domains]
        places = [None if shuffle else torch.arange(max(counts)) % count for count in counts]
        a, b = (self._one_loader(domains[n], shuffle, ranks, places[n], stream=n) for n in (0, 1))
        return UnpairedLoader(a, b, distinct=counts[1])

    def on_after_batch_transfer(self, batch: UnpairedBatch, dataloader_idx: int) -> UnpairedBatch:
        return UnpairedBatch(*map(self._finished, batch))
