"""Animal Faces HQ: 15,000 faces of cats, dogs and wild animals, 512x512 (Choi et al. 2020, 1912.01865)."""

from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.image_folder import ImageFolder
from datamodules.pictures import pictures_in

Domain = Literal["cat", "dog", "wild"]
URLS = (  # as in download.sh of StarGAN v2; checksums were not published, so that nothing is downloaded by itself
    "https://www.dropbox.com/s/t9l9o3vsx2jai3z/afhq.zip?dl=1",
    "https://www.dropbox.com/s/vkzjokiwof5h8w6/afhq_v2.zip?dl=1",
)


class AFHQ(ImageFolder):
    """``train/{cat,dog,wild}`` and ``val/*`` (version 1) or ``test/*`` (version 2), under data_dir itself or under an
    ``afhq`` or ``afhqv2`` folder in it.

    Labels are 0 for cats, 1 for dogs and 2 for wild animals.

    Args:
        data_dir: The folder.
        domain: Take the images of one domain only, without labels.
        **kwargs: See ImageFolder.

    Raises:
        MisconfigurationException: There is no such domain, or images are missing.
    """

    def __init__(self, data_dir: str = "data", domain: Domain | None = None, **kwargs: Any) -> None:
        super().__init__(data_dir=data_dir, **kwargs)
        if domain not in (None, *get_args(Domain)):
            raise MisconfigurationException(f"--data.domain must be cat, dog, wild or null (all of them); got {domain}")
        self.domain = domain

    @property
    def class_names(self) -> tuple[str, ...]:
        """The domains, in the order of the labels; empty where there is one only."""
        return () if self.domain else get_args(Domain)

    @property
    def val_split(self) -> str:  # type: ignore[override]
        """ "test" where there is a val or test folder, else "train"."""
        return "test" if self._folder("test").is_dir() else "train"

    def _folder(self, split: str) -> Path:
        roots = [self.data_dir, self.data_dir / "afhq", self.data_dir / "afhqv2"]
        root = next((root for root in roots if (root / "train").is_dir()), self.data_dir)
        if split == "train":
            return root / "train"
        return root / "val" if (root / "val").is_dir() else root / "test"

    def items(self, split: str) -> tuple[list[Path], list[int] | None, list[Path]]:
        folder = self._folder(split)
        domains = [self.domain] if self.domain else get_args(Domain)
        missing = next((domain for domain in domains if not (folder / domain).is_dir()), None)
        if missing:
            raise MisconfigurationException(
                f"AFHQ's folder {folder / missing} is missing: download {URLS[0]} or, for version 2, {URLS[1]} and "
                f"unpack it, so that its train folder lies in --data.data_dir={self.data_dir}"
            )
        pictures = [pictures_in(folder / domain) for domain in domains]
        paths = [path for domain in pictures for path in domain]
        labels = [label for label, domain in enumerate(pictures) for _ in domain]
        return paths, None if self.domain else labels, paths
