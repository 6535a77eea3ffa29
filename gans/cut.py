"""CUT: Contrastive Learning for Unpaired Image-to-Image Translation (Park et al., 2020, arXiv 2007.15651)."""

from typing import Annotated, Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from gans.parts.layers import PatchGAN, ResidualGenerator
from gans.parts.precision import full_precision
from gans.training import Adam, AdversarialModule, Loss, LRSchedulerCallable, OptimizerCallable, Translator
from gans.training.translation import check_size


class Heads(nn.ModuleList):
    """A network of two layers for each layer of features: (N, places, C) to unit vectors (N, places, width)."""

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__(nn.Sequential(nn.Linear(c, width), nn.ReLU(), nn.Linear(width, width)) for c in channels)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [normalize(full_precision(head(each)), dim=-1) for head, each in zip(self, features, strict=True)]


def patch_nce(query: Tensor, key: Tensor, temperature: float) -> Tensor:
    """How hard it is to find each query's own key among all keys of its image (equations 2 and 3).

    Args:
        query: Unit vectors of a translation's places, (N, places, width).
        key: Unit vectors of the same places of its source; they carry no gradient.
        temperature: tau, by which similarities are divided.

    Returns:
        The mean cross-entropy of each image, (N,).
    """
    with torch.autocast(query.device.type, enabled=False):  # half precision would be off by percents
        similarity = query @ key.detach().mT / temperature
    own = torch.arange(similarity.shape[1], device=query.device).expand(len(query), -1)
    return cross_entropy(similarity.flatten(0, 1), own.flatten(), reduction="none").view_as(own).mean(1)


