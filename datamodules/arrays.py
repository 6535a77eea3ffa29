"""Images that are in memory already: arrays, a .npz file, or a data set of Hugging Face's."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from datamodules.images.cache import LOOKED_INTO, digest
from datamodules.images.folders import held_out, split_of
from datamodules.images.module import ImageDataModule


class Arrays(ImageDataModule):
    """Your own arrays: in Python ``Arrays(images, labels)``, on the command line ``--data.path=FILE.npz``.

    Images are (N, H, W), (N, H, W, C) or (N, C, H, W), C being 1 or 3, of NumPy or PyTorch: uint8, or floats that lie
    in [0, 1] or, where any is negative, in [-1, 1]. Labels are integers (N,), from 0 on. Without val_images, scores
    compare with the training images.

    Args:
        images: Training images; from Python only, as all but the path.
        labels: Their classes, if any.
        val_images: Images that scores compare with.
        val_labels: Their classes.
        class_names: Names of the classes; by default their numbers.
        path: A file that ``numpy.savez`` has written, of arrays with the names of these arguments.
        **kwargs: See ImageDataModule.

    Raises:
        MisconfigurationException: There are no images, or arrays of other shapes, types or ranges.
    """

    def __init__(
        self,
        images: Sequence[Any] | None = None,
        labels: Sequence[Any] | None = None,
        val_images: Sequence[Any] | None = None,
        val_labels: Sequence[Any] | None = None,
        class_names: Sequence[str] | None = None,
        path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        given = {"images": images, "labels": labels, "val_images": val_images, "val_labels": val_labels}
        given = _load(path) if path else given | {"class_names": class_names}
        name = f"--data.path={path}: " if path else "Arrays: "
        if given.get("images") is None:
            raise MisconfigurationException(
                f"{name}there are no images: give an array, or name with --data.path a .npz file that holds some"
            )
        keys = {"train": ""} if given.get("val_images") is None else {"train": "", "test": "val_"}
        self.val_split = [*keys][-1]
        found = {split: _shaped(given[f"{key}images"], f"{name}{key}images") for split, key in keys.items()}
        signed = any(images.dtype.kind == "f" and images.min() < 0 for images in found.values() if _is_array(images))
        self._pictures = {split: _levels(found[split], signed, f"{name}{key}images") for split, key in keys.items()}
        self._labels = {
            split: _numbers(given.get(f"{key}labels"), len(found[split]), f"{name}{key}labels")
            for split, key in keys.items()
        }
        count = max((max(labels) + 1 for labels in self._labels.values() if labels), default=0)
        names = given.get("class_names")
        if count > (total := sum(map(len, found.values()))):
            raise MisconfigurationException(
                f"{name}labels go up to {count - 1}, and there are {total} images: number the classes from 0 on"
            )
        self.class_names = tuple(map(str, range(count) if names is None else names))
        if count > len(self.class_names) or (None in self._labels.values() and any(self._labels.values())):
            raise MisconfigurationException(
                f"{name}all images must have labels, of the classes {', '.join(self.class_names)}, or none of them"
            )
        self.channels = max(map(_channels, self._pictures.values()))

    @classmethod
    def from_hugging_face(
        cls, dataset: Any, image: str = "image", label: str | None = "label", **kwargs: Any
    ) -> "Arrays":
        """The pictures of a ``datasets.Dataset``, or of a ``DatasetDict`` with splits; opened one by one.

        Args:
            dataset: The data set.
            image: Name of the column of pictures.
            label: Name of the column of classes, if there are any: None for none.
            **kwargs: See ImageDataModule.

        Raises:
            MisconfigurationException: There is no such column, no split to train on, or no length (streaming).
        """
        given = dataset if isinstance(dataset, Mapping) else {"train": dataset}
        splits = {split_of(name) or name: part for name, part in given.items()}
        train, val = splits.get("train"), held_out(splits)
        columns = list(getattr(train, "features", None) or ())
        if not hasattr(train, "__len__") or image not in columns or label not in (None, *columns):
            raise MisconfigurationException(
                "from_hugging_face takes a data set of known length, or a split train, with these columns: "
                f"{image} and {label} of {', '.join(columns) or 'none'}"
            )
        if label is not None:
            kwargs |= {"labels": list(_Column(train, label)), "val_labels": val and list(_Column(val, label))}
            kwargs["class_names"] = getattr(train.features[label], "names", None)
        return cls(_Column(train, image), val_images=val and _Column(val, image), **kwargs)

    def items(self, split: str) -> tuple[Sequence[int], list[int] | None]:
        return range(len(self._pictures[split])), self._labels[split]

    def open(self, item: int, split: str) -> Any:
        return super().open(self._pictures[split][item], split)

    def identity(self, split: str) -> Any:
        """The pixels and labels; of Hugging Face's data the name that its own caches know it by."""
        pictures = self._pictures[split]
        if not _is_array(pictures):
            shown = getattr(pictures.data, "_fingerprint", None) or super().identity(split)
        else:
            pixels = hashlib.sha256(repr(pictures.shape).encode())
            for picture in pictures:
                pixels.update(np.ascontiguousarray(picture).data)
            shown = pixels.hexdigest()
        return digest(shown, self._labels[split])


