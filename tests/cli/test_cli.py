"""The command line: verbs, help, output, exit status."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from charlm import __version__, cli
from charlm.cli.arguments import make_parser
from charlm.config.files import load_config, to_schema
from charlm.config.reference import reference, settings
from tests.conftest import (
    KINDS,
    ROOT,
    Charlm,
    Terminal,
    TinyConfig,
    TinyRun,
    python,
    train_with,
    write_yaml,
)

RUN = Path("checkpoints") / "lstm"
CPU = ("--device", "cpu")  # a GPU may change the last bits or print a note

# --- verbs and options: users rely on them ---------------------------------------------------

SURFACE = {
    "": "--help --version",
    "train": "--help TEXT --minutes --config --data --set --name --out --device --resume "
    "--init-from --model --layers --hidden-size --seq-len --dropout --batch-size --optimizer --lr "
    "--steps --epochs --eval-every --seed --threads --help-settings --timeout --plot",
    "sample": "--help CHECKPOINT --prompt --prompt-file --interactive --length --temperature "
    "--top-k --top-p --min-p --repetition-penalty --seed --num-samples --batch --stop --show-prob "
    "--format --no-separator --score --novelty --past-context --engine --precision --on-unknown "
    "--device",
    "eval": "--help CHECKPOINT --data --split --protocol --window --json --on-unknown --device",
    "info": "--help CHECKPOINT --json",
    "inspect": "--help CHECKPOINT --text --split --length --out --force --json --on-unknown "
    "--device",
    "play": "--help CHECKPOINT --weights",
    "export": "--help CHECKPOINT --format --out --weights --force",
    "runs": "--help DIR --json --curve",
    "compare": "--help RUN --json",
    "data": "--help",
    "data stats": "--help PATH --set --json",
    "data list": "--help",
    "data fetch": "--help NAME",
    "config": "--help",
    "config check": "--help FILE --set",
    "config schema": "--help",
    "config reference": "--help",
    "help": "--help VERB",
}


def parsers(
    parser: argparse.ArgumentParser, verb: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield verb, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from parsers(inner, f"{verb} {name}".strip())


def arguments_of(parser: argparse.ArgumentParser) -> set[str]:
    return {
        action.option_strings[-1] if action.option_strings else str(action.metavar)
        for action in parser._actions
        if not isinstance(action, argparse._SubParsersAction)
    }


def test_the_verbs_and_options_are_those_listed_here() -> None:
    surface = {verb: arguments_of(parser) for verb, parser in parsers(make_parser())}
    assert surface == {verb: set(options.split()) for verb, options in SURFACE.items()}


@pytest.mark.parametrize("verb", SURFACE)
def test_help_has_examples_that_the_parser_accepts(charlm: Charlm, verb: str) -> None:
    result = charlm(*verb.split(), "--help")
    assert (result.status, result.err) == (0, "")
    examples = re.findall(rf"^  (charlm {verb}.*)$", result.out, re.MULTILINE)
    assert examples
    for example in examples:
        command = example.partition(" > ")[0]
        assert make_parser().parse_args(shlex.split(command)[1:]).verb.startswith(verb)


def test_help_settings_lists_every_setting_with_its_meaning(charlm: Charlm) -> None:
    result = charlm("train", "--help-settings")
    assert (result.status, result.err) == (0, "")
    for setting in settings():
        assert f"\n  {setting.key}" in result.out
        assert setting.meaning in result.out


@pytest.mark.parametrize("verb", SURFACE)
def test_help_fits_on_few_screens(
    charlm: Charlm, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    help_text = charlm(*verb.split(), "--help").out
    assert len(help_text.splitlines()) < 100
    assert charlm("help", *verb.split()).out == help_text


@pytest.mark.parametrize("verb", ["", "data", "config"])
def test_a_verb_alone_that_needs_another_prints_its_help(charlm: Charlm, verb: str) -> None:
    result = charlm(*verb.split())
    assert (result.status, result.err) == (0, "")
    assert result == charlm(*verb.split(), "--help")


def test_the_readme_describes_every_verb_as_the_help_does() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (verbs,) = (a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    for choice in verbs._choices_actions:
        assert f"| `charlm {choice.dest}` | {choice.help} |" in readme


def test_the_version_is_printed_also_by_python_m_charlm(charlm: Charlm) -> None:
    assert charlm("--version") == (0, f"charlm {__version__}\n", "")
    assert python("-m", "charlm", "--version").stdout == f"charlm {__version__}\n"


# --- output ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", ["--help", "train --help", "config schema", "config check lstm.yaml", "sample"]
)
def test_a_pipe_closed_by_its_reader_is_no_error(workplace: Path, arguments: str) -> None:
    """As in `charlm sample | head -c 5`, but with the pipe closed before the first character."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed_pipe:
        ended = python("-m", "charlm", *arguments.split(), stdout=closed_pipe, cwd=workplace)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("arguments", ["config check accents.yaml", "info"])
