"""What the papers that turn noise into images share."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from gans.parts.losses import AdversarialLoss, NonSaturating
from gans.parts.penalties import Penalty
from gans.training.module import IMAGES, AdversarialModule, Loss, frozen, images_of, uncompiled
from gans.training.precision import full_precision


def normalise_spectrally(network: nn.Module, kinds: Any) -> None:
    """Divide the weights of all layers of some kinds by their spectral norms (Miyato et al. 1802.05957, equation 8)."""
    for layer in list(network.modules()):
        if isinstance(layer, kinds):
            parametrizations.spectral_norm(layer)


def slerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Go from ``start`` to ``end`` (..., D) on the great circle between them (White 1609.04468, section 2.1).

    Between two normal samples a straight line passes nearer to the origin than samples ever are; this does not.
    """
    cosine = nn.functional.cosine_similarity(start, end, dim=-1).unsqueeze(-1)
    angle = cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos()
    return (((1 - t) * angle).sin() * start + (t * angle).sin() * end) / angle.sin()


class NoiseGAN(AdversarialModule):
    """A GAN that turns noise into images, trained with an adversarial loss on the discriminator's raw outputs.

    A paper builds a generator, called with noise (N, latent_dim), and a discriminator, called with images. Where
    ``conditional`` is set and there are classes, both get the classes (N,) as a second argument.

    Args:
        latent_dim: Size of the noise vector z.
        loss: Adversarial loss; any of ``gans.losses``.
        penalty: Penalty on the discriminator's gradient; any of ``gans.penalties``.
        weight_clip: Largest absolute value of the discriminator's weights, clipped after each of its updates.
        spectral_norm: Divide every weight of the discriminator by its spectral norm (Miyato et al. 1802.05957).
        num_classes: Classes of the images; given by the data set, and used by conditional GANs only.
        domains: Their names; given by the data set, too.
        predict_images: Images that ``predict`` draws.
        predict_label: Class of the images that ``predict`` draws; by default every class in turn.
        **kwargs: See AdversarialModule.

    Raises:
        MisconfigurationException: An argument is out of range.
    """

    takes = IMAGES
    conditional = False
    """Whether the networks are told the class."""

    def __init__(
        self,
        latent_dim: Annotated[int, "[1, inf)"] = 100,
        loss: AdversarialLoss = NonSaturating(),  # noqa: B008
        penalty: Penalty | None = None,
        weight_clip: Annotated[float, "(0, inf)"] | None = None,
        spectral_norm: bool = False,
        num_classes: Annotated[int, "[0, inf)"] = 0,
        domains: Sequence[str] = (),
        predict_images: Annotated[int, "[1, inf)"] = 64,
        predict_label: Annotated[int, "[0, inf)"] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if weight_clip is not None and weight_clip <= 0:
            raise MisconfigurationException(f"--model.weight_clip must be positive; got {weight_clip}")
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
        self.loss = loss
        self.critic_may_win = loss.critic_may_win
        self.penalty = penalty
        self.weight_clip = weight_clip
        self.spectral_norm = spectral_norm
        self.predict_images = predict_images
        self.predict_label = predict_label

    def build(self, generator: nn.Module, discriminator: nn.Module) -> None:
        """Take the two networks, which every paper's constructor ends with."""
        if self.spectral_norm:
            normalise_spectrally(discriminator, nn.Linear | nn.Conv2d | nn.Embedding)
        self.generator = generator
        self.discriminator = discriminator

    @property
    def labels(self) -> tuple[int, bool]:
        return self.num_classes, False

    # Training

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        optimizers, schedulers = super().configure_optimizers()
        if self.weight_clip is not None:
            optimizers[0].register_step_post_hook(lambda *_: self.clip_weights())
        return optimizers, schedulers

    @torch.no_grad()
    def clip_weights(self) -> None:
        """Move the discriminator's weights into [-weight_clip, weight_clip]."""
        assert self.weight_clip is not None
        weights = list(self.discriminator.parameters())
        torch._foreach_clamp_min_(weights, -self.weight_clip)
        torch._foreach_clamp_max_(weights, self.weight_clip)

    def noise(self, n: int) -> Tensor:
        """n noise vectors, (n, latent_dim), standard normal."""
        return torch.randn(n, self.latent_dim, device=self.device, dtype=self.dtype)

    def random_classes(self, n: int) -> tuple[Tensor, ...]:
        """The classes of n images to generate, (n,), drawn evenly; empty for a GAN without classes."""
        return (torch.randint(self.num_classes, (n,), device=self.device),) if self.num_classes else ()

    def classes_of(self, batch: Any) -> tuple[Tensor, ...]:
        """The classes of a batch's images, (N,); empty for a GAN without classes."""
        return (batch[1],) if self.num_classes else ()

    def judge(self, images: Tensor, *classes: Tensor) -> Tensor:
        """The discriminator's raw outputs for images, in full precision."""
        return full_precision(self.discriminator(images, *classes))

    def discriminator_loss(self, batch: Any) -> Loss:
        real, classes = images_of(batch), self.classes_of(batch)
        with torch.no_grad():
            random = self.random_classes(len(real))
            fake = self.generator(self.noise(len(real)), *random)
        # Two passes: batch norm must see real and generated images apart (DCGAN's recipe).
        real_score, fake_score = self.judge(real, *classes), self.judge(fake, *random)
        loss = self.loss.discriminator(real_score, fake_score)
        logs = {"loss/discriminator": loss, "critic/real": real_score.mean(), "critic/fake": fake_score.mean()}
        return loss + self.penalise(batch, real, fake, logs), logs

    def penalise(self, batch: Any, real: Tensor, fake: Tensor, logs: dict[str, Tensor]) -> Tensor | float:
        """The penalty on the discriminator's gradient, also logged; 0 where there is none."""
        if self.penalty is None:
            return 0.0
        logs["loss/penalty"] = self.penalty(lambda images: self.judge(images, *self.classes_of(batch)), real, fake)
        return logs["loss/penalty"]

    def generator_loss(self, batch: Any) -> Loss:
        random = self.random_classes(len(images_of(batch)))
        fake = self.generator(self.noise(len(images_of(batch))), *random)
        loss = self.loss.generator(self.judge(fake, *random), self.judge_real(batch))
        return loss, {"loss/generator": loss}

    def judge_real(self, batch: Any) -> Tensor | None:
        """The discriminator's outputs for the batch's real images, for generator losses that compare with them."""
        if not self.loss.compares:
            return None
        with torch.no_grad():
            return self.judge(images_of(batch), *self.classes_of(batch))

    @torch.no_grad()
    def verdicts(self, batch: Any) -> tuple[Tensor, Tensor]:
        """See AdversarialModule. The networks are as the discriminator's loss sees them while training.

        So batch norm goes by the batch's own statistics, dropout drops, and the generator is the one that is trained,
        not its average: other outputs than these are not what the discriminator has learned to tell apart.
        """
        real, classes = images_of(batch), self.classes_of(batch)
        with frozen(self.generator), frozen(self.discriminator), uncompiled():
            random = self.random_classes(len(real))
            fake = self.generator(self.noise(len(real)), *random)
            scores = self.judge(real, *classes), self.judge(fake, *random)
        return self.loss.realness(scores[0]), self.loss.realness(scores[1])

    # Pictures and scores

    def generate(self, batch: Any) -> Tensor:
        return self.sample(len(images_of(batch)), *self.classes_of(batch))

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
        classes: tuple[Tensor, ...] = ()
        if isinstance(label, int) and not 0 <= label < self.num_classes:
            raise ValueError(f"label must be a class from 0 to {self.num_classes - 1}; got {label}")
        if self.num_classes and isinstance(label, int):
            classes = (torch.full((len(noise),), label, device=self.device),)
        elif self.num_classes:
            classes = (torch.arange(len(noise), device=self.device) % self.num_classes if label is None else label,)
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

    def predict_dataloader(self) -> DataLoader:
        return DataLoader(range(self.predict_images), batch_size=64)  # type: ignore[arg-type]

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Images for the image numbers in the batch: of the class asked for, or of every class in turn."""
        classes = self._predicted(batch)
        return self.sample(len(batch), batch.new_tensor(classes) if classes else None)

    def predict_labels(self, batch: Tensor) -> list[str]:
        """What the images of ``predict_step`` are of, in a word each; nothing for a GAN without classes."""
        return [self.class_name(number) for number in self._predicted(batch)]

    def _predicted(self, batch: Tensor) -> list[int]:
        """The classes of the images with these numbers."""
        if not self.num_classes:
            return []
        return [n % self.num_classes if self.predict_label is None else self.predict_label for n in batch.tolist()]


def channels_and_size(module: NoiseGAN) -> tuple[int, int]:
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
