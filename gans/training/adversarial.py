"""What GANs share that have a discriminator: when it is trained, and any adversarial loss on what it says."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from gans.parts.diffaugment import DiffAugment
from gans.parts.losses import AdversarialLoss, NonSaturating
from gans.parts.penalties import Judged, Penalty
from gans.parts.precision import full_precision
from gans.training.module import GANModule, at_least
from gans.training.optimizers import Adam
from gans.training.speed import single
from gans.training.update import Loss

MOST_CRITIC_UPDATES = 100  # before a generator update, however large the discriminator's loss stays


class AdversarialModule(GANModule):
    """A generator trained against a discriminator; a paper writes both losses.

    Args:
        image_shape: Channels, height and width of the images.
        discriminator_optimizer: Optimizer of the discriminator.
        discriminator_scheduler: Learning rate schedule of the discriminator, stepped after every generator update.
        n_critic: Discriminator updates, each on a fresh batch, before every generator update.
        critic_warm_up: As many before the first generator update, so that this one follows a discriminator that knows
            something already.
        critic_threshold: After ``n_critic`` updates, go on until the discriminator's own loss (without penalties) on a
            batch is below this, but for no more than 100 updates in all (fastai's AdaptiveGANSwitcher).
        diff_augment: Policy such as color,translation,cutout: what the discriminator sees, real and generated alike, is
            augmented differentiably, so that few images suffice and the generator does not learn the augmentation.
        **kwargs: See GANModule.

    Raises:
        MisconfigurationException: An argument is out of range.
    """

    discriminator: nn.Module
    """One network, or an nn.ModuleDict of several that are trained together."""
    updates = {"discriminator_loss": ("discriminator",), "generator_loss": ("generator",)}

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        discriminator_optimizer: OptimizerCallable = lambda p: Adam(p),
        discriminator_scheduler: LRSchedulerCallable | None = None,
        n_critic: Annotated[int, "[1, inf)"] = 1,
        critic_warm_up: Annotated[int, "[0, inf)"] = 0,
        critic_threshold: Annotated[float, "(-inf, inf)"] | None = None,
        diff_augment: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, **kwargs)
        at_least(1, n_critic=n_critic)
        at_least(0, critic_warm_up=critic_warm_up)
        self.discriminator_optimizer = discriminator_optimizer
        self.discriminator_scheduler = discriminator_scheduler
        self.n_critic = n_critic
        self.critic_warm_up = critic_warm_up
        self.critic_threshold = critic_threshold
        self.diff_augment = None if diff_augment is None else DiffAugment(diff_augment)

    @abstractmethod
    def discriminator_loss(self, batch: Any) -> Loss:
        """What the discriminator minimises on a batch. All other networks are frozen meanwhile."""

    def critic_steps(self) -> int:
        return self.n_critic if self.global_step else max(self.n_critic, self.critic_warm_up)

    def critic_is_ready(self, logs: dict[str, Tensor]) -> bool:
        if self.critic_threshold is None:
            return True
        if "loss/discriminator" not in logs:
            raise MisconfigurationException(
                f"--model.critic_threshold={self.critic_threshold} needs a loss to compare with: "
                f"{type(self).__name__}.discriminator_loss must log it as loss/discriminator"
            )
        if self.mean_over_ranks(logs["loss/discriminator"]).item() < self.critic_threshold:
            return True
        if self._critic_run < MOST_CRITIC_UPDATES:
            return False
        rank_zero_warn(
            f"The discriminator's loss has stayed above --model.critic_threshold={self.critic_threshold} for "
            f"{MOST_CRITIC_UPDATES} updates, after which the generator is trained all the same."
        )
        return True

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit" and self.diff_augment is not None:
            for network in single(self.discriminator):
                if self.diff_augment.before not in network._forward_pre_hooks.values():  # a second fit finds it there
                    network.register_forward_pre_hook(self.diff_augment.before)


class AnyLoss(AdversarialModule):
    """Any adversarial loss, and any penalties, on the discriminator's raw outputs.

    The discriminator gives raw outputs for images, or a tuple that begins with them.

    Args:
        image_shape: Channels, height and width of the images.
        loss: Adversarial loss; any of ``gans.losses``.
        penalty: Penalty on the discriminator's gradient, or several; any of ``gans.penalties``.
        **kwargs: See AdversarialModule.

    Raises:
        MisconfigurationException: The loss compares distributions over several outcomes, and the discriminator has one
            number for an image or patch.
    """

    several_outcomes = False
    """Whether the discriminator gives as many numbers for an image as the loss has outcomes, and not just one."""
    penalty_factor: float = 1.0
    """Factor of all penalties, which a paper may change while it trains."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        loss: AdversarialLoss = NonSaturating(),  # noqa: B008
        penalty: Penalty | list[Penalty] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, **kwargs)
        if loss.outcomes != 1 and not self.several_outcomes:
            raise MisconfigurationException(
                f"--model.loss={type(loss).__name__} needs a discriminator of {loss.outcomes} outcomes, and that of "
                f"{type(self).__name__} has one number an image or patch: take another loss, such as LeastSquares"
            )
        self.loss = loss
        self.critic_may_win = loss.critic_may_win
        self.penalty = penalty
        self.penalties = penalty if isinstance(penalty, Sequence) else [penalty] if penalty else []

    def ask(self, network: nn.Module, images: Tensor, *given: Tensor) -> Any:
        """What a discriminator says of images and what they are judged with."""
        return network(images, *given)

    def judge(self, images: Tensor, *given: Tensor, by: nn.Module | None = None) -> Judged:
        """The discriminator's raw outputs for images, in full precision, and what else it says.

        Args:
            images: Images (N, C, H, W).
            given: What they are judged with, such as their classes.
            by: The discriminator, where there are several.
        """
        network = self.discriminator if by is None else by

        def asked(images: Tensor) -> tuple[Tensor, ...]:
            return _full(_tuple(self.ask(network, images, *given)))

        outputs, *rest = asked(images)
        return Judged(images, lambda images: asked(images)[0], outputs, tuple(rest))

    def compare(
        self, real: tuple[Tensor, ...], fake: tuple[Tensor, ...], by: nn.Module | None = None
    ) -> tuple[Judged, Judged]:
        """Real and generated images, each with what they are judged with, as the discriminator's loss needs them.

        In two passes: batch norm must see real and generated images apart (DCGAN's recipe).
        """
        # A penalty may differentiate these passes once more, unless they are in half precision or compiled.
        twice = not (self.compiles or torch.is_autocast_enabled(self.device.type))
        wanted = [penalty.differentiates for penalty in self.due_penalties() if twice]
        leaves = (
            images.detach().requires_grad_(kind in wanted)
            for kind, (images, *_) in {"real": real, "fake": fake}.items()
        )
        of_real, of_fake = (
            self.judge(images, *given, by=by) for images, (_, *given) in zip(leaves, (real, fake), strict=True)
        )
        return of_real, of_fake

    def due_penalties(self) -> list[Penalty]:
        """Those that count in this update of the discriminator: each in every so many, the last of them."""
        return [penalty for penalty in self.penalties if (self.critic_updates + 1) % penalty.every == 0]

    def tell_apart(self, real: Judged, fake: Judged) -> Loss:
        """What the discriminator minimises: its loss and the penalties; and what to log."""
        loss = self.loss.discriminator(real.outputs, fake.outputs)
        logs = {"loss/discriminator": loss, "critic/real": real.outputs.mean(), "critic/fake": fake.outputs.mean()}
        values = [self.penalty_factor * penalty.every * penalty(real, fake) for penalty in self.due_penalties()]
        if values:
            logs["loss/penalty"] = torch.stack(values).sum() if len(values) > 1 else values[0]
            loss = loss + logs["loss/penalty"]
        return loss, logs

    def fool(self, fake: Judged, *real: Tensor, by: nn.Module | None = None) -> Tensor:
        """What the generator minimises of the adversarial loss.

        Args:
            fake: Generated images, judged.
            real: Real images and what they are judged with, for losses that compare with them.
            by: The discriminator, where there are several.
        """
        compared = None
        if self.loss.compares:
            with torch.no_grad():
                compared = self.judge(*real, by=by).outputs
        return self.loss.generator(fake.outputs, compared)


def together(losses: list[Loss]) -> Loss:
    """The sum of several discriminators' losses, and of what they log under the same names."""
    logs = [logs for _, logs in losses]
    return sum(loss for loss, _ in losses), {name: sum(each[name] for each in logs) for name in logs[0]}  # type: ignore


def _tuple(found: Any) -> tuple[Any, ...]:
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def _full(found: Any) -> Any:
    """Tensors in full precision, also in tuples and lists."""
    if isinstance(found, Tensor):
        return full_precision(found)
    return type(found)(map(_full, found)) if isinstance(found, tuple | list) else found