def test_a_locale_that_is_not_utf8_is_no_error(
    workplace: Path, tiny_config: TinyConfig, arguments: str
) -> None:
    """Also a pipe on Windows."""
    (workplace / "accents.txt").write_text("«é» " * 1000, encoding="utf-8")
    raw = tiny_config("rnn") | {"data": {"path": "accents.txt"}, "sample": {"prompt": "«é»"}}
    write_yaml(workplace / "accents.yaml", raw)
    train_with(raw, Path("checkpoints"))
    ended = python(
        "-m", "charlm", *arguments.split(), cwd=workplace, env={"PYTHONIOENCODING": "ascii"}
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_ctrl_c_ends_with_130_and_no_traceback(
    charlm: Charlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_options: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli._VERBS, "info", interrupted)
    assert charlm("info") == (130, "", "\n")


# --- charlm config ---------------------------------------------------------------------------


def test_config_check_prints_a_config_that_loads_back_equal(
    charlm: Charlm, workplace: Path
) -> None:
    result = charlm("config", "check", "lstm.yaml", "--set", "train.seed=7")
    assert (result.status, result.err) == (0, "")
    (workplace / "resolved.yaml").write_text(result.out, encoding="utf-8")
    resolved = load_config(workplace / "resolved.yaml")
    assert resolved == load_config(workplace / "lstm.yaml", ["train.seed=7"])
    assert resolved.train.seed == 7


def test_config_schema_and_reference_print_nothing_else(charlm: Charlm) -> None:
    assert charlm("config", "schema") == (0, to_schema(), "")
    assert charlm("config", "reference") == (0, reference(), "")


# --- charlm info and eval --------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_info_describes_a_checkpoint(charlm: Charlm, tiny_run: TinyRun, kind: str) -> None:
    run = tiny_run(kind)
    meta = json.loads(charlm("info", run, "--json").out)
    assert meta["path"] == str(run / "best.safetensors")
    assert meta["config"]["model"]["kind"] == kind
    result = charlm("info", run)
    assert (result.status, result.err) == (0, "")
    for part in (
        *(meta["path"], kind, f"{meta['parameters']:,} parameters", meta["corpus"]["sha256"]),
        *(meta["corpus"]["source"], repr(meta["vocab"]), f"charlm {__version__}"),
        f"{meta['progress']['best_loss']:.4f} nats/char",
    ):
        assert part in result.out


def test_the_json_of_info_has_all_keys(charlm: Charlm, tiny_run: TinyRun) -> None:
    meta = json.loads(charlm("info", tiny_run("lstm"), "--json").out)
    assert set(meta) == {
        *("path", "format", "config", "vocab", "corpus", "parameters", "progress", "log_sizes"),
        *("device", "precision", "threads", "kernel", "muon", "muon_kernel", "versions"),
        *("processes", "launched_by"),
    }
    assert (meta["format"], meta["progress"]["step"], meta["device"]) == (2, 6, "cpu")
    assert set(meta["versions"]) == {"charlm", "python", "torch", "numpy", "cpu"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_json_of_eval_has_all_keys(charlm: Charlm, tiny_run: TinyRun, kind: str) -> None:
    result = charlm("eval", tiny_run(kind), "--json", *CPU)
    assert (result.status, result.err) == (0, "")
    score = json.loads(result.out)
    assert set(score) == {
        *("checkpoint", "data", "split", "protocol", "description", "chars", "unknown_chars"),
        *("unit", "nats_per_char", "bits_per_char", "perplexity"),
    }
    assert (score["protocol"], score["split"], score["unknown_chars"]) == ("stream", "val", 0)
    best = json.loads(charlm("info", tiny_run(kind), "--json").out)["progress"]["best_loss"]
    assert score["nats_per_char"] == pytest.approx(best, rel=1e-6)
    assert result == charlm("eval", tiny_run(kind), "--json", *CPU)


def test_eval_prints_the_same_numbers_as_a_table(charlm: Charlm, tiny_run: TinyRun) -> None:
    score = json.loads(charlm("eval", tiny_run("gru"), "--json", *CPU).out)
    table = charlm("eval", tiny_run("gru"), *CPU).out
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in table.splitlines())
    assert set(rows) == set(score)
    assert rows["nats_per_char"] == f"{score['nats_per_char']:.4f}"
    assert rows["bits_per_char"] == f"{score['bits_per_char']:.4f}"
    assert rows["description"] == score["description"]


@pytest.mark.parametrize(
    ("options", "split", "protocol", "chars"),
    [
        ("--split test", "test", "stream", None),
        ("--split all", "all", "stream", None),
        ("--protocol windows", "val", "windows", 160),
        ("--protocol windows --window 5", "val", "windows", 50),
        ("--data other.txt", "all", "stream", 11),
        ("--data other.txt --split train", "train", "stream", 9),
    ],
)
def test_eval_scores_the_given_text_and_split(
    charlm: Charlm,
    workplace: Path,
    tiny_text: Path,
    options: str,
    split: str,
    protocol: str,
    chars: int | None,
) -> None:
    (workplace / "other.txt").write_text("ANNE: loves.", encoding="utf-8")
    score = json.loads(charlm("eval", RUN, "--json", *options.split()).out)
    if chars is None:
        text = tiny_text.read_text(encoding="utf-8")
        chars = len(text) - 1 if split == "all" else len(text) - int(len(text) * 0.95) - 1
    assert (score["split"], score["protocol"], score["chars"]) == (split, protocol, chars)


def test_eval_skips_unknown_characters_on_request(charlm: Charlm, workplace: Path) -> None:
    (workplace / "other.txt").write_text("the [fox] 12", encoding="utf-8")
    skipping = ("eval", RUN, *CPU, "--json", "--data", "other.txt", "--on-unknown", "skip")
    result = charlm(*skipping)
    (workplace / "other.txt").write_text("the fox ", encoding="utf-8")
    known = json.loads(charlm(*skipping).out)
    assert result.err == "charlm: note: 4 unknown characters skipped\n"
    assert json.loads(result.out) == known | {"unknown_chars": 4}
    assert known["chars"] == 7


# --- charlm sample ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_sample_prints_the_prompt_and_n_characters_and_nothing_else(
    charlm: Charlm, tiny_run: TinyRun, kind: str
) -> None:
    result = charlm("sample", tiny_run(kind), "--prompt", "ANNE:\n", "--length", 50)
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("ANNE:\n")
    assert len(result.out) == len("ANNE:\n") + 50


