"""The restoration GAN: photographs mended in three stages, as in fastai's lesson 7 (2019) and DeOldify's NoGAN."""

from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from gans.parts.initialisation import initialise_sub_pixel, normalise_spectrally
from gans.parts.layers import PatchGAN, ResidualBlock, SmoothShuffle
from gans.parts.losses import NonSaturating
from gans.training.adversarial import AnyLoss
from gans.training.finetuning import FineTuned, network_in, read_pretrained
from gans.training.optimizers import Adam
from gans.training.update import Loss

CRITIC_THRESHOLD, CONTENT_WEIGHT = 0.65, 50.0
STAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "generator": {"generator_loss": ("generator",)},
    "critic": {"discriminator_loss": ("discriminator",)},
    "both": {"discriminator_loss": ("discriminator",), "generator_loss": ("generator",)},
}


class Restorer(nn.Module):
    """A U-Net from images (N, C, H, W) in [-1, 1] to what they should look like: themselves plus what it adds.

    Three halvings, each a 4x4 convolution and a residual block; sub-pixel convolutions that double the size again,
    smoothed against grids; no normalisation, which would forget how bright an image is.

    Args:
        channels: Of the images on both sides; their height and width are multiples of 8.
        width: Channels after the first halving; twice as many after each of the others.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [channels, width, 2 * width, 4 * width]
        self.down = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2), ResidualBlock(after, lambda _: nn.Identity())
            )
            for before, after in pairwise(widths)
        )
        widths[0] = width // 2 or 1
        self.up = nn.ModuleList(
            nn.Sequential(
                initialise_sub_pixel(nn.Conv2d(after, 4 * before, 3, padding=1)),
                SmoothShuffle(),
                nn.ReLU(),
            )
            for before, after in pairwise(widths)
        )
        self.join = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * before, before, 3, padding=1), nn.ReLU()) for before in widths[1:-1]
        )
        self.output = nn.Conv2d(widths[0] + channels, channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        skips = [images]
        for halve in self.down:
            skips.append(halve(skips[-1]))
        features = skips.pop()
        for double, join in zip(reversed(self.up), [*reversed(self.join), self.output], strict=True):
            features = join(torch.cat([double(features), skips.pop()], 1))
        return images + features


class RestorationGAN(AnyLoss, FineTuned):
    """A U-Net that mends photographs, trained on pixels first, and only then against a critic that knows its faults.

    Three runs, each from the one before: the generator alone on the content loss; the critic alone, on what this
    generator makes; then both, the generator on adversarial loss + 50 * content loss. There the critic is trained until
    its loss is below 0.65 before the generator is (``critic_threshold``), so that it is always a little ahead. The
    critic sees images alone, patch by patch, has spectral normalisation, and the mean of its two losses, as the
    threshold is one of a mean. Adam 1e-4 without momentum, and five times that for the critic (the lesson's notebook).

    The lesson's networks are larger: a U-Net on a pretrained ResNet, and a critic with dropout and self-attention. Its
    images are normalised by ImageNet's statistics, so that its 50 weighs pixels about five times more.

    Batches are pairs (source, target), (N, C, S, S) each, as of ``datamodules.Restoration``.

    Args:
        image_shape: Channels, height and width of the images, multiples of 8.
        stage: Which networks are trained: "generator", "critic" or "both".
        content: "mse", of the pixels, or "vgg54" or "vgg22", VGG19's features before the fifth or second pooling.
        content_weight: Factor of the content loss beside the adversarial one.
        width: Channels of the generator's first layer.
        discriminator_width: Channels of the critic's first layer.
        discriminator_optimizer: Five times the generator's rate.
        **kwargs: See AnyLoss and FineTuned.

    Raises:
        MisconfigurationException: The size is no multiple of 8, or an option has no effect in this stage; before
            training, the critic's stage has no ``pretrained``, or this holds other networks or is of the wrong stage.
    """

    smallest = {"width": 4, "discriminator_width": 4, "critic_threshold": None}
    takes = ("pairs",)
    multiple = 8

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        stage: Literal["generator", "critic", "both"] = "both",
        content: Literal["mse", "vgg54", "vgg22"] = "mse",
        content_weight: Annotated[float, "[0, inf)"] = CONTENT_WEIGHT,
        width: Annotated[int, "[1, inf)"] = 64,
        discriminator_width: Annotated[int, "[1, inf)"] = 64,
        critic_threshold: Annotated[float, "(-inf, inf)"] | None = CRITIC_THRESHOLD,
        generator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=1e-4, beta1=0.0, beta2=0.99),
        discriminator_optimizer: OptimizerCallable = lambda p: Adam(p, lr=5e-4, beta1=0.0, beta2=0.99),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_shape,
            content=content,
            critic_threshold=critic_threshold,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **kwargs,
        )
        if image_shape[1] % self.multiple or image_shape[2] % self.multiple:
            raise MisconfigurationException(
                f"RestorationGAN needs images whose size is a multiple of {self.multiple}; got {image_shape[1]}x"
                f"{image_shape[2]}: set --data.image_size to 64 or 128"
            )
        idle = {
            "n_critic": stage != "both" and self.n_critic != 1,
            "critic_warm_up": stage != "both" and self.critic_warm_up > 0,
            "critic_threshold": stage != "both" and critic_threshold not in (None, CRITIC_THRESHOLD),
            "content_weight": stage != "both" and content_weight != CONTENT_WEIGHT,
            "content": stage == "critic" and self.content != "mse",
            "penalty": stage == "generator" and bool(self.penalties),
            "diff_augment": stage == "generator" and self.diff_augment is not None,
            "loss": stage == "generator" and type(self.loss) is not NonSaturating,
        }
        if names := [name for name, given in idle.items() if given]:
            raise MisconfigurationException(
                f"--model.{names[0]} has no effect with --model.stage={stage}: leave it out"
            )
        self.stage = stage
        self.updates = STAGES[stage]
        self.content_weight = content_weight
        self.generator = Restorer(image_shape[0], width).requires_grad_(stage != "critic")
        self.discriminator = PatchGAN(image_shape[0], discriminator_width, norm=lambda _: nn.Identity())
        normalise_spectrally(self.discriminator, nn.Conv2d)

    def critic_steps(self) -> int:
        return {"generator": 0, "critic": 1, "both": super().critic_steps()}[self.stage]

    def on_train_start(self) -> None:
        if self.stage != "generator" and not self.pretrained and not self.images_seen:
            before = {"critic": "generator", "both": "critic"}[self.stage]
            told = f"RestorationGAN's stage {self.stage} begins with untrained networks"
            advice = f"give --model.pretrained=RUN/checkpoints/last.ckpt of a run of stage {before}"
            if self.stage == "critic":  # which would learn to tell noise from photographs
                raise MisconfigurationException(f"{told}: {advice}")
            rank_zero_warn(f"{told}, which the stages are to avoid: {advice}.")
        super().on_train_start()

    def check_origin(self, checkpoint: dict[str, Any]) -> None:
        super().check_origin(checkpoint)
        self._check_stage("--ckpt_path", checkpoint)

    def _check_stage(self, option: str, checkpoint: dict[str, Any]) -> None:
        """Refuse to train both networks from a checkpoint whose critic has not been trained."""
        if self.stage == "both" and checkpoint["hyper_parameters"].get("stage") == "generator":
            raise MisconfigurationException(
                f"{option} is of stage generator, and so its critic is untrained: train that first, by "
                "--model.stage=critic"
            )

    def start_from(self, path: str) -> None:
        found = read_pretrained(path)
        theirs = found["gan"]["class"].rpartition(".")[2]
        if theirs not in (cls.__name__ for cls in type(self).mro()):
            raise MisconfigurationException(f"--model.pretrained={path} holds a {theirs}, not a RestorationGAN")
        self._check_stage(f"--model.pretrained={path}", found)
        for name in ("generator", "discriminator"):
            weights = network_in(found, name)
            networks = [getattr(self, name)] + [self.averaged_generator] * (name == "generator")
            for network in filter(None, networks):
                own = network.state_dict()
                if {key: value.shape for key, value in weights.items()} != {key: own[key].shape for key in own}:
                    raise MisconfigurationException(
                        f"--model.pretrained={path} holds another {name} than this one: give the same --model.width, "
                        "--model.discriminator_width and --data.channels in all three stages"
                    )
                network.load_state_dict(weights)

    def at_any_size(self, network: Any, images: Tensor) -> Tensor:
        return super().at_any_size(network, images).clamp(-1, 1)

    def discriminator_loss(self, batch: Any) -> Loss:
        loss, logs = self.tell_apart(*self.compare((self.real(batch),), (self.made(batch).detach(),)))
        half = logs["loss/discriminator"] / 2
        return loss - half, logs | {"loss/discriminator": half}  # penalties have weights of their own

    def generator_loss(self, batch: Any) -> Loss:
        fake, real = self.made(batch), self.real(batch)
        content = self.content_loss(fake, real)
        if self.stage == "generator":
            return content, {"loss/generator": content}
        adversarial = self.fool(self.judge(fake), real)
        return adversarial + self.content_weight * content, {"loss/generator": adversarial, "loss/content": content}
