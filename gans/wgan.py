"""WGAN: Wasserstein GAN (Arjovsky, Chintala and Bottou, 2017, arXiv 1701.07875)."""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable

from gans.dcgan import DCGAN
from gans.parts.losses import AdversarialLoss, Wasserstein
from gans.training.update import Loss


class WGAN(DCGAN):
    """DCGAN's networks, with a critic that estimates the Wasserstein distance (algorithm 1).

    The critic's weights are clipped to 0.01 after each of its updates, five of which precede a generator update, and
    both networks are trained with RMSProp at 5e-5: with momentum the critic becomes unstable (section 4). The layers
    at images have biases, which begin at 0 and which the official code lacks.

    Args:
        warm_up: Train the critic 100 times before each of the first 25 generator updates and every 500th afterwards, so
            that its estimate is good from the beginning (official code).
        **kwargs: See DCGAN.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        loss: AdversarialLoss = Wasserstein(),  # noqa: B008
        weight_clip: float | None = 0.01,
        n_critic: int = 5,
        warm_up: bool = False,
        generator_optimizer: OptimizerCallable = lambda p: torch.optim.RMSprop(p, lr=5e-5),
        discriminator_optimizer: OptimizerCallable = lambda p: torch.optim.RMSprop(p, lr=5e-5),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_shape,
            loss=loss,
            weight_clip=weight_clip,
            n_critic=n_critic,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **kwargs,
        )
        self.warm_up = warm_up

    def critic_steps(self) -> int:
        often = self.warm_up and (self.global_step < 25 or self.global_step % 500 == 0)
        return max(100 * often, super().critic_steps())

    def discriminator_loss(self, batch: Any) -> Loss:
        loss, logs = super().discriminator_loss(batch)
        return loss, logs | {"critic/wasserstein": logs["critic/real"] - logs["critic/fake"]}
