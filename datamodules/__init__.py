"""One file a data set; nothing here knows a GAN."""

from datamodules.base import ImageBatch, ImageDataModule
from datamodules.cifar10 import CIFAR10
from datamodules.digits import Digits
from datamodules.fashion_mnist import FashionMNIST
from datamodules.image_folder import ImageFolder
from datamodules.mnist import MNIST

__all__ = ["CIFAR10", "MNIST", "Digits", "FashionMNIST", "ImageBatch", "ImageDataModule", "ImageFolder"]
