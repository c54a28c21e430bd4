"""Every hint that charlm prints can be followed.

A hint follows a semicolon. For each hint, hints.txt has a command that prints it and a command that
follows it. The last tests find all hints in the source, and fail for one that hints.txt lacks.
"""

from __future__ import annotations

import ast
import gzip
import itertools
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from charlm.checkpoint.format import BEST, LAST
from charlm.cli.messages import as_options
from tests.cli.test_meant import KEYS, OPTIONS
from tests.conftest import Charlm, TinyConfig, write_yaml
from tests.test_architecture import TREES

SHORT_FOR = {
    "TRAIN": "train --config lstm.yaml --name new --device cpu",
    "TRAIN2": "train --config lstm.yaml --name new2 --device cpu",
    "LLAMA": "train gpt.yaml --name new --device cpu --set model.mlp=swiglu --set model.qk_norm=no",
    "INSPECT": "inspect RUN --device cpu --length 50",
    "RUN": "checkpoints/lstm",
}


def expanded(text: str) -> str:
    for short, long in SHORT_FOR.items():
        text = re.sub(rf"\b{short}\b", long, text)
    return text.removeprefix("$ ").replace(r"\xff", "\udcff")


BLOCKS = Path(__file__).with_name("hints.txt").read_text(encoding="utf-8").split("\n\n")[1:]
CASES = [tuple(map(expanded, block.strip().split("\n"))) for block in BLOCKS]


