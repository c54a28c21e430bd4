#!/usr/bin/env python3
"""How fast a model writes in the page of `charlm play`, in headless Chromium.

    scripts/bench page [--seconds 8] [--json] [--quick]

The networks are untrained; that does not change the time of a character. The page is opened from a
file, and one take writes as fast as it can. `taskset -c 0 scripts/bench page` gives the page, its
worker and the browser one core together.

Ready is the time from opening the file until the page can write. The time of an answer is that from
pressing an arrow key in the text until the page has shown the result, as the browser reports it
(Event Timing, in steps of 8 ms), while the model writes. --quick runs everything on tiny networks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the browser of the tests

from bench_sample import Model, name_of, save_checkpoint
from comparing import figure, machine, show

from charlm.checkpoint.read import open_checkpoint
from charlm.config import GPTConfig, RecurrentConfig
from charlm.playground.page import build_page
from tests.insight.browser import CHROMIUM, Page, browsing

KEYS = 40  # pressed while the model writes
LINK = "#speed=8&seed=1&t=0.8&prompt=%28"
RECORD = """
self.answers = [];
new PerformanceObserver((list) => list.getEntries().forEach((it) => answers.push(it.duration)))
  .observe({ type: "event", durationThreshold: 16 });
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8, help="of writing, for each network")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("bench page: it needs Chromium; install it (on Debian: apt install chromium)")
    size = {"n_layer": 1, "hidden_size": 8} if options.quick else {"n_layer": 1, "hidden_size": 512}
    networks: list[Model] = [RecurrentConfig(kind=kind, **size) for kind in ("lstm", "gru", "rnn")]
    if options.quick:
        networks.append(GPTConfig(n_layer=1, n_head=1, n_embd=8, context=8))
    else:
        networks.append(GPTConfig(n_layer=4, n_head=4, n_embd=128, context=128))
    with tempfile.TemporaryDirectory() as folder, browsing(Path(folder) / "profile") as page:
        made = {name_of(each): make(each, Path(folder)) for each in networks}
        rows = [
            {"network": name} | measure(page, path, options.seconds) for name, path in made.items()
        ]
    if options.json:
        print(json.dumps({"machine": machine(), "results": rows}))
    else:
        show(rows)
        print("\n" + ", ".join(f"{key} {value}" for key, value in machine().items()))


def make(config: Model, folder: Path) -> Path:
    """The page of an untrained network."""
    path = folder / f"{config.kind}.html"
    with open_checkpoint(save_checkpoint(folder, config)) as checkpoint:
        path.write_text(build_page(checkpoint, "int8")[0], encoding="utf-8")
    return path


def measure(page: Page, path: Path, seconds: float) -> dict[str, object]:
    """The figures of a page."""
    page.call("Page.navigate", url="about:blank")
    page.call("Page.navigate", url=path.as_uri() + LINK)
    page.wait_for("document.documentElement?.dataset.ready === 'yes'")
    ready = page.run("performance.getEntriesByName('ready')[0].startTime")
    page.run("desk.play(desk.takes, true)")
    press(page, KEYS // 4, seconds / 4)  # the browser compiles what runs often
    page.run(RECORD)
    first = written(page)
    press(page, KEYS, seconds)
    last = written(page)
    answers = sorted(page.run("answers")) or [0.0]
    return {
        "page, MB": figure(path.stat().st_size / 1e6),
        "ready, ms": figure(ready),
        "chars/s": figure((last[0] - first[0]) / (last[1] - first[1])),
        "answer, median ms": figure(statistics.median(answers)),
        "answer, slowest ms": figure(answers[-1]),
    }


def press(page: Page, keys: int, seconds: float) -> None:
    page.run("document.querySelector('.text').focus()")
    for _ in range(keys):
        page.press("ArrowRight")
        time.sleep(seconds / keys)


def written(page: Page) -> list[float]:
    """How many characters the take has, and the time in seconds."""
    return list(page.run("[desk.takes[0].ids.length, performance.now() / 1000]"))


if __name__ == "__main__":
    main()
