"""A library's messages name arguments; the command line shows them as options."""

from __future__ import annotations

import pytest

from charlm.cli.arguments import make_parser
from charlm.cli.messages import ARGUMENTS, as_options


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("device=cuda:1: use device=auto or cpu", "--device cuda:1: use --device auto or cpu"),
        ("continue it with resume=True, or", "continue it with --resume, or"),
        ("with init_from=runs/a/b", "with --init-from runs/a/b"),
        ("x; on_unknown=skip leaves them out", "x; --on-unknown skip leaves them out"),
        ("set train.precision=fp32 or data.path=x", "set train.precision=fp32 or data.path=x"),
        ("my-name=x, codename=y, name = z", "my-name=x, codename=y, name = z"),
    ],
)
def test_arguments_are_shown_as_options(message: str, shown: str) -> None:
    assert as_options(message) == shown


def test_every_argument_that_is_replaced_is_an_option() -> None:
    known = {
        option
        for verb in ("train", "sample", "eval", "inspect", "export")
        for action in make_parser()._subparsers._group_actions[0].choices[verb]._actions  # type: ignore[union-attr, index]
        for option in action.option_strings
    }
    assert {f"--{name.replace('_', '-')}" for name in ARGUMENTS.split("|")} <= known
