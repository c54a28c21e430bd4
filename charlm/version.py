"""The version of charlm, where setuptools and all parts find it."""

__version__ = "0.1.0"
