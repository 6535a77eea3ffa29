"""What the papers that turn noise into images share."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gans.export.portable import Input, Portable, normal, numbered
from gans.parts.initialisation import normalise_spectrally
from gans.parts.precision import uncompiled
from gans.training.adversarial import AnyLoss
from gans.training.batches import IMAGES, images_of
from gans.training.module import GANModule
from gans.training.update import Loss, frozen


def slerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Go from ``start`` to ``end`` (..., D) on the great circle between them (White 1609.04468, section 2.1).

    Between two normal samples a straight line passes nearer to the origin than samples ever are; this does not.
    """
    cosine = nn.functional.cosine_similarity(start, end, dim=-1).unsqueeze(-1)
    angle = cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos()
    return (((1 - t) * angle).sin() * start + (t * angle).sin() * end) / angle.sin()


class Sampler(GANModule):
    """A GAN whose generator turns noise into images: sampling, pictures and predictions.

    Its generator is called with noise (N, latent_dim) and, where ``conditional`` is set and there are classes, with
    these (N,) as a second argument.

    Args:
        image_shape: Channels, height and width of the images.
        latent_dim: Size of the noise vector z.
        num_classes: Classes of the images; given by the data set, and used by conditional GANs only.
        domains: Their names; given by the data set, too.
        predict_images: Images that ``predict`` draws.
        predict_label: Class of the images that ``predict`` draws; by default every class in turn.
        **kwargs: See GANModule.

    Raises:
        MisconfigurationException: An argument is out of range.
    """

    takes: tuple[str, ...] = IMAGES
    conditional = False
    """Whether the networks are told the class."""
    smallest = {"latent_dim": 8}

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: Annotated[int, "[1, inf)"] = 100,
        num_classes: Annotated[int, "[0, inf)"] = 0,
        domains: Sequence[str] = (),
        predict_images: Annotated[int, "[1, inf)"] = 64,
        predict_label: Annotated[int, "[0, inf)"] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, **kwargs)
        self.num_classes = num_classes if self.conditional else 0
        self.domains = tuple(domains)
        if predict_label is not None and not 0 <= predict_label < self.num_classes:
            known = (
                f"a class from 0 to {self.num_classes - 1}" if self.num_classes else "left out: there are no classes"
            )
            raise MisconfigurationException(f"--model.predict_label={predict_label} must be {known}")
        if self.num_classes:
            self.takes = ("images with classes",)
        self.latent_dim = latent_dim
        self.predict_images = predict_images
        self.predict_label = predict_label

    @property
    def labels(self) -> tuple[int, bool]:
        return self.num_classes, False

    def noise(self, n: int) -> Tensor:
        """n noise vectors, (n, latent_dim), standard normal."""
        return torch.randn(n, self.latent_dim, device=self.device, dtype=self.dtype)

    def random_classes(self, n: int) -> tuple[Tensor, ...]:
        """The classes of n images to generate, (n,), drawn evenly; empty for a GAN without classes."""
        return (torch.randint(self.num_classes, (n,), device=self.device),) if self.num_classes else ()

    def classes_of(self, batch: Any) -> tuple[Tensor, ...]:
        """The classes of a batch's images, (N,); empty for a GAN without classes."""
        return (batch[1],) if self.num_classes else ()

    # Pictures and scores

    @property
    def asks(self) -> str:
        """What ``generate_asked`` tells of an image: the "class", a "code", which stands for none of them, or ""."""
        return "class" if self.num_classes else ""

    def generate(self, batch: Any) -> Tensor:
        return self.sample(len(images_of(batch)), *self.classes_of(batch))

    def generate_asked(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """``generate(batch)``, and what each image was asked to be, (N,), if anything."""
        return self.generate(batch), next(iter(self.classes_of(batch)), None)

    def sample(self, n: int, label: Tensor | int | None = None) -> Tensor:
        """Draw n images, (n, C, H, W) in [-1, 1], from the averaged generator if there is one, in eval mode.

        Args:
            n: How many.
            label: Their class, or the class of each (n,); by default every class in turn.

        Raises:
            ValueError: There is no such class.
        """
        return self.sample_from(self.noise(n), label)

    def sample_from(self, noise: Tensor, label: Tensor | int | None = None) -> Tensor:
        """The images of given noise (n, latent_dim) and, where there are classes, labels; same noise, same images."""
        n = noise.shape[0]
        if isinstance(label, int):
            if not 0 <= label < self.num_classes:
                raise ValueError(f"label must be a class from 0 to {self.num_classes - 1}; got {label}")
            label = torch.full((n,), label, device=self.device)
        if self.num_classes and label is None:
            label = torch.arange(n, device=self.device) % self.num_classes
        classes = (label,) if self.num_classes else ()
        with self.sampling() as generator:
            return generator(noise, *classes).float().clamp(-1, 1)  # not every generator ends in a tanh

    def views(self, columns: int) -> dict[str, Tensor]:
        """Pictures that look into the model, by name: images (rows, columns, C, H, W) in [-1, 1].

        "interpolation_linear" and "interpolation_spherical" go from one z on the left to another on the right; the
        class, and whatever else stands before z in the noise, stays the same in a row. "classes" has a row a class (of
        the first ten) and the same z in a column.
        """
        rows = 4
        first, last = self.noise(rows)[:, None], self.noise(rows)[:, None, -self.latent_dim :]
        given, start = first[..., : -self.latent_dim].expand(-1, columns, -1), first[..., -self.latent_dim :]
        t = torch.linspace(0, 1, columns, device=self.device, dtype=self.dtype)[:, None]
        walks = {"linear": torch.lerp(start, last, t), "spherical": slerp(start, last, t)}
        row = torch.arange(rows, device=self.device) % max(1, self.num_classes)
        views = {
            f"interpolation_{name}": self.sheet(torch.cat([given, z], 2), row[:, None]) for name, z in walks.items()
        }
        if self.num_classes:
            label = torch.arange(min(10, self.num_classes), device=self.device)[:, None]
            views["classes"] = self.sheet(self.noise(columns).expand(len(label), -1, -1), label)
        return views

    def view_labels(self, view: str) -> list[str]:
        """What stands beside the rows of a view; nothing where a row is no more than a sample."""
        rows = {"classes": min(10, self.num_classes), "interpolation_linear": 4, "interpolation_spherical": 4}
        return [self.class_name(i % self.num_classes) for i in range(rows.get(view, 0)) if self.num_classes]

    def class_name(self, number: int) -> str:
        """What a class is called, such as "dog", or "class 3" where it has no name but a number."""
        name = self.domains[number] if number < len(self.domains) else str(number)
        return f"class {name}" if name.isdigit() else name

    def sheet(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """The images (rows, columns, C, H, W) of noise (rows, columns, D) and, with classes, labels (rows, 1)."""
        rows, columns = noise.shape[:2]
        labels = label.expand(rows, columns).flatten() if label is not None and self.num_classes else None
        return self.sample_from(noise.flatten(0, 1), labels).unflatten(0, (rows, columns))

    def portable(self) -> dict[str, Portable]:
        """See GANModule: ``sample_from``."""
        return {"generator": self.sampled(self.sample_from, {"noise": normal(self.latent_dim)})}

    def sampled(self, call: Callable[..., Tensor], inputs: dict[str, Input]) -> Portable:
        """A function from inputs, and the classes where there are any, to images."""
        if self.num_classes:
            names = [self.class_name(number) for number in range(self.num_classes)]
            inputs["label"] = numbered(names, f"class, a number from 0 to {self.num_classes - 1}")
        shape = ("batch", *self.image_shape)
        return Portable(call, inputs, "images", shape, "images in [-1, 1]")

    def predict_dataloader(self) -> DataLoader:
        """Batches of the numbers of images, (N,) each; one is never divided, since it is what is seeded."""
        batches: Any = list(torch.arange(self.predict_images).split(64))
        return DataLoader(batches, collate_fn=lambda items: items[0])

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Images for the image numbers in the batch: of the class asked for, or of every class in turn."""
        classes = self._predicted(batch)
        return self.sample(len(batch), batch.new_tensor(classes) if classes else None)

    def predict_labels(self, batch: Tensor) -> list[str]:
        """What the images of ``predict_step`` are of, in a word each; nothing for a GAN without classes."""
        return [self.class_name(number) for number in self._predicted(batch)]

    def predict_names(self, batch: Tensor) -> list[str]:
        """What files of the images of ``predict_step`` are called: their numbers and, behind them, their labels."""
        labels = self.predict_labels(batch) or [""] * len(batch)
        words = [re.sub(r"[^\w.-]+", "_", f"_{label}") if label else "" for label in labels]
        return [f"{number:05d}{word}" for number, word in zip(batch.tolist(), words, strict=True)]

    def predict_place(self, batch: Tensor) -> int:
        return int(batch[0])

    def _predicted(self, batch: Tensor) -> list[int]:
        """The classes of the images with these numbers."""
        if not self.num_classes:
            return []
        return [n % self.num_classes if self.predict_label is None else self.predict_label for n in batch.tolist()]


class NoiseGAN(AnyLoss, Sampler):
    """A GAN that turns noise into images, trained with an adversarial loss on the discriminator's raw outputs.

    A paper builds a generator, called with noise (N, latent_dim), and a discriminator, called with images. Where
    ``conditional`` is set and there are classes, both get the classes (N,) as a second argument.

    Args:
        image_shape: Channels, height and width of the images.
        weight_clip: Largest absolute value of the discriminator's weights, clipped after each of its updates.
        spectral_norm: Divide every weight of the discriminator by its spectral norm (Miyato et al. 1802.05957).
        **kwargs: See AnyLoss and Sampler.

    Raises:
        MisconfigurationException: An argument is out of range.
    """

    several_outcomes = True

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        weight_clip: Annotated[float, "(0, inf)"] | None = None,
        spectral_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, **kwargs)
        if weight_clip is not None and weight_clip <= 0:
            raise MisconfigurationException(f"--model.weight_clip must be positive; got {weight_clip}")
        self.weight_clip = weight_clip
        self.spectral_norm = spectral_norm

    def build(self, generator: nn.Module, discriminator: nn.Module) -> None:
        """Take the two networks, which every paper's constructor ends with."""
        if self.spectral_norm:
            normalise_spectrally(discriminator, nn.Linear | nn.Conv2d | nn.Embedding)
        self.generator = generator
        self.discriminator = discriminator

    def fakes(self, batch: Any) -> tuple[Tensor, ...]:
        """Generated images, as many as the batch has, and the classes they are of, if there are any."""
        n = len(images_of(batch))
        classes = self.random_classes(n)
        return self.generator(self.noise(n), *classes), *classes

    def reals(self, batch: Any) -> tuple[Tensor, ...]:
        """The batch's images and their classes, if there are any."""
        return images_of(batch), *self.classes_of(batch)

    def discriminator_loss(self, batch: Any) -> Loss:
        with torch.no_grad():
            fakes = self.fakes(batch)
        return self.tell_apart(*self.compare(self.reals(batch), fakes))

    def generator_loss(self, batch: Any) -> Loss:
        loss = self.fool(self.judge(*self.fakes(batch)), *self.reals(batch))
        return loss, {"loss/generator": loss}

    @torch.no_grad()
    def after_update(self, players: tuple[str, ...], logs: dict[str, Tensor]) -> None:
        if self.weight_clip is not None and "discriminator" in players:
            weights: list[Tensor] = list(self.discriminator.parameters())
            torch._foreach_clamp_min_(weights, -self.weight_clip)
            torch._foreach_clamp_max_(weights, self.weight_clip)

    @torch.no_grad()
    def verdicts(self, batch: Any) -> tuple[Tensor, Tensor]:
        """See GANModule. The networks are as the discriminator's loss sees them while training.

        So batch norm goes by the batch's own statistics, dropout drops, and the generator is the one that is trained,
        not its average: other outputs than these are not what the discriminator has learned to tell apart.
        """
        with frozen(self.generator, self.discriminator), uncompiled():
            fakes = self.fakes(batch)
            found = self.judge(*self.reals(batch)), self.judge(*fakes)
        real, fake = (self.loss.realness(judged.outputs) for judged in found)
        return real, fake


def channels_and_size(module: Sampler) -> tuple[int, int]:
    """Channels of the images, and their height and width: equal, and a power of two from 16 to 256.

    Raises:
        MisconfigurationException: They are of another shape.
    """
    channels, height, size = module.image_shape
    if height != size or size not in (16, 32, 64, 128, 256):
        raise MisconfigurationException(
            f"{type(module).__name__} needs square images whose size is a power of two from 16 to 256; "
            f"got {height}x{size}: set --data.image_size to 16, 32, 64, 128 or 256."
        )
    return channels, size
