"""Animal Faces HQ: 15,000 faces of cats, dogs and wild animals, 512x512 (Choi et al. 2020, 1912.01865)."""

from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.image_folder import ImageFolder
from datamodules.images.folders import folders_in, is_folder, splits_among

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
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The domains, in the order of the labels; empty where there is one only."""
        return () if self.domain or not self.labels else get_args(Domain)

    def _folders(self) -> dict[str, Path]:
        roots = [self.data_dir, self.data_dir / "afhq", self.data_dir / "afhqv2"]
        found = (splits_among(folders_in(root)) for root in roots)
        return next((splits for splits in found if "train" in splits), {"train": self.data_dir / "train"})

    def items(self, split: str) -> tuple[list[Path], list[int] | None]:
        folder = self._folder(split)
        domains = [self.domain] if self.domain else get_args(Domain)
        missing = next((domain for domain in domains if not is_folder(folder / domain)), None)
        if missing:
            raise MisconfigurationException(
                f"AFHQ's folder {folder / missing} is missing: download {URLS[0]} or, for version 2, {URLS[1]} and "
                f"unpack it, so that its train folder lies in --data.data_dir={self.data_dir}"
            )
        pictures = [self.pictures_in(folder / domain) for domain in domains]
        paths = [path for domain in pictures for path in domain]
        labels = [label for label, domain in enumerate(pictures) for _ in domain]
        return paths, labels if self.class_names else None
