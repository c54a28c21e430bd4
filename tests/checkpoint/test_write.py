"""An error of writing is reported in one line."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from charlm.checkpoint.write import writing
from charlm.errors import CheckpointError


@pytest.mark.parametrize("name", ["a.txt", b"a.txt", None])
@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "free disk space"), (errno.EACCES, "make it writable")]
)
def test_the_line_names_the_file_as_text(
    name: str | bytes | None, number: int, advice: str
) -> None:
    with pytest.raises(CheckpointError) as found, writing(Path("a.txt")):
        raise OSError(number, "why", name)
    line = str(found.value)
    assert line.startswith("a.txt: cannot write: why; files saved before are unchanged; ")
    assert advice in line
