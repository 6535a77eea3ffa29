"""CIFAR-10: 50,000 training and 10,000 test photographs in ten classes, 32x32 (Krizhevsky, 2009)."""

from datamodules.images.downloads import TorchvisionDataModule


class CIFAR10(TorchvisionDataModule):
    """Small photographs, downloaded by torchvision or found as ``DATA_DIR/cifar-10-batches-py/*``."""

    channels = 3
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    source = "CIFAR10"
    pattern = "cifar-10-batches-py/*_batch*"
    archive = "the files of cifar-10-python.tar.gz"
    url = "https://www.cs.toronto.edu/~kriz/"
