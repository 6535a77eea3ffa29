"""Pictures, averaging, checkpoints and scores; nothing here knows a particular GAN or data set."""

from callbacks.checkpoints import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint
from callbacks.ema import EMA
from callbacks.metrics_file import MetricsFile
from callbacks.progress import Progress
from callbacks.samples import ImageWriter, Samples
from callbacks.scores import Score

__all__ = [
    "EMA",
    "AtomicCheckpointIO",
    "BestCheckpoint",
    "ImageWriter",
    "LastCheckpoint",
    "MetricsFile",
    "Progress",
    "Samples",
    "Score",
]
