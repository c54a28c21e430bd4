"""The notebook docs/tour.ipynb runs from its first cell to its last."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

TOUR = ROOT / "docs" / "tour.ipynb"
MISSING = [it for it in ("nbclient", "ipykernel", "matplotlib") if not importlib.util.find_spec(it)]
RUN = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], 4)
for cell in notebook.cells:
    cell.pop("outputs", None)
NotebookClient(notebook, timeout=500, resources={"metadata": {"path": "."}}).execute()
nbformat.write(notebook, "tour.ipynb")
"""


def outputs(path: Path) -> list[str]:
    """The kinds of all outputs of a notebook, except what goes to standard error."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [
        kind
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if output.get("name") != "stderr"
        for kind in output.get("data", {output.get("name", output["output_type"]): None})
    ]


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_the_tour_runs(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    env |= {"TMPDIR": str(tmp_path / "temporary"), "IPYTHONDIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", RUN, TOUR],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    kinds = outputs(tmp_path / "tour.ipynb")
    assert kinds == outputs(TOUR)
    assert kinds.count("image/png") == 3
    assert "error" not in kinds


def test_the_tour_is_stored_with_its_outputs() -> None:
    notebook = json.loads(TOUR.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    assert "image/png" in outputs(TOUR)
