"""Links, pipes and other special files for scripts/faults hostile, and a folder that must stay."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

NAMES = ("facts.json", "facts.json.tmp", "ids.bin", "ids.narrow", "starts.bin", "shuffled")


class Elsewhere:
    """A folder that does not belong to charlm, with names as charlm gives them.

    Its files must stay as they are, for any input of charlm.
    """

    def __init__(self, place: Path) -> None:
        self.folder = place / "elsewhere"
        self.folder.mkdir()
        for name in (*NAMES, "last.safetensors", "precious.txt"):
            (self.folder / name).write_text(f"{name} is precious.\n" * 50)
        self.fifo = place / "fifo"
        os.mkfifo(self.fifo)
        self._before = self._state()

    def _state(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def damage(self) -> str | None:
        """What has changed; None if nothing has."""
        try:
            now = self._state()
        except OSError as error:
            return str(error)
        changed = [name for name in now | self._before if now.get(name) != self._before.get(name)]
        return f"changed or deleted: {changed}" if changed else None


def _fifo(path: Path, _elsewhere: Elsewhere) -> None:
    os.mkfifo(path)


def _folder(path: Path, _elsewhere: Elsewhere) -> None:
    path.mkdir()


def _empty(path: Path, _elsewhere: Elsewhere) -> None:
    path.touch()


def _unreadable(path: Path, _elsewhere: Elsewhere) -> None:
    path.touch(mode=0)


def _loop(path: Path, _elsewhere: Elsewhere) -> None:
    path.symlink_to(path.name)


def _dangling(path: Path, _elsewhere: Elsewhere) -> None:
    path.symlink_to("nowhere")


def _endless(path: Path, _elsewhere: Elsewhere) -> None:
    path.symlink_to("/dev/zero")


def _null(path: Path, _elsewhere: Elsewhere) -> None:
    path.symlink_to("/dev/null")


def _link_to_file(path: Path, elsewhere: Elsewhere) -> None:
    path.symlink_to(elsewhere.folder / "precious.txt")


def _link_to_folder(path: Path, elsewhere: Elsewhere) -> None:
    path.symlink_to(elsewhere.folder)


def _sparse(path: Path, _elsewhere: Elsewhere) -> None:
    with path.open("wb") as file:
        file.truncate(5 * 2**30)


def _sparse_header(path: Path, _elsewhere: Elsewhere) -> None:
    """A header of 4 GB in a sparse file."""
    with path.open("wb") as file:
        file.write((2**32).to_bytes(8, "little") + b'{"__metadata__":{')
        file.truncate(5 * 2**30)


_KINDS: tuple[Callable[[Path, Elsewhere], None], ...] = (
    *(_fifo, _folder, _empty, _unreadable, _loop, _dangling, _endless, _null),
    *(_link_to_file, _link_to_folder, _sparse, _sparse_header),
)


def replace_by_another_kind(rng: random.Random, path: Path, elsewhere: Elsewhere) -> str:
    """Replace a file or folder by another kind of file; returns which kind."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    kind = rng.choice(_KINDS)
    kind(path, elsewhere)
    return kind.__name__.strip("_").replace("_", " ")