class CUT(AdversarialModule, Translator):
    """One generator, whose output keeps at every place what the input has there, by a contrastive loss (equation 5).

    Vectors of a translation's places must be most like those of the same places of the input, among all places of that
    image. They are what two-layer heads make of the features of the generator's own first half, at five layers: pixels,
    both convolutions before the size is halved, the first and the fifth residual block (appendix C.1).

    The defaults are CUT's: lambda 1 for the input and for images of the target domain, which shall stay as they are,
    least squares, Adam 2e-4 with beta1 0.5 for all three networks, 9 blocks, Xavier's initialisation with a gain of
    0.02. As in the official code the contrastive loss is a mean over layers and places, and half of it is of either
    domain. FastCUT is nce_weight 10, without identity, with flip_equivariance.

    As in the official code, and as the receptive fields of appendix C.1 say, the generator halves and doubles by fixed
    blurs; the discriminator has the paper's 70x70 patches, with strided convolutions, where that code blurs here too.
    The heads are there from the beginning, not from the first batch on; images of both domains are compared at the same
    places, where that code draws new ones for the second. Images are cropped at random to the end, also while the rate
    falls.

    Batches are unpaired images (a, b), (N, C, H, W) each. A is the source: ``generate`` translates to B.

    Args:
        image_shape: Channels, height and width of the images; height and width are multiples of 4 from 32 on.
        width: Channels of the first layers.
        blocks: Residual blocks of the generator; with less than five the last one takes the fifth's place.
        patch_halvings: Convolutions with stride 2 in the discriminator: patches are 16x16 with one, 34x34 with two and
            70x70, as in the paper for images of 256 px, with three.
        nce_weight: lambda, the factor of the contrastive loss.
        identity: Whether the contrastive loss is also taken between images of B and their translations.
        flip_equivariance: Whether half of the batches are mirrored before the translation, and its features afterwards.
        patches: Places of a layer that are compared, at most: those of small layers are all taken.
        temperature: tau, by which similarities are divided.
        head_width: Size of the vectors that are compared.
        heads_optimizer: Optimizer of the heads.
        heads_scheduler: Learning rate schedule of the heads.
        **kwargs: See AdversarialModule.

    Raises:
        MisconfigurationException: Height or width is no multiple of 4 from 32 on, or an argument is out of range.
    """

    updates = {"discriminator_loss": ("discriminator",), "generator_loss": ("generator", "heads")}
    smallest = {"width": 4, "blocks": 1, "patches": 16, "head_width": 8}
    takes = ("unpaired images",)
    multiple = 4
    least = 8  # halved twice, there must be something to reflect

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: Annotated[int, "[1, inf)"] = 64,
        blocks: Annotated[int, "[1, 1000]"] = 9,
        patch_halvings: Annotated[int, "[1, 3]"] = 3,
        nce_weight: Annotated[float, "[0, inf)"] = 1.0,
        identity: bool = True,
        flip_equivariance: bool = False,
        patches: Annotated[int, "[2, inf)"] = 256,
        temperature: Annotated[float, "(0, inf)"] = 0.07,
        head_width: Annotated[int, "[1, inf)"] = 256,
        heads_optimizer: OptimizerCallable = lambda p: Adam(p),
        heads_scheduler: LRSchedulerCallable | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, **kwargs)
        check_size(self)
        if patch_halvings not in (1, 2, 3):
            raise MisconfigurationException(f"--model.patch_halvings must be 1, 2 or 3; got {patch_halvings}")
        self.nce_weight, self.identity, self.flip_equivariance = nce_weight, identity, flip_equivariance
        self.patches, self.temperature = patches, temperature
        self.heads_optimizer, self.heads_scheduler = heads_optimizer, heads_scheduler
        channels = image_shape[0]
        self.generator = ResidualGenerator(
            channels, channels, width, blocks, nn.InstanceNorm2d, "reflect", blurred=True
        ).apply(_initialise)
        self.discriminator = PatchGAN(channels, width, nn.InstanceNorm2d, patch_halvings).apply(_initialise)
        # Of the generator's layers; the official code's 4, 8, 12 and 16, which has a layer for the first padding.
        self.layers = 3, 7, 11, 11 + min(4, blocks - 1)
        self.heads = Heads([channels, 2 * width, 4 * width, 4 * width, 4 * width], head_width).apply(_initialise)

    def fakes(self, batch: Any) -> tuple[bool, Tensor]:
        """Whether the images were mirrored; translations of A and, behind them, with the identity loss, of B."""
        images = torch.cat(batch) if self.identity else batch[0]
        flipped = self.flip_equivariance and bool(torch.rand(()) < 0.5)
        return flipped, self.generator(images.flip(-1) if flipped else images)

    def encode(self, images: Tensor) -> list[Tensor]:
        """The images, and their features at some layers of the generator, (N, C, H, W) each."""
        found = {-1: images}
        for number, layer in enumerate(self.generator.children()):
            if number > self.layers[-1]:
                break
            found[number] = layer(found[number - 1])
        return [found[number] for number in (-1, *self.layers)]

    def contrast(self, sources: Tensor, translations: Tensor, flipped: bool) -> Tensor:
        """The contrastive loss of each image, (N,): the mean over all layers."""
        queries = [f.flip(-1) if flipped else f for f in self.encode(translations)]
        with torch.no_grad():
            keys = self.encode(sources)
        places = [torch.randperm(f[0, 0].numel(), device=f.device)[: self.patches] for f in keys]
        query, key = (
            self.heads([f.flatten(2).mT[:, place] for f, place in zip(features, places, strict=True)])
            for features in (queries, keys)
        )
        return torch.stack([patch_nce(q, k, self.temperature) for q, k in zip(query, key, strict=True)]).mean(0)

    def judge(self, images: Tensor) -> Tensor:
        """The discriminator's logits for every patch."""
        return full_precision(self.discriminator(images))

    def discriminator_loss(self, batch: Any) -> Loss:
        real = batch[1]
        _, fakes = self.made(batch)
        of_real, of_fake = self.judge(real), self.judge(fakes[: len(real)].detach())
        loss = ((of_real - 1).square().mean() + of_fake.square().mean()) / 2
        return loss, {"loss/discriminator": loss}

    def generator_loss(self, batch: Any) -> Loss:
        n = len(batch[0])
        flipped, fakes = self.made(batch)
        adversarial = (self.judge(fakes[:n]) - 1).square().mean()
        contrast = self.contrast(torch.cat(batch) if self.identity else batch[0], fakes, flipped)
        logs = {"loss/generator": adversarial, "loss/contrast": contrast[:n].mean()}
        if self.identity:
            logs["loss/identity"] = contrast[n:].mean()
        return adversarial + self.nce_weight * contrast.mean(), logs


def _initialise(module: nn.Module) -> None:
    """Xavier's initialisation with a gain of 0.02, biases of 0 (official code)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_normal_(module.weight, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