@pytest.fixture
def place(workplace: Path, tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a run and files for every hint."""
    fox, accents = "The old king sees the fox.\n", "café au lait\n" * 100
    files = {
        "long.txt": (fox * 100).encode(),
        "known.txt": (fox * 20).encode(),
        "-dash.txt": (fox * 20).encode(),
        "short.txt": b"The old king sees.",
        "one.txt": b"T",
        "one.list": b"one document\n",
        "same.txt": b"a" * 1000,
        "odd.txt": ("cafe\u0301 ﬁne\n" * 100).encode(),
        "latin1.txt": accents.encode("latin-1"),
        "utf16.txt": accents.encode("utf-16"),
        "nul.txt": (fox * 20).encode("utf-16-le"),
        "greek.txt": b"The fox " * 20 + "αβγ".encode(),
        "changed.txt": (fox * 200).encode(),
        "list.txt": "\n".join(map("".join, itertools.permutations("abcdef", 4))).encode(),
        "broken/a.txt": (fox * 100).encode(),
        "broken/b.gz": gzip.compress(fox.encode() * 100)[:-20],
        "torn/a.txt": (fox * 100).encode(),
        "bytes/\udcff.txt": (fox * 100).encode(),
        "corpora/tinyshakespeare.txt": (fox * 100).encode(),
        "empty.yaml": b"name: a\n",
        "number.yaml": b"{name: 5, data: {path: long.txt}}\n",
        "old.yaml": b"{data: {path: long.txt, max_size: 5, vocab_size: 5}}\n",
        "colon.yaml": b"data:\n  path: long.txt\n  val_fraction 0.1\n",
        "space.yaml": b"data:\n  path:long.txt\n  val_fraction: 0.1\n",
        "tab.yaml": b"data:\n\tpath: long.txt\n",
        "right.yaml": b"data:\n  path: long.txt\n  val_fraction: 0.1\n",
        "quoted.yaml": b"{name: '5', data: {path: long.txt}}\n",
    }
    for name, content in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(os.fsencode(name).decode("utf-8", "surrogateescape")).write_bytes(content)
    Path("torn/b.txt").symlink_to("gone")
    write_yaml(Path("gpt.yaml"), tiny_config("gpt"))
    last = Path("checkpoints/lstm") / LAST
    shutil.copytree(last.parent, "checkpoints/with space")
    for folder, name in (("only best", BEST), ("only logs", "metrics.jsonl")):
        Path("checkpoints", folder).mkdir()
        shutil.copy(last.parent / name, Path("checkpoints", folder))
    Path("cut.safetensors").write_bytes(last.read_bytes()[:-1])
    with safe_open(last, "pt") as file:
        metadata = file.metadata()
    weights, bias = load_file(last), load_file(last)["model.head.bias"]
    for name, changed in {"nan": bias * torch.nan, "other": bias[1:].clone()}.items():
        save_file(weights | {"model.head.bias": changed}, f"{name}.safetensors", metadata)
    meta = json.loads(metadata["charlm"])
    meta["config"]["data"]["path"] = ["changed.txt"]
    Path("changed").mkdir()
    save_file(weights, Path("changed") / LAST, {"charlm": json.dumps(meta)})
    monkeypatch.setenv("CHARLM_DATA", "corpora")
    return workplace


@pytest.mark.parametrize(
    ("provoke", "words", "follow"), CASES, ids=[f"{p[-25:]}: {w[:30]}" for p, w, _ in CASES]
)
def test_a_hint_can_be_followed(
    provoke: str, words: str, follow: str, charlm: Charlm, place: Path
) -> None:
    result = [charlm(*shlex.split(command)) for command in provoke.split(" && ")][-1]
    assert words in result.err + result.out
    result = charlm(*shlex.split(follow))
    assert result.status == 0, result.err
    assert words not in result.err + result.out


def test_a_known_text_can_be_saved_by_hand(charlm: Charlm, place: Path) -> None:
    command = expanded("TRAIN --data names").split()
    hint = re.search(
        r"; get it with: charlm data fetch names \(.* save it as (.*)\)", charlm(*command).err
    )
    assert hint
    Path(hint[1]).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy("long.txt", hint[1])
    try:
        assert charlm(*command).status == 0
    finally:
        Path(hint[1]).unlink()


def test_help_lists_the_commands_of_interactive_sampling(charlm: Charlm, place: Path) -> None:
    options = ("--interactive", "--engine", "numpy", "--length", "5")
    result = charlm("sample", *options, stdin="/what\n/help\n")
    assert "charlm: /what: no such command; /help lists the commands\n" in result.err
    assert "/temperature T" in result.err


# --- the commands that a run prints at its end --------------------------------------------------


def commands_of(out: str) -> dict[str, list[str]]:
    """The commands at the end of the output of a run, by the word before them."""
    found = re.findall(r"^(sample|resume) +charlm (.*)$", out, re.MULTILINE)
    return {name: shlex.split(command) for name, command in found}


LIMITS = {
    "steps": ["train.max_steps=2"],
    "epochs": ["train.max_steps=null", "train.max_epochs=0.01"],
    "seconds": ["train.max_steps=null", "train.max_seconds=0.001"],
    "several": ["train.max_steps=2", "train.max_epochs=0.01", "train.max_seconds=0.001"],
    "patience": ["train.max_steps=4", "train.patience=1", "eval.every=1", "train.optimizer.lr=9"],
    "both": ["train.max_steps=2", "train.patience=1", "eval.every=1", "train.optimizer.lr=9"],
}


@pytest.mark.parametrize("limit", LIMITS)
def test_the_command_to_resume_goes_on(limit: str, charlm: Charlm, place: Path) -> None:
    settings = [*LIMITS[limit], "train.schedule.warmup_steps=0", "eval.sample_every=null"]
    command = expanded("TRAIN").split() + [f"--set={setting}" for setting in settings]
    steps = [0]
    for _ in range(3):
        result = charlm(*command)
        assert result.status == 0, result.err
        found = re.search(r" at step ([\d,]+)", result.out)
        assert found
        steps.append(int(found[1].replace(",", "")))
        commands = commands_of(result.out)
        command = commands["resume"]
        assert charlm(*commands["sample"], "--length", "5").status == 0
    assert steps == sorted(set(steps))


@pytest.mark.parametrize(
    ("low", "more"),
    [
        ("--steps 2", "--set train.max_steps=56"),
        ("--epochs 0.01", "--set train.max_epochs="),
        ("--set train.max_seconds=0.001", "--set train.max_seconds="),
    ],
)
def test_a_limit_that_a_run_has_passed_is_refused(
    low: str, more: str, charlm: Charlm, place: Path
) -> None:
    before = {it: it.read_bytes() for it in Path("checkpoints/lstm").iterdir() if it.is_file()}
    resume = ["train", "--resume", "lstm", "--device", "cpu"]
    refused = charlm(*resume, *low.split())
    assert (refused.status, refused.out, refused.err.count("\n")) == (2, "", 1)
    found = re.search(r"for \d+ \w+ more: (--set (train\.\w+=[\d.]+))$", refused.err.strip())
    assert found
    assert found[1].startswith(more)
    assert before == {it: it.read_bytes() for it in before}
    if "seconds" not in low:  # that would take a minute
        assert charlm(*resume, "--set", found[2]).status == 0


# --- hints name what exists, and have a case here ------------------------------------------------

NOT_RUN = {
    "give all": "several processes; tests/cli/test_torchrun.py",
    "set a multiple of": "the same",
    "save the text in a file": "the same",
    "choose another MASTER_PORT": "the same",
    "check that all were started": "the same",
    "set a whole number, as torchrun does": "the same",
    "number them from 0": "the same",
    "start the processes with torchrun": "the same",
    "set train.kernels=off and train.precision=fp32": "machines with other CPUs",
    "if it was only slow, give torchrun": "a process that is stuck",
    "use a text of at least": "charlm.scratch; tests/scratch/test_program.py",
    "convert it to UTF-8": "the same",
    "use a smaller --lr": "the same",
    "copy it into a file first": "tests/checkpoint/test_hostile.py has a pipe",
    "rename it, or start another run with --name NAME": "tests/checkpoint/test_run_folder.py",
    "wait until it ends, or start another run with --name NAME": "another process; test_train.py",
    "this is the name of the run folder, so rename it": "tests/config/test_names.py has such names",
    "this is the name of the file, so rename it, write": "the same",
    "only a file gives its name to the run": "tests/cli/test_train.py has pipes",
    "no process writes a config to it": "no hint",
    "the first": "no hint",
    "charlm eval reads it again": "no cache; tests/cli/test_untrusted.py",
    "to read one, name it in data.path": "links; tests/data/test_sources.py",
    "if it is the text, give it to eval or to a resumed run with": "test_untrusted.py has it",
    "name one to read it": "only pipes in a folder; tests/data/test_sources.py",
    "use train.kernels=auto or off": "no compiler; tests/training/test_kernel_run.py",
    "set at most": "a machine with few CPUs; tests/test_devices.py",
    "use --device cpu": "a GPU with wrong results",
    "use --engine": "a GPU, or a CPU for which PyTorch supports bf16; or no C compiler",
    "leave it out": "the same",
    "use fp16, fp32 or auto": "a GPU without bf16",
    "training is slower than this CPU allows": "no hint",
    "if no other program keeps this machine busy, stop with": "slow steps",
    "upgrade charlm": "another version of charlm",
    "use a smaller model": "a full memory",
    "use --weights int8, which has": "a large model; tests/cli/test_export.py has it",
    "get it with the extra `export` of charlm": "tests/exporting/test_onnx_file.py has it",
    "open the link above in one": "no browser; tests/cli/test_export.py has it",
    "files saved before": "no hint",
    "set TMPDIR to a folder that can be written": "test_bad_input.py has it",
    "free disk space, or set TMPDIR": "the same",
    "set CHARLM_CACHE to another folder": "tests/data/test_cache.py has it",
    "make it readable, or set CHARLM_CACHE": "the same",
    "free some space, or set CHARLM_CACHE": "the same",
    "the text is encoded again": "no hint",
    "use builtin:python": "a Python without pydoc_data",
    "name a text file instead": "a Python without source",
    "try: cat TEXT |": "a terminal; tests/data/test_sources.py has it",
    "give it once": "a pipe; tests/data/test_sources.py has it",
    "get it with: charlm data fetch": "a network; a test above saves it by hand",
    "/help lists the commands": "a test above has it",
    "held out: the last": "no hint",
    "see ": "the help of a verb; test_bad_input.py has it",
    "restore that text": "a text that was changed",
    "remove them from the file": "a text to change",
    "a smaller model or fewer steps": "tests/training/test_pace.py has it",
    "nearest known": "no hint",
    "a line break in bash or zsh is written": "test_vocab.py has it",
    "gradients ": "no hint",
    "initialised as in a new model": "no hint",
}
HELP = {
    f"charlm.cli.{it}"
    for it in (
        "arguments",
        "export_options",
        "run_options",
        "sample_options",
        "shared_options",
        "train_options",
    )
}
LIBRARY = {  # messages about arguments of the library only; tests/api has them
    *("charlm.api.arguments", "charlm.api.model", "charlm.api.reading", "charlm.api.training")
}
LLAMA = {  # a file, and weights of transformers' Llama
    *("model.safetensors", "model.norm.weight", "model.embed_tokens.weight", "model.layers")
}
GROUPS = {key.rpartition(".")[0] for key in KEYS}


def texts() -> Iterator[tuple[str, str]]:
    """All strings of the source with their modules, without docstrings and descriptions.

    A value that is put into a string is shown as NUL.
    """

    class Strings(ast.NodeVisitor):
        def __init__(self) -> None:
            self.found: list[str] = []

        def visit_keyword(self, node: ast.keyword) -> None:
            if node.arg not in ("description", "help", "epilog"):
                self.generic_visit(node)

        def visit_Expr(self, node: ast.Expr) -> None:
            if not isinstance(node.value, ast.Constant):
                self.generic_visit(node)

        def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
            parts = [it.value if isinstance(it, ast.Constant) else "\0" for it in node.values]
            self.found.append("".join(map(str, parts)))
            self.generic_visit(node)

        def visit_Constant(self, node: ast.Constant) -> None:
            if isinstance(node.value, str):
                self.found.append(node.value)

    for module, tree in TREES.items():
        visitor = Strings()
        visitor.visit(tree)
        yield from ((module, text) for text in visitor.found)


def test_every_setting_in_a_message_exists() -> None:
    found = {
        (module, key)
        for module, text in texts()
        for key in re.findall(r"\b(?:data|model|train|eval|sample)(?:\.[a-z_]+)+\b", text)
        if key not in KEYS | GROUPS | LLAMA and not key.endswith((".js", ".txt", ".onnx"))
    }
    assert found == set()
    assert any("data.exclude" in text for _, text in texts())


def test_every_command_in_a_message_exists() -> None:
    verbs = "|".join(sorted(OPTIONS, reverse=True))
    pattern = re.compile(rf"\bcharlm ({verbs}) ([^\n`;]*)")
    found = [match for _, text in texts() for match in pattern.findall(text)]
    assert {verb for verb, _ in found} >= {"train", "sample", "data fetch"}
    for verb, rest in found:
        assert set(re.findall(r"--[a-z-]+", rest)) <= OPTIONS[verb], rest


def test_every_hint_has_a_case() -> None:
    known = [words for _, words, _ in CASES] + list(NOT_RUN)
    hints = {
        (module, re.sub(r"\w+=$", "", as_options(hint.partition("\0")[0])).strip())
        for module, text in texts()
        if "\n" not in text and module not in HELP | LIBRARY
        for hint in text.split("; ")[1:]
        if not re.search("src|'none'", hint)  # the policy of a page
    }
    missing = {
        hint
        for hint in hints
        if len(hint[1]) > 8 and not any(hint[1] in words or words in hint[1] for words in known)
    }
    assert missing == set()
