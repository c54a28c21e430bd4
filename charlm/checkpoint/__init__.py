"""Checkpoint files: the format, and how they are found, read and written."""
