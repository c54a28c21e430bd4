"""What each verb imports: sampling and looking at files need no torch and no tensorboard."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TinyRun, python
from tests.training.helpers import OPTIMIZERS

RUN = """
import contextlib, io, sys
from charlm.cli import main

with contextlib.redirect_stdout(io.StringIO()):
    try:
        status = main(sys.argv[1:])
    except SystemExit as ending:  # --help
        status = ending.code
heavy = {"torch", "tensorboard", "numpy", "pydantic", "yaml", "tqdm", "pooch", "safetensors"}
heavy |= {"torch._dynamo"}
print(status, *sorted(heavy & set(sys.modules)))
"""
SMALL = {"numpy", "pydantic", "yaml"}
TRAINING = SMALL | {"torch", "tensorboard", "tqdm", "safetensors"}  # and no compiler of PyTorch's


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        ("", set()),
        ("--help", set()),
        ("--version", set()),
        ("help sample", set()),
        ("sample --help", set()),
        ("train --help", set()),
        ("train --help-settings", SMALL - {"numpy"}),
        ("data list", set()),
        ("config schema", SMALL - {"numpy"}),
        ("info RUN", SMALL | {"safetensors"}),
        ("runs RUN", SMALL),
        ("compare RUN RUN --json", SMALL),
        ("sample RUN --engine numpy --length 5", SMALL | {"safetensors"}),
        ("sample RUN --length 5", SMALL | {"safetensors"}),
        ("sample RUN --num-samples 9 --format jsonl --score", SMALL | {"safetensors"}),
        ("data stats TEXT", SMALL),
        *((f"train TEXT --optimizer {it} --steps 1 --out OUT", TRAINING) for it in OPTIMIZERS),
    ],
)
def test_a_verb_imports_what_it_needs_and_no_more(
    command: str, allowed: set[str], tiny_run: TinyRun, tiny_text: Path, tmp_path: Path
) -> None:
    places = {"RUN": str(tiny_run("lstm")), "TEXT": str(tiny_text), "OUT": str(tmp_path)}
    for _ in range(1 + command.startswith("data stats")):  # the first call measures with torch
        ended = python("-c", RUN, *(places.get(word, word) for word in command.split()))
    assert ended.returncode == 0, ended.stderr
    status, *imported = ended.stdout.split()
    assert status == "0", ended.stderr
    assert set(imported) <= allowed
