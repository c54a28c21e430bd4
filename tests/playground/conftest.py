"""Fixtures of the tests of the playground: a browser, and a page of each kind of model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from charlm.cli import main
from tests.conftest import TinyRun
from tests.insight.browser import Page, browsing

MadePage = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser with one page. Only for tests with `needs_chromium`."""
    with browsing(tmp_path_factory.mktemp("profile")) as page:
        yield page


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
