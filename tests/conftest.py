"""What several test files need."""

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

import gans
from gans.training.module import AdversarialModule
from gans.training.noise import NoiseGAN
from gans.training.translation import Translator

CLASSES = 3
ALL_GANS = [cls for cls in (getattr(gans, name) for name in gans.__all__) if issubclass(cls, NoiseGAN)]
TRANSLATORS = [cls for cls in (getattr(gans, name) for name in gans.__all__) if issubclass(cls, Translator)]
EVERY = [*ALL_GANS, *TRANSLATORS]


def small(cls: type[AdversarialModule], **kwargs: Any) -> AdversarialModule:
    """The smallest sensible model of a class, for 16x16 grey images; every registered GAN accepts these arguments."""
    sizes = {"width": 4, "hidden": 16, "latent_dim": 8, "num_classes": CLASSES}
    accepted = {name for c in cls.__mro__ for name in inspect.signature(c.__init__).parameters}
    sizes = {name: value for name, value in sizes.items() if name in accepted}
    return cls(**{"image_shape": (1, 16, 16)} | sizes | kwargs)


def images(n: int = 32, shape: tuple[int, int, int] = (1, 16, 16), seed: int = 0) -> torch.Tensor:
    """n random images in [-1, 1]."""
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def batch(n: int = 32, shape: tuple[int, int, int] = (1, 16, 16)) -> tuple[torch.Tensor, torch.Tensor]:
    """n random images and their classes."""
    return images(n, shape), torch.arange(n) % CLASSES


def small_translator(cls: type[Translator], **kwargs: Any) -> Translator:
    """The smallest sensible model of a class, for 32x32 grey images (enlarged from 8x8 in super-resolution)."""
    sizes: dict[str, Any] = {
        "width": 4,
        "blocks": 1,
        "domains": tuple("abc"),
        "discriminator_width": 4,
        "content": "mse",
    }
    accepted = {name for c in cls.__mro__ for name in inspect.signature(c.__init__).parameters}
    sizes = {name: value for name, value in sizes.items() if name in accepted}
    return cls(**{"image_shape": (1, 32, 32)} | sizes | kwargs)


def translator_batch(module: Translator, n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """n random images with what the model's data has beside them: targets, images of another domain, or domains."""
    if hasattr(module, "domains"):
        return images(n, module.image_shape), torch.arange(n) % len(module.domains)
    scale = getattr(module, "scale", 1)
    channels, height, width = module.image_shape
    return images(n, (channels, height // scale, width // scale), seed=1), images(n, module.image_shape)


def smallest(cls: type[AdversarialModule], **kwargs: Any) -> AdversarialModule:
    """The smallest sensible model of any class."""
    return (small if cls in ALL_GANS else small_translator)(cls, **kwargs)


def batch_for(module: AdversarialModule, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """n random images with what a small model of any class has beside them."""
    return translator_batch(module, n) if isinstance(module, Translator) else batch(n)


def double(data: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Images in double precision, and labels as they are."""
    return tuple(part.double() if part.is_floating_point() else part for part in data)


def fit(module: LightningModule, data: Any = None, batch_size: int = 4, **kwargs: Any) -> Trainer:
    """Train on images, with labels or without (random ones with labels by default), in order; returns the trainer."""
    data = batch() if data is None else data
    loader = DataLoader(TensorDataset(*data) if isinstance(data, tuple) else data, batch_size=batch_size)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "max_epochs": -1 if "max_steps" in kwargs else 1,
    }
    trainer = Trainer(**quiet | kwargs)
    trainer.fit(module, loader)
    return trainer


def sgd(lr: float) -> Callable[[Any], torch.optim.SGD]:
    """Gradient descent, as a constructor of optimizers; with a rate of 0 it moves nothing."""
    return lambda p: torch.optim.SGD(p, lr=lr)


def state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all weights and buffers."""
    return copy.deepcopy(network.state_dict())


def changed(before: dict[str, torch.Tensor], network: torch.nn.Module) -> set[str]:
    """Names of the weights and buffers that are others than before."""
    return {key for key, value in network.state_dict().items() if not torch.equal(before[key], value)}


class Generator:
    """Stands in for the generator of a device that this machine lacks; its state is the last seed."""

    def __init__(self) -> None:
        self.state = torch.zeros(1, dtype=torch.uint8)

    def seed(self, seed: int) -> None:
        self.state = torch.tensor([seed % 256], dtype=torch.uint8)

    def get(self, device: Any) -> torch.Tensor:
        return self.state

    def set(self, state: torch.Tensor, device: Any) -> None:
        self.state = state


def pretend_generator(kind: str, monkeypatch: pytest.MonkeyPatch) -> Generator:
    """Let torch seed, read and set a generator for devices of a kind ("cuda", "mps", "xpu") that are not there."""
    generator, module = Generator(), torch.get_device_module(kind)
    monkeypatch.setattr(module, "_is_in_bad_fork", lambda: False)
    monkeypatch.setattr(module, "manual_seed" if kind == "mps" else "manual_seed_all", generator.seed)
    monkeypatch.setattr(module, "get_rng_state", generator.get)
    monkeypatch.setattr(module, "set_rng_state", generator.set)
    return generator


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    lightning.seed_everything(0, verbose=False)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For tests that fork: OpenMP's other threads do not come along, and the child would wait for them for ever."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=ALL_GANS, ids=lambda cls: cls.__name__)
def gan(request: pytest.FixtureRequest) -> Callable[..., AdversarialModule]:
    """Every registered GAN in turn, as a function from keyword arguments to a small model."""
    return lambda **kwargs: small(request.param, **kwargs)


@pytest.fixture(params=TRANSLATORS, ids=lambda cls: cls.__name__)
def translator(request: pytest.FixtureRequest) -> Callable[..., Translator]:
    """Every registered GAN that turns images into images, as a function from keyword arguments to a small model."""
    return lambda **kwargs: small_translator(request.param, **kwargs)
