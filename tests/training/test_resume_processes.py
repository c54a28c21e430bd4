"""Processes that are stopped by a signal, kill -9 or a limit resume exactly.

The step at which a process is stopped is not known before. So it starts without a practical limit
and gets one when it resumes. The learning rate is constant, so that the limit does not change the
steps before it.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from charlm.checkpoint.format import LAST, Meta
from charlm.checkpoint.read import read_meta
from charlm.config import Config
from charlm.config.files import to_yaml
from tests.training.helpers import (
    PATIENCE_S,
    assert_same_run,
    make_config,
    metrics,
    new_run,
    wait_for,
)
from tests.warm import running

ROOT = Path(__file__).parents[2]
ENDLESS = 10_000_000

CASES = {
    signal.SIGINT: ("lstm", "train.grad_accum=2", "eval.every=1", "eval.max_chars=null"),
    signal.SIGTERM: ("gpt", "train.optimizer.kind=muon"),
    signal.SIGKILL: ("gru", "train.optimizer.kind=rmsprop", "train.save_every=20"),
}


def settings(text: Path, stop: signal.Signals, max_steps: int) -> Config:
    kind, *special = CASES[stop]
    common = ("train.schedule.kind=constant", "eval.every=3", "eval.sample_every=25")
    return make_config(text, kind, *common, *special, f"train.max_steps={max_steps}")


@contextmanager
def charlm(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run charlm in another process with one thread; kill it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "charlm", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def train_command(config: Config, out: Path) -> list[str | Path]:
    file = out / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    return ["train", "--config", file, "--out", out, "--device", "cpu"]


def last_step(folder: Path) -> int:
    """Return the last step in metrics.jsonl; its last line may be incomplete."""
    file = folder / "metrics.jsonl"
    whole = file.read_bytes().count(b"\n") if file.exists() else 0
    return int(metrics(folder, lines=whole)[-1]["step"]) if whole else 0


def finish(arguments: list[str | Path], max_steps: int) -> str:
    options = ("--set", f"train.max_steps={max_steps}", "--device", "cpu")
    with running(*arguments, *options, env={"OMP_NUM_THREADS": "1"}) as process:
        ended = process.wait(PATIENCE_S)
    assert (ended.returncode, ended.stderr) == (0, b"")
    return ended.stdout.decode()


@pytest.mark.parametrize(
    ("stop", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_saves_and_the_printed_command_resumes_exactly(
    stop: signal.Signals, status: int, tiny_text: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with charlm(*train_command(settings(tiny_text, stop, ENDLESS), tmp_path)) as process:
        wait_for(process, lambda: last_step(folder) >= 10)
        process.send_signal(stop)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (status, "")
    stopped_at = read_meta(folder / LAST).progress.step
    assert stopped_at >= 10
    assert f"interrupted at step {stopped_at}" in out

    resume = next(line for line in out.splitlines() if line.startswith("resume"))
    command = shlex.split(resume.removeprefix("resume"))
    assert command[0] == "charlm"
    assert f"from step {stopped_at}" in finish([*command[1:]], stopped_at + 20)
    whole = settings(tiny_text, stop, stopped_at + 20)
    assert_same_run(folder, new_run(whole, tmp_path / "never stopped"))


def test_a_killed_run_resumes_exactly_from_its_last_save(tiny_text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def kill_between_saves(process: subprocess.Popen[str]) -> Meta:
        """Pause the process again and again, and kill it when it has steps that are not saved."""
        for _ in range(1000):
            wait_for(process, lambda: last_step(folder) > 20)
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            meta = read_meta(folder / LAST)
            unsaved = (folder / "metrics.jsonl").stat().st_size - meta.log_sizes["metrics.jsonl"]
            if meta.progress.step and unsaved:
                process.kill()
                return meta
            process.send_signal(signal.SIGCONT)
        raise AssertionError("never between two saves")

    with charlm(*train_command(settings(tiny_text, signal.SIGKILL, ENDLESS), tmp_path)) as process:
        saved = kill_between_saves(process)
        assert process.wait() == -signal.SIGKILL
    end = saved.progress.step + 30
    finish(["train", "--resume", "--name", "run", "--out", tmp_path], end)
    whole = settings(tiny_text, signal.SIGKILL, end)
    assert_same_run(folder, new_run(whole, tmp_path / "never stopped"))


def test_a_run_that_reached_its_limit_resumes_exactly_to_a_higher_one(
    tiny_text: Path, tmp_path: Path
) -> None:
    config, whole = (settings(tiny_text, signal.SIGTERM, steps) for steps in (75, 150))
    folder = new_run(config, tmp_path)
    out = finish([*train_command(config, tmp_path), "--resume"], 150)
    assert "finished at step 150" in out
    assert_same_run(folder, new_run(whole, tmp_path / "at once"))
