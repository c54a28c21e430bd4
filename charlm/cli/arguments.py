"""The arguments of charlm: verbs, options and help texts."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from charlm.cli import export_options, run_options, sample_options, shared_options, train_options
from charlm.cli.parser import Parser, Verbs, add_verb
from charlm.launch import TIMEOUT_S
from charlm.version import __version__


def make_parser() -> Parser:
    """The parser of `charlm`. In the result of parse_args, `verb` is the name of the verb."""
    parser = Parser(
        prog="charlm",
        description="Train character-level language models on plain text, and sample from them.",
        epilog="""\
examples:
  charlm train mybook.txt
  charlm train configs/quickstart.yaml
  charlm train configs/shakespeare-lstm.yaml mybook.txt --name mylstm
  charlm train --resume mybook --steps 5000
  charlm sample mybook -t 0.7 --prompt "Once "
  charlm eval mybook
  charlm inspect mybook
  tensorboard --logdir checkpoints

`charlm help VERB` describes a verb. Exit status: 0: success; 2: an error in the input;
129, 130 or 143: interrupted by a signal. An interrupted training run is saved.""",
    )
    parser.add_argument("--version", action="version", version=f"charlm {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    _add_train(verbs)
    _add_sample(verbs)
    _add_eval(verbs)
    _add_info(verbs)
    _add_inspect(verbs)
    export_options.add_play(verbs)
    export_options.add_export(verbs)
    run_options.add_runs(verbs)
    run_options.add_compare(verbs)
    _add_data(verbs)
    _add_config(verbs)
    _add_help(verbs)
    return parser


def _add_train(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "train",
        "train a model on a text",
        """\
examples:
  charlm train mybook.txt
  charlm train mybook.txt --model gpt --steps 2000 --name gpt
  charlm train src/ --set 'data.include=*.c' --name code
  charlm train configs/quickstart.yaml --hidden-size 512 --name wide
  charlm train --resume wide --steps 5000
  charlm train configs/mine.yaml --init-from wide

Without a config, charlm chooses settings for the text, the time and the speed of this machine;
`charlm data stats` prints them. The run folder is DIR/NAME, for example checkpoints/mybook. Ctrl-C
saves the run after the current step and prints the command that resumes it. A second Ctrl-C ends
charlm immediately.
`charlm train --help-settings` and configs/README.md list all settings.
""",
        usage="[TEXT ...] [CONFIG.yaml] [options]",
    )
    _add_sources(parser)
    parser.add_argument(
        "--name",
        help="name of the run (default: from the config, otherwise from the name of the text)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=shared_options.RUNS,
        metavar="DIR",
        help="folder that contains the run folders (default: %(default)s)",
    )
    shared_options.add_device(parser)
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="continue this run, given by its name or folder (default: the run that --name or the "
        "config names, otherwise the newest); the result is that of a run that was never stopped",
    )
    either.add_argument(
        "--init-from",
        type=Path,
        metavar="CHECKPOINT",
        help="start a new run with the weights of this run or checkpoint file",
    )
    shared_options.add_set(parser)
    parser.add_argument(
        "--timeout",
        type=_timeout,
        metavar="S",
        default=TIMEOUT_S,
        help="with torchrun: seconds that a process waits for the others (default: %(default)g)",
    )
    train_options.add(parser)


def _timeout(text: str) -> float:
    with suppress(ValueError):
        if 1 <= (seconds := float(text)) <= 1e6:
            return seconds
    raise argparse.ArgumentTypeError(f"{text}: should be from 1 to 1000000 seconds")


def _add_sources(parser: Parser) -> None:
    parser.add_argument(
        "text",
        nargs="*",
        metavar="TEXT",
        help="text to train on: files, folders, globs, - for standard input, or names from `charlm "
        "data list`; a config is also found here, by its ending .yaml",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="how long the run may take, with everything; the settings are chosen for the text, "
        "this time and the speed of this machine (default: about 3 minutes); with --resume: how "
        "much longer",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="a YAML file with the settings")
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="PATH",
        help="text to train on, as TEXT; replaces data.path of the config",
    )


def _add_sample(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "sample",
        "sample text from a model",
        """\
examples:
  charlm sample
  charlm sample shakespeare-lstm --prompt "ROMEO:" --length 500
  charlm sample -t 0.5 -n 3 --seed 1
  charlm sample --top-p 0.9 --stop "THE END" > out.txt
  charlm sample -t 0.2,0.8,1.2 --score --novelty
  charlm sample --length 0 --seed 1 > endless.txt
  charlm sample --interactive --show-prob

The prompt and the sampled text go to standard output. The results of --score and --novelty go to
standard error, but with --format jsonl to standard output. The options from --length to
--repetition-penalty, and --prompt, have their defaults in the config of the model (`sample`).
""",
    )
    shared_options.add_checkpoint(parser)
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("-p", "--prompt", metavar="TEXT", help="text to continue")
    prompts.add_argument(
        "--prompt-file", type=Path, metavar="F", help="file with the text to continue"
    )
    sample_options.add(parser)
    shared_options.add_unknown(parser)
    shared_options.add_device(parser)


def _add_eval(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "eval",
        "measure how well a model predicts a text",
        """\
