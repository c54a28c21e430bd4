"""Several processes under torchrun: one voice, signals, errors, restarts, bad input."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from charlm.checkpoint.format import LAST
from charlm.checkpoint.read import read_meta
from charlm.cli import main
from charlm.launch import joined
from charlm.processes import Processes
from tests.conftest import ROOT, Charlm, TinyConfig, python, write_yaml
from tests.training.helpers import PATIENCE_S, assert_same_run, metrics, wait_for
from tests.training.several import free_port, in_processes
from tests.warm import COMMAND_LINE, running

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs the signals of POSIX")

ENDLESS = 10_000_000
RUN = ["--config", "lstm.yaml", "--out", "out", "--device", "cpu"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: TinyConfig) -> Path:
    """The working directory, with a config for runs that several processes can share."""
    raw = tiny_config("lstm")
    raw["train"] |= {"schedule": {"kind": "constant"}, "save_every": 3, "max_steps": 40}
    raw["eval"] |= {"sample_every": 20, "insight": False}
    write_yaml(tmp_path / "lstm.yaml", raw)
    (tmp_path / "old.txt").write_text("The old king sees the fox.\n" * 100)
    (tmp_path / "new.txt").write_text("The old fox sees the king.\n" * 100)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def torchrun(*arguments: str, restarts: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Run charlm in two processes under torchrun; end all of them at the end."""
    options = ["--standalone", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options, "-m", "charlm", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[list[str], list[str], list[str]]:
    """Wait; return the output, the messages of charlm, and other lines that are about its code."""
    out, err = process.communicate(timeout=PATIENCE_S)
    lines = err.splitlines()
    said = [it for it in lines if it.startswith("charlm:")]
    return out.splitlines(), said, [it for it in lines if f'File "{ROOT}/charlm/' in it]


def workers(process: subprocess.Popen[str]) -> dict[int, int]:
    """The ids of the processes that torchrun started, by their numbers."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True, encoding="ascii"
    ).stdout
    pairs = (map(int, line.split()) for line in listed.splitlines())
    children = sorted(pid for pid, parent in pairs if parent == process.pid)
    return dict(enumerate(children))  # they are started in the order of their numbers


def n_records(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.fixture(scope="module")
def never_stopped(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: TinyConfig
) -> Callable[[Path, int], Path]:
    """Train the run of `lstm.yaml` in two processes without a stop, to a step."""
    out = tmp_path_factory.mktemp("never")

    def train(config: Path, steps: int) -> Path:
        command = ["train", "--config", str(config), "--out", str(out), "--device", "cpu"]
        in_processes(2, call_main, [*command, "--steps", str(steps), "--name", f"at{steps}"])
        return out / f"at{steps}"

    return train


def call_main(_processes: Processes, arguments: list[str]) -> None:
    """Call the command line in a process that is connected to the others already."""
    import charlm.launch

    @contextmanager
    def already(*_: object) -> Iterator[Processes]:
        yield _processes

    charlm.launch.joined = already  # type: ignore[assignment]
    assert main(arguments) == 0


# --- signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "victim"), [("SIGINT", None), ("SIGTERM", 1)], ids=["SIGINT", "SIGTERM to one"]
)
def test_a_signal_saves_once_and_the_run_resumes_exactly(
    name: str, victim: int | None, place: Path, never_stopped: Callable[[Path, int], Path]
) -> None:
    folder = place / "out" / "lstm"
    with torchrun("train", *RUN, "--steps", str(ENDLESS)) as process:
        wait_for(process, lambda: n_records(folder) > 10)
        os.kill(process.pid if victim is None else workers(process)[victim], getattr(signal, name))
        out, said, wrong = finish(process)
    stopped_at = read_meta(folder / LAST).progress.step
    assert (process.returncode, said, wrong) == (1, [], [])  # the status is torchrun's
    assert next(line for line in out if "interrupted" in line).startswith(
        f"interrupted at step {stopped_at:,}"
    )
    for word in ("model ", "saved ", "resume "):
        assert sum(line.startswith(word) for line in out) == 1
    resume = next(line for line in out if line.startswith("resume"))
    assert resume.startswith("resume  torchrun --standalone --nproc-per-node 2 -m charlm train")
    if victim is not None:
        return
    command = resume.partition("charlm ")[2].split()
    with torchrun(*command, "--steps", str(stopped_at + 10)) as process:
        out, said, wrong = finish(process)
    assert (process.returncode, said, wrong) == (0, [], [])
    assert_same_run(folder, never_stopped(place / "lstm.yaml", stopped_at + 10))


# --- restarts -----------------------------------------------------------------------------------


def test_killed_processes_are_restarted_and_nothing_is_lost(
    place: Path, never_stopped: Callable[[Path, int], Path]
) -> None:
    """Once before the first checkpoint, by the first process, and once later, by another one."""
    folder = place / "out" / "lstm"
    with torchrun("train", *RUN, "--steps", "400", restarts=3) as process:
        wait_for(process, folder.exists)
        os.kill(workers(process)[0], signal.SIGKILL)
        wait_for(process, lambda: n_records(folder) > 20)
        os.kill(workers(process)[1], signal.SIGKILL)
        out, said, wrong = finish(process)
    assert (process.returncode, said, wrong) == (0, [], [])
    assert sum(line.startswith("finished at step 400") for line in out) == 1
    assert_same_run(folder, never_stopped(place / "lstm.yaml", 400))
    assert len(metrics(folder)) == len({(it["step"], it["split"]) for it in metrics(folder)})


def test_an_old_run_is_refused_at_every_start(place: Path, charlm: Charlm) -> None:
    assert charlm("train", *RUN).status == 0
    before = (place / "out" / "lstm" / LAST).read_bytes()
    with torchrun("train", *RUN, restarts=1) as process:
        out, said, wrong = finish(process)
    assert (process.returncode, out, wrong) == (1, [], [])
    assert (
        said
        == [
            "charlm: out/lstm: this run exists and is not overwritten; continue it with --resume "
            "out/lstm, or start another run with --name NAME"
        ]
        * 2
    )
    assert (place / "out" / "lstm" / LAST).read_bytes() == before


# --- errors and bad input, in processes started by hand -----------------------------------------


def by_hand(
    *each: list[str], prepare: str = "", env: dict[str, str] | None = None
) -> list[tuple[int, str, str]]:
    """Run charlm with these arguments in one process each.

    Args:
        prepare: Python code that a process runs before, with its number in `rank`.
    """
    port = str(free_port())
    code = f"import os; rank = int(os.environ['RANK'])\n{prepare}\n{COMMAND_LINE}"
    shared = {"WORLD_SIZE": str(len(each)), "LOCAL_WORLD_SIZE": str(len(each))}
    shared |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    shared |= env or {}
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                running("train", *arguments, code=code, env={"RANK": str(rank)} | shared)
            )
            for rank, arguments in enumerate(each)
            if arguments
        ]
        ends = [process.wait(PATIENCE_S) for process in processes]
    return [(it.returncode, it.stdout.decode(), it.stderr.decode()) for it in ends]


UNREADABLE = """
if rank == 1:
    from charlm.errors import DataError
    from charlm.training import together
    def unreadable(_):
        raise DataError("old.txt: cannot be read")
    together._open = unreadable
"""
FULL_DISK = """
if rank == 0:
    from charlm.errors import CheckpointError
    from charlm.training import trainer
    usual = trainer.save
    def full(path, meta, tensors):
        if meta.progress.step:
            raise CheckpointError(f"{path}: No space left on device")
        usual(path, meta, tensors)
    trainer.save = full
"""
NOT_FINITE = """
from charlm.training import trainer
trainer.MAX_BAD_STEPS = 0
usual = trainer.Stepper.step
if rank == 1:
    def broken(self, x, *rest):
        self.model.head.bias.data.fill_(float("nan"))
        return usual(self, x, *rest)
    trainer.Stepper.step = broken
"""
BUG = """
if rank == 1:
    from charlm.training import trainer
    def step(*_):
        raise ValueError("a bug")
    trainer.Stepper.step = step
"""
KILLED = """
if rank == 1:
    import signal
    from charlm.training import trainer
    def step(*_):
        os.kill(os.getpid(), signal.SIGKILL)
    trainer.Stepper.step = step
"""
SILENT = """
from charlm.training import trainer
usual = trainer.Stepper.step
def step(self, *batch):
    connection = self._processes._memory._peers[0]
    if rank == 0:
        connection.settimeout(0.2)
    else:
        connection.recv(1)  # comes when process 0 has ended
    return usual(self, *batch)
trainer.Stepper.step = step
"""
CASES: dict[str, tuple[str, list[str], list[str], int, str]] = {
    # code to run before; the options of both processes; which one reports the error; the line
    "configs": ("", ["--seed=1"], ["--seed=2"], 0, "train.seed is 2 and 1; give all the same"),
    "batch": ("", ["--batch-size=3"], ["--batch-size=3"], 0, "set a multiple of 2"),
    "pipe": ("", ["--data=-"], ["--data=-"], 0, "several processes cannot read a pipe; save the"),
    "text": (UNREADABLE, [], [], 1, "charlm: process 1: old.txt: cannot be read"),
    "disk": (FULL_DISK, [], [], 0, "No space left on device"),
    "silent": (SILENT, [], [], 0, "another process did not answer in time; if it was only slow, "),
    "loss": (NOT_FINITE, [], [], 0, "is no longer finite, so training stops"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_error_is_reported_once_and_ends_all(case: str, place: Path) -> None:
    prepare, first, second, reports, line = CASES[case]
    ended = by_hand([*RUN, *first], [*RUN, *second], prepare=prepare)
    status, _, err = ended[reports]
    assert (status, err.count("\n"), err.count("charlm: ")) == (2, 1, 1), err
    assert line in err
    assert ended[1 - reports][0] == 1
    assert (ended[1][1], ended[1 - reports][2]) == ("", "")


def test_a_bug_keeps_its_traceback(place: Path) -> None:
    first, second = by_hand(RUN, RUN, prepare=BUG)
    assert (first[0], first[2], second[0]) == (1, "", 1)
    assert second[2].endswith("ValueError: a bug\n")


def test_the_others_of_a_killed_process_end_silently(place: Path) -> None:
    assert by_hand(RUN, RUN, prepare=KILLED)[0][::2] == (1, "")


def test_processes_that_never_come_or_a_port_in_use_end_in_one_line(place: Path) -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = {"MASTER_PORT": str(other.getsockname()[1])}
        taken = by_hand([*RUN, "--timeout=1"], [], env=port)
    waiting = by_hand([*RUN, "--timeout=1"], [])
    # a new process, which limits the messages of PyTorch before it imports that
    alone = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    alone["MASTER_PORT"] = str(free_port())
    late = python("-m", "charlm", "train", *RUN, "--timeout=1", env=alone, cwd=place)
    for (status, out, err), line in (
        (waiting[0], "check that all were started"),
        (taken[0], "this port is in use; choose another MASTER_PORT"),
        (
            (late.returncode, late.stdout, late.stderr),
            "charlm: process 1: the 2 processes of this run",
        ),
    ):
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert line in err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "x"])
def test_a_wrong_time_limit_is_refused(seconds: str, charlm: Charlm, place: Path) -> None:
    result = charlm("train", *RUN, f"--timeout={seconds}")
    assert (result.status, result.err.count("\n")) == (2, 1)
    assert f"{seconds}: should be from 1 to 1000000 seconds" in result.err


@pytest.mark.parametrize(
    ("name", "value"), [("RANK", "x"), ("RANK", "7"), ("MASTER_PORT", "99999"), ("WORLD_SIZE", "-")]
)
def test_a_wrong_environment_is_refused(
    name: str, value: str, charlm: Charlm, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1234"}
    for each, usual in correct.items():
        monkeypatch.setenv(each, usual)
    monkeypatch.setenv(name, value)
    result = charlm("train", *RUN)
    assert (result.status, result.err.count("\n")) == (2, 1)
    assert name in result.err
    assert "; " in result.err


def test_a_process_without_a_launcher_is_alone() -> None:
    with joined() as processes:
        assert (processes.is_alone, processes.is_first, processes.launched_by) == (True, True, ())
        assert not processes.has_lost_launcher()


def test_a_process_whose_torchrun_has_ended_ends_silently(place: Path) -> None:
    environment = {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    assert by_hand([], RUN, env=environment) == [(1, "", "")]
