"""A second signal. The first one is tested in tests/training/test_resume_processes.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, python

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs the signals of POSIX")

STUCK = """
import signal, sys, time
from charlm.cli import main
from charlm.training.step import Stepper

def step(*_):
    before = signal.getsignal(signal.SIGINT)
    print("in a step", flush=True)
    while signal.getsignal(signal.SIGINT) is before:
        time.sleep(0.01)
    print("handled", flush=True)
    while True:
        try:
            time.sleep(60)
        except BaseException as error:
            print(repr(error), flush=True)

Stepper.step = step
sys.exit(main(["train", "--config", "lstm.yaml", "--name", "new", "--device", "cpu"]))
"""


@pytest.mark.parametrize(
    ("first", "then", "status"),
    [
        ("SIGINT", ["SIGINT"], -signal.SIGINT),
        ("SIGTERM", ["SIGINT"], -signal.SIGINT),
        ("SIGHUP", ["SIGTERM"], -signal.SIGTERM),
        ("SIGHUP", ["SIGHUP", "SIGTERM"], -signal.SIGTERM),  # a closed terminal sends two
    ],
)
def test_a_second_signal_ends_a_run_that_is_stuck(
    first: str, then: list[str], status: int, workplace: Path
) -> None:
    command, environment = [sys.executable, "-c", STUCK], os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert "in a step\n" in lines
        process.send_signal(getattr(signal, first))
        assert next(lines) == "handled\n"
        for each in then:
            process.send_signal(getattr(signal, each))
        assert list(lines) == []  # no KeyboardInterrupt
    assert process.returncode == status


TOGETHER = """
import os, signal
from charlm.cli.signals import collected

numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
with collected("SIGINT", "SIGTERM", "SIGHUP") as received:
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in numbers:
        os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    print(received, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here")
"""


def test_signals_that_arrive_together_count_as_one() -> None:
    ended = python("-c", TOGETHER)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGTERM, "[1]\n", "")


ENDING = """
import os, signal, sys
from charlm.cli import main
from charlm.training.telemetry import RunLog

def record(*_):
    os.kill(os.getpid(), signal.SIGINT)

RunLog.record = record
print(main(["train", "--config", "lstm.yaml", "--name", "new", "--device", "cpu"]), flush=True)
os.kill(os.getpid(), signal.SIGINT)
print("still here")
"""


def test_a_second_signal_while_charlm_ends_gives_no_traceback(workplace: Path) -> None:
    ended = python("-c", ENDING, cwd=workplace)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")
    assert ended.stdout.endswith("\n130\n")
    assert "interrupted at step 2" in ended.stdout


AT_THE_EDGES = """
import atexit, os, runpy, signal, sys

_, when, handler = sys.argv

class Finder:
    def find_spec(name, *_):
        if name == when:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder)
atexit.register(Finder.find_spec, "exit")
signal.signal(signal.SIGINT, getattr(signal, handler))
sys.argv = ["charlm", "--version"]
runpy.run_module("charlm", run_name="__main__")
"""


@pytest.mark.parametrize("when", ["charlm.cli", "charlm.cli.arguments", "exit"])
def test_ctrl_c_at_the_start_or_the_exit_gives_no_traceback(when: str) -> None:
    ended = python("-c", AT_THE_EDGES, when, "default_int_handler")
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")
    ignored = python("-c", AT_THE_EDGES, when, "SIG_IGN")
    assert (ignored.returncode, ignored.stderr) == (0, "")
