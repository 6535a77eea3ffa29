"""One file a data set; nothing here knows a GAN."""

from datamodules.base import ImageBatch, ImageDataModule
from datamodules.cifar10 import CIFAR10
from datamodules.digits import Digits
from datamodules.facades import Facades
from datamodules.fashion_mnist import FashionMNIST
from datamodules.image_folder import ImageFolder
from datamodules.mnist import MNIST
from datamodules.pairs import PairedFolder
from datamodules.super_resolution import SuperResolution
from datamodules.unpaired import UnpairedFolder

__all__ = [
    "CIFAR10",
    "MNIST",
    "Digits",
    "Facades",
    "FashionMNIST",
    "ImageBatch",
    "ImageDataModule",
    "ImageFolder",
    "PairedFolder",
    "SuperResolution",
    "UnpairedFolder",
]
