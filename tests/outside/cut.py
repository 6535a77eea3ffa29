"""CUT: Contrastive Learning for Unpaired Image-to-Image Translation (Park et al., 2020, arXiv 2007.15651)."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from gans.parts.layers import PatchGAN, ResidualGenerator
from gans.parts.losses import AdversarialLoss, LeastSquares
from gans.training import Adam, AnyLoss, Loss, LRSchedulerCallable, OptimizerCallable, Translator

LAYERS = (0, 4, 8)  # of the generator, whose features are compared


def features_of(generator: nn.Sequential, images: Tensor) -> list[Tensor]:
    """Features of the generator's first half at some layers, (N, C, H, W) each."""
    found = []
    for number, layer in enumerate(generator):
        if number <= LAYERS[-1]:
            images = layer(images)
        if number in LAYERS:
            found.append(images)
    return found


class Heads(nn.ModuleList):
    """A small network for the features of each layer: (M, C) to unit vectors (M, dim) (section 3.2)."""

    def __init__(self, channels: list[int], dim: int) -> None:
        super().__init__(nn.Sequential(nn.Linear(c, dim), nn.ReLU(), nn.Linear(dim, dim)) for c in channels)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [normalize(head(each).float(), dim=-1) for head, each in zip(self, features, strict=True)]


class CUT(AnyLoss, Translator):
    """One direction, in which patches keep what they have in common with the same place of the input (equation 4).

    Batches are unpaired images (a, b), (N, C, H, W) each. A is the source.

    Args:
        image_shape: Channels, height and width of the images; height and width are multiples of 4.
        width: Channels of the first layers.
        blocks: Residual blocks of the generator.
        patches: Places of an image that are compared.
        temperature: tau, by which similarities are divided.
        nce_weight: Factor of the contrastive loss.
        heads_optimizer: Optimizer of the heads.
        heads_scheduler: Learning rate schedule of the heads.
        **kwargs: See AnyLoss.
    """

    takes = ("unpaired images",)
    multiple = 4
    updates = {"discriminator_loss": ("discriminator",), "generator_loss": ("generator", "heads")}
    smallest = {"width": 4, "blocks": 1, "patches": 8}

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: Annotated[int, "[1, inf)"] = 64,
        blocks: Annotated[int, "[1, 1000]"] = 9,
        patches: Annotated[int, "[2, inf)"] = 256,
        temperature: Annotated[float, "(0, inf)"] = 0.07,
        nce_weight: Annotated[float, "[0, inf)"] = 1.0,
        loss: AdversarialLoss = LeastSquares(),  # noqa: B008
        heads_optimizer: OptimizerCallable = lambda p: Adam(p),
        heads_scheduler: LRSchedulerCallable | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, loss=loss, **kwargs)
        self.patches, self.temperature, self.nce_weight = patches, temperature, nce_weight
        self.heads_optimizer, self.heads_scheduler = heads_optimizer, heads_scheduler
        channels = image_shape[0]
        self.generator = ResidualGenerator(channels, channels, width, blocks)
        self.discriminator = PatchGAN(channels, width, halvings=1)
        with torch.no_grad():
            shapes = [f.shape[1] for f in features_of(self.generator, torch.zeros(1, *image_shape))]
        self.heads = Heads(shapes, 4 * width)

    def contrast(self, source: Tensor, translated: Tensor) -> Tensor:
        """PatchNCE: a patch's place is to be found again among others of its image (equations 2 and 3)."""
        pairs = [features_of(self.generator, images) for images in (translated, source)]
        places = [torch.randint(f.shape[2] * f.shape[3], (self.patches,), device=f.device) for f in pairs[0]]
        query, key = (
            self.heads([f.flatten(2)[:, :, p].transpose(1, 2) for f, p in zip(each, places, strict=True)])
            for each in pairs
        )
        wanted = torch.arange(self.patches, device=source.device).expand(len(source), -1)
        losses = [
            cross_entropy((q @ k.detach().transpose(1, 2) / self.temperature).flatten(0, 1), wanted.flatten())
            for q, k in zip(query, key, strict=True)
        ]
        return torch.stack(losses).mean()

    def discriminator_loss(self, batch: Any) -> Loss:
        return self.tell_apart(*self.compare((batch[1],), (self.made(batch).detach(),)))

    def generator_loss(self, batch: Any) -> Loss:
        a, b = batch
        fake = self.made(batch)
        adversarial, contrast = self.fool(self.judge(fake), b), self.contrast(a, fake)
        logs = {"loss/generator": adversarial, "loss/contrast": contrast}
        return adversarial + self.nce_weight * contrast, logs
