"""What every data set shares: resized once, kept in memory or streamed, scaled and mirrored on the device."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from datamodules.images.augmentation import Augmentation
from datamodules.images.dataset import DataSet
from datamodules.images.loader import ImageBatch, Loader, UnpairedLoader
from datamodules.images.pictures import as_float


class ImageDataModule(DataSet, LightningDataModule):
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

    scale: int = 1
    """How many times larger the target of a pair is than its source."""
    other_data: bool = False
    """Whether training may go on from a checkpoint of other images, which it then begins to go through."""
    offers: Mapping[str, str] = {"images": "", "images with classes": ""}
    """What its batches can be, for a model to know whether they are for it, and the setting that makes them so."""
    colours: Mapping[str, str] = {}
    """What colours ("#rrggbb") mean in label maps, which are then domain B, by the names of what they label."""
    sides: tuple[str, str] = "A", "B"
    """What its two domains are, A and B, in a word or two, where it has such."""
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
        self._shared_settings = set(inspect.signature(ImageDataModule.__init__).parameters)
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
        self._resident: dict[tuple[Path, torch.device], Tensor] = {}  # shared by training and validation loaders
        self._train_loader: Loader | UnpairedLoader | None = None
        self._resume: dict[str, Any] | None = None
        self._begins_anew = False

    # What a data set provides

    def assemble(self, image: Tensor, label: Tensor | None) -> Any:
        """The batch that the model gets, from images (N, layers * C, H, W) in [-1, 1] and their labels."""
        return ImageBatch(image, label)

    # What follows

    def __str__(self) -> str:
        return type(self).__name__  # Lightning would look for what its loaders lack, images being another kind of batch

    @property
    def num_classes(self) -> int:
        """How many classes the labels tell apart; 0 when there are no labels."""
        return len(self.domains)

    @property
    def gives(self) -> str | None:
        """Which of the kinds in ``offers`` its batches are; None where a class of one's own does not say."""
        if len(self.offers) == 1:
            return next(iter(self.offers))
        if type(self).assemble is not ImageDataModule.assemble:
            return None
        return list(self.offers)[bool(self.num_classes)]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.image_size, self.image_size

    def _introduce(self) -> None:
        if self.trainer is None or self.trainer.state.fn == "fit":
            super()._introduce()

    def setup(self, stage: str) -> None:
        """Check that there is a batch in the data, and what to do with it, before anything is trained."""
        if not self._splits:  # the first rank has looked since this one did
            self._forget()
        if stage != "fit":
            return
        world_size = self.trainer.world_size if self.trainer else 1
        train = [self._split(split) for split in self.splits() if split.startswith("train")]
        count = min(len(split.items) for split in train)
        if self.batch_size * world_size > count:
            devices = f" on each of {world_size} devices" if world_size > 1 else ""
            raise MisconfigurationException(
                f"--data.batch_size={self.batch_size}{devices} is more than the {count} training images: "
                f"set it to {max(1, count // world_size)} or less"
            )
        self.augmentation.check(self.channels, self.image_size, all(split.labels is not None for split in train))
        for name in self.oversample:
            if name not in self.domains:
                known = f"of {', '.join(self.domains)}" if self.domains else "left out: there are no classes"
                raise MisconfigurationException(f"--data.oversample={name} must be {known}")

    def train_dataloader(self) -> Loader | UnpairedLoader:
        """Shuffled batches of the training images."""
        self._train_loader = self._loader("train", shuffle=True)
        share = getattr(self.trainer, "overfit_batches", 0)  # a number of batches, or a part of them
        whole = isinstance(share, int)
        self._train_loader.repeated = share if whole else int(share * len(self._train_loader))
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
        grown = before and "data_dir" in now and before | {"images": ""} == now | {"images": ""}
        if before and before["images"] != now["images"] and not grown:
            was, here = (f"{source['class']} in {source.get('data_dir', 'memory')}" for source in (before, now))
            if not self.other_data:
                raise MisconfigurationException(
                    f"the checkpoint was trained on {was}, and {here} holds other images: name the former with --data "
                    "and --data.data_dir, or begin another run from the checkpoint with a new --run_dir"
                )
            rank_zero_info(f"The checkpoint was trained on {was}: training begins with the first epoch of {here}")
            self._begins_anew = True
        else:
            self._resume = state

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
        module = self.trainer.lightning_module if self.trainer else None
        return as_float(image).to(module.dtype) if module else as_float(image)


def cut_out(images: Tensor, size: int, at_random: bool) -> Tensor:
    """Square parts (N, C, size, size) of larger images (N, C, S, S): the centres, or each at a place of its own."""
    room = images.shape[-1] - size
    if not at_random:
        return images[..., room // 2 : room // 2 + size, room // 2 : room // 2 + size]
    starts = torch.randint(room + 1, (2, len(images), 1), device=images.device)
    top, left = starts + torch.arange(size, device=images.device)
    number = torch.arange(len(images), device=images.device)[:, None, None]
    return images[number, :, top[:, :, None], left[:, None, :]].permute(0, 3, 1, 2)
