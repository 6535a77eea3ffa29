"""What images are compared by: Inception, a torchvision classifier, a network of one's own, or pixels."""

import difflib
import hashlib
import importlib
import inspect
import io
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.error import URLError

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from callbacks.pictures.randomness import isolated_rng

T = TypeVar("T")
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
INSTEAD = "take other features with --score.features=pixels"


class Features(NamedTuple):
    """Features (N, D) of images, and class logits (N, K) where the network has any."""

    features: Tensor
    logits: Tensor | None


class Extractor(nn.Module, ABC):
    """Turns uint8 images (N, C, H, W), grey or RGB, into Features.

    Attributes:
        resize: How images are brought to the network's size, for the protocol.
    """

    resize: str

    @abstractmethod
    def forward(self, images: Tensor) -> Features:
        """See the class."""


class Pixels(Extractor):
    """The image itself, averaged down to 8x8: crude, but there without any download."""

    resize = "mean over areas to 8x8"

    def forward(self, images: Tensor) -> Features:
        return Features(adaptive_avg_pool2d(images.float().div(255), 8).flatten(1), None)


class Inception(Extractor):
    """Inception-v3 with the weights of the original FID, by torch-fidelity: its pool features and unbiased logits.

    Images are resized bilinearly, without antialiasing, as TensorFlow 1 did for the published tables.

    Args:
        weights: File with the weights; by default it is downloaded.
    """

    resize = "bilinear to 299x299 as in TensorFlow 1, no antialiasing"

    def __init__(self, weights: str | None) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = Path(weights) if weights else _downloaded_inception()
        # torch-fidelity unpickles what it is given without restrictions: not the file, but what was safely read of it.
        read = io.BytesIO()
        torch.save(read_weights(path), read)
        read.seek(0)
        try:
            self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], read)
        except RuntimeError as error:
            raise _wrong_weights(path, "--score.features=inception", error) from error
        # A third less time on a CPU; features differ from the default layout's by rounding only.
        self.network.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Features:
        return Features(*self.network(images.expand(-1, 3, -1, -1)))


class Classifier(Extractor):
    """A classifier of torchvision's: what goes into its last linear layer, and its logits.

    Args:
        name: The name in torchvision.models.
        weights: File with the weights (a state_dict); by default torchvision's best are downloaded.
    """

    def __init__(self, name: str, weights: str | None) -> None:
        super().__init__()
        from torchvision.models import get_model_weights

        settings = get_model_weights(name).DEFAULT.transforms()
        self.size = settings.crop_size[0]
        self.resize = f"bilinear to {self.size}x{self.size}, antialiased"
        self.network = pretrained(name, weights, f"--score.features={name}")
        linear = [layer for layer in self.network.modules() if isinstance(layer, nn.Linear)]
        if not linear:
            raise MisconfigurationException(f"--score.features={name} has no linear layer to take features from")
        linear[-1].register_forward_pre_hook(self._remember)
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(getattr(settings, key)).view(1, 3, 1, 1))

    def _remember(self, layer: nn.Module, inputs: tuple[Tensor]) -> None:
        self._features = inputs[0]

    def forward(self, images: Tensor) -> Features:
        images = images.expand(-1, 3, -1, -1).float().div(255)
        images = interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        logits = self.network((images - self.mean) / self.std)
        return Features(self._features.flatten(1), logits)


class Custom(Extractor):
    """A network of one's own: uint8 RGB images (N, 3, H, W) to features (N, D).

    Args:
        network: The network.
    """

    resize = "by the network itself"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Features:
        return Features(self.network(images.expand(-1, 3, -1, -1)).flatten(1), None)


def create(features: str | nn.Module, weights: str | None) -> Extractor:
    """The extractor that ``--score.features`` names, frozen and in eval mode.

    Args:
        features: "inception", "pixels", the name of a torchvision classifier, the class path of an nn.Module, or one.
        weights: Local file with its weights; None for the library's download.

    Raises:
        MisconfigurationException: No such extractor, or its weights are missing, unreadable or another model's.
    """
    with isolated_rng(0, torch.device("cpu")):  # a network of one's own may draw its weights: the same every time
        return _created(features, weights).requires_grad_(False).eval()


def _created(features: str | nn.Module, weights: str | None) -> Extractor:
    if weights:
        _check_exists(Path(weights))
    if isinstance(features, nn.Module):  # of which a copy is frozen
        copy = deepcopy(features)
        return copy if isinstance(copy, Extractor) else Custom(copy)
    if features == "inception":
        return Inception(weights)
    if features == "pixels":
        return Pixels()
    if "." in features:
        network = made_of(features, nn.Module, "--score.features")
        if weights:
            try:
                network.load_state_dict(read_weights(Path(weights)))
            except RuntimeError as error:
                raise _wrong_weights(Path(weights), f"--score.features={features}", error) from error
        return network if isinstance(network, Extractor) else Custom(network)
    from torchvision.models import list_models

    if features not in (names := list_models(module=__import__("torchvision").models)):
        near = ", ".join(["inception", "pixels", "classifier", *difflib.get_close_matches(features, names)])
        raise MisconfigurationException(
            f"--score.features={features} is none of {near}, another classifier of torchvision or a class path "
            "(package.module.Class)"
        )
    return Classifier(features, weights)


