"""The argument parser: verbs, options and help texts."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from charlm.cli import sample_options
from charlm.version import __version__
from charlm.visible import visible

RUNS = Path("checkpoints")
_Verbs = Any  # argparse's own type for the result of add_subparsers is private


class _Parser(argparse.ArgumentParser):
    """Prints errors in one line. `late_epilog` makes the end of the help only when it is shown."""

    late_epilog: Callable[[], str] | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {visible(message)}; see {self.prog} --help\n")

    def format_help(self) -> str:
        return super().format_help() + (self.late_epilog() if self.late_epilog else "")


def make_parser() -> argparse.ArgumentParser:
    """The parser of `charlm`. In the result of parse_args, `verb` is the name of the verb."""
    parser = _Parser(
        prog="charlm",
        description="Train character-level language models on plain text, and sample from them.",
        epilog="""\
examples:
  charlm train --config configs/quickstart.yaml
  charlm train --data mybook.txt
  charlm train --config configs/shakespeare-lstm.yaml --data mybook.txt --name mybook
  charlm sample --temperature 0.7 --prompt "def "
  charlm eval checkpoints/quickstart
  charlm inspect checkpoints/quickstart
  tensorboard --logdir checkpoints

`charlm VERB --help` describes a verb. Exit status: 0 success; 2 an error in the input;
130 or 143 interrupted, with the run saved.""",
    )
    parser.add_argument("--version", action="version", version=f"charlm {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_train(verbs)
    _add_sample(verbs)
    _add_eval(verbs)
    _add_info(verbs)
    _add_inspect(verbs)
    _add_data(verbs)
    _add_config(verbs)
    return parser


def _add_verb(verbs: _Verbs, name: str, about: str, examples: str) -> _Parser:
    parser: _Parser = verbs.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}.", epilog=examples
    )
    parser.set_defaults(verb=parser.prog.removeprefix("charlm "))
    return parser


def _add_train(verbs: _Verbs) -> None:
    parser = _add_verb(
        verbs,
        "train",
        "train a model on a text",
        """\
examples:
  charlm train --data mybook.txt
  charlm train --data src/ --set data.include=*.c --name code
  charlm train --config configs/shakespeare-gpt.yaml
  charlm train --config configs/quickstart.yaml --name wide --set model.hidden_size=512
  charlm train --resume --name wide --set train.max_steps=5000
  charlm train --config configs/mine.yaml --init-from checkpoints/wide

Without --config, charlm chooses settings that suit the text; `charlm data stats` shows them.
The run folder is OUT/NAME. Ctrl-C saves the run after the current step and prints how to
resume it; a second Ctrl-C ends charlm at once.
""",
    )
    parser.late_epilog = _settings_table
    parser.add_argument("--config", type=Path, metavar="FILE", help="a YAML file with the settings")
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="PATH",
        help="the text to train on, instead of the config's data.path",
    )
    _add_set(parser)
    parser.add_argument("--name", help="name of the run (default: the name in the config)")
    parser.add_argument(
        "--out",
        type=Path,
        default=RUNS,
        metavar="DIR",
        help="where to create the run folder (default: %(default)s)",
    )
    _add_device(parser)
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--resume",
        action="store_true",
        help="continue the run NAME (default: the config's, or the newest) as if it had never "
        "stopped",
    )
    either.add_argument(
        "--init-from",
        type=Path,
        metavar="CHECKPOINT",
        help="start a new run with the weights of this file or run folder",
    )


def _settings_table() -> str:
    from charlm.config.reference import settings

    lines = ["\nsettings for the config and for --set:\n"]
    for setting in settings():
        only = f" [{', '.join(setting.only)}]" if setting.only else ""
        default = f" ({setting.default})" if setting.default else ""
        lines.append(f"  {setting.key}{only}\n      {setting.meaning}{default}\n")
    return "".join(lines)


def _add_sample(verbs: _Verbs) -> None:
    parser = _add_verb(
        verbs,
        "sample",
        "sample text from a model",
        """\
examples:
  charlm sample
  charlm sample checkpoints/shakespeare-lstm --prompt "ROMEO:" --length 500
  charlm sample --temperature 0.5 --num-samples 3 --seed 1
  charlm sample --top-p 0.9 --stop "THE END" > out.txt
  charlm sample --temperature 0.2,0.8,1.2 --score --novelty
  charlm sample --length 0 --seed 1 > endless.txt
  charlm sample --interactive --show-prob

Standard output gets the prompt and the sampled text, and nothing else. --score and --novelty
print to standard error. Settings that you do not give come from `sample` in the model's config.
""",
    )
    _add_checkpoint(parser)
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("--prompt", metavar="TEXT", help="the text to continue")
    prompts.add_argument(
        "--prompt-file", type=Path, metavar="F", help="a file with the text to continue"
    )
    sample_options.add(parser)
    _add_unknown(parser)
    _add_device(parser)


def _add_eval(verbs: _Verbs) -> None:
    parser = _add_verb(
        verbs,
        "eval",
        "measure how well a model predicts a text",
        """\
