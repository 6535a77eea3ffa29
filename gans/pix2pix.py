"""pix2pix: Image-to-Image Translation with Conditional Adversarial Networks (Isola et al., 2016, arXiv 1611.07004)."""

from typing import Annotated, Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from gans.export.portable import Input, Portable
from gans.parts.initialisation import initialise
from gans.parts.layers import Dropout, PatchGAN, UNet
from gans.parts.precision import full_precision
from gans.training.adversarial import AnyLoss
from gans.training.translation import Translator
from gans.training.update import Loss


class Pix2Pix(AnyLoss, Translator):
    """A U-Net, a discriminator of patches that sees input and output, and an L1 loss (equation 4).

    Section 3's settings are the defaults: Adam 2e-4, beta1 0.5, lambda 100, D's loss halved "to slow down D" (the
    first official code reports half of the loss but follows the whole gradient; to Adam it is the same). Where the
    paper has batch norm, with a batch of one and by the statistics of that batch also at test time, this has instance
    norm, which is the same for any batch size. Dropout stays on at test time.

    Batches are pairs (source, target), (N, C, S, S) each.

    Args:
        image_shape: Channels, height and width of the images: square, a power of two from 32 on.
        width: Channels of the first layers.
        patch_halvings: Convolutions with stride 2 in the discriminator: patches are 16x16 with one, 34x34 with two and
            70x70, as in the paper for images of 256 px, with three.
        l1_weight: lambda, the factor of the L1 loss.
        **kwargs: See AnyLoss.

    Raises:
        MisconfigurationException: The images are not square or their size is not such a power of two.
    """

    smallest = {"width": 4}
    takes = ("pairs",)

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: Annotated[int, "[1, inf)"] = 64,
        patch_halvings: Annotated[int, "[1, 3]"] = 3,
        l1_weight: Annotated[float, "[0, inf)"] = 100.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, **kwargs)
        channels, height, size = image_shape
        if height != size or size < 32 or size & (size - 1):
            raise MisconfigurationException(
                f"Pix2Pix needs square images whose size is a power of two from 32 on; got {height}x{size}: "
                "set --data.image_size to 64, 128 or 256"
            )
        if patch_halvings not in (1, 2, 3):
            raise MisconfigurationException(f"--model.patch_halvings must be 1, 2 or 3; got {patch_halvings}")
        self.l1_weight = l1_weight
        self.multiple = size
        self.generator = UNet(channels, size, width).apply(initialise)
        self.discriminator = PatchGAN(2 * channels, width, halvings=patch_halvings).apply(initialise)

    def portable(self) -> dict[str, Portable]:
        """See GANModule: ``translate``, with the seed of what is dropped, which is all the noise there is."""
        about = "whole number from 0 on, 2^31 at most; another one translates a little otherwise"
        seed = Input((), about, lambda _: torch.randint(2**31, ()))
        return {"generator": self.translated(self.translate_alike, seed=seed)}

    def translate_alike(self, images: Tensor, seed: Tensor) -> Tensor:
        """See ``translate``: always the same for a seed, a whole number ()."""
        with self.sampling() as generator:
            dropouts = [layer for layer in generator.modules() if isinstance(layer, Dropout)]
            try:
                for number, layer in enumerate(dropouts):
                    layer.seed = seed * len(dropouts) + number
                return self.at_any_size(generator, images)
            finally:
                for layer in dropouts:
                    layer.seed = None

    def ask(self, network: nn.Module, images: Tensor, *given: Tensor) -> Any:
        """Logits for every patch of an input and its output."""
        (source,) = given
        return network(torch.cat([source, images], 1))

    def discriminator_loss(self, batch: Any) -> Loss:
        source, target = batch
        loss, logs = self.tell_apart(*self.compare((target, source), (self.made(batch).detach(), source)))
        half = logs["loss/discriminator"] / 2
        return loss - half, logs | {"loss/discriminator": half}  # penalties have weights of their own

    def generator_loss(self, batch: Any) -> Loss:
        source, target = batch
        fake = self.made(batch)
        adversarial = self.fool(self.judge(fake, source), target, source)
        l1 = l1_loss(full_precision(fake), target)
        return adversarial + self.l1_weight * l1, {"loss/generator": adversarial, "loss/l1": l1}
