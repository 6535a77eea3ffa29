"""Many runs: what sets them apart and how they came out, and how a file of settings becomes many runs."""

from callbacks.studies.comparison import compare

__all__ = ["compare"]
