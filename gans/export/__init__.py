"""A trained generator for other programs: what it is called with, its files, and the way back from them."""
