"""The version of charlm; setuptools reads it too."""

__version__ = "0.1.0"
