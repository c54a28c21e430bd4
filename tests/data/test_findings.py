"""What is said about a text before a model is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from charlm.config import DataConfig
from charlm.data.corpus import open_corpus
from charlm.data.findings import findings

PROSE = "The fox sees a quiet sea, and the old king follows every small bird.\n\n" * 50
NAMES = "".join(f"{a}{b}{c}\n" for a in ("an", "be", "cla") for b in "bdlmr" for c in "aeiou")


def found(folder: Path, content: str | dict[str, str], **settings: Any) -> list[str]:
    files = content if isinstance(content, dict) else {"a.txt": content}
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())
    path = tuple(str(folder / name) for name in files)
    data = DataConfig.model_validate({"path": path} | settings)
    return findings(open_corpus(data), data)


def test_nothing_is_said_about_a_clean_text(tmp_path: Path) -> None:
    assert found(tmp_path, PROSE) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PROSE.replace("\n", "\r\n"), "100 CRLF line ends (\\r\\n): two characters for each line"),
        (PROSE.replace("\n", "\r"), "100 lone carriage returns (\\r): the only line ends, so the "),
        (PROSE + "a\r\n", "1 mixed line end ("),
        (PROSE + "a\rb\n", "1 lone carriage return (\\r): carriage returns without a line feed"),
    ],
)
def test_line_ends_are_named_with_the_setting_that_mends_them(
    text: str, words: str, tmp_path: Path
) -> None:
    (line,) = found(tmp_path, text)
    assert line.startswith(words)
    assert line.endswith(": data.newlines=lf")
    assert found(tmp_path, text, newlines="lf") == []
    assert found(tmp_path, text, unit="byte") == []


def test_control_characters_are_named_visibly(tmp_path: Path) -> None:
    assert found(tmp_path, PROSE + "\x1b\x1b\x07") == [
        "3 control characters (\\x1b\\x07): not text; remove them from the file"
    ]
    frequent = {"vocab_min_count": 10}  # the others are read as U+FFFD
    assert found(tmp_path, PROSE + "\x1b\x1b\x07", **frequent) == []


def test_what_a_good_text_may_have_is_not_said(tmp_path: Path) -> None:
    assert found(tmp_path, PROSE + "“curly” and 'straight'; a\u00a0space; ﬁ; cafe\u0301") == []


def test_a_list_is_recognized(tmp_path: Path) -> None:
    (line,) = found(tmp_path, NAMES)
    assert "data.documents=lines" in line
    assert found(tmp_path, NAMES, documents="lines") == []


@pytest.mark.parametrize(
    "text",
    [
        *(PROSE, PROSE.replace("\n\n", "\n"), PROSE.replace(", ", ",\n"), PROSE.replace(" ", "\n")),
        "def f(x):\n    return x\n" * 99,
        "".join(f"  {name}\n" for name in NAMES.split()),
        "".join(f"{name};\n" for name in NAMES.split()),
        NAMES[:100],  # too short to be sure
        "x\n" * 500,  # always the same
    ],
)
def test_prose_verse_and_code_are_no_lists(text: str, tmp_path: Path) -> None:
    assert found(tmp_path, text) == []


def test_of_several_files_it_is_said_which_are_held_out(tmp_path: Path) -> None:
    files = dict.fromkeys(("c.txt", "a.txt", "b.txt"), PROSE)
    last = f"3 files are joined; held out: the last 10%, from {tmp_path / 'b.txt'}"
    assert found(tmp_path, files) == [last]
    (line,) = found(tmp_path, files, val_fraction=0.3, test_fraction=0.2)
    assert line.endswith(f"the last 50%, from {tmp_path / 'a.txt'}")
    assert found(tmp_path, files, val_fraction=0) == ["3 files are joined"]
    assert found(tmp_path, files, documents="lines") == ["3 files are joined"]
    assert len(found(tmp_path, files, val_path=str(tmp_path / "a.txt"))) == 1
