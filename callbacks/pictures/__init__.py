"""How pictures are drawn and written."""
