"""MNIST: 60,000 training and 10,000 test images of handwritten digits, grey, 28x28 (LeCun et al., 1998)."""

from datamodules.images.downloads import TorchvisionDataModule


class MNIST(TorchvisionDataModule):
    """Handwritten digits, downloaded by torchvision or found as ``DATA_DIR/MNIST/raw/*-ubyte``."""

    channels = 1
    class_names = tuple("0123456789")
    source = "MNIST"
    pattern = "MNIST/raw/*-ubyte"
    archive = "{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz"
    url = "https://ossci-datasets.s3.amazonaws.com/mnist/"