def test_missing_options_come_from_the_config(charlm: Charlm, tiny_run: TinyRun) -> None:
    assert len(charlm("sample", tiny_run("lstm")).out) == 30
    assert charlm("sample", tiny_run("lstm"), "--length", 1, "--prompt", "fox").out[:-1] == "fox"


def test_without_a_seed_every_text_is_different(charlm: Charlm, tiny_run: TinyRun) -> None:
    assert charlm("sample", tiny_run("gru")).out != charlm("sample", tiny_run("gru")).out


@pytest.mark.parametrize("greedy", [["--temperature", "0"], ["--top-k", "1"], ["--top-p", "1e-9"]])
def test_the_seed_does_not_matter_in_greedy_sampling(
    charlm: Charlm, tiny_run: TinyRun, greedy: list[str]
) -> None:
    greedy_text = charlm("sample", tiny_run("gru"), "--temperature", 0).out
    for seed in (1, 2):
        assert charlm("sample", tiny_run("gru"), "--seed", seed, *greedy).out == greedy_text


def test_several_samples_are_different_texts(charlm: Charlm, tiny_run: TinyRun) -> None:
    common = ("sample", tiny_run("lstm"), "--seed", 1, "--length", 20)
    three = charlm(*common, "-n", 3, "--no-separator").out
    texts = [three[start : start + 20] for start in (0, 21, 42)]
    assert three == "\n".join(texts)
    separated = [f"--- sample {i + 1} of 3\n{text}" for i, text in enumerate(texts)]
    assert charlm(*common, "-n", 3).out == "\n".join(separated)
    assert texts[0] == charlm(*common).out
    assert len(set(texts)) == 3


