"""Mistakes of a user: each ends with status 2 and one clear line on stderr."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from charlm.checkpoint.format import FORMAT
from charlm.cli.arguments import make_parser
from charlm.config.reference import settings
from tests.cli.test_cli import parsers
from tests.conftest import Charlm, python

RUN = Path("checkpoints") / "lstm"
LAST = RUN / "last.safetensors"


@pytest.fixture
def mistakes(workplace: Path) -> Path:
    """A working directory with all kinds of wrong files."""
    texts = {
        "empty.txt": b"",
        "short.txt": b"too short\n",
        "one.txt": b"a",
        "same.txt": b"a" * 1000,
        "binary.bin": b"\x7fELF\2\1\1\0\0\0",
        "cut.txt.gz": gzip.compress(b"the quick brown fox " * 1000)[:-20],
        "plain.xz": b"not compressed at all",
        "mixed/a.txt": "café au lait\n".encode() * 100,
        "mixed/b.txt": b"caf\xe9 au lait\n" * 100,
        "latin1.txt": b"caf\xe9 au lait\n" * 100,
        "greek.txt": "the fox and αβγ\n".encode() * 10,
        "broken.yaml": b"data: [1\n",
        "a;b.yaml": b"data: {path: greek.txt}\n",
        "large.yaml": b"# too long\n" * 100_000,
        "plain.safetensors": b"These are only words, and no tensors at all.\n",
        "empty.safetensors": b"",
    }
    (workplace / "mixed").mkdir()
    (workplace / "torn").mkdir()
    for name, content in texts.items():
        (workplace / name).write_bytes(content)
    (workplace / "torn" / "a.txt").write_text("a text\n" * 100, encoding="utf-8")
    (workplace / "torn" / "b.txt").symlink_to("gone")
    checkpoint = LAST.read_bytes()
    header_end = 8 + int.from_bytes(checkpoint[:8], "little")
    for name, size in {"tail": len(checkpoint) - 1, "head": header_end - 1, "stub": 5}.items():
        (workplace / f"cut-{name}.safetensors").write_bytes(checkpoint[:size])
    (workplace / "longer.safetensors").write_bytes(checkpoint + b"\0")
    save_file({"weight": torch.zeros(2)}, workplace / "foreign.safetensors", {"format": "pt"})
    save_file({"weight": torch.zeros(2)}, workplace / "bare.safetensors")
    weights = load_file(LAST)
    bias = weights["model.head.bias"]
    for name, changed in {"nan": bias * torch.nan, "other": bias[1:].clone()}.items():
        weights["model.head.bias"] = changed
        with safe_open(LAST, "pt") as file:
            save_file(weights, workplace / f"{name}.safetensors", file.metadata())
    newer = json.dumps({"format": FORMAT + 1, "what": "only the future knows"})
    save_file({"weight": torch.zeros(2)}, workplace / "newer.safetensors", {"charlm": newer})
    damaged = json.dumps({"format": FORMAT, "config": {"name": "a"}})
    save_file({"weight": torch.zeros(2)}, workplace / "damaged.safetensors", {"charlm": damaged})
    torch.save({"weight": torch.zeros(2)}, workplace / "torch.pt")
    (workplace / "old.pickle").write_bytes(pickle.dumps({"weight": [0.0] * 100}))
    (workplace / "folder").mkdir()
    return workplace


TRAIN = "train --config lstm.yaml --name new"
SET = f"{TRAIN} --set"

MISTAKES = {
    # the text
    f"{SET} data.path=missing.txt": "missing.txt: cannot read this text: No such file",
    f"{SET} data.path=folder": "folder: this folder has no text",
    f"{SET} data.path=mixed --set data.include=*.c": "mixed: this folder has no text that "
    "data.include and data.exclude select among its 2 files that are not hidden",
    f"{SET} data.path=mixed": "mixed/b.txt: not utf-8 at byte 3 (0xe9); perhaps it is cp1252: try "
    "--set data.encoding=cp1252, read bad bytes as U+FFFD with --set data.errors=replace, or train "
    "on bytes with --set data.unit=byte; or leave it out with data.exclude",
    f"{SET} data.path=torn": "torn/b.txt: cannot read this text: No such file or directory; leave "
    "it out with data.exclude",
    f"{SET} data.path='*.nothing'": "*.nothing: no file matches this pattern",
    f"{SET} data.path=binary.bin": "binary.bin: not a text: character 7 is a NUL",
    f"{SET} data.path=cut.txt.gz": "cut.txt.gz: this compressed file is cut short",
    f"{SET} data.path=plain.xz": "plain.xz: this compressed file is damaged",
    f"{SET} data.path=same.txt": "same.txt: all characters of this text are the same",
    f"{SET} data.val_path=missing.txt --set data.val_fraction=0": "missing.txt: cannot "
    "read this text",
    f"{SET} data.unit=byte --set data.normalize=NFC": "data.normalize: this setting needs "
    "data.unit char, but data.unit is byte",
    f"{SET} data.encoding=utf9": "data.encoding: 'utf9' should be an encoding that Python supports",
    f"{SET} train.batches=items": "train.batches: items needs a list of documents; set "
    "data.documents to lines",
    "data stats missing.txt": "missing.txt: cannot read this text",
    "data stats empty.txt": "empty.txt: this text is empty",
    "data fetch enwik9": "data fetch: enwik9 is not a known text; choose tinyshakespeare, "
    "shakespeare",
    f"{SET} data.path=empty.txt": "empty.txt: this text is empty",
    f"{SET} data.path=short.txt": "has 9 characters, and train.seq_len 16 needs 17; lower it (for "
    "a gpt: model.context), hold out less (data.val_fraction), or give a longer text",
    f"{SET} data.path=latin1.txt": "latin1.txt: not utf-8 at byte 3 (0xe9); perhaps it is cp1252: "
    "try --set data.encoding=cp1252, read bad bytes as U+FFFD with --set data.errors=replace, or "
    "train on bytes with --set data.unit=byte",
    f"{SET} data.path=builtin:pyton": "available: builtin:python, builtin:python-topics",
    # the config
    "train": "give a text, a config, or --resume to continue a run",
    "train --config missing.yaml": "missing.yaml: cannot read this config: No such file",
    "train --config folder": "folder: cannot read this config: Is a directory",
    "train --config latin1.txt": "latin1.txt: not UTF-8 text at byte 3",
    "train --config broken.yaml": "broken.yaml:2:1: not valid YAML",
    f"{SET} model.hiden_size=8": "lstm.yaml: model.hiden_size: unknown key for kind lstm; did you "
    "mean model.hidden_size?",
    f"{SET} train.batch_size=many": "lstm.yaml: train.batch_size: 'many' should be an integer",
    f"{SET} train.batch_size=true": "lstm.yaml: train.batch_size: True should be a number",
    f"{SET} batch_size": "--set batch_size: write KEY=VALUE, such as --set train.max_steps=500",
    f"{TRAIN} --name a/b": "name: 'a/b' should be letters",
    f"{TRAIN} --name con": "name: 'con' should be another name, since Windows reserves this one",
    "train --data greek.txt --set name.kind=x": "--set name.kind=x: name is not a group of settin",
    "train --data greek.txt --set data.path.kind=x": "data.path is not a group of settings",
    f"{SET} model.hidden_size=100000 --set model.n_layer=1000": "out of memory: training nee",
    f"{SET} train.threads=40000": "train.threads: 40000 should be less than or equal to 1,024",
    "train --config 'a;b.yaml'": "a;b.yaml: name: 'a;b' should be letters, digits, spaces and . _ "
    "+ - ( ), with a letter or a digit at the start and no space or dot at the end; this is the "
    "name of the file, so rename it, write `name: NAME` into it, or give --name NAME",
    "train --config large.yaml": "large.yaml: not a config: it has more than 1,000,000 bytes",
    "train --config nul.yaml\0": "cannot read this config: embedded null byte",
    f"{TRAIN} --name {'long' * 100}": "longlong",
    "config check missing.yaml": "missing.yaml: cannot read this config",
    # the device
    f"{TRAIN} --device gpu": "--device gpu: choose auto, cpu, cuda, cuda:N or mps",
    f"{TRAIN} --device cuda:99": "--device cuda:99: ",
    f"{TRAIN} --device meta": "--device meta: choose auto, cpu, cuda, cuda:N or mps",
    "sample --device gpu": "--device gpu: choose auto",
    "eval --device cuda:99": "; use --device auto or cpu",
    # the output folder
    f"{TRAIN} --out lstm.yaml": "lstm.yaml",
    f"{TRAIN} --out lstm.yaml/below": "cannot write: Not a directory; files saved before are "
    "unchanged; choose another folder with --out DIR",
    "train --config lstm.yaml": "checkpoints/lstm: this run exists and is not overwritten; "
    "continue it with --resume checkpoints/lstm, or start another run with --name",
    # resuming
    f"{TRAIN} --resume": "checkpoints/new: no last.safetensors to resume from",
    "train --resume --name new": "checkpoints/new: no last.safetensors to resume from",
    "train --resume --out nowhere": "no run under nowhere/; train one with charlm train",
    "train --resume --name lstm --set model.hidden_size=8": "a resumed run cannot change "
    "model.hidden_size (16, now 8)",
    "train --resume --name lstm --set train.seed=8": "a resumed run cannot change train.seed",
    "train --resume --name lstm --set data.path=greek.txt": "greek.txt: not the text this run was "
    "trained on (20,039 characters then, 160 now)",
    "train --resume --init-from checkpoints/lstm": "--init-from: not allowed with argument "
    "--resume",
    f"{TRAIN} --init-from checkpoints/lstm --set model.hidden_size=8": "another architecture: "
    "model.hidden_size is 8 here and 16 there",
    f"{TRAIN} --init-from checkpoints/lstm --set 'model={{kind: gpt}}' --set train.seq_len=128": (
        "another architecture: model.kind is 'gpt' here and 'lstm' there"
    ),
    f"{TRAIN} --init-from missing": "missing: no such checkpoint or run",
    # the checkpoint
    "info missing": "missing: no such checkpoint or run; runs in checkpoints/: lstm",
    "info folder": "folder: no best.safetensors and no last.safetensors in this folder",
    "info checkpoints": "checkpoints: no best.safetensors and no last.safetensors",
    f"info {'long' * 100}": "longlong",
    "info cut-tail.safetensors": "cut-tail.safetensors: this checkpoint is damaged",
    "info longer.safetensors": "longer.safetensors: this checkpoint is damaged",
    "sample cut-tail.safetensors": "cut-tail.safetensors: this checkpoint is damaged",
    "info cut-head.safetensors": "not a charlm checkpoint, or only the beginning of one",
    "info cut-stub.safetensors": "not a charlm checkpoint, or only the beginning of one",
    "info empty.safetensors": "not a charlm checkpoint, or only the beginning of one",
    "info foreign.safetensors": "foreign.safetensors: not a charlm checkpoint",
    "info bare.safetensors": "bare.safetensors: not a charlm checkpoint",
    "info plain.safetensors": "plain.safetensors: not a charlm checkpoint",
    "info torch.pt": "torch.pt: not a charlm checkpoint",
    "sample old.pickle": "old.pickle: not a charlm checkpoint",
    "eval lstm.yaml": "lstm.yaml: not a charlm checkpoint",
    "eval newer.safetensors": f"written by a newer charlm (format {FORMAT + 1}, this one reads "
    f"{FORMAT}); upgrade charlm",
    "info damaged.safetensors": "this version of charlm cannot read this checkpoint: config.data: "
    "Field",
    # sampling
    "sample --prompt '[fox]'": "the prompt: the vocabulary does not have '[' (U+005B), ']' "
    "(U+005D) (2 of 5 characters, the first at character 0); nearest known: ",
    "sample --prompt É": "--on-unknown skip leaves them out",
    "sample --prompt-file missing.txt": "missing.txt: cannot read this text",
    "sample --prompt-file latin1.txt": "latin1.txt: not utf-8 at byte 3",
    "sample --prompt a --prompt-file greek.txt": "not allowed with argument -p/--prompt",
    "sample --temperature -1": "--temperature: -1.0 should be greater than or equal to 0",
    "sample --temperature nan": "--temperature: nan should be a finite number",
    "sample --temperature hot": "argument -t/--temperature: invalid float value: 'hot'",
    "sample --top-k 0": "--top-k: 0 should be greater than or equal to 1",
    "sample --top-p 0": "--top-p: 0.0 should be greater than 0",
    "sample --top-p 2": "--top-p: 2.0 should be less than or equal to 1",
    "sample --temperature 0.5,-2": "--temperature: -2.0 should be greater than or equal to 0",
    "sample --temperature 0.5,": "argument -t/--temperature: invalid float value: ''",
    "sample --min-p 1.5": "--min-p: 1.5 should be less than or equal to 1",
    "sample --repetition-penalty 0": "--repetition-penalty: 0.0 should be above 0",
    "sample --batch 0": "argument --batch: '0' should be an integer from 1 to 1,000,000",
    "sample --length 0 --num-samples 2": "--length 0: the text never ends",
    "sample --length 0 --format jsonl": "--length 0: the text never ends",
    "sample --length 0 --novelty": "give --stop, or leave out",
    "sample --interactive --num-samples 2": "--interactive: it samples one text in turns; leave "
    "out --num-samples",
    "sample --show-prob --format jsonl": "--show-prob: it colours text on a terminal",
    "sample --engine numpy --device cuda": "--engine numpy: it computes on the CPU, not on cuda",
    "sample --engine numpy --precision bf16": "--engine numpy: it computes in fp32, not in bf16",
    "sample --engine jax": "argument --engine: invalid choice: 'jax'",
    "sample --engine torch nan.safetensors": "the model's output is not finite: its weights are "
    "broken",
    "sample nan.safetensors": "the model's output is not finite: its weights are broken",
    "sample other.safetensors": "other.safetensors: this checkpoint is damaged "
    "(model.head.bias is (39,) of F32, and not (40,) of F32); use another",
    "sample --length -1": "--length: -1 should be greater than or equal to 0",
    "sample --num-samples 0": "argument -n/--num-samples: '0' should be an integer from 1 to 1,0",
    "sample --num-samples 99999999999": "should be an integer from 1 to 1,000,000,000",
    "sample --seed -1": "argument --seed: '-1' should be an integer from 0 to 18,446,744,073,709",
    "sample --seed one": "argument --seed: 'one' should be an integer from 0 to ",
    f"sample --seed {'9' * 5000}": "argument --seed: '999",
    "sample --temperature 1e-320": "--temperature: 1e-320 should be 0, or at least 1e-12",
    "sample --temperature 1e39": "--temperature: 1e+39 should be less than or equal to 1e+09",
    "sample --repetition-penalty 1e-320": "should be greater than or equal to 1e-12",
    f"sample --length {10**16}": "--length: 10000000000000000 should be less than or equal",
    "eval --protocol windows --window 99999999": "--window: 99999999 should be less than or equal",
    # evaluation
    "eval --data missing.txt": "missing.txt: cannot read this text",
    "eval --data greek.txt": "the vocabulary does not have 'α' (U+03B1), 'β' (U+03B2), 'γ' (U+03B3)"
    " (30 of 160 characters, the first at character 12); nearest known: ",
    "eval --data ./greek.txt": "greek.txt: ",
    "eval --data greek.txt --json": "--on-unknown skip",
    "eval --data one.txt": "one.txt: the all part has 1 character",
    "eval --data short.txt --split val": "short.txt: the val part has 0 characters",
    "eval --window 0 --protocol windows": "--window: 0 should be greater than or equal to 1",
    # the command line itself
    "trian": "charlm: 'trian': no such verb; did you mean train?; see charlm --help",
    "xyz": "'xyz': no such verb; choose train, sample, eval, ",
    "data fetsh": "charlm data: 'fetsh': no such action; did you mean fetch?",
    "help trian": "charlm: 'trian': no such verb; did you mean train?",
    "help train x": "charlm train: x: charlm train has no actions",
    "train --confg lstm.yaml": "charlm train: no such option: --confg; did you mean --config "
    "lstm.yaml?; see charlm train --help",
    "sample lstm other": "charlm sample: unexpected argument: other; see charlm sample --help",
    "sample --xyzzy": "charlm sample: no such option: --xyzzy; see charlm sample --help",
    "sample -p -x": "a value that begins with a dash needs an equals sign: --prompt=-x",
    "sample --prompt --length 5": "argument -p/--prompt: expected one argument; see charlm sample",
    "train --resume lstm --name other": "--name other: --resume names another run",
    "train --resume nowhere": "nowhere: no such run; runs in checkpoints/: lstm",
    "train lstm.yaml --config lstm.yaml": "train: lstm.yaml and lstm.yaml are both configs",
    "train lstm.yaml --model gtp": "model.kind: gtp is not one of rnn, gru, lstm, gpt, mlp; did",
    "train lstm.yaml --steps 0": "train.max_steps: 0 should be greater than or equal to 1",
    f"{SET} rnn_size=9": "rnn_size: unknown key; did you mean model.hidden_size?",
    f"{SET} train.learning_rate=9": "unknown key; did you mean train.optimizer.lr?",
    "eval --split dev": "argument --split: invalid choice: 'dev'",
}


@pytest.mark.parametrize(
    ("command", "words"), MISTAKES.items(), ids=[command[-50:] for command in MISTAKES]
)
def test_a_mistake_ends_with_status_2_and_one_line(
    charlm: Charlm, mistakes: Path, command: str, words: str
) -> None:
    before = sorted(mistakes.rglob("*"))
    result = charlm(*shlex.split(command))
    assert (result.status, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert line.startswith("charlm")
    assert words in line
    assert not re.search(r"\b_\w", line)  # no private name of the source
    assert sorted(mistakes.rglob("*")) == before  # no file was written
    options = options_of(command)
    assert set(re.findall(r"(?<!\S)--[a-z-]+", line)) <= options | set(command.split())
    if "--set" not in options:  # then no advice is to change a setting
        assert not any(setting.key in line for setting in settings() if "." in setting.key)


def options_of(command: str) -> set[str]:
    """The options of the verb of a command."""
    found = dict(parsers(make_parser()))
    words = command.split()
    parser = found.get(" ".join(words[:2])) or found.get(" ".join(words[:1])) or found[""]
    return {option for action in parser._actions for option in action.option_strings}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("verb", [TRAIN, "sample", "eval"])
def test_a_missing_gpu_is_reported(charlm: Charlm, workplace: Path, verb: str) -> None:
    result = charlm(*verb.split(), "--device", "cuda")
    assert result == (
        2,
        "",
        "charlm: --device cuda: PyTorch finds no CUDA GPU; use --device auto or cpu\n",
    )


def test_without_any_run_the_message_asks_for_one(
    charlm: Charlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("info", "sample", "eval", "train --resume"):
        result = charlm(*command.split())
        assert result.status == 2
        assert result.err == (
            "charlm: no run under checkpoints/; train one with charlm train, or name a checkpoint\n"
        )


@pytest.mark.parametrize("verb", ["train --config", "config check"])
def test_all_errors_of_a_config_are_reported_a_line_each(
    charlm: Charlm, workplace: Path, verb: str
) -> None:
    (workplace / "bad.yaml").write_text(
        "data: {path: 5}\nmodl: {}\ntrain: {max_step: 5, batch_size: 0, optimizer: {lr: true}}\n",
        encoding="utf-8",
    )
    result = charlm(*verb.split(), "bad.yaml", "--set", "train.schedule.kind=cosin")
    assert (result.status, result.out) == (2, "")
    heading, *lines = result.err.splitlines()
    assert heading == "charlm: bad.yaml: 6 problems:"
    assert sorted(line.partition(": ")[0] for line in lines) == [
        *("  data.path", "  modl", "  train.batch_size", "  train.max_step"),
        *("  train.optimizer.lr", "  train.schedule.kind"),
    ]


def test_several_wrong_options_are_reported_a_line_each(charlm: Charlm, workplace: Path) -> None:
    result = charlm("sample", "--temperature", -1, "--top-k", 0, "--top-p", 2)
    assert (result.status, result.out) == (2, "")
    lines = [line for line in result.err.splitlines() if " should be " in line]
    assert len(lines) == 3
    for option, line in zip(("--temperature", "--top-k", "--top-p"), lines, strict=True):
        assert f"{option}: " in line


def test_a_known_text_that_is_missing_says_how_to_get_it(
    charlm: Charlm, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARLM_DATA", str(workplace))
    result = charlm(*shlex.split(SET), "data.path=tinyshakespeare")
    assert result.status == 2
    (line,) = result.err.splitlines()
    assert "get it with: charlm data fetch tinyshakespeare (or download https://" in line


# --- a full disk -----------------------------------------------------------------------------

LIMITED = """
import resource, sys
sys.dont_write_bytecode = True  # Python would cut its own files short, and not see it
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from charlm.cli import main
sys.exit(main(sys.argv[2:]))
"""
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE and /dev/full")


def limited(bytes_a_file: int, command: str) -> str:
    """The one line on stderr of a command whose files cannot grow beyond a number of bytes."""
    ended = python("-c", LIMITED, str(bytes_a_file), *command.split(), cwd=Path.cwd())
    assert ended.returncode == 2, ended.stderr
    (line,) = (line for line in ended.stderr.splitlines() if ": note: " not in line)
    return line


@LINUX
def test_on_a_full_disk_the_previous_checkpoint_is_kept(workplace: Path) -> None:
    before = LAST.read_bytes()
    resume = "train --resume --device cpu --set train.max_steps=8 --set eval.every="
    line = limited(len(before) * 9 // 10, resume)  # more than the other files have
    assert f"{RUN}/" in line
    assert "cannot write: File too large; files saved before are unchanged; free disk space" in line
    assert LAST.read_bytes() == before
    assert not list(RUN.rglob("*.tmp"))


@LINUX
def test_a_full_disk_is_reported_even_if_the_log_cannot_be_written(workplace: Path) -> None:
    limit = (RUN / "config.yaml").stat().st_size + 40  # TensorBoard's file has it, and more
    line = limited(limit, TRAIN)
    assert "checkpoints/new" in line
    assert "cannot write: File too large" in line


@LINUX
def test_without_a_temporary_folder_the_line_says_so(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARLM_CACHE", "/dev/null/cache")
    Path("a.txt").write_text("the fox " * 100, encoding="utf-8")
    line = limited(0, "data stats a.txt")  # no file can have a byte
    assert line.startswith("charlm: No usable temporary directory found in [")
    assert line.endswith("]; set TMPDIR to a folder that can be written")
