"""What the papers that turn images into images share."""

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn.functional import pad

from gans.export.portable import Input, Portable, pictures
from gans.training.batches import images_of
from gans.training.module import GANModule


class Translator(GANModule):
    """A GAN whose generator gets an image instead of noise.

    A paper writes ``fakes(batch)``, what both losses need of the generator. It is computed once an update, with its
    gradients: ``discriminator_loss`` detaches what it gets from ``made(batch)``, ``generator_loss`` does not.

    Args:
        image_shape: Channels, height and width of the images.
        **kwargs: See GANModule.
    """

    multiple: int = 1
    """Height and width that the generator takes are multiples of this; others are padded and cropped back."""
    least: int = 1
    """Smallest height and width that the generator takes."""

    smallest = {"image_shape": (1, 32, 32)}

    def __init__(self, image_shape: tuple[int, int, int], **kwargs: Any) -> None:
        super().__init__(image_shape, **kwargs)
        self._made: list[tuple[Any, Any]] = []  # the batches of an update, with what the generator makes of them

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        return self.image_shape, self.image_shape

    # Training

    def fakes(self, batch: Any) -> Any:
        """The generator's output for a batch: a tensor, or whatever the losses of the paper take."""
        return self.generator(images_of(batch))

    def begin_update(self, batches: list[Any]) -> None:
        if self._critic_run + 1 >= self.critic_steps():  # the generator is updated too
            self._made = [(batch, self.fakes(batch)) for batch in batches]

    def made(self, batch: Any) -> Any:
        """What ``fakes`` gives for a batch: from this update where it is there already."""
        for known, fakes in self._made:
            if known is batch:
                return fakes
        return self.fakes(batch)

    def on_train_batch_end(self, *_: Any) -> None:
        self._made = []

    # Pictures and scores

    def generate(self, batch: Any) -> Tensor:
        return self.translate(images_of(batch))

    def real(self, batch: Any) -> Tensor:
        return images_of(batch, 1)

    def shown(self, batch: Any) -> Tensor:
        """Input, output and target."""
        return torch.stack([images_of(batch), self.generate(batch), self.real(batch)], 1)

    def translate(self, images: Tensor) -> Tensor:
        """What becomes of images (N, C, H, W) in [-1, 1] of any size, by the averaged generator if there is one."""
        with self.sampling() as generator:
            return self.at_any_size(generator, images)

    def at_any_size(self, network: Any, images: Tensor) -> Tensor:
        """The network's output for images (N, C, H, W), continued beyond their border where their size does not fit."""
        height, width = images.shape[-2:]
        right, bottom = (self._fitting(side) - side for side in (width, height))
        return network(pad(images, (0, right, 0, bottom), mode="replicate")).float()[..., :height, :width]

    def _fitting(self, side: int) -> int:
        """The smallest height or width from this one on that the generator takes."""
        fitting = self.multiple * ((side + self.multiple - 1) // self.multiple)  # as an exporter can follow it
        return torch.sym_max(fitting, self.least) if self.least > self.multiple else fitting  # type: ignore[return-value]

    def portable(self) -> dict[str, Portable]:
        """See GANModule: ``translate``."""
        return {"generator": self.translated(self.translate)}

    def translated(
        self, call: Callable[..., Tensor], scale: int = 1, margin: int | None = None, **more: Input
    ) -> Portable:
        """A function from images, and what else it takes, to images so many times as large; for margin see Portable."""
        channels = self.shapes[0][0]
        height, width = (f"{scale}*{side}" if scale > 1 else side for side in ("height", "width"))
        images = pictures(channels, f"images in [-1, 1], of any height and width from {max(2, self.least)} on")
        shape = ("batch", self.image_shape[0], height, width)
        about = "their translations, in [-1, 1]"
        return Portable(call, {"images": images, **more}, "translations", shape, about, margin)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Translations (C, H, W) by name, of one image (C, H, W) with its name."""
        image, name = batch
        return {name: self.translate(image[None])[0]}

    def predict_names(self, name: str) -> list[str]:
        """The names of the images that ``predict_step`` makes of one of a name."""
        return [name]

    def predict_place(self, batch: Any) -> int:
        return zlib.crc32(batch[1].encode())


class CyclicTranslator(Translator):
    """Translates in both directions: the generator is an nn.ModuleDict of "a_to_b" and "b_to_a".

    Batches are unpaired images (a, b), (N, C, H, W) each. A is the source: ``generate`` translates to B.
    """

    predict_to: str = "b"
    """The domain that ``predict`` translates into."""

    def fakes(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The translations into A and into B."""
        a, b = batch
        return self.generator["b_to_a"](b), self.generator["a_to_b"](a)

    def translate(self, images: Tensor, to: str = "b") -> Tensor:
        """See Translator; ``to="a"`` goes the other way."""
        with self.sampling() as generator:
            return self.at_any_size(generator["a_to_b" if to == "b" else "b_to_a"], images)

    def portable(self) -> dict[str, Portable]:
        """See GANModule: ``translate`` from the source, A here, to B, and back."""
        back = self.translated(partial(self.translate, to="a"))
        return {"generator": self.translated(self.translate), "generator_back": back}

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        image, name = batch
        return {name: self.translate(image[None], self.predict_to)[0]}

    def shown(self, batch: Any) -> Tensor:
        """A, its translation and what comes back; then the same for B."""
        a, b = batch
        fake_b, fake_a = self.translate(a), self.translate(b, to="a")
        rows = [a, fake_b, self.translate(fake_b, to="a"), b, fake_a, self.translate(fake_a)]
        return torch.stack(rows, 1)


def check_size(module: Translator) -> None:
    """Raise MisconfigurationException if height or width of the images is no multiple of the module's from 32 on."""
    _, height, width = module.image_shape
    if height % module.multiple or width % module.multiple or min(height, width) < 32:
        raise MisconfigurationException(
            f"{type(module).__name__} needs images whose height and width are multiples of {module.multiple} from 32 "
            f"on; got {height}x{width}: set --data.image_size to 64, 128 or 256"
        )


def choose_direction(model: GANModule, data: Any, trained: str | None) -> None:
    """Let a model translate what a data module's ``predict_dir`` and ``direction`` say.

    Args:
        model: The model.
        data: The data module.
        trained: The direction of the data that the model was trained on, where it has one.

    Raises:
        MisconfigurationException: It cannot.
    """
    name = type(model).__name__
    if data.predict_dir is not None and not isinstance(model, Translator):
        raise MisconfigurationException(
            f"--data.predict_dir={data.predict_dir} must be left out: {name} translates no images, it draws them from "
            "noise (--model.predict_images says how many)"
        )
    if data.direction is None or data.direction == trained:
        return
    if not isinstance(model, CyclicTranslator):
        known = f"{trained}, as it was trained" if trained else "left out"
        raise MisconfigurationException(f"--data.direction={data.direction} must be {known}: {name} knows no other")
    if trained or data.direction == "BtoA":
        model.predict_to = "a"