def test_a_prompt_from_a_file_is_used_unchanged(charlm: Charlm, workplace: Path) -> None:
    (workplace / "prompt.txt").write_bytes(b"BORIS:\nmy lord\n")
    from_file = charlm("sample", RUN, "--seed", 1, "--prompt-file", "prompt.txt").out
    assert from_file == charlm("sample", RUN, "--seed", 1, "--prompt", "BORIS:\nmy lord\n").out
    assert from_file.startswith("BORIS:\nmy lord\n")


def test_unknown_characters_of_a_prompt_are_skipped_on_request(
    charlm: Charlm, tiny_run: TinyRun
) -> None:
    common = ("sample", tiny_run("lstm"), "--seed", 1)
    result = charlm(*common, "--prompt", "f[o]x€", "--on-unknown", "skip")
    assert result.status == 0
    assert result.out == charlm(*common, "--prompt", "fox").out
    assert result.err == "charlm: note: 3 unknown characters skipped\n"


# --- which checkpoint ------------------------------------------------------------------------


def path_of(charlm: Charlm, *checkpoint: str | Path) -> Path:
    return Path(json.loads(charlm("info", *checkpoint, "--json").out)["path"])


def test_the_default_checkpoint_is_the_newest_run(charlm: Charlm, workplace: Path) -> None:
    other = Path("checkpoints") / "another"
    shutil.copytree(RUN, other)
    for newest, older in ((other, RUN), (RUN, other)):
        os.utime(newest / "last.safetensors", (2_000_000, 2_000_000))
        os.utime(older / "last.safetensors", (1_000_000, 1_000_000))
        assert path_of(charlm).parent == newest


def test_a_checkpoint_needs_nothing_but_its_file(charlm: Charlm, workplace: Path) -> None:
    moved = workplace / "moved.safetensors"
    (RUN / "best.safetensors").rename(moved)
    shutil.rmtree("checkpoints")
    assert len(charlm("sample", moved, "--length", 10).out) == 10


# --- charlm train ----------------------------------------------------------------------------


def step_of(charlm: Charlm, run: Path) -> int:
    meta = json.loads(charlm("info", run / "last.safetensors", "--json").out)
    return int(meta["progress"]["step"])


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("out", ["checkpoints", "tb"])
@pytest.mark.parametrize("folder", ["lstm", "mine"])
def test_a_folder_that_is_not_empty_is_never_overwritten(
    charlm: Charlm, workplace: Path, out: str, folder: str
) -> None:
    Path("checkpoints/mine").mkdir()
    Path("checkpoints/mine/poem.txt").write_text("my own", encoding="utf-8")
    Path("checkpoints").rename(out)
    before = contents(workplace)
    result = charlm("train", "--config", "lstm.yaml", "--out", out, "--name", folder)
    assert (result.status, result.out) == (2, "")
    is_run = folder == "lstm"
    found = "this run exists and is" if is_run else "other files are here and are"
    assert f"{out}/{folder}: {found} not overwritten; " in result.err
    assert ("--resume" in result.err) == is_run
    assert "--name" in result.err
    assert contents(workplace) == before


