"""What several test files need."""

import copy
import functools
import importlib
import os
from collections.abc import Callable, Iterator
from math import sqrt
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning
import pytest
import torch
from lightning.fabric.utilities import registry
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

import gans
from callbacks.threads import cores
from command_line import forks
from gans.training.adversarial import AnyLoss
from gans.training.module import GANModule
from gans.training.noise import Sampler
from gans.training.translation import Translator

os.environ["OMP_NUM_THREADS"] = "1"  # for all processes that tests start
torch.set_num_threads(1)  # small networks gain nothing by more, and a process that forks must have no others

# Every Trainer looks through all packages that are installed, which stay the same.
registry.entry_points = functools.cache(registry.entry_points)

BENCHMARKS = Path(__file__).parent / "benchmarks"
CLASSES = 3
EVERY = [getattr(gans, name) for name in gans.__all__]
ALL_GANS = [cls for cls in EVERY if issubclass(cls, Sampler)]
TRANSLATORS = [cls for cls in EVERY if issubclass(cls, Translator)]


def smallest(cls: type[GANModule], **kwargs: Any) -> GANModule:
    """The smallest sensible model of a class: it and its bases say how small in ``smallest``."""
    settings: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        settings |= vars(base).get("smallest", {})
    return cls(**settings | kwargs)


small = small_translator = smallest


def lively(model: GANModule) -> GANModule:
    """The model with weights whose images use the whole range, and statistics of batch norm that are none's default."""
    with torch.no_grad():
        for weight in model.generator.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 1.5 / sqrt(weight[0].numel()))
        for name, buffer in model.generator.named_buffers():
            if name.endswith(("running_mean", "w_mean")):
                buffer.normal_(0, 0.3)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="session")
def scripts() -> Callable[[str], ModuleType]:
    """The benchmarks' scripts by name; they lie beside each other and in no package."""

    def imported(name: str) -> ModuleType:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(BENCHMARKS))
            return importlib.import_module(name)

    return imported


def losses(module: GANModule) -> list[tuple[Callable[[Any], Any], dict[str, Any], dict[str, Any]]]:
    """A model's losses, each with the networks that it trains by name, and the others."""
    every = {player: getattr(module, player) for player in module.players}
    return [
        (
            getattr(module, name),
            {player: every[player] for player in trained},
            {player: network for player, network in every.items() if player not in trained},
        )
        for name, trained in module.updates.items()
    ]


def images(n: int = 32, shape: tuple[int, int, int] = (1, 16, 16), seed: int = 0) -> torch.Tensor:
    """n random images in [-1, 1]."""
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def batch(n: int = 32, shape: tuple[int, int, int] = (1, 16, 16)) -> tuple[torch.Tensor, torch.Tensor]:
    """n random images and their classes."""
    return images(n, shape), torch.arange(n) % CLASSES


def batch_for(module: GANModule, n: int = 8) -> Any:
    """n random images with what a model's data has beside them, as its ``takes``, ``shapes`` and ``labels`` say."""
    seeds = range(len(module.shapes) - 1, -1, -1)
    first, *others = [images(n, shape, seed) for shape, seed in zip(module.shapes, seeds, strict=True)]
    count, attributes = module.labels
    if others:
        return first, *others
    if attributes:
        return first, (torch.arange(n)[:, None] >> torch.arange(count)) % 2
    return first, torch.arange(n) % (count or CLASSES)


translator_batch = batch_for


def double(data: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Images in double precision, and labels as they are."""
    return tuple(part.double() if part.is_floating_point() else part for part in data)


def fit(
    module: LightningModule, data: Any = None, batch_size: int = 4, ckpt_path: Any = None, **kwargs: Any
) -> Trainer:
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
    trainer.fit(module, loader, ckpt_path=ckpt_path, weights_only=None if ckpt_path is None else True)
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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """``-n auto``: a worker a core, of which each takes a gigabyte."""
    return max(1, min(8, int(cores())))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    lightning.seed_everything(0, verbose=False)


@pytest.fixture
def forking() -> Iterator[dict[str, str]]:
    """Variables for ``start`` and ``run_train`` with which all that it starts is forked from one server, too."""
    with forks() as variables:
        yield variables


@pytest.fixture(params=ALL_GANS, ids=lambda cls: cls.__name__)
def gan(request: pytest.FixtureRequest) -> Callable[..., GANModule]:
    """Every registered GAN in turn, as a function from keyword arguments to a small model."""
    return lambda **kwargs: small(request.param, **kwargs)


@pytest.fixture(params=TRANSLATORS, ids=lambda cls: cls.__name__)
def translator(request: pytest.FixtureRequest) -> Callable[..., Translator]:
    """Every registered GAN that turns images into images, as a function from keyword arguments to a small model."""
    return lambda **kwargs: small_translator(request.param, **kwargs)


@pytest.fixture(params=EVERY, ids=lambda cls: cls.__name__)
def any_gan(request: pytest.FixtureRequest) -> Callable[..., GANModule]:
    """Every registered GAN in turn, as a function from keyword arguments to a small model."""
    return lambda **kwargs: smallest(request.param, **kwargs)


@pytest.fixture(params=[cls for cls in EVERY if issubclass(cls, AnyLoss)], ids=lambda cls: cls.__name__)
def adversary(request: pytest.FixtureRequest) -> Callable[..., AnyLoss]:
    """Every registered GAN that takes any adversarial loss, as a function from keyword arguments to a small model."""
    return lambda **kwargs: smallest(request.param, **kwargs)
