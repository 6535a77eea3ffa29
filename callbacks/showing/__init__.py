"""Showing a trained generator: its export for others, with a card that says what it is, and a page to try it out."""