def test_training_prints_plain_lines(charlm: Charlm, workplace: Path) -> None:
    result = charlm("train", "--config", "lstm.yaml", "--name", "new", *CPU)
    assert (result.status, result.err) == (0, "")
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", result.out)
    for word in ("parameters", "vocabulary", "6 steps", "step      3  val", "best so far", "saved"):
        assert word in result.out
    samples = Path("checkpoints/new/samples.txt").read_text(encoding="utf-8")
    assert samples.splitlines()[1] in result.out


def test_the_sample_command_that_training_prints_works(charlm: Charlm, workplace: Path) -> None:
    out = charlm("train", "--config", "lstm.yaml", "--name", "new", "--out", "my runs").out
    command = next(line for line in out.splitlines() if line.startswith("sample "))
    words = shlex.split(command)
    assert words[1:3] == ["charlm", "sample"]
    assert len(charlm(*words[2:]).out) == 30


def test_a_run_folder_has_the_documented_files(tiny_run: TinyRun) -> None:
    run = tiny_run("gru")
    (events,) = run.glob("events.out.tfevents.*")
    assert {path.name for path in run.iterdir()} == {
        *("config.yaml", "last.safetensors", "best.safetensors", "metrics.jsonl", "samples.txt"),
        events.name,
    }
    assert load_config(run / "config.yaml") == load_config(run.parent / "gru.yaml")


@pytest.mark.parametrize("how", ["--config lstm.yaml", "--name lstm", "", "--name moved"])
def test_a_run_continues_to_a_new_limit(charlm: Charlm, workplace: Path, how: str) -> None:
    run = RUN.rename("checkpoints/moved") if "moved" in how else RUN
    result = charlm("train", "--resume", *how.split(), *CPU, "--set", "train.max_steps=8")
    assert result.status == 0
    (note,) = result.err.splitlines()
    assert "note: the cosine schedule now ends at the new limit" in note
    assert "finished at step 8" in result.out
    assert step_of(charlm, run) == 8
    assert RUN.exists() == (run == RUN)


def test_a_finished_run_is_not_trained_again(charlm: Charlm, workplace: Path) -> None:
    weights = (RUN / "best.safetensors").read_bytes()
    result = charlm("train", "--resume", "--name", "lstm")
    assert result.status == 0
    assert "already finished at step 6" in result.out
    assert (RUN / "best.safetensors").read_bytes() == weights


def test_a_run_starts_with_the_weights_of_another(
    charlm: Charlm, workplace: Path, tiny_config: TinyConfig
) -> None:
    (workplace / "new.txt").write_text("new [text] " * 100, encoding="utf-8")
    raw = tiny_config("lstm") | {"name": "tuned", "data": {"path": "new.txt"}}
    write_yaml(workplace / "tuned.yaml", raw)
    result = charlm("train", "--config", "tuned.yaml", "--init-from", RUN, *CPU)
    assert result.status == 0
    first, second = result.err.splitlines()
    assert f"weights from {RUN}/best.safetensors (step " in first
    assert "the vocabulary grew from" in second
    assert "'[' (U+005B), ']' (U+005D)" in second
    assert path_of(charlm, "checkpoints/tuned").exists()


@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal_shows_a_progress_bar_and_colours_unless_no_color_is_set(
    charlm: Charlm, workplace: Path, monkeypatch: pytest.MonkeyPatch, colour: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    with redirect_stdout(Terminal()) as out, redirect_stderr(Terminal()) as err:
        assert charlm("train", "--config", "lstm.yaml", "--name", "seen").status == 0
    assert "step 6/6, epoch " in err.getvalue()
    assert ("\033[2m" in out.getvalue()) == colour
