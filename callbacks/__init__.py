"""Pictures, averaging, checkpoints and scores; nothing here knows a particular GAN or data set."""

from callbacks.budget import Budget
from callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from callbacks.compute import Compute
from callbacks.ema import EMA
from callbacks.health import Health, TrainingDiverged
from callbacks.neighbors import Neighbors
from callbacks.progress import Progress
from callbacks.quality import Quality
from callbacks.runs.files import AtomicCheckpointIO
from callbacks.runs.metrics_file import MetricsFile
from callbacks.samples import ImageWriter, Samples
from callbacks.score import Score
from callbacks.signals import Signals, Stopped
from callbacks.threads import Threads
from callbacks.views import Views

__all__ = [
    "EMA",
    "AtomicCheckpointIO",
    "BestCheckpoint",
    "Budget",
    "Compute",
    "Health",
    "ImageWriter",
    "LastCheckpoint",
    "MetricsFile",
    "Neighbors",
    "Progress",
    "Quality",
    "Samples",
    "Score",
    "Signals",
    "Stopped",
    "Threads",
    "TrainingDiverged",
    "Views",
]
