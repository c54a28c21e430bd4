"""The options of `charlm train`."""

from __future__ import annotations

import argparse

from charlm.cli.output import print_lines
from charlm.cli.parser import Parser

# Options that set a setting: the keys, the name of the value, and the help text. `a|b` sets the
# first key that the kind of model has.
_SETTINGS = {
    "--model": ("model.kind", "KIND", "kind of model: lstm, gru, rnn, gpt or mlp"),
    "--layers": ("model.n_layer", "N", "number of layers"),
    "--hidden-size": (
        "model.hidden_size|model.n_embd",
        "N",
        "number of hidden units per layer; for a gpt, model.n_embd",
    ),
    "--seq-len": (
        "train.seq_len|model.context",
        "N",
        "number of characters per sequence; for a gpt, model.context",
    ),
    "--dropout": (
        "model.output_dropout|model.dropout",
        "P",
        "dropout probability; of a recurrent network, on the input and the output of its layers",
    ),
    "--batch-size": ("train.batch_size", "N", "number of sequences per step"),
    "--optimizer": ("train.optimizer.kind", "KIND", "muon, adamw, adam, rmsprop or sgd"),
    "--lr": ("train.optimizer.lr", "R", "learning rate"),
    "--steps": (
        "train.max_steps",
        "N",
        "total number of steps, also with --resume; replaces other limits",
    ),
    "--epochs": (
        "train.max_epochs",
        "N",
        "total number of passes over the text; replaces other limits",
    ),
    "--eval-every": ("eval.every", "N", "number of steps between two evaluations"),
    "--seed": ("train.seed", "N", "seed of all random numbers"),
    "--threads": ("train.threads", "N", "number of CPU threads"),
}


def add(parser: Parser) -> None:
    """Add the options that set a setting, --plot and --help-settings."""
    group = parser.add_argument_group("settings that are changed most (--set changes all others)")
    for option, (_, value, about) in _SETTINGS.items():
        group.add_argument(option, metavar=value, help=about)
    parser.flags = {key: it for it, (keys, *_) in _SETTINGS.items() for key in keys.split("|")}
    parser.add_argument(
        "--plot",
        action="store_true",
        help="draw the losses at each evaluation, on a terminal, and not only at the end",
    )
    parser.add_argument(
        "--help-settings", action=_PrintSettings, nargs=0, help="list all settings, and exit"
    )


def overrides(options: argparse.Namespace) -> list[str]:
    """The settings that the options give, as `KEY=VALUE`; those of --set are the last."""
    from charlm.config.train import LIMITS

    limits = [f"train.{limit}" for limit in LIMITS]
    given = {
        keys: value
        for option, (keys, *_) in _SETTINGS.items()
        if (value := getattr(options, option[2:].replace("-", "_"))) is not None
    }
    if not given.keys().isdisjoint(limits):
        given = dict.fromkeys(limits, "null") | given
    dropout = "model.output_dropout|model.dropout"
    if dropout in given:
        given["model.input_dropout|model.dropout"] = given[dropout]
    return [*(f"{keys}={value}" for keys, value in given.items()), *options.set]


class _PrintSettings(argparse.Action):
    """Prints all settings with their meaning and default, and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from charlm.config.reference import settings

        lines = [
            "settings for a config and for --set. In brackets: the kinds that have the setting,\n"
            "if not all have it. In parentheses: the default.\n"
        ]
        for setting in settings():
            only = f" [{', '.join(setting.only)}]" if setting.only else ""
            default = f" ({setting.default})" if setting.default else ""
            lines.append(f"  {setting.key}{only}\n      {setting.meaning}{default}\n")
        print_lines("".join(lines))
        parser.exit()
