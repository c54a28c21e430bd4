"""A second signal. The first one is tested in tests/training/test_resume_processes.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

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
