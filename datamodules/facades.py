"""CMP Facades: 606 photographs of facades with maps of their parts (Tyleček and Šára, 2013)."""

from datamodules.pairs import PairedFolder


class Facades(PairedFolder):
    """Facades as pix2pix's authors distribute them: photograph (A, left) and label map (B, right), 256x256 each."""
