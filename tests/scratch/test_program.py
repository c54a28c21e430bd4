"""python -m charlm.scratch: what it prints, mistakes, and Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from charlm.scratch.__main__ import MODELS, OPTIMIZERS, main
from tests.conftest import ROOT, python

QUICK = ("--steps", "2", "--lr", "0.001")


@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_and_samples(
    model: str, tiny_text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([model, str(tiny_text), *QUICK]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^{model}, [\d,]+ weights; [\d,]+ characters, \d+ different$", out, re.M)
    reports = re.findall(r"^step (\d), \d+ s: loss ([\d.]+), held out ([\d.]+)$", out, re.M)
    assert [step for step, _, _ in reports] == ["1", "2"]
    *_, last = re.split(r"^step .*\n", out, flags=re.M)
    assert len(last) == 300 + 1
    assert set(last) <= set(tiny_text.read_text(encoding="utf-8"))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(
    optimizer: str, tiny_text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rnn", str(tiny_text), "--steps", "30", "--optimizer", optimizer]) == 0
    first, *_, last = re.findall(r"held out ([\d.]+)", capsys.readouterr().out)
    assert float(last) < float(first) - 0.5


def test_the_seed_decides_the_samples(tiny_text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outs = []
    for seed in ("1", "1", "2"):
        main(["rnn", str(tiny_text), *QUICK, "--seed", seed])
        outs.append(re.sub(r"\d+ s:", "", capsys.readouterr().out))
    assert outs[0] == outs[1] != outs[2]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("rnn", "none.txt"), "none.txt: No such file or directory"),
        (("rnn", "."), ".: Is a directory"),
        (("rnn", "empty.txt"), "empty.txt has 0 characters; use a text of at least 100"),
        (("rnn", "bytes.txt"), "bytes.txt is not in UTF-8; convert it to UTF-8"),
        (("rnm", "text.txt"), "argument model: invalid choice: 'rnm' (choose from "),
        (("rnn",), "the following arguments are required: text"),
        (("rnn", "text.txt", "--lr", "0"), "argument --lr: invalid positive value: '0'"),
        (("rnn", "text.txt", "--seed", "-1"), "argument --seed: invalid natural value: '-1'"),
        (("rnn", "\x1b[2J\n"), r"\x1b[2J\n: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: tuple[str, ...],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    Path("bytes.txt").write_bytes(b"\xff" * 200)
    Path("text.txt").write_text("the sea " * 20, encoding="utf-8")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"charlm.scratch: {expected}")


def test_a_loss_that_is_not_finite_is_one_line(
    tiny_text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rnn", str(tiny_text), "--steps", "2", "--lr", "1e308"]) == 2
    message = "charlm.scratch: the loss at step 1 is not finite; use a smaller --lr\n"
    assert capsys.readouterr().err == message


def test_a_sample_cannot_control_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\x1b[2J\u202e\r" * 100, encoding="utf-8", newline="")
    main(["rnn", str(text), *QUICK])
    out = capsys.readouterr().out
    assert "\\x1b" in out
    assert "\\u202e" in out
    assert not set(out) & {"\x1b", "\u202e", "\r"}


@pytest.mark.skipif(os.name != "posix", reason="needs the signals of POSIX")
def test_ctrl_c_ends_it_with_a_last_sample(tiny_text: Path) -> None:
    command = [sys.executable, "-m", "charlm.scratch", "rnn", str(tiny_text)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = iter(process.stdout.readline, "")
        assert any(line.startswith("step 1,") for line in lines)
        process.send_signal(signal.SIGINT)
        rest = "".join(lines)
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGINT
    *_, last = re.split(r"^step .*\n", rest, flags=re.M)
    assert len(last) == 300 + 1


def test_a_reader_that_ends_early_is_no_error(tiny_text: Path) -> None:
    code = "import sys; from charlm.scratch.__main__ import main; sys.exit(main(sys.argv[1:]))"
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = python("-c", code, "rnn", tiny_text, *QUICK, stdout=writing)
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_it_needs_numpy_and_the_standard_library_only() -> None:
    code = "import charlm.scratch.__main__, sys; print(*sys.modules)"
    ended = python("-c", code)
    imported = {name.partition(".")[0] for name in ended.stdout.split()}
    assert "numpy" in imported
    assert not imported & {"torch", "pydantic", "yaml", "tqdm", "safetensors", "scipy"}
