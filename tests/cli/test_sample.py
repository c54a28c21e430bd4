"""`charlm sample`: what it prints, where, and how it ends."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from charlm.cli import streaming
from tests.conftest import ROOT, Charlm, Result, Terminal, TinyRun, python, train_with

COMMON = ("--seed", 1, "--length", 20)

Interactive = Callable[..., Result]


@pytest.fixture
def interactive(charlm: Charlm, tiny_run: TinyRun) -> Interactive:
    """`charlm sample --interactive` with these lines as input."""

    def run(*lines: str, kind: str = "lstm", options: tuple[str, ...] = ()) -> Result:
        text = "".join(f"{line}\n" for line in lines)
        return charlm("sample", tiny_run(kind), "--interactive", *COMMON, *options, stdin=text)

    return run


# --- many texts ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gru", "mlp", "gpt"])
@pytest.mark.parametrize("batch", [1, 2, 5, 16])
def test_the_batch_does_not_change_the_texts(
    charlm: Charlm, tiny_run: TinyRun, kind: str, batch: int
) -> None:
    common = ("sample", tiny_run(kind), *COMMON, "--num-samples", 5, "--device", "cpu")
    assert charlm(*common, "--batch", batch) == charlm(*common)


def test_several_temperatures_are_sampled_one_after_the_other(
    charlm: Charlm, tiny_run: TinyRun
) -> None:
    common = ("sample", tiny_run("lstm"), *COMMON, "--temperature")
    each = [charlm(*common, t).out for t in ("0", "0.5", "2")]
    assert len(set(each)) == 3
    assert charlm(*common, "0,0.5,2", "--no-separator").out == "\n".join(each)
    separated = [f"--- temperature {t}\n{text}" for t, text in zip((0, 0.5, 2), each, strict=True)]
    assert charlm(*common, "0,0.5,2").out == "\n".join(separated)
    both = charlm(*common, "0,0.5", "-n", 2).out
    named = [(i, t) for t in (0, 0.5) for i in (1, 2)]
    assert re.findall(r"^--- (.*)$", both, re.MULTILINE) == [
        f"sample {i} of 2, temperature {t}" for i, t in named
    ]


def test_a_text_without_limit_ends_at_the_stop_string(charlm: Charlm, tiny_run: TinyRun) -> None:
    common = ("sample", tiny_run("lstm"), "--seed", 1, "--length")
    whole = charlm(*common, 400).out
    stop = whole[333:337]
    assert charlm(*common, 0, "--stop", stop).out == whole.partition(stop)[0]


def test_past_its_context_a_gpt_can_slide(charlm: Charlm, tiny_run: TinyRun) -> None:
    common = ("sample", tiny_run("gpt"), "--seed", 1, "--length", 60)
    half, slide, usual = (
        charlm(*common, "--score", *how)
        for how in (["--past-context", "half"], ["--past-context", "slide"], [])
    )
    assert usual == half
    assert half.out[:16] == slide.out[:16]  # the context is 16
    assert half.err != slide.err


def test_a_prompt_may_be_longer_than_the_context(charlm: Charlm, tiny_run: TinyRun) -> None:
    prompt = "The old king fears my lord. " * 5
    result = charlm("sample", tiny_run("gpt"), *COMMON, "--prompt", prompt)
    assert (result.status, len(result.out), result.err) == (0, len(prompt) + 20, "")


# --- scores, novelty, colours ----------------------------------------------------------------


def test_the_json_lines_have_all_keys(charlm: Charlm, tiny_run: TinyRun) -> None:
    common = ("sample", tiny_run("gru"), *COMMON, "--num-samples", 2, "--prompt", "ANNE")
    plain = charlm(*common, "--no-separator").out
    *lines, last = charlm(*common, "--format", "jsonl", "--score", "--novelty").out.splitlines()
    texts = [json.loads(line) for line in lines]
    assert "\n".join(it["prompt"] + it["text"] for it in texts) == plain
    assert [(it["number"], it["seed"], it["temperature"]) for it in texts] == [
        (0, 1, 0.8),
        (1, 1, 0.8),
    ]
    assert all(it["nats_per_char"] == pytest.approx(-it["log_likelihood"] / 20) for it in texts)
    assert set(json.loads(last)["novelty"]) == {"chars", "longest", "new_ngrams"}


def test_the_novelty_of_documents_has_the_keys_that_programs_read(
    charlm: Charlm, workplace: Path
) -> None:
    (workplace / "names.txt").write_text("anna\nbo\n" * 50, encoding="utf-8")
    raw = {
        "name": "names",
        "data": {"path": "names.txt", "documents": "lines"},
        "model": {"hidden_size": 8},
        "train": {"batches": "items", "max_steps": 1, "batch_size": 2, "threads": 1},
    }
    run = train_with(raw, Path("checkpoints"))
    result = charlm("sample", run, *COMMON, "--format", "jsonl", "--novelty")
    *texts, last = map(json.loads, result.out.splitlines())
    samples = {it["text"] for it in texts}
    novelty = last["novelty"]
    assert set(novelty) == {
        "chars",
        "longest",
        "new_ngrams",
        "items",
        "new_items",
        "held_out_items",
    }
    assert novelty["items"] == len(samples)
    assert novelty["new_items"] == len(samples - {"anna", "bo", ""})


def test_score_and_novelty_go_to_standard_error(charlm: Charlm, tiny_run: TinyRun) -> None:
    common = ("sample", tiny_run("lstm"), *COMMON)
    result = charlm(*common, "--score", "--novelty")
    assert (result.status, result.out) == (0, charlm(*common).out)
    score, longest, ngrams = result.err.splitlines()
    assert re.match(r"charlm: score of text 1: -[\d.]+ nats for 20 characters, ", score)
    assert longest.startswith("charlm: longest passage copied: ")
    assert ngrams.startswith("charlm: n-grams that are new, by n: 1: ")


def test_novelty_without_the_training_text_is_a_note(charlm: Charlm, workplace: Path) -> None:
    (workplace / "text.txt").write_text("a text of its own\n" * 50, encoding="utf-8")
    raw = {
        "name": "own",
        "data": {"path": "text.txt"},
        "model": {"hidden_size": 8},
        "train": {"max_steps": 1, "batch_size": 2, "seq_len": 8, "threads": 1},
    }
    train_with(raw, Path("checkpoints"))
    (workplace / "text.txt").unlink()
    result = charlm("sample", "checkpoints/own", *COMMON, "--novelty")
    assert (result.status, len(result.out)) == (0, 20)
    assert result.err.startswith(
        "charlm: note: novelty cannot be measured without the training text: "
    )


@pytest.mark.parametrize("wanted", [True, False])
def test_a_terminal_shows_the_probability_of_each_character(
    charlm: Charlm, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    common = ("sample", tiny_run("lstm"), *COMMON)
    plain = charlm(*common, "--show-prob").out
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not wanted:
        monkeypatch.setenv("NO_COLOR", "1")
    with redirect_stdout(Terminal()) as out:
        charlm(*common, "--show-prob")
    assert ("\033[38;5;" in out.getvalue()) == wanted
    assert re.sub(r"\033\[[\d;]*m", "", out.getvalue()) == plain + "\n"


def test_the_colour_depends_on_the_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    with redirect_stdout(Terminal()) as out:
        stream = streaming.Stream(coloured=True)
        for nats in (0.0, 1.0, 2.0, 3.0, 50.0):  # probabilities 1, 0.37, 0.14, 0.05, 0
            stream.write("\x1b", nats)
    colours = re.findall(r"\033\[38;5;(\d+)m\\x1b\033\[0m", out.getvalue())
    assert colours == [str(colour) for _, colour in streaming.COLOURS]


def test_output_is_flushed_at_intervals() -> None:
    class Sink(io.StringIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed += 1

    clock, counts = iter([0.0, 0.01, 0.05, 0.11, 0.12, 0.3]).__next__, []
    with redirect_stdout(Sink()) as sink:
        stream = streaming.Stream(clock=clock)
        for _ in range(6):
            stream.write("x")
            counts.append(sink.flushed)
    assert counts == [1, 1, 1, 2, 2, 3]


# --- interactive -----------------------------------------------------------------------------


def test_interactive_continues_what_is_typed(
    charlm: Charlm, interactive: Interactive, tiny_run: TinyRun
) -> None:
    once = charlm("sample", tiny_run("lstm"), *COMMON, "--prompt", "ANNE").out
    result = interactive("ANNE", "BORIS", "/reset", "/seed 1", "ANNE")
    assert (result.status, result.err) == (0, "charlm: a new text begins\ncharlm: seed 1\n")
    first, rest = result.out[:21], result.out[21:]
    assert "ANNE" + first == once + "\n"
    assert len(rest) == 42
    assert rest[21:] == first


def test_interactive_settings_can_be_changed(
    charlm: Charlm, interactive: Interactive, tiny_run: TinyRun
) -> None:
    greedy = charlm("sample", tiny_run("gru"), "--temperature", 0, "--length", 9, "--prompt", "The")
    result = interactive("/temperature 0", "/length 9", "/top_k 3", "/top_k off", "The", kind="gru")
    assert "The" + result.out == greedy.out + "\n"


def test_interactive_answers_what_is_set(interactive: Interactive) -> None:
    lines = ("/temperature", "/temperature 0.5", "/top-k 3", "/seed 4", "/settings", "/top_k off")
    result = interactive(*lines, kind="gru")
    assert (result.status, result.out) == (0, "")
    assert result.err.replace("charlm: ", "").splitlines() == [
        *("temperature 0.8", "temperature 0.5", "top_k 3", "seed 4"),
        "temperature 0.5, top_k 3, top_p off, min_p off, repetition_penalty 1.0, length 20, seed 4",
        "top_k off",
    ]


@pytest.mark.parametrize("end", ["/quit", " /exit "])
def test_an_interactive_text_ends_with_a_command(interactive: Interactive, end: str) -> None:
    result = interactive("ANNE", end, "BORIS")
    assert (result.status, result.err) == (0, "")
    assert result.out == interactive("ANNE").out


def test_interactive_lines_can_be_edited_and_brought_back(tiny_run: TinyRun) -> None:
    """On a terminal: a backspace, and then the arrow up."""
    pytest.importorskip("readline")
    command = [sys.executable, "-m", "charlm", "sample", str(tiny_run("rnn")), "--interactive"]
    ours, theirs = pty.openpty()
    env = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env):
        os.close(theirs)
        shown = b""
        for keys in (b"/temperature 0.x\x7f5\r", b"\x1b[A\r", b"\x04"):
            shown += b"\n"
            while not shown.endswith(b"> "):
                shown += os.read(ours, 1000)
            os.write(ours, keys)
    os.close(ours)
    assert shown.count(b"charlm: temperature 0.5\r\n") == 2


def test_interactive_slides_past_the_context(
    charlm: Charlm, interactive: Interactive, tiny_run: TinyRun
) -> None:
    turns = {}
    for past in ("half", "slide"):
        options = ("--past-context", past, "--seed", "3", "--length", "60")
        turns[past] = interactive("ANNE", kind="gpt", options=options).out
        once = charlm("sample", tiny_run("gpt"), *options, "--prompt", "ANNE").out
        assert "ANNE" + turns[past] == once + "\n"
    assert turns["half"] != turns["slide"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/temperature -1", "temperature: -1.0 should be greater than or equal to 0"),
        ("/top_p hot", "top_p: 'hot' is not a number"),
        ("/length off", "length: 'off' is not a number"),
        ("/seed x", "seed: 'x' should be an integer from 0 to 18,446,744,073,709,551,615"),
        ("/seed -1", "seed: '-1' should be an integer from 0 to "),
        (f"/seed {2**64}", f"seed: '{2**64}' should be an integer from 0 to "),
        (f"/seed {'9' * 5000}", "seed: '999"),
        ("/fly", "/fly: no such command; /help lists the commands"),
        ("/quiet", "/quiet: no such command, perhaps /quit; /help lists the commands"),
        ("/temp 3", "/temp: no such command, perhaps /temperature; /help lists the commands"),
        ("[", "the vocabulary does not have '['"),
    ],
)
def test_an_interactive_mistake_does_not_end_the_program(
    interactive: Interactive, line: str, message: str
) -> None:
    result = interactive(line, "ANNE")
    assert (result.status, len(result.out)) == (0, 21)
    (error,) = result.err.splitlines()
    assert error.startswith(f"charlm: {message}")


# --- how it ends -----------------------------------------------------------------------------


def begin(
    run: Path, *options: str, stdin: int | None = None, stdout: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "charlm", "sample", str(run), "--length", "0", *options]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=env, cwd=ROOT, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE
    )


def test_ctrl_c_ends_an_endless_text(tiny_run: TinyRun) -> None:
    process = begin(tiny_run("lstm"))
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"\n")


def test_a_closed_pipe_ends_an_endless_text(tiny_run: TinyRun) -> None:
    process = begin(tiny_run("lstm"))
    assert process.stdout is not None
    assert process.stderr is not None
    assert len(process.stdout.read(1000)) == 1000
    process.stdout.close()
    assert (process.wait(timeout=60), process.stderr.read()) == (0, b"")
    process.stderr.close()


def test_a_closed_terminal_is_reported_in_one_line(tiny_run: TinyRun) -> None:
    ours, theirs = pty.openpty()
    process = begin(tiny_run("lstm"), stdout=theirs)
    os.close(theirs)
    assert os.read(ours, 1)
    os.close(ours)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.decode() == "charlm: standard output: cannot write: Input/output error\n"


def test_interactive_ctrl_c_stops_only_the_turn(tiny_run: TinyRun) -> None:
    process = begin(tiny_run("lstm"), "--interactive", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"ANNE\n")
    process.stdin.flush()
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(b"/length 5\nBORIS\n", timeout=60)
    assert (process.returncode, err) == (0, b"charlm: length 5\n")
    assert re.search(rb"\n.{5}\n$", out, re.DOTALL)


def test_memory_does_not_grow_with_the_length(tiny_run: TinyRun) -> None:
    if sys.platform != "linux":
        pytest.skip("needs /proc")
    peaks = [
        int(python("-c", SAMPLE + PEAK, tiny_run("rnn"), str(length)).stderr)
        for length in (300, 100_000)
    ]
    # kB, less than 50 bytes for a character; the allocator keeps up to 5 MB, however long the text
    assert peaks[1] - peaks[0] < 5_000
    weights = (tiny_run("rnn") / "best.safetensors").stat().st_size / 1e3
    numpy = int(python("-c", "import numpy" + PEAK).stderr)
    assert max(peaks) < numpy + 1.3 * weights + 35_000


SAMPLE = """
import sys
from charlm.cli import main
main(["sample", sys.argv[1], "--length", sys.argv[2]])
"""
PEAK = """
import sys
from pathlib import Path
status = Path("/proc/self/status").read_text()
print(status.partition("VmHWM:")[2].split()[0], file=sys.stderr)
"""
