"""Fashion-MNIST: 60,000 training and 10,000 test images of clothes, grey, 28x28 (Xiao et al., 1708.07747)."""

from datamodules.images.downloads import TorchvisionDataModule


class FashionMNIST(TorchvisionDataModule):
    """Clothes in ten classes, downloaded by torchvision or found as ``DATA_DIR/FashionMNIST/raw/*-ubyte``."""

    channels = 1
    class_names = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
    source = "FashionMNIST"
    pattern = "FashionMNIST/raw/*-ubyte"
    archive = "{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz"
    url = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
