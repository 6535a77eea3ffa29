"""The most memory that training takes, for every GAN with its paper's networks and batch size.

    python tests/benchmarks/memory.py [--configs dcgan/celeba pix2pix/facades]

Each row is a shipped config with two generator updates on random images, in a process of its own: the peak on the
accelerator, or else of the process above what it had when everything was imported. SRGAN's content loss is the pixels'.
"""

import argparse
import logging
import warnings
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer
from machine import machine, resident
from torch.utils.data import DataLoader
from tqdm import tqdm

import gans
from gans import SRGAN, SRResNet, StarGAN
from gans.parts.precision import native_precision
from gans.training.translation import Translator

CONFIGS = Path(__file__).parents[2] / "configs"
OF_PAPERS = [
    "acgan/cifar10",
    "cgan/convolutional_mnist",
    "cgan/mnist",
    "cut/facades",
    "cyclegan/facades",
    "dcgan/celeba",
    "discogan/facades",
    "gan/mnist",
    "infogan/mnist",
    "lsgan/cifar10",
    "pix2pix/facades",
    "realness_gan/cifar10",
    "sagan/cifar10",
    "srgan/finetune",
    "srgan/pretrain",
    "stargan/celeba",
    "stylegan/cifar10",
    "stylegan/dcgan_mnist",
    "wgan/lsun_bedroom",
    "wgan_gp/cifar10",
]
PRECISIONS = sorted({"32-true", native_precision()})


def settings(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's and the data's part of a config."""
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    return config["model"], config["data"]


def shape(name: str) -> tuple[int, int, int, int]:
    """Images a batch, their channels, height and width."""
    data = settings(name)[1]
    size = data["init_args"].get("image_size", 96)  # SRGAN's
    return data["init_args"]["batch_size"], 1 if "MNIST" in data["class_path"] else 3, size, size


def peak(name: str, precision: str) -> float:
    """MiB."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    before = resident("VmRSS")
    model, _ = settings(name)
    cls = getattr(gans, model["class_path"].rpartition(".")[2])
    plain = {key: value for key, value in model.get("init_args", {}).items() if not isinstance(value, dict)}
    count, *image_shape = shape(name)
    images = torch.rand(count, *image_shape) * 2 - 1
    second: torch.Tensor = torch.arange(count) % 10
    if issubclass(cls, StarGAN):
        second = torch.randint(2, (count, 5))
        plain["domains"] = tuple("abcde")
    elif issubclass(cls, SRResNet):
        images, second = images[..., ::4, ::4], images
    elif issubclass(cls, Translator):
        second = images.flip(0)
    elif cls.conditional:
        plain["num_classes"] = 10
    if issubclass(cls, SRGAN):
        plain["content"] = "mse"
    if "n_critic" in plain:
        plain["n_critic"] = 1  # more updates of the critic take time, but no more memory
    module = cls(image_shape=tuple(image_shape), **plain)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_steps=2, precision=precision, **quiet)  # type: ignore[arg-type]
    trainer.fit(module, DataLoader([(images, second)] * 2, batch_size=None))
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resident("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=OF_PAPERS, choices=OF_PAPERS, metavar="CONFIG")
    options = parser.parse_args()
    print(f"{machine()}\n\n| Config | Images | Batch | {' | '.join(PRECISIONS)} |")
    print("|---" * (3 + len(PRECISIONS)) + "|")
    for name in tqdm(options.configs, desc="configs", leave=False):
        cells = []
        for precision in PRECISIONS:
            with get_context("spawn").Pool(1) as pool:  # or the peak might be another one's
                cells.append(f"{pool.apply(peak, (name, precision)) / 2**10:.2f} GiB")
        count, channels, height, width = shape(name)
        tqdm.write(f"| {name} | {height}x{width}x{channels} | {count} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
