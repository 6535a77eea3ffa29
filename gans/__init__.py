"""One file a paper; each paper's LightningModule is listed here."""

from gans.dcgan import DCGAN
from gans.gan import GAN

__all__ = ["DCGAN", "GAN"]
