"""What papers build on: how a GAN is trained, kept and gone on with."""

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from gans.training.adversarial import AdversarialModule, AnyLoss, together
from gans.training.batches import images_of
from gans.training.module import GANModule
from gans.training.noise import NoiseGAN, Sampler
from gans.training.optimizers import Adam, LinearDecay
from gans.training.translation import CyclicTranslator, Translator
from gans.training.update import Loss, frozen

__all__ = [
    "Adam",
    "AdversarialModule",
    "AnyLoss",
    "CyclicTranslator",
    "GANModule",
    "LRSchedulerCallable",
    "LinearDecay",
    "Loss",
    "NoiseGAN",
    "OptimizerCallable",
    "Sampler",
    "Translator",
    "frozen",
    "images_of",
    "together",
]
