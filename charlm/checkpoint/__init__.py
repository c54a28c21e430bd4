"""The checkpoint file: its format, and finding, reading and writing it."""
