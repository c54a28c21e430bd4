"""Shared by the tests of the page: a hostile text, and what a page contains."""

from __future__ import annotations

import base64
import json
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlm.insight.record import Array
from tests.insight.browser import CHROMIUM

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
HOSTILE = (
    '</script><script>document.title="owned"</script>\n'
    "<img src=x onerror=alert(1)> &lt;b&gt; \"quotes\" 'it' `x` ${y} {{data}}\n"
    "\x07\x1b[31mred\x7f \u202eback\u202c \u2066iso\u2069 \u200b \ufeff \u2028\n"
    "שלום عربى e\u0301 \U0001f600 中\r\n\tend -->\n"
)


class Elements(HTMLParser):
    """The elements of a page, each with its attributes and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))
        self._open = True

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            tag, attributes, before = self.found[-1]
            self.found[-1] = (tag, attributes, before + data)


def elements(page: Path, tag: str) -> list[tuple[dict[str, str | None], str]]:
    found = Elements(page.read_text(encoding="utf-8")).found
    return [(attributes, text) for name, attributes, text in found if name == tag]


def arrays_of(page: Path) -> dict[str, Array]:
    found = {}
    for attributes, text in elements(page, "script"):
        if attributes.get("type") == "application/octet-stream":
            raw = zlib.decompress(base64.b64decode(text))
            shape = [int(size) for size in str(attributes["data-shape"]).split("x")]
            values = np.frombuffer(raw, f"<{attributes['data-kind']}").reshape(shape)
            found[str(attributes["id"]).removeprefix("array-")] = values
    return found


def data_of(page: Path) -> dict[str, Any]:
    (text,) = [t for a, t in elements(page, "script") if a.get("type") == "application/json"]
    return dict(json.loads(text))
