"""What a user asks to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from charlm.config import Config


@dataclass(frozen=True)
class Request:
    """What a user asks to train.

    Attributes:
        config: all settings. None chooses them for the text, or takes those of the run to resume.
        data: the paths of the text. With a config, they are in it already.
        minutes: how long to train with chosen settings, or how much longer to train the run to
            resume. None for what the settings say.
        overrides: `KEY=VALUE` settings. They change chosen settings and those of a run to resume.
        name: of the run; None for the name of the config or of the text.
        out: the folder of the run folders.
        resume: continue a run: that in the folder `run`, else that of the name, else the newest.
        init_from: a checkpoint whose weights to start with.
    """

    config: Config | None = None
    data: tuple[str, ...] = ()
    minutes: float | None = None
    overrides: Sequence[str] = ()
    name: str | None = None
    out: Path = Path("checkpoints")
    device: str = "auto"
    resume: bool = False
    run: Path | None = None
    init_from: Path | None = None
