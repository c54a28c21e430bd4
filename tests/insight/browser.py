"""Headless Chromium, controlled by the DevTools protocol over a pipe."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TIMEOUT = 60.0  # seconds
FLAGS = """
--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
--disable-background-networking --disable-component-update --disable-extensions
--disable-dev-shm-usage --remote-debugging-pipe
"""


class Page:
    """One page, with its requests, and its errors and console messages."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive, self._buffer, self._last = send, receive, b"", 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.workers: list[str] = []  # the sessions of the page's Web Workers
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        attach = {"autoAttach": True, "waitForDebuggerOnStart": False, "flatten": True}
        self.call("Target.setAutoAttach", **attach)

    def open(self, path: Path, width: int = 1200, height: int = 900) -> None:
        """Open a file, and wait until it is ready."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self.call("Page.navigate", url=path.as_uri())
        self.wait_for("document.documentElement?.dataset.ready === 'yes'")

    def wait_for(self, expression: str) -> None:
        started = time.monotonic()
        while not self.run(expression):
            assert time.monotonic() - started < TIMEOUT, f"timeout: {expression}"
            time.sleep(0.02)

    def run(self, expression: str, worker: bool = False) -> Any:
        """The value of an expression in the page, or in its newest worker."""
        of_page = self._session
        try:
            self._session = self.workers[-1] if worker else of_page
            answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        finally:
            self._session = of_page
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def point_at(self, selector: str, which: int = 0) -> None:
        """Move the mouse to the middle of an element."""
        element = f"document.querySelectorAll({selector!r})[{which}]"
        # the page scrolls smoothly; the box must not move between its measurement and the event
        self.run(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.run(f"(() => {{ const b = {element}.getBoundingClientRect(); "
                       "return [b.x + b.width / 2, b.y + b.height / 2]; })()")  # fmt: skip
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])

    def press(self, key: str, shift: bool = False) -> None:
        """Press and release a key, with or without Shift."""
        keys = {"key": key, "code": key, "modifiers": 8 * shift}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, **keys)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its answer. Events that come before it are recorded."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            received = self._read()
            if received.get("id") == self._last:
                assert "error" not in received, received
                return dict(received["result"])
            self._record(received)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._receive], [], [], TIMEOUT)
            more = os.read(self._receive, 1 << 16) if ready else b""
            assert more, "no answer from Chromium"
            self._buffer += more
        received, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(received))

    def _record(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        handlers: dict[str, Callable[[], None]] = {
            "Network.requestWillBeSent": lambda: self.requests.append(parameters["request"]["url"]),
            "Runtime.exceptionThrown": lambda: self.problems.append(str(parameters)),
            "Runtime.consoleAPICalled": lambda: self.problems.append(str(parameters)),
            "Target.attachedToTarget": lambda: self.workers.append(parameters["sessionId"]),
            "Log.entryAdded": lambda: self.problems.append(str(parameters["entry"])),
        }
        handlers.get(event.get("method", ""), lambda: None)()


@contextmanager
def browsing(profile: Path) -> Iterator[Page]:
    """A browser with one page, and its profile in a folder."""
    assert CHROMIUM is not None
    ends = [*os.pipe(), *os.pipe()]  # commands: read, write; answers: read, write
    high = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in ends]
    for end in ends:
        os.close(end)
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={profile}"]

    def connect() -> None:  # Chromium reads commands from 3 and writes answers to 4
        os.dup2(high[0], 3)
        os.dup2(high[3], 4)

    process = subprocess.Popen(
        command, preexec_fn=connect, pass_fds=(3, 4), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(high[0])
    os.close(high[3])
    try:
        yield Page(high[1], high[2])
    finally:
        process.terminate()
        try:
            process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(high[1])
        os.close(high[2])
