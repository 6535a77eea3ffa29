"""One file a data set; nothing here knows a GAN."""

from datamodules.afhq import AFHQ
from datamodules.arrays import Arrays
from datamodules.celeba import CelebA
from datamodules.cifar10 import CIFAR10
from datamodules.cityscapes import Cityscapes
from datamodules.digits import Digits
from datamodules.facades import Facades
from datamodules.fashion_mnist import FashionMNIST
from datamodules.image_folder import ImageFolder
from datamodules.images.module import ImageBatch, ImageDataModule
from datamodules.lsun import LSUN
from datamodules.mnist import MNIST
from datamodules.monet2photo import Monet2Photo
from datamodules.pairs import PairedFolder
from datamodules.restoration import Restoration
from datamodules.super_resolution import SuperResolution
from datamodules.unpaired import UnpairedFolder

__all__ = [
    "AFHQ",
    "CIFAR10",
    "LSUN",
    "MNIST",
    "Arrays",
    "CelebA",
    "Cityscapes",
    "Digits",
    "Facades",
    "FashionMNIST",
    "ImageBatch",
    "ImageDataModule",
    "ImageFolder",
    "Monet2Photo",
    "PairedFolder",
    "Restoration",
    "SuperResolution",
    "UnpairedFolder",
]