examples:
  charlm eval
  charlm eval checkpoints/shakespeare-lstm --split test
  charlm eval checkpoints/nanogpt --protocol windows
  charlm eval --data another.txt --on-unknown skip --json

Prints nats per character, bits per character (nats / ln 2) and perplexity per character.
""",
    )
    _add_checkpoint(parser)
    parser.add_argument(
        "--data", nargs="+", metavar="PATH", help="the text (default: the one trained on)"
    )
    parser.add_argument(
        "--split",
        choices=["train", "val", "test", "all"],
        help="part of the text (default: val; with --data: all)",
    )
    parser.add_argument(
        "--protocol",
        choices=["stream", "windows", "items"],
        help="stream: every character once, the state is carried on; windows: random windows, "
        "each from a fresh state; items: each document, from a fresh state",
    )
    parser.add_argument("--window", type=int, metavar="N", help="characters in a window")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    _add_unknown(parser)
    _add_device(parser)


def _add_info(verbs: _Verbs) -> None:
    parser = _add_verb(
        verbs,
        "info",
        "describe a checkpoint",
        "examples:\n  charlm info\n  charlm info checkpoints/quickstart --json\n",
    )
    _add_checkpoint(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_inspect(verbs: _Verbs) -> None:
    parser = _add_verb(
        verbs,
        "inspect",
        "show what a network learned, as a page for a browser",
        """\
examples:
  charlm inspect
  charlm inspect checkpoints/quickstart --length 20000
  charlm inspect --text chapter.txt --out chapter.html
""",
    )
    _add_checkpoint(parser)
    texts = parser.add_mutually_exclusive_group()
    texts.add_argument(
        "--text", metavar="FILE", help="the text to read (default: the one trained on)"
    )
    texts.add_argument(
        "--split", choices=["train", "val", "test", "all"], help="part of the text (default: val)"
    )
    about_length = "characters to read; more give a larger page (default: %(default)s)"
    parser.add_argument("--length", type=int, default=5000, metavar="N", help=about_length)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the page (default: report.html next to the checkpoint)",
    )
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    about_json = "print the numbers as one JSON object; write a page only if --out is given"
    parser.add_argument("--json", action="store_true", help=about_json)
    _add_unknown(parser)
    _add_device(parser)


def _add_data(verbs: _Verbs) -> None:
    parser = _add_verb(
        verbs,
        "data",
        "describe a text, or fetch a well-known one",
        "examples:\n  charlm data stats mybook.txt\n  charlm data fetch enwik8\n",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    stats = _add_verb(
        actions,
        "stats",
        "describe a text: its characters, the score of simple models, and a config to start with",
        """\
examples:
  charlm data stats mybook.txt
  charlm data stats src/ --set data.include=*.c --json
  charlm data stats old.txt --set data.encoding=cp1252

A trained network should need fewer bits per character than the compressors and the n-gram model.
""",
    )
    stats.add_argument(
        "path", nargs="+", metavar="PATH", help="files, folders and globs, as for data.path"
    )
    _add_set(stats)
    stats.add_argument("--json", action="store_true", help="print one JSON object")
    _add_verb(
        actions,
        "list",
        "list the well-known texts that data.path can name",
        "example:\n  charlm data list\n",
    )
    fetch = _add_verb(
        actions,
        "fetch",
        "download well-known texts",
        "examples:\n  charlm data fetch names\n  charlm data fetch tinyshakespeare text8\n",
    )
    fetch.add_argument(
        "name", nargs="+", metavar="NAME", help="a name that charlm data list prints"
    )


def _add_config(verbs: _Verbs) -> None:
    parser = _add_verb(
        verbs,
        "config",
        "check a config, or list the settings",
        "examples:\n  charlm config check configs/quickstart.yaml --set train.seed=7\n"
        "  charlm config schema > configs/schema.json\n",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = _add_verb(
        actions,
        "check",
        "print the resolved settings of a config, or all its errors",
        "example:\n  charlm config check configs/quickstart.yaml --set train.seed=7\n",
    )
    check.add_argument("file", type=Path, metavar="FILE", help="the config")
    _add_set(check)
    _add_verb(
        actions,
        "schema",
        "print the JSON Schema of configs, for editors",
        "example:\n  charlm config schema > configs/schema.json\n",
    )
    _add_verb(
        actions,
        "reference",
        "print a Markdown table of all settings",
        "example:\n  charlm config reference > settings.md\n",
    )


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        nargs="?",
        type=Path,
        metavar="CHECKPOINT",
        help="a file, or a run folder (its best checkpoint, otherwise its last); default: the "
        f"newest run under {RUNS}/",
    )


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting, for example train.max_steps=500; may be repeated",
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        default="auto",
        metavar="D",
        help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)",
    )


def _add_unknown(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--on-unknown",
        choices=["error", "skip"],
        default="error",
        help="characters that are not in the vocabulary: report an error, or skip them "
        "(default: %(default)s)",
    )
