"""One file a paper; each paper's LightningModule is listed here."""

from gans.acgan import ACGAN
from gans.cgan import CGAN, ConvolutionalCGAN
from gans.cut import CUT
from gans.cyclegan import CycleGAN
from gans.dcgan import DCGAN
from gans.discogan import DiscoGAN
from gans.gan import GAN
from gans.infogan import InfoGAN
from gans.lsgan import LSGAN
from gans.parts import losses as losses
from gans.parts import penalties as penalties
from gans.pix2pix import Pix2Pix
from gans.r3gan import R3GAN
from gans.realness_gan import RealnessGAN
from gans.restoration import RestorationGAN
from gans.sagan import SAGAN
from gans.srgan import SRGAN, SRResNet
from gans.stargan import StarGAN
from gans.style_dcgan import StyleDCGAN
from gans.stylegan import StyleGAN
from gans.training import optimizers as optimizers
from gans.training.checkpoints import from_export as from_export
from gans.training.checkpoints import load_to_sample as load_to_sample
from gans.training.checkpoints import load_to_train as load_to_train
from gans.wgan import WGAN
from gans.wgan_gp import WGANGP

__all__ = [
    "ACGAN",
    "CGAN",
    "CUT",
    "DCGAN",
    "GAN",
    "LSGAN",
    "R3GAN",
    "SAGAN",
    "SRGAN",
    "WGAN",
    "WGANGP",
    "ConvolutionalCGAN",
    "CycleGAN",
    "DiscoGAN",
    "InfoGAN",
    "Pix2Pix",
    "RealnessGAN",
    "RestorationGAN",
    "SRResNet",
    "StarGAN",
    "StyleDCGAN",
    "StyleGAN",
]
