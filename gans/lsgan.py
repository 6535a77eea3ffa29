"""LSGAN: Least Squares Generative Adversarial Networks (Mao et al., 2016, arXiv 1611.04076)."""

from typing import Any

from gans.dcgan import DCGAN
from gans.parts.losses import AdversarialLoss, LeastSquares


class LSGAN(DCGAN):
    """DCGAN's networks trained with least squares on the raw outputs (equation 2).

    The loss has the paper's 0-1 coding; ``--model.loss.a=-1 --model.loss.b=1 --model.loss.c=0`` is its other one. The
    paper's networks for 112 px scenes are deeper than DCGAN's; those for small images are like it.

    Args:
        **kwargs: See DCGAN.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        loss: AdversarialLoss = LeastSquares(),  # noqa: B008
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, loss=loss, **kwargs)
