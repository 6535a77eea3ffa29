"""Features of a network that was trained to classify photographs, to compare images by."""

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

VGG_LAYERS = {"vgg22": 9, "vgg54": 36}  # of VGG19, up to and with the ReLU after the second number's convolution


class VGGFeatures(nn.Module):
    """Images (N, 3 or 1, H, W) in [-1, 1] to features of VGG19 (Simonyan and Zisserman 1409.1556), never trained.

    Args:
        layer: "vgg22" or "vgg54".
        weights: File with the weights; by default torchvision downloads them.

    Raises:
        MisconfigurationException: The weights are missing, cannot be downloaded or are of another network.
    """

    def __init__(self, layer: str, weights: str | None) -> None:
        super().__init__()
        from torchvision.models import VGG19_Weights
        from torchvision.models.vgg import cfgs, make_layers

        self.layers = make_layers(cfgs["E"])[: VGG_LAYERS[layer]].eval().requires_grad_(False)
        way_out = "or give --model.content=mse, which needs none"
        try:
            if weights:
                state = torch.load(weights, map_location="cpu", weights_only=True)
            else:
                state = VGG19_Weights.DEFAULT.get_state_dict(check_hash=True, weights_only=True)
            self.layers.load_state_dict({key: state[f"features.{key}"] for key in self.layers.state_dict()})
        except Exception as error:  # no network, no file, or whatever a file that holds something else leads to
            given = f"--model.vgg_weights={weights} is no state_dict of torchvision's vgg19"
            absent = f"VGG19 was not downloaded: fetch {VGG19_Weights.DEFAULT.url}, give it as --model.vgg_weights=FILE"
            raise MisconfigurationException(f"{given if weights else absent}, {way_out}") from error
        mean, std = VGG19_Weights.DEFAULT.transforms().mean, VGG19_Weights.DEFAULT.transforms().std
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers((((images + 1) / 2).expand(-1, 3, -1, -1) - self.mean) / self.std)
