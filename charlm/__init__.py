"""charlm: train character-level language models, sample from them, and look inside."""

__version__ = "0.1.0"