examples:
  charlm eval
  charlm eval shakespeare-lstm --split test
  charlm eval nanogpt --protocol windows
  charlm eval --data another.txt --on-unknown skip --json

Prints nats per character, bits per character (nats / ln 2) and perplexity per character.
""",
    )
    shared_options.add_checkpoint(parser)
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="PATH",
        help="text to score (default: the text that the model was trained on)",
    )
    parser.add_argument(
        "--split",
        choices=["train", "val", "test", "all"],
        help="part of the text to score (default: val; with --data: all)",
    )
    parser.add_argument(
        "--protocol",
        choices=["stream", "windows", "items"],
        help="how to score the text. stream: every character once, with the state carried over "
        "(GPT: in overlapping windows); windows: random windows, each with a fresh state; items: "
        "every document, each with a fresh state (default: eval.protocol in the model's config)",
    )
    parser.add_argument(
        "--window",
        type=int,
        metavar="N",
        help="characters per window, for --protocol windows (default: eval.window in the model's "
        "config)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    shared_options.add_unknown(parser)
    shared_options.add_device(parser)


def _add_info(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "info",
        "describe a checkpoint",
        "examples:\n  charlm info\n  charlm info quickstart --json\n",
    )
    shared_options.add_checkpoint(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def _add_inspect(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "inspect",
        "show what a network learned, as a page for a browser",
        """\
examples:
  charlm inspect
  charlm inspect quickstart --length 20000
  charlm inspect --text chapter.txt --out chapter.html
""",
    )
    shared_options.add_checkpoint(parser)
    texts = parser.add_mutually_exclusive_group()
    texts.add_argument(
        "--text",
        metavar="FILE",
        help="text to read (default: the text that the model was trained on)",
    )
    texts.add_argument(
        "--split",
        choices=["train", "val", "test", "all"],
        help="part of the text that the model was trained on (default: val)",
    )
    about_length = "number of characters to read; more give a larger page (default: %(default)s)"
    parser.add_argument("--length", type=int, default=5000, metavar="N", help=about_length)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="file for the page (default: report.html next to the checkpoint, where the page of an "
        "earlier call is replaced)",
    )
    parser.add_argument("--force", action="store_true", help="overwrite the file if it exists")
    about_json = "print the results as one JSON object; a page is written only if --out is given"
    parser.add_argument("--json", action="store_true", help=about_json)
    shared_options.add_unknown(parser)
    shared_options.add_device(parser)


def _add_data(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "data",
        "describe a text, or fetch a well-known one",
        "examples:\n  charlm data stats mybook.txt\n  charlm data fetch enwik8\n",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    stats = add_verb(
        actions,
        "stats",
        "describe a text: its characters, its bits per character, and a config to start with",
        """\
examples:
  charlm data stats mybook.txt
  charlm data stats src/ --set 'data.include=*.c' --json
  charlm data stats old.txt --set data.encoding=cp1252

The bits per character are those of compressors and of an n-gram model. A trained network should
need fewer.
""",
    )
    stats.add_argument(
        "path", nargs="+", metavar="PATH", help="files, folders or globs, as in data.path"
    )
    shared_options.add_set(stats)
    stats.add_argument("--json", action="store_true", help="print the result as one JSON object")
    add_verb(
        actions,
        "list",
        "list the well-known texts, whose names can be used as data.path",
        "example:\n  charlm data list\n",
    )
    fetch = add_verb(
        actions,
        "fetch",
        "download well-known texts",
        "examples:\n  charlm data fetch names\n  charlm data fetch tinyshakespeare text8\n",
    )
    fetch.add_argument(
        "name", nargs="+", metavar="NAME", help="name of a text in the output of charlm data list"
    )


def _add_config(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "config",
        "check a config, or list the settings",
        "examples:\n  charlm config check configs/quickstart.yaml --set train.seed=7\n"
        "  charlm config schema > configs/schema.json\n"
        "  charlm config reference > settings.md\n",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    check = add_verb(
        actions,
        "check",
        "check a config, and print all its settings, defaults included, or what is wrong",
        "example:\n  charlm config check configs/quickstart.yaml --set train.seed=7\n",
    )
    check.add_argument("file", type=Path, metavar="FILE", help="config to check")
    shared_options.add_set(check)
    add_verb(
        actions,
        "schema",
        "print the JSON Schema of configs, for editors",
        "example:\n  charlm config schema > configs/schema.json\n",
    )
    add_verb(
        actions,
        "reference",
        "print a Markdown table of all settings",
        "example:\n  charlm config reference > settings.md\n",
    )


def _add_help(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "help",
        "describe a verb",
        "examples:\n  charlm help train\n  charlm help data stats\n",
    )
    parser.add_argument("words", nargs="*", metavar="VERB", help="verb to describe")
