"""Signals while charlm starts, runs a verb and ends.

The first signal of a run is tested in tests/training/test_resume_processes.py.
"""

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
from charlm.__main__ import run
from charlm.training.telemetry import RunLog

def record(*_):
    os.kill(os.getpid(), signal.SIGINT)

RunLog.record = record
sys.argv = ["charlm", "train", "--config", "lstm.yaml", "--name", "new", "--device", "cpu"]
print(run(), flush=True)
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
    expected = (-signal.SIGINT, "") if when == "exit" else (128 + signal.SIGINT, "\n")
    assert (ended.returncode, ended.stderr) == expected
    ignored = python("-c", AT_THE_EDGES, when, "SIG_IGN")
    assert (ignored.returncode, ignored.stderr) == (0, "")


EVERY_LINE = """
import os, signal, sys, types
from charlm import __main__, cli

CODE = (__main__.__file__, os.path.dirname(cli.__file__))
signal.signal(signal.SIGINT, signal.default_int_handler)
cli._VERBS[""] = lambda options: print("the verb") or 0
cli.make_parser = lambda: types.SimpleNamespace(parse_args=lambda arguments, options: None)

def signalled_at(chosen):
    # run charlm, with a SIGINT at one line of it, or of a function that it calls
    seen = before = 0
    def trace(frame, event, _):
        nonlocal seen, before
        if not any(it.f_code.co_filename.startswith(CODE) for it in (frame, frame.f_back)):
            return None
        if event == "line" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            before += 1  # the interpreter handles it
            assert before <= 20
        elif event == "line":
            seen += 1
            if seen == chosen:
                os.kill(os.getpid(), signal.SIGINT)
        return trace
    sys.settrace(trace)
    status = __main__.run()
    sys.settrace(None)
    return status, seen

for chosen in range(1, 10_000):
    sys.stdout.flush()
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        for number, to in ((1, os.open(os.devnull, os.O_WRONLY)), (2, writer)):
            os.dup2(to, number)
        try:
            status, seen = signalled_at(chosen)
        except BaseException:
            sys.settrace(None)
            sys.excepthook(*sys.exc_info())
            status, seen = 1, chosen
        os._exit(99 if seen < chosen else status)
    os.close(writer)
    err = os.read(reader, 10_000).decode()
    os.close(reader)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 99:
        break
    print(code, repr(err))
"""


def test_ctrl_c_at_any_line_of_the_start_and_the_end_gives_no_traceback() -> None:
    ended = python("-c", EVERY_LINE)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert len(lines) > 50
    # at the end, it is the system that ends the process
    assert set(lines) == {r"130 '\n'", "-2 ''"}, [*enumerate(lines, 1)]
    assert lines.index("-2 ''") == len(lines) - lines.count("-2 ''")


IN_A_VERB = """
import gc, os, signal, sys
from charlm import cli
from charlm.__main__ import run

how, first, second = sys.argv[1:]

class Deleted:
    def __del__(self):
        os.kill(os.getpid(), getattr(signal, first))

def verb(_options):
    try:
        if how == "ignored":
            Deleted()
        try:
            os.kill(os.getpid(), getattr(signal, first))
        except BaseException:
            if how == "another error":
                raise ImportError("planted") from None
            raise
    finally:
        print("cleaned up", flush=True)
        if second:
            os.kill(os.getpid(), getattr(signal, second))

cli._VERBS["runs"] = verb
sys.argv = ["charlm", "runs"]
raise SystemExit(run())
"""
NUMBERS = {"SIGINT": 2, "SIGTERM": 15, "SIGHUP": 1}


@pytest.mark.parametrize("first", NUMBERS)
@pytest.mark.parametrize("how", ["as usual", "another error"])
def test_a_signal_in_a_verb_lets_it_clean_up(first: str, how: str) -> None:
    ended = python("-c", IN_A_VERB, how, first, "")
    assert (ended.returncode, ended.stdout) == (128 + NUMBERS[first], "cleaned up\n")
    assert ended.stderr == "\n" * (first == "SIGINT")


@pytest.mark.parametrize("first", NUMBERS)
def test_a_signal_in_a_callback_that_ignores_exceptions_ends_charlm(first: str) -> None:
    ended = python("-c", IN_A_VERB, "ignored", first, "")
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + NUMBERS[first], "", "")


@pytest.mark.parametrize("first", NUMBERS)
@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM"])
def test_a_second_signal_in_a_verb_ends_charlm_at_once(first: str, second: str) -> None:
    ended = python("-c", IN_A_VERB, "as usual", first, second)
    assert (ended.returncode, ended.stdout) == (-NUMBERS[second], "cleaned up\n")
    assert ended.stderr == ""


def test_a_process_of_several_is_ended_by_sigterm_at_once() -> None:
    """It may wait for another process in C, and could not react."""
    ended = python("-c", IN_A_VERB, "as usual", "SIGTERM", "", env={"WORLD_SIZE": "2"})
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGTERM, "", "")
