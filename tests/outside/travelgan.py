"""TraVeLGAN: Image-to-image Translation by Transformation Vector Learning (Amodio et al., 2019, arXiv 1902.09631)."""

from typing import Annotated, Any

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from gans.parts.layers import PatchGAN, ResidualGenerator
from gans.parts.losses import AdversarialLoss, LeastSquares
from gans.training import Adam, AnyLoss, Loss, LRSchedulerCallable, OptimizerCallable, Translator


class Siamese(nn.Sequential):
    """Images (N, C, H, W) to points (N, dim), between which there are vectors."""

    def __init__(self, channels: int, width: int, dim: int) -> None:
        layers: list[nn.Module] = []
        for before, after in ((channels, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16 * width, dim))


class TraVeLGAN(AnyLoss, Translator):
    """One direction, in which the vectors between images stay what they were.

    A third network says where images lie. It learns with the generator, and that different images lie apart.

    Batches are unpaired images (a, b), (N, C, H, W) each. A is the source.

    Args:
        image_shape: Channels, height and width of the images; height and width are multiples of 4.
        width: Channels of the first layers.
        blocks: Residual blocks of the generator.
        dim: Size of the vectors.
        margin: delta, how far apart images should lie at least.
        travel_weight: Factor of the loss on vectors.
        siamese_optimizer: Optimizer of the third network.
        siamese_scheduler: Learning rate schedule of the third network.
        **kwargs: See AnyLoss.
    """

    takes = ("unpaired images",)
    multiple = 4
    updates = {"discriminator_loss": ("discriminator",), "generator_loss": ("generator", "siamese")}
    smallest = {"width": 4, "blocks": 1, "dim": 8}

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: Annotated[int, "[1, inf)"] = 64,
        blocks: Annotated[int, "[1, 1000]"] = 6,
        dim: Annotated[int, "[1, inf)"] = 1000,
        margin: Annotated[float, "(0, inf)"] = 10.0,
        travel_weight: Annotated[float, "[0, inf)"] = 1.0,
        loss: AdversarialLoss = LeastSquares(),  # noqa: B008
        siamese_optimizer: OptimizerCallable = lambda p: Adam(p),
        siamese_scheduler: LRSchedulerCallable | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, loss=loss, **kwargs)
        self.margin, self.travel_weight = margin, travel_weight
        self.siamese_optimizer, self.siamese_scheduler = siamese_optimizer, siamese_scheduler
        self.generator = ResidualGenerator(image_shape[0], image_shape[0], width, blocks)
        self.discriminator = PatchGAN(image_shape[0], width, halvings=1)
        self.siamese = Siamese(image_shape[0], width, dim)

    def vectors(self, images: Tensor) -> Tensor:
        """From every image to the next one of the batch, (N, dim)."""
        points = self.siamese(images).float()
        return points.roll(1, 0) - points

    def discriminator_loss(self, batch: Any) -> Loss:
        return self.tell_apart(*self.compare((batch[1],), (self.made(batch).detach(),)))

    def generator_loss(self, batch: Any) -> Loss:
        a, b = batch
        fake = self.made(batch)
        before, after = self.vectors(a), self.vectors(fake)
        travel = (1 - cosine_similarity(before, after) + (before - after).square().mean(1)).mean()
        apart = (self.margin - (before.square().sum(1) + 1e-8).sqrt()).relu().mean()
        adversarial = self.fool(self.judge(fake), b)
        logs = {"loss/generator": adversarial, "loss/travel": travel, "loss/apart": apart}
        return adversarial + self.travel_weight * travel + apart, logs
