"""Run the code of the lessons in docs/learn, and write their outputs and figures."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pictures

LEARN = Path(__file__).resolve().parents[1] / "docs" / "learn"
# a block of Python, and what it prints, if anything
CODE = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def lessons() -> list[Path]:
    """The lessons, in their order."""
    return sorted(LEARN.glob("[1-9]-*.md"))


def run(lesson: Path) -> tuple[str, str]:
    """Run the blocks of Python of a lesson one after the other, in one namespace.

    Returns:
        The lesson with what the blocks print now, and its figure.
    """
    names: dict[str, Any] = {}

    def with_output(found: re.Match[str]) -> str:
        code = found[1]
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(code, f"{lesson.name}: {code.splitlines()[0]}", "exec"), names)
        printed = f"\n```text\n{out.getvalue()}```\n" if out.getvalue() else ""
        return f"```python\n{code}```\n{printed}"

    text = CODE.sub(with_output, lesson.read_text(encoding="utf-8"))
    return text, pictures.PICTURES[lesson.stem](names)


def main() -> int:
    """Run all lessons. Returns 1 if one differs with --check."""
    parser = argparse.ArgumentParser(prog="scripts/figures", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if one differs")
    parser.add_argument("lesson", nargs="*", help="numbers of lessons, such as 4 (all)")
    options, differ = parser.parse_args(), False
    for lesson in lessons():
        if options.lesson and lesson.name[0] not in options.lesson:
            continue
        for path, new in zip((lesson, lesson.with_suffix(".svg")), run(lesson), strict=True):
            same = path.exists() and path.read_text(encoding="utf-8") == new
            differ |= not same
            print(f"{path.name}: {'same' if same else 'differs' if options.check else 'written'}")
            if not options.check:
                path.write_text(new, encoding="utf-8")
    return int(differ and options.check)


if __name__ == "__main__":
    raise SystemExit(main())
