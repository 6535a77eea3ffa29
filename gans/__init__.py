"""One file a paper; each paper's LightningModule is listed here."""

from gans.acgan import ACGAN
from gans.cgan import CGAN, ConvolutionalCGAN
from gans.dcgan import DCGAN
from gans.gan import GAN
from gans.infogan import InfoGAN
from gans.lsgan import LSGAN
from gans.realness_gan import RealnessGAN
from gans.sagan import SAGAN
from gans.stylegan import StyleDCGAN, StyleGAN
from gans.wgan import WGAN
from gans.wgan_gp import WGANGP

__all__ = [
    "ACGAN",
    "CGAN",
    "DCGAN",
    "GAN",
    "LSGAN",
    "SAGAN",
    "WGAN",
    "WGANGP",
    "ConvolutionalCGAN",
    "InfoGAN",
    "RealnessGAN",
    "StyleDCGAN",
    "StyleGAN",
]
