"""LSGAN: Least Squares Generative Adversarial Networks (Mao et al., 2016, arXiv 1611.04076)."""

from typing import Any

from lightning.pytorch.cli import OptimizerCallable

from gans.dcgan import DCGAN
from gans.parts.losses import AdversarialLoss, LeastSquares
from gans.training.optimizers import Adam


class LSGAN(DCGAN):
    """DCGAN's networks trained with least squares on the raw outputs (equation 2).

    The loss has the paper's 0-1 coding; ``--model.loss.a=-1 --model.loss.b=1 --model.loss.c=0`` is its other one. Adam
    with 1e-3 and beta1 0.5, as in the paper and its official code. The paper's networks for 112 px scenes are deeper
    than DCGAN's; those for small images are like it.

    Args:
        **kwargs: See DCGAN.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        loss: AdversarialLoss = LeastSquares(),  # noqa: B008
        generator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=1e-3),
        discriminator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=1e-3),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_shape,
            loss=loss,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **kwargs,
        )