def fingerprint(extractor: Extractor) -> str:
    """A name for what an extractor computes: its class, all its weights and buffers, and the code of a user's own."""
    network = getattr(extractor, "network", extractor)
    found = hashlib.sha256(f"{type(network).__module__}.{type(network).__qualname__} {extractor.resize}".encode())
    if isinstance(extractor, Custom) or not type(extractor).__module__.startswith(f"{__package__}."):
        with suppress(TypeError, OSError):  # it was not made of a file
            found.update(Path(inspect.getfile(type(network))).read_bytes())
    for name, tensor in (*extractor.named_parameters(), *extractor.named_buffers()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:12]


def probe(
    extractor: Extractor, features: str | nn.Module, image_shape: tuple[int, int, int]
) -> tuple[int, bool, float]:
    """What an extractor makes of two images of a shape (C, H, W), on the CPU.

    Returns:
        The size D of a feature, whether there are logits, and the seconds that an image takes.

    Raises:
        MisconfigurationException: It does not make features (N, D) of them.
    """
    images = torch.randint(0, 256, (2, *image_shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for _ in range(2):  # the first time takes longer
        began = time.perf_counter()
        try:
            with isolated_rng(0, torch.device("cpu")), torch.no_grad():
                found, logits = extractor(images)
        except Exception as error:
            if not isinstance(extractor, Custom):
                raise
            raise MisconfigurationException(
                f"--score.features={text_of(features)} cannot look at uint8 images (N, 3, H, W): {error}"
            ) from error
        seconds = (time.perf_counter() - began) / len(images)
    if found.ndim != 2 or len(found) != len(images) or found.is_complex() or not found.numel():
        raise MisconfigurationException(
            f"--score.features={text_of(features)} must turn images (N, 3, H, W) into features (N, D); of "
            f"{len(images)} images it made {tuple(found.shape)}, {str(found.dtype).removeprefix('torch.')}"
        )
    if torch.equal(found[0], found[1]) or not found.isfinite().all():
        raise MisconfigurationException(
            f"--score.features={text_of(features)} must tell images apart: of two random ones it made "
            f"{'the same features' if found.isfinite().all() else 'features that are not finite numbers'}"
        )
    return found.shape[1], logits is not None, seconds


def text_of(features: str | nn.Module) -> str:
    """Features as they are named in settings: what a module's class is called, if they are one."""
    return features if isinstance(features, str) else f"{type(features).__module__}.{type(features).__qualname__}"


def name_of(features: str | nn.Module) -> str:
    """Short name of an extractor, for the names of scores."""
    return text_of(features).rpartition(".")[2].lower()


def pretrained(
    name: str, weights: str | None, network: str, option: str = "--score.weights", instead: str = INSTEAD
) -> nn.Module:
    """A classifier of torchvision's with trained weights.

    Args:
        name: The name in torchvision.models.
        weights: File with the weights (a state_dict); by default torchvision's best are downloaded.
        network: What asks for this classifier on the command line, for error messages, as are the next two.
        option: What names the file there.
        instead: What can be done without weights.

    Raises:
        MisconfigurationException: The weights are missing, unreadable or another model's.
    """
    from torchvision.models import get_model, get_model_weights

    if not weights:
        default = get_model_weights(name).DEFAULT
        try:
            return get_model(name, weights=default)
        except (URLError, OSError, RuntimeError) as error:
            raise _no_weights(Path(default.url).name, default.url, option, instead) from error
    model = get_model(name, weights=None)
    try:
        model.load_state_dict(read_weights(Path(weights), option))
    except RuntimeError as error:
        raise _wrong_weights(Path(weights), network, error, option) from error
    return model


def read_weights(path: Path, option: str = "--score.weights") -> dict[str, Any]:
    """A file of tensors by name, which ``option`` names; whatever else it holds is refused unread.

    Raises:
        MisconfigurationException: There is no such file, or it holds something else.
    """
    _check_exists(path, option)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are not its own
        raise MisconfigurationException(
            f"{option}={path} is not a file of weights that torch can load safely: give a saved state_dict"
        ) from error


def made_of(class_path: str, base: type[T], option: str) -> T:
    """An object of a class on ``base``, which ``option`` names by its path.

    Raises:
        MisconfigurationException: There is no such class, or it cannot be made without arguments.
    """
    module, _, name = class_path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the code there leads to
        raise MisconfigurationException(f"{option}={class_path} cannot be imported: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, base)):
        kind = f"{base.__module__.removesuffix('.modules.module')}.{base.__name__}"
        raise MisconfigurationException(f"{option}={class_path} is not a {kind} class")
    try:
        return cls()
    except Exception as error:
        raise MisconfigurationException(f"{option}={class_path} cannot be made without arguments: {error}") from error


def _downloaded_inception() -> Path:
    """The published weights, from torch's cache or the network, with their checksum verified."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(INCEPTION_URL, str(path), hash_prefix="6726825d")
        except (URLError, OSError, RuntimeError) as error:
            raise _no_weights(INCEPTION_FILE, INCEPTION_URL, "--score.weights", INSTEAD) from error
    return path


def _check_exists(path: Path, option: str = "--score.weights") -> None:
    if not path.is_file():
        raise MisconfigurationException(f"{option}={path} does not exist: give the file with the weights")


def _no_weights(file: str, url: str, option: str, instead: str) -> MisconfigurationException:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return MisconfigurationException(
        f"The weights {file} cannot be downloaded here: put the file from {url} into {folder}, name it with "
        f"{option}=PATH, or {instead}"
    )


def _wrong_weights(
    path: Path, network: str, error: Exception, option: str = "--score.weights"
) -> MisconfigurationException:
    first = str(error).strip().splitlines()[min(1, len(str(error).strip().splitlines()) - 1)].strip()
    return MisconfigurationException(f"{option}={path} does not fit {network}: {first[:200]}")
