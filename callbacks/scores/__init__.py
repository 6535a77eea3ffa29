"""What scores are computed with: metrics, features, distances, the pass over images; and scores without a Trainer."""

from callbacks.scores.compare import score
from callbacks.scores.metrics import Metric

__all__ = ["Metric", "score"]
