"""SRGAN: Photo-Realistic Single Image Super-Resolution Using a GAN (Ledig et al., 2016, arXiv 1609.04802)."""

import re
from typing import Annotated, Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss

from gans.export.portable import Portable
from gans.parts.initialisation import initialise_sub_pixel
from gans.parts.layers import ResidualBlock, SmoothShuffle
from gans.parts.precision import full_precision
from gans.training.adversarial import AnyLoss
from gans.training.finetuning import FineTuned, network_in, read_pretrained
from gans.training.optimizers import Adam
from gans.training.translation import Translator
from gans.training.update import Loss

TILE = 192  # pixels of the small image that are enlarged at a time


class Generator(nn.Module):
    """SRResNet: images (N, C, H, W) in [-1, 1] to images (N, C, scale * H, scale * W) around [-1, 1] (figure 4).

    A 9x9 convolution, residual blocks with batch norm and PReLU, a skip over all of them, sub-pixel convolutions that
    double the size, and a 9x9 convolution. Inside, the input is in [0, 1] (section 3.2). Sub-pixel convolutions begin
    so that they write no pattern, of which the paper says nothing.
    """

    def __init__(self, channels: int, scale: int, width: int, blocks: int, smooth: bool = False) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(channels, width, 9, padding=4), nn.PReLU())
        body = [ResidualBlock(width, nn.BatchNorm2d, activation=nn.PReLU) for _ in range(blocks)]
        self.body = nn.Sequential(*body, nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        shuffle = SmoothShuffle if smooth else lambda: nn.PixelShuffle(2)
        doubling = [
            (initialise_sub_pixel(nn.Conv2d(width, 4 * width, 3, padding=1)), shuffle(), nn.PReLU())
            for _ in range(scale.bit_length() - 1)
        ]
        self.tail = nn.Sequential(*(layer for layers in doubling for layer in layers))
        self.output = nn.Conv2d(width, channels, 9, padding=4)

    def forward(self, images: Tensor) -> Tensor:
        features = self.head((images + 1) / 2)
        return self.output(self.tail(features + self.body(features)))


class Discriminator(nn.Sequential):
    """Images (N, C, S, S) to logits (N,): eight 3x3 convolutions, every second with stride 2, and two linear layers.

    Batch norm everywhere but in the first layer, LeakyReLU(0.2) (figure 4).
    """

    def __init__(self, channels: int, size: int, width: int) -> None:
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, 1, 1), nn.LeakyReLU(0.2)]
        before = width
        for after, stride in [(width * 2**i, s) for i in range(4) for s in (1, 2)][1:]:
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
            before = after
        side = -(-size // 16)
        linear = [nn.Flatten(), nn.Linear(before * side**2, 16 * width), nn.LeakyReLU(0.2), nn.Linear(16 * width, 1)]
        super().__init__(*layers, *linear, nn.Flatten(0))


class SRResNet(Translator):
    """The generator alone, trained on the mean squared error: what SRGAN starts from (section 3.2).

    Batches are pairs (source, target): images (N, C, S / scale, S / scale), and (N, C, S, S).

    Args:
        image_shape: Channels, height and width of the enlarged images in training.
        scale: How many times larger than the source they are: 2, 4 or 8; given by the data set.
        width: Channels of the generator.
        blocks: Residual blocks of the generator.
        smooth: Average 2x2 neighbours after every doubling, unlike figure 4, so that no regular grid can stand in
            flat parts.
        generator_optimizer: Adam 1e-4 with beta1 0.9, as in section 3.2.
        **kwargs: See GANModule.

    Raises:
        MisconfigurationException: The scale is no power of two.
    """

    smallest = {"width": 4, "blocks": 1}
    takes = ("pairs of two sizes",)

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        scale: int = 4,
        width: Annotated[int, "[1, inf)"] = 64,
        blocks: Annotated[int, "[1, 1000]"] = 16,
        smooth: bool = False,
        generator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=1e-4, beta1=0.9),
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, generator_optimizer=generator_optimizer, **kwargs)
        if scale not in (2, 4, 8):
            raise MisconfigurationException(f"--data.scale must be 2, 4 or 8 for {type(self).__name__}; got {scale}")
        self.scale = scale
        self.blocks = blocks
        self.generator = Generator(image_shape[0], scale, width, blocks, smooth)

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        channels, height, width = self.image_shape
        return (channels, height // self.scale, width // self.scale), self.image_shape

    def generator_loss(self, batch: Any) -> Loss:
        loss = mse_loss(full_precision(self.made(batch)), self.real(batch))
        return loss, {"loss/generator": loss}

    def at_any_size(self, network: Any, images: Tensor) -> Tensor:
        """Tile by tile, each with as much around it as its pixels depend on, so that no seam can be seen."""
        margin = self.margin
        height, width = images.shape[-2:]
        large = images.new_empty(*images.shape[:2], height * self.scale, width * self.scale, dtype=torch.float32)
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                y, x = max(0, top - margin), max(0, left - margin)
                tile = network(images[..., y : top + TILE + margin, x : left + TILE + margin])
                tile = tile[..., (top - y) * self.scale :, (left - x) * self.scale :]
                goal = large[..., top * self.scale : (top + TILE) * self.scale, left * self.scale :]
                goal = goal[..., : TILE * self.scale]
                goal.copy_(tile[..., : goal.shape[-2], : goal.shape[-1]])
        return large.clamp_(-1, 1)

    def portable(self) -> dict[str, Portable]:
        """See GANModule: images are enlarged as a whole, and not tile by tile."""

        def enlarge(images: Tensor) -> Tensor:
            with self.sampling() as generator:
                return generator(images).float().clamp(-1, 1)

        return {"generator": self.translated(enlarge, self.scale, self.margin)}

    @property
    def margin(self) -> int:
        """Pixels around a tile that its own depend on: one for each 3x3 convolution, 4 for each 9x9, one to smooth."""
        return 2 * self.blocks + 9

    def shown(self, batch: Any) -> Tensor:
        """Input, enlarged by bicubic interpolation, output and target."""
        source, target = batch
        bicubic = interpolate(source, target.shape[-2:], mode="bicubic", antialias=True).clamp(-1, 1)
        return torch.stack([bicubic, self.generate(batch), target], 1)


def sizes_of(path: str, weights: dict[str, Tensor]) -> dict[str, int]:
    """What the generator of these weights was built with: width, blocks, scale and channels.

    Raises:
        MisconfigurationException: They are those of another network.
    """
    numbers = [int(key.split(".")[1]) for key in weights if re.match(r"body\.\d+\.", key)]
    doublings = [key for key in weights if re.fullmatch(r"tail\.\d+\.weight", key) and weights[key].dim() == 4]
    if "output.weight" not in weights or not numbers or not doublings:
        raise MisconfigurationException(f"--model.pretrained={path} holds no generator of SRResNet or SRGAN")
    channels, width = weights["output.weight"].shape[:2]
    return {"width": width, "blocks": max(numbers) - 1, "scale": 2 ** len(doublings), "channels": channels}


class SRGAN(AnyLoss, FineTuned, SRResNet):
    """SRResNet, fine-tuned against a discriminator (equation 3): content loss + 0.001 * adversarial loss.

    The content loss is the mean squared error of VGG19's features, scaled by 1 / 12.75 (section 2.2.1; equation 5),
    without any of the pixels. Adam 1e-4 with beta1 0.9; the paper goes on with 1e-5 in the second half.

    Args:
        pretrained: Checkpoint of an SRResNet (or SRGAN), whose generator training starts from.
        width: Channels of the generator; by default those of the pretrained one, or 64.
        blocks: Residual blocks of the generator; by default those of the pretrained one, or 16.
        smooth: See SRResNet; by default as in the pretrained one, or not.
        adversarial_weight: Factor of the adversarial loss.
        discriminator_width: Channels of the discriminator's first layer.
        discriminator_optimizer: As the generator's.
        **kwargs: See AnyLoss, FineTuned and SRResNet.

    Raises:
        MisconfigurationException: See SRResNet; before training, files are missing or of another network.
    """

    smallest = {"discriminator_width": 4, "content": "mse"}

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        pretrained: str | None = None,
        width: Annotated[int, "[1, inf)"] | None = None,
        blocks: Annotated[int, "[1, 1000]"] | None = None,
        smooth: bool | None = None,
        adversarial_weight: Annotated[float, "[0, inf)"] = 1e-3,
        discriminator_width: Annotated[int, "[1, inf)"] = 64,
        discriminator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=1e-4, beta1=0.9),
        **kwargs: Any,
    ) -> None:
        known = {"width": 64, "blocks": 16, "smooth": False}
        if pretrained and None in (width, blocks):
            found = read_pretrained(pretrained)
            known |= sizes_of(pretrained, network_in(found, "generator"))
            known["smooth"] = found["hyper_parameters"].get("smooth", False)
        self._as_pretrained = smooth is None  # which has no weights that would not fit
        smooth = bool(known["smooth"]) if smooth is None else smooth
        super().__init__(
            image_shape,
            pretrained=pretrained,
            width=known["width"] if width is None else width,
            blocks=known["blocks"] if blocks is None else blocks,
            smooth=smooth,
            discriminator_optimizer=discriminator_optimizer,
            **kwargs,
        )
        # So that a checkpoint of this model needs the other one no more.
        self.hparams.update(width=self.generator.output.in_channels, blocks=self.blocks, smooth=smooth)
        self.adversarial_weight = adversarial_weight
        self.discriminator = Discriminator(image_shape[0], image_shape[1], discriminator_width)

    def on_train_start(self) -> None:
        if not self.pretrained and not self.images_seen:
            rank_zero_warn(
                "SRGAN begins with an untrained generator, where the paper trains it on the squared error first: "
                "give --model.pretrained=RUN/checkpoints/best.ckpt of a run of SRResNet."
            )
        super().on_train_start()

    def start_from(self, path: str) -> None:
        found = read_pretrained(path)
        weights = network_in(found, "generator")
        theirs, own = sizes_of(path, weights), sizes_of(path, self.generator.state_dict())
        if theirs != own:
            told = [", ".join(f"{name} {size}" for name, size in sizes.items()) for sizes in (theirs, own)]
            raise MisconfigurationException(
                f"--model.pretrained={path} holds another generator ({told[0]}) than this one ({told[1]}): leave "
                f"--model.width and --model.blocks out, and give --data.scale={theirs['scale']}"
            )
        smooth = found["hyper_parameters"].get("smooth", False)
        if self._as_pretrained and smooth != self.hparams.smooth:
            raise MisconfigurationException(
                f"--model.pretrained={path} has --model.smooth={str(smooth).lower()}: give it"
            )
        for network in filter(None, (self.generator, self.averaged_generator)):
            network.load_state_dict(weights)

    def discriminator_loss(self, batch: Any) -> Loss:
        return self.tell_apart(*self.compare((self.real(batch),), (self.made(batch).detach(),)))

    def generator_loss(self, batch: Any) -> Loss:
        fake, real = self.made(batch), self.real(batch)
        content = self.content_loss(fake, real)
        adversarial = self.fool(self.judge(fake), real)
        loss = content + self.adversarial_weight * adversarial
        return loss, {"loss/generator": adversarial, "loss/content": content}
