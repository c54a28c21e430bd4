"""`charlm config`."""

from __future__ import annotations

import argparse

from charlm.cli.output import print_lines, print_note


def check(options: argparse.Namespace) -> int:
    """Print the resolved settings of a config."""
    from charlm.config.files import load_config, to_yaml

    print_lines(to_yaml(load_config(options.file, options.set, note=print_note)))
    return 0


def schema(_options: argparse.Namespace) -> int:
    """Print the JSON Schema of configs."""
    from charlm.config.files import to_schema

    print_lines(to_schema())
    return 0


def print_reference(_options: argparse.Namespace) -> int:
    """Print a Markdown table of all settings."""
    from charlm.config.reference import reference

    print_lines(reference())
    return 0
