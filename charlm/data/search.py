"""Searches folders: the files in a folder, and the files that a glob matches.

One rule for both: links to files are followed; links to folders are followed only if a part of the
path without wildcards names them. So a search always ends.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from charlm.config import DataConfig
from charlm.errors import DataError


@dataclass
class Found:
    """The result of a search.

    Attributes:
        files: The paths that are not folders, sorted.
        links: Links to folders that were not followed, sorted.
    """

    files: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)

    @property
    def skipped(self) -> str:
        """A sentence about the links, or an empty string."""
        if not self.links:
            return ""
        return (
            f"links to folders are not followed ({len(self.links):,}, such as {self.links[0]}); "
            "to read one, name it in data.path"
        )


def search_folder(root: Path, data: DataConfig) -> Found:
    """The files of a folder that `data.include` and `data.exclude` select, without hidden files.

    Raises:
        DataError: There is no such file, or a folder cannot be read.
    """
    included, excluded = _any_of(data.include), _any_of(data.exclude)
    found = _search(root, ["**"], lambda name: _matches(name, excluded))
    n_files = len(found.files)
    if data.include:
        found.files = [
            path for path in found.files if _matches(path.relative_to(root).as_posix(), included)
        ]
    if not found.files:
        among = f" among its {n_files:,} files that are not hidden" if n_files else ""
        patterns = " that data.include and data.exclude select" * bool(data.include or data.exclude)
        skipped = f"; {found.skipped}" if found.links else ""
        raise DataError(f"{root}: this folder has no text{patterns}{among}{skipped}")
    return found


def search_glob(pattern: Path, data: DataConfig) -> Found:
    """The files that match a glob, and that `data.exclude` does not leave out.

    The names of folders before the first wildcard are not compared with `data.exclude`.

    Raises:
        DataError: There is no such file, or a folder cannot be read.
    """
    first = next(i for i, part in enumerate(pattern.parts) if glob.has_magic(part))
    root, excluded = Path(*pattern.parts[:first]), _any_of(data.exclude)
    left_out = []

    def is_excluded(name: str) -> bool:
        if matches := _matches(name, excluded) or bool(excluded.match(str(root / name))):
            left_out.append(name)
        return matches

    found = _search(root, pattern.parts[first:], is_excluded) if root.is_dir() else Found()
    if not found.files:
        but = ", except files that data.exclude leaves out" * bool(left_out)
        skipped = f"; {found.skipped}" if found.links else ""
        raise DataError(f"{pattern}: no file matches this pattern{but}{skipped}")
    return found


def _search(root: Path, parts: Sequence[str], is_excluded: Callable[[str], bool]) -> Found:
    """Search a folder for files.

    Args:
        root: The folder.
        parts: The parts of a glob below the folder.
        is_excluded: Whether a path below the folder is left out. Such a folder is not entered.
    """
    pattern, found = _Pattern(parts), Found()
    pending = [("", pattern.start)]
    while pending:
        above, state = pending.pop()
        try:
            with os.scandir(root / above) as entries:
                for entry in entries:
                    name, after = above + entry.name, pattern.step(state, entry.name)
                    if not after or is_excluded(name):
                        continue
                    if not entry.is_dir():
                        found.files += [root / name] * (pattern.end in after)
                        continue
                    inside = after - {pattern.end}
                    if entry.is_symlink():
                        named = pattern.step(state, entry.name, only_literal=True) - {pattern.end}
                        found.links += [root / name] * (inside > named)
                        inside = named
                    if inside:
                        pending.append((f"{name}/", inside))
        except OSError as error:
            hint = "; make it readable, or leave it out with data.exclude" * bool(above)
            reason = f"cannot read this folder: {error.strerror}{hint}"
            raise DataError(f"{root / above}: {reason}") from error
    return Found(sorted(found.files), sorted(found.links))


class _Pattern:
    """A glob that is matched name by name. `**` stands for any folders that are not hidden.

    A state is the set of parts that may match the next name. `end` in it means that all matched.
    """

    def __init__(self, parts: Sequence[str]) -> None:
        pairs = zip(parts, ["", *parts], strict=False)
        self._parts = [part for part, before in pairs if not part == before == "**"]
        self._compiled = [re.compile(fnmatch.translate(part)) for part in self._parts]
        self.end = len(self._parts)
        self.start = self._from(0)

    def step(self, state: set[int], name: str, only_literal: bool = False) -> set[int]:
        """The state after one more name; if `only_literal`, through parts without wildcards."""
        after = set()
        for i in state - {self.end}:
            part = self._parts[i]
            if name.startswith(".") and not part.startswith("."):
                continue
            if self._compiled[i].match(name) and not (only_literal and glob.has_magic(part)):
                after |= self._from(i if part == "**" else i + 1)
        return after

    def _from(self, i: int) -> set[int]:
        return {i, i + 1} if i < self.end and self._parts[i] == "**" else {i}


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    """One regular expression for all the patterns. Without a pattern it matches nothing."""
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)")


def _matches(name: str, pattern: re.Pattern[str]) -> bool:
    """Whether a pattern matches the file or a folder above it, by name or by whole path."""
    while name:
        above, _, last = name.rpartition("/")
        if pattern.match(name) or pattern.match(last):
            return True
        name = above
    return False
