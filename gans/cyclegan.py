"""CycleGAN: Unpaired Image-to-Image Translation using Cycle-Consistent GANs (Zhu et al., 2017, arXiv 1703.10593)."""

from typing import Annotated, Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from gans.parts.initialisation import initialise
from gans.parts.layers import PatchGAN, ResidualGenerator
from gans.parts.precision import full_precision
from gans.training.adversarial import AdversarialModule
from gans.training.translation import CyclicTranslator, check_size
from gans.training.update import Loss


def pooled(pool: Tensor, size: int, images: Tensor) -> tuple[Tensor, Tensor]:
    """Images of a generator from now and before, of which the discriminator sees half each (section 4; 1612.07828).

    While the pool fills up, images go through. From then on each goes through with probability 1/2, and otherwise takes
    the place of a random one in the pool, which is given out instead.

    Args:
        pool: Images of before, (kept, C, H, W).
        size: Images that are kept at most; 0 keeps none.
        images: Images of now, (N, C, H, W).

    Returns:
        The pool as it is then, and images for the discriminator, as many as were given.
    """
    pool = pool[:size].to(images)
    fresh, others = images.split([n := min(size - len(pool), len(images)), len(images) - n])
    pool = torch.cat([pool, fresh])
    count = min(size, len(others))  # no two of a batch take the same place
    places = torch.randperm(len(pool), device=images.device)[:count]
    swapped = torch.rand(count, 1, 1, 1, device=images.device) < 0.5
    old, new = pool[places], others[:count]
    pool[places] = torch.where(swapped, new, old)
    return pool, torch.cat([fresh, torch.where(swapped, old, new), others[count:]])


class CycleGAN(AdversarialModule, CyclicTranslator):
    """Two generators, from A to B and back, each with a discriminator, and a loss on what comes back (equation 3).

    Section 4's settings are the defaults: least-squares losses, lambda 10, the identity loss with half of it (section
    5.2, and the official code for all data sets), a pool of 50 images, D's losses halved, Adam 2e-4 with beta1 0.5, one
    for both generators and one for both discriminators. Residual blocks as in the paper: 6 up to 128 px, 9 from 256 px.

    Batches are unpaired images (a, b), (N, C, H, W) each. A is the source: ``generate`` translates to B.

    Args:
        image_shape: Channels, height and width of the images; height and width are multiples of 4 from 32 on.
        width: Channels of the first layers.
        blocks: Residual blocks of a generator; by default 9 from 256 px on, and 6 below.
        cycle_weight: lambda, the factor of the L1 loss between an image and what comes back.
        identity_weight: Factor, times lambda, of the L1 loss between an image of a domain and its translation into that
            same domain; 0 leaves it out.
        pool_size: Generated images of each domain that the discriminators are shown again.
        **kwargs: See AdversarialModule.

    Raises:
        MisconfigurationException: Height or width is no multiple of 4 from 32 on, or an argument is out of range.
    """

    smallest = {"width": 4, "blocks": 1}
    takes = ("unpaired images",)
    multiple = 4
    least = 8  # halved twice, there must be something to reflect

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: Annotated[int, "[1, inf)"] = 64,
        blocks: Annotated[int, "[1, 1000]"] | None = None,
        cycle_weight: Annotated[float, "[0, inf)"] = 10.0,
        identity_weight: Annotated[float, "[0, inf)"] = 0.5,
        pool_size: Annotated[int, "[0, inf)"] = 50,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, **kwargs)
        check_size(self)
        if pool_size < 0:
            raise MisconfigurationException(f"--model.pool_size must be 0 or more; got {pool_size}")
        channels, _, size = image_shape
        blocks = blocks or (9 if size >= 256 else 6)
        self.cycle_weight = cycle_weight
        self.identity_weight = identity_weight
        self.pool_size = pool_size
        self.rank_state = {domain: torch.empty(0, *image_shape) for domain in "ab"}  # the pools

        def generator() -> nn.Module:
            return ResidualGenerator(channels, channels, width, blocks, nn.InstanceNorm2d, "reflect", sampling=3)

        self.generator = nn.ModuleDict({"a_to_b": generator(), "b_to_a": generator()}).apply(initialise)
        self.discriminator = nn.ModuleDict(
            {domain: PatchGAN(channels, width, nn.InstanceNorm2d) for domain in "ab"}
        ).apply(initialise)

    def judge(self, domain: str, images: Tensor) -> Tensor:
        """Logits of a domain's discriminator for every patch."""
        return full_precision(self.discriminator[domain](images))

    def discriminator_loss(self, batch: Any) -> Loss:
        logs: dict[str, Tensor] = {}
        for domain, real, fake in zip("ab", batch, self.made(batch), strict=True):
            of_real = self.judge(domain, real)
            pool = self.rank_state[domain]
            self.rank_state[domain], seen = pooled(pool, self.pool_size, full_precision(fake.detach()))
            of_fake = self.judge(domain, seen)
            logs[f"loss/discriminator_{domain}"] = (_squared(of_real, 1.0) + _squared(of_fake, 0.0)) / 2
        loss = logs["loss/discriminator_a"] + logs["loss/discriminator_b"]
        return loss, logs | {"loss/discriminator": loss}

    def generator_loss(self, batch: Any) -> Loss:
        a, b = batch
        fake_a, fake_b = self.made(batch)
        back = self.generator["b_to_a"](fake_b), self.generator["a_to_b"](fake_a)
        adversarial: Tensor = sum(  # type: ignore[assignment]
            _squared(self.judge(d, fake), 1.0) for d, fake in (("a", fake_a), ("b", fake_b))
        )
        cycle = _distance(back, (a, b))
        logs = {"loss/generator": adversarial, "loss/cycle": cycle}
        loss = adversarial + self.cycle_weight * cycle
        if self.identity_weight:
            same = self.generator["b_to_a"](a), self.generator["a_to_b"](b)
            logs["loss/identity"] = _distance(same, (a, b))
            loss = loss + self.cycle_weight * self.identity_weight * logs["loss/identity"]
        return loss, logs


def _squared(scores: Tensor, target: float) -> Tensor:
    return mse_loss(scores, torch.full_like(scores, target))


def _distance(images: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]) -> Tensor:
    """The L1 losses of both domains, summed."""
    return sum(l1_loss(full_precision(i), o) for i, o in zip(images, others, strict=True))  # type: ignore[return-value]
