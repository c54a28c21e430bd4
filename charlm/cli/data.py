"""`charlm data`: describe a text, list and download well-known texts."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from charlm.cli.output import print_line, print_lines, print_note, print_table
from charlm.errors import CharlmError

if TYPE_CHECKING:
    from charlm.config.suggest import Choice


def stats(options: argparse.Namespace) -> int:
    """Print a description of a text."""
    from charlm.config.files import parse_config
    from charlm.config.suggest import DEFAULT_SECONDS, suggest
    from charlm.data.stats import measure

    path = tuple(options.path)
    config = parse_config({"name": "stats", "data": {"path": path}}, options.set)
    found = measure(config.data)
    for notice in found["notices"]:
        print_note(notice)
    choices = _choices(path, found["parts"]["train"])
    found["choices"] = [
        {"minutes": seconds / 60, "n_layer": choice.n_layer, "seq_len": choice.seq_len}
        | asdict(choice)
        for seconds, choice in choices.items()
    ]
    settings = config.data.model_dump(mode="json", exclude_defaults=True)
    found["suggestion"] = suggest(path, choices[DEFAULT_SECONDS]) | {"data": settings}
    if options.json:
        print_line(json.dumps(found))
    else:
        _print_stats(found, choices)
    return 0


def _choices(path: tuple[str, ...], chars: int) -> dict[float, Choice]:
    """The settings that `charlm train` chooses, by the seconds of the run."""
    from charlm.config.files import parse_config
    from charlm.config.suggest import DEFAULT_SECONDS, LAPTOP, choose, suggest
    from charlm.training.speed import measure_speed

    kind = "lstm"
    train = parse_config(suggest(path, choose(kind, 0, 60, LAPTOP))).train
    speed = measure_speed(kind, train, "auto")
    times = (60.0, DEFAULT_SECONDS, 600.0, 3600.0)
    return {seconds: choose(kind, chars, seconds, speed) for seconds in times}


def _print_stats(found: dict[str, Any], choices: dict[float, Choice]) -> None:
    from charlm.config.suggest import describe_choice
    from charlm.config.yaml_io import write_yaml
    from charlm.data.findings import shown_chars

    units = "bytes" if found["unit"] == "byte" else "characters"
    parts = ", ".join(f"{count:,} {split}" for split, count in found["parts"].items() if count)
    rows = {
        "text": found["source"],
        "size": f"{found['chars']:,} {units} ({parts}), {found['lines']:,} line ends"
        + f", {found['utf8_bytes']:,} bytes as UTF-8" * (units == "characters"),
        "vocabulary": f"{found['distinct']:,}, most frequent first: {found['most_frequent']!r}",
    }
    for oddity in found["oddities"]:
        shown = shown_chars(oddity["chars"])
        rows[oddity["kind"]] = f"{oddity['count']:,} ({shown}): {oddity['advice']}"
    rows |= _describe_yardsticks(found["yardsticks"])
    for seconds, choice in choices.items():
        rows[f"{seconds / 60:g} min"] = f"{describe_choice(choice)}, {choice.epochs:.2g} passes" + (
            ", which take less time" * choice.enough
        )
    print_table(rows)
    print_lines("\na config to start with, with the settings for a run of 3 minutes:\n\n")
    print_lines(write_yaml(found["suggestion"]))


def _describe_yardsticks(found: dict[str, Any]) -> dict[str, str]:
    """Bits per character that a trained network should need fewer than."""
    if "entropy" not in found:
        return {}
    given = ", ".join(f"{bits:.3f}" for bits in found["entropy"])
    packed = ", ".join(f"{name} {found[name]:.3f}" for name in ("gzip", "bzip2", "xz"))
    of = f"{found['train_chars']:,} characters of the training part"
    rows = {
        "entropy": f"{given} bits/char, given the 0, 1 and 2 characters before ({of})",
        "compressed": f"{packed} bits/char ({of})",
    }
    if "ngram" in found:
        ngram = found["ngram"]
        rows["n-gram"] = (
            f"{ngram['bits_per_char']:.3f} bits/char on {found['val_chars']:,} characters of the "
            f"validation part, given the {ngram['order']} characters before"
        )
    return rows


def list_texts(_options: argparse.Namespace) -> int:
    """Print a table of well-known texts."""
    from charlm.data.library import KNOWN, corpora_folder, have

    checked = {"the file": "yes", "as published": "published", "unknown": "no"}
    rows = [("NAME", "DOWNLOADED", "BYTES", "SHA-256", "DESCRIPTION")]
    for name, known in KNOWN.items():
        size = f"{known.size:,}" if known.size else "?"
        rows.append((name, "yes" if have(name) else "-", size, checked[known.checked], known.about))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print_line("  ".join(cells).rstrip())
    print_lines(
        "\nSHA-256 for checking a download: yes: computed from the file by charlm's authors;\n"
        "published: by the publisher; no: not known, so only the length is checked.\n"
        "The addresses are those that the publishers give. They were not tested.\n"
    )
    print_line(f"charlm data fetch NAME downloads a text into {corpora_folder()}.")
    return 0


def fetch(options: argparse.Namespace) -> int:
    """Download well-known texts, and print where they are."""
    from charlm.data.download import download
    from charlm.data.library import KNOWN, corpora_folder, have

    for name in options.name:
        if name not in KNOWN:
            raise CharlmError(f"data fetch: {name} is not a known text; choose {', '.join(KNOWN)}")
    for name in options.name:
        known, path = KNOWN[name], have(name)
        if path is None:
            path = download(
                known.url,
                corpora_folder(),
                known.file,
                sha256=known.sha256,
                member=known.member,
                progress=sys.stderr.isatty(),
            )
        print_line(f"{name}: {path}")
        print_line(f"train on it: charlm train {name}")
    return 0
