"""What the papers share that turn images into images and go on from networks of another run."""

from abc import abstractmethod
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from gans.parts.features import VGGFeatures
from gans.parts.precision import full_precision
from gans.training.checkpoints import read
from gans.training.translation import Translator


def read_pretrained(path: str) -> dict[str, Any]:
    """The checkpoint that ``pretrained`` names.

    Raises:
        MisconfigurationException: There is no such checkpoint.
    """
    try:
        return read(path)
    except MisconfigurationException as error:
        raise MisconfigurationException(f"--model.pretrained={error}") from error


def network_in(checkpoint: dict[str, Any], name: str) -> dict[str, Tensor]:
    """The weights of a network in a checkpoint, averaged where they are there; none where there is no such network."""
    state = checkpoint["state_dict"]
    kinds = (f"averaged_{name}.", f"{name}.")
    kind = next((k for k in kinds if any(key.startswith(k) for key in state)), kinds[-1])
    return {key.removeprefix(kind): value for key, value in state.items() if key.startswith(kind)}


class FineTuned(Translator):
    """A translator that may start from another run, and is held to its target by pixels or features.

    Args:
        image_shape: Channels, height and width of the images.
        pretrained: Checkpoint whose networks training starts from.
        content: "vgg54" or "vgg22", VGG19's features before the fifth or second pooling, or "mse", of the pixels.
        vgg_weights: File with VGG19's weights (a state_dict of torchvision's); by default torchvision downloads them.
        **kwargs: See GANModule.

    Raises:
        MisconfigurationException: Before training, files are missing or of another network; or a run that goes on is
            told to start from another one.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        pretrained: str | None = None,
        content: Literal["vgg54", "vgg22", "mse"] = "vgg54",
        vgg_weights: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, **kwargs)
        self.pretrained = pretrained
        self.content = content
        self.vgg_weights = vgg_weights
        self._features: list[nn.Module] = []  # in a list, so that VGG is no part of the checkpoint

    @abstractmethod
    def start_from(self, path: str) -> None:
        """Take networks out of a checkpoint."""

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.content != "mse" and not self._features:
            self._features = [VGGFeatures(self.content, self.vgg_weights)]
        super().setup(stage)

    def on_train_start(self) -> None:
        super().on_train_start()
        for network in self._features:
            network.to(self.device)
        if self.pretrained and not self.images_seen:  # a resumed run has its weights
            self.start_from(self.pretrained)

    def check_origin(self, checkpoint: dict[str, Any]) -> None:
        super().check_origin(checkpoint)
        if self.pretrained not in (None, checkpoint["hyper_parameters"].get("pretrained")):
            raise MisconfigurationException(
                f"--model.pretrained={self.pretrained} comes too late: a run that goes on has weights of its own. "
                "Leave it out, or begin another run without --ckpt_path"
            )

    def content_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        """The mean squared error of VGG19's features, scaled by 1 / 12.75 as in SRGAN's paper, or of the pixels."""
        if self.content == "mse":
            return mse_loss(full_precision(fake), real)
        (features,) = self._features
        with torch.no_grad():
            of_real = full_precision(features(real))
        return mse_loss(full_precision(features(fake)) / 12.75, of_real / 12.75)
