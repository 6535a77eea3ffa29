"""The folder of a run: its name, settings, files."""