class _Column(Sequence[Any]):
    """A column of a data set of Hugging Face's; the others are not decoded."""

    def __init__(self, data: Any, name: str) -> None:
        self.data = data.select_columns(name) if hasattr(data, "select_columns") else data
        self.name = name

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self.data[number][self.name]


def _is_array(images: Any) -> bool:
    return isinstance(images, np.ndarray)


def _channels(images: Any) -> int:
    if _is_array(images):
        return 1 if images.ndim == 3 else 3
    shown = (images[number] for number in range(0, len(images), max(1, len(images) // LOOKED_INTO)))
    return 3 if any(picture.mode not in ("1", "L", "LA", "I", "I;16", "F") for picture in shown) else 1


def _load(path: str) -> dict[str, Any]:
    try:
        with np.load(path) as file:  # without pickles, by NumPy's default
            return dict(file)
    except Exception as error:  # whatever NumPy raises on other content
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        raise MisconfigurationException(f"--data.path={path} is no .npz file of arrays ({reason})") from None


def _shaped(images: Any, name: str) -> Any:
    """An array (N, H, W) or (N, H, W, 3); pictures of Hugging Face's as they are."""
    if isinstance(images, _Column):
        return images
    try:
        images = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    except ValueError:
        raise MisconfigurationException(f"{name} must be of one size, in one array") from None
    shape = images.shape
    first, last = (len(shape) == 4 and shape[axis] in (1, 3) for axis in (1, 3))
    if 0 in shape or not (first != last or (len(shape) == 3 and shape[-1] not in (1, 3))):
        raise MisconfigurationException(
            f"{name} must have one of the shapes (N, H, W), (N, H, W, C) and (N, C, H, W), C being 1 or 3, and not be "
            f"readable as two of them; got {shape}"
        )
    images = np.moveaxis(images, 1, 3) if first else images
    return images[..., 0] if images.shape[3:] == (1,) else images


def _levels(images: Any, signed: bool, name: str) -> Any:
    """uint8 images of what may be floats."""
    if not _is_array(images) or images.dtype == np.uint8:
        return images
    low, high = images.min(), images.max()
    if images.dtype.kind != "f" or not -1 <= low <= high <= 1:  # nor NaN
        raise MisconfigurationException(
            f"{name} must be uint8, or floats in [0, 1] or [-1, 1]; got {images.dtype} from {low} to {high}"
        )
    return ((images + 1) * 127.5 if signed else images * 255.0).round().astype(np.uint8)


def _numbers(labels: Any, count: int, name: str) -> list[int] | None:
    if labels is None:
        return None
    labels = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise MisconfigurationException(f"{name} must be {count} integers from 0 on; got {labels.dtype} {labels.shape}")
    return labels.tolist()
