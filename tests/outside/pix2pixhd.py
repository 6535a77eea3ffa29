"""In the manner of pix2pixHD: High-Resolution Image Synthesis with Conditional GANs (Wang et al., 2017, 1711.11585)."""

from itertools import pairwise
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, l1_loss

from gans.parts.layers import ResidualGenerator, instance_norm
from gans.parts.losses import AdversarialLoss, LeastSquares
from gans.training import AnyLoss, Loss, Translator, together


class Discriminator(nn.Module):
    """Images (N, C, H, W), reduced by a factor, to logits of patches and the features of every layer."""

    def __init__(self, channels: int, width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        widths = [channels, width, 2 * width]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 4, 2, 1), nn.Identity() if a == channels else instance_norm(b), nn.LeakyReLU(0.2)
            )
            for a, b in pairwise(widths)
        )
        self.end = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, features = avg_pool2d(images, self.factor), []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return self.end(x), features


class Pix2PixHD(AnyLoss, Translator):
    """Discriminators at several sizes, and a loss that matches their features (equations 2 to 5).

    Batches are pairs (source, target), (N, C, H, W) each.

    Args:
        image_shape: Channels, height and width of the images; height and width are multiples of 16.
        width: Channels of the first layers.
        blocks: Residual blocks of the generator.
        feature_weight: lambda, the factor of the features' loss.
        **kwargs: See AnyLoss.
    """

    takes = ("pairs",)
    multiple = 4
    smallest = {"width": 4, "blocks": 1}

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: Annotated[int, "[1, inf)"] = 64,
        blocks: Annotated[int, "[1, 1000]"] = 9,
        feature_weight: Annotated[float, "[0, inf)"] = 10.0,
        loss: AdversarialLoss = LeastSquares(),  # noqa: B008
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, loss=loss, **kwargs)
        self.feature_weight = feature_weight
        channels = image_shape[0]
        self.generator = ResidualGenerator(channels, channels, width, blocks)
        self.discriminator = nn.ModuleDict(
            {name: Discriminator(2 * channels, width, factor) for name, factor in (("fine", 1), ("coarse", 2))}
        )

    def ask(self, network: nn.Module, images: Tensor, *given: Tensor) -> Any:
        """Logits and features of an input and its output."""
        return network(torch.cat([*given, images], 1))

    def discriminator_loss(self, batch: Any) -> Loss:
        source, target = batch
        fake = self.made(batch).detach()
        return together(
            [
                self.tell_apart(*self.compare((target, source), (fake, source), by=network))
                for network in self.discriminator.values()
            ]
        )

    def generator_loss(self, batch: Any) -> Loss:
        source, target = batch
        adversarial, matching = [], []
        for network in self.discriminator.values():
            fake, real = (self.judge(images, source, by=network) for images in (self.made(batch), target))
            adversarial.append(self.fool(fake, target, source, by=network))
            matching += [l1_loss(f, r.detach()) for f, r in zip(*fake.rest, *real.rest, strict=True)]
        logs = {"loss/generator": torch.stack(adversarial).sum(), "loss/features": torch.stack(matching).mean()}
        return logs["loss/generator"] + self.feature_weight * logs["loss/features"], logs
