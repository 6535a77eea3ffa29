"""Fashion-MNIST: 60,000 training and 10,000 test images of clothes, grey, 28x28 (Xiao et al., 1708.07747)."""

from datamodules.downloads import TorchvisionDataModule


class FashionMNIST(TorchvisionDataModule):
    """Clothes in ten classes, downloaded by torchvision or found as ``DATA_DIR/FashionMNIST/raw/*-ubyte``.

    Args:
        **kwargs: See ImageDataModule.
    """

    channels = 1
    source = "FashionMNIST"
    folder = "FashionMNIST/raw"
    url = "https://github.com/zalandoresearch/fashion-mnist"
