"""Fixtures of the tests of the playground: a browser, and a page of each kind of model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from charlm.cli import main
from tests.conftest import TinyRun
from tests.insight.browser import Page

IDLE = "takes.every((take) => !take.unread && !take.asked && take.credit < 1)"
MadePage = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def made(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> MadePage:
    """The page of a tiny model, by its kind and the format of its weights."""
    folder = tmp_path_factory.mktemp("pages")

    @functools.cache
    def make(kind: str, weights: str) -> Path:
        out = folder / f"{kind}-{weights}.html"
        command = ("export", tiny_run(kind), "--weights", weights, "--out", out)
        assert main([str(word) for word in command]) == 0
        return out

    return make


class Playground:
    """A page that is open. `run` evaluates JavaScript in which `takes` are the takes."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self, path: Path, **settings: Any) -> None:
        """Open a page with settings in its link."""
        fragment = "&".join(f"{name}={quote(str(it))}" for name, it in settings.items())
        self.page.call("Page.navigate", url="about:blank")
        self.page.run("0")
        self.page.problems.clear()  # those of an earlier page
        self.page.requests.clear()
        url = f"{path.as_uri()}#{fragment}"
        self.page.call("Page.navigate", url=url)
        self.page.wait_for("document.documentElement?.dataset.ready === 'yes'")
        self.wait(IDLE)

    def run(self, expression: str) -> Any:
        return self.page.run(f"(() => {{ const {{ takes }} = desk; return {expression}; }})()")

    def wait(self, expression: str) -> None:
        self.page.wait_for(f"(() => {{ const {{ takes }} = desk; return {expression}; }})()")

    def click(self, selector: str, which: int = 0) -> None:
        self.page.run(f"document.querySelectorAll({selector!r})[{which}].click()")

    def write(self, count: int) -> list[str]:
        """Play until each take has `count` characters; returns the first `count` of each."""
        self.click("#play")
        self.wait(f"takes.every((take) => take.ids.length >= {count})")
        self.click("#play")
        return list(self.run(f"takes.map((take) => take.text().slice(0, {count}))"))


@pytest.fixture
def ground(page: Page) -> Iterator[Playground]:
    """The browser; at the end there was no request, no error and no message."""
    yield Playground(page)
    assert page.problems == []
    assert all(url.startswith(("file:", "blob:", "data:", "about:")) for url in page.requests)
