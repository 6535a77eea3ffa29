"""Pictures, averaging, checkpoints and scores; nothing here knows a particular GAN or data set."""

from lightning.pytorch import Callback

from callbacks.budget import Budget
from callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from callbacks.compute import Compute
from callbacks.ema import EMA
from callbacks.health import Health, TrainingDiverged
from callbacks.image_writer import ImageWriter
from callbacks.neighbors import Neighbors
from callbacks.progress import Progress
from callbacks.quality import Quality
from callbacks.runs.files import AtomicCheckpointIO
from callbacks.runs.metrics_file import MetricsFile
from callbacks.samples import Samples
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

SECTIONS: dict[str, type[Callback]] = {  # EMA before whatever looks at what it averages, the last checkpoint last
    "ema": EMA,
    "samples": Samples,
    "views": Views,
    "score": Score,
    "quality": Quality,
    "health": Health,
    "neighbors": Neighbors,
    "budget": Budget,
    "best": BestCheckpoint,
    "last": LastCheckpoint,
}
"""Those of every run of the command line, by the key of their settings."""
