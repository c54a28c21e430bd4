"""The terminal: parse, call one verb, print, exit. The only place that does.

Exit status: 0 done; 2 the user's mistake, told in one line; 130, 143 and 129 interrupted by
SIGINT, SIGTERM or SIGHUP, after saving what there was to save. Anything else is a bug and shows
its traceback.

Each verb imports what it needs when it is called, so that `charlm --help` is quick.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.arguments import RUNS, make_parser
from charlm.errors import CharlmError

if TYPE_CHECKING:
    from charlm.data.corpus import Split
    from charlm.data.vocab import Ids, Vocab
    from charlm.training.checkpoint import Meta


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `charlm` with these arguments; returns the exit status."""
    _write_utf8()
    _keep_threads_polite()
    try:
        with _output():
            options = make_parser().parse_args(arguments)
            return _VERBS[options.verb](options)
    except CharlmError as error:
        print(f"charlm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader, such as head, has seen enough
        return 0
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        print(
            "charlm: out of memory; make the model smaller, lower train.batch_size, or raise "
            "train.grad_accum, which keeps the batch",
            file=sys.stderr,
        )
        return 2


def _is_out_of_memory(error: Exception) -> bool:
    """PyTorch has a class for it on a GPU, and only a text on a CPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _write_utf8() -> None:
    """A model's characters go out as UTF-8 whatever the locale, and line ends as they are."""
    if sys.stdout is None:  # closed by `>&-`
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  (as long as the process)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="")


@contextmanager
def _output() -> Iterator[None]:
    """Flush standard output at the end; where it cannot be written, write no more."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:  # not of standard output, which has no name
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise CharlmError(f"standard output: cannot write: {error.strerror}") from error


def _keep_threads_polite() -> None:
    """Let idle OpenMP threads spin only briefly before they sleep.

    By default they spin for milliseconds, and where another process wants the core, training
    becomes 20 times slower. Must be set before torch is imported; a user's own setting stands.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")


# --- charlm train ----------------------------------------------------------------------------


def _train(options: argparse.Namespace) -> int:
    from charlm import describe, terminal
    from charlm.config.files import load_config, parse_config
    from charlm.training import session
    from charlm.training.checkpoint import LAST, find_checkpoint, read_meta

    if options.config:
        config = load_config(options.config, options.set, options.name)
    elif not options.resume:
        raise CharlmError("train: say which run: --config FILE, or --resume to go on with one")
    else:
        folder = options.out / options.name if options.name else None
        last = find_checkpoint(folder, options.out).parent / LAST
        settings = read_meta(last).config.model_dump(mode="json")
        config = parse_config(settings, options.set, last.parent.name)
    if options.resume:
        ready = session.resume(config, options.out / config.name, options.device)
    else:
        ready = session.start(config, options.out, options.device, options.init_from)
    view = terminal.View(ready.run)
    for line in describe.describe_run(ready):
        print(line)
    for notice in ready.notices:
        view.notice(notice)
    began_at = ready.run.progress.step
    with _signals() as received, _one_voice():
        trainer = ready.trainer([view], lambda: bool(received) or view.closed)
        outcome = trainer.train()
    for line in describe.describe_end(ready.run, outcome, began_at, options.out, options.device):
        print(line)
    return 128 + received[0] if received and outcome == "stopped" else 0


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect what asks to stop inside; a second signal has its usual effect, at once."""
    received: list[int] = []
    names = ("SIGINT", "SIGTERM", "SIGHUP")  # the last when a terminal is closed
    usual = {
        number: handler
        for name in names
        if (number := getattr(signal, name, None)) is not None
        and (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }

    def receive(number: int, _frame: object) -> None:
        received.append(number)
        for each, handler in usual.items():
            signal.signal(each, handler)

    for number in usual:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextmanager
def _one_voice() -> Iterator[None]:
    """A full disk is told of once: TensorBoard's thread raises in ours, and need not print too."""
    usual = threading.excepthook

    def hook(what: threading.ExceptHookArgs) -> None:
        if not isinstance(what.exc_value, OSError):
            usual(what)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = usual


# --- charlm sample ---------------------------------------------------------------------------


def _sample(options: argparse.Namespace) -> int:
    from charlm.config.files import updated
    from charlm.data.corpus import read_file
    from charlm.sampling.generate import generate, until
    from charlm.training.session import load_model

    path, meta = _open_checkpoint(options)
    config = updated(
        meta.config.sample,
        prompt=read_file(options.prompt_file) if options.prompt_file else options.prompt,
        length=options.length,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
    )
    if options.num_samples < 1:
        raise CharlmError(f"--num-samples: {options.num_samples} is below 1")
    vocab = meta.vocabulary
    if options.prompt is None and options.prompt_file is None:
        options.on_unknown = "skip"  # the config's prompt is a wish, of this text or another
    prompt = _encode(vocab, config.prompt, options)
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4))
    _note(f"{path}, temperature {config.temperature:g}, seed {seed}")
    model = load_model(path, meta, options.device)
    for i in range(options.num_samples):
        if options.num_samples > 1:
            _note(f"sample {i + 1} of {options.num_samples}")
        _write(vocab.decode(prompt))
        characters = generate(model, vocab, prompt, config, seed, i)
        for character in until(characters, options.stop) if options.stop else characters:
            _write(character)
        if i + 1 < options.num_samples or sys.stdout.isatty():
            _write("\n")
    return 0


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _note(text: str) -> None:
    """To a person at a terminal; a log or a pipe has no use for it."""
    if sys.stderr.isatty():
        print(f"charlm: {text}", file=sys.stderr)


def _encode(vocab: Vocab, prompt: str, options: argparse.Namespace) -> Ids:
    """The ids of a prompt; unknown characters are an error, or left out and counted, as asked."""
    if options.on_unknown == "skip":
        ids, skipped = vocab.encode_known(prompt)
        if skipped:
            _warn_unknown(skipped)
        return ids
    try:
        return vocab.encode(prompt)
    except CharlmError as error:
        raise CharlmError(f"the prompt: {error}; --on-unknown skip leaves such out") from error


def _warn_unknown(count: int) -> None:
    print(f"charlm: note: {count:,} unknown characters left out", file=sys.stderr)


# --- charlm eval -----------------------------------------------------------------------------


def _eval(options: argparse.Namespace) -> int:
    from charlm.config.files import updated
    from charlm.training.evaluate import evaluate
    from charlm.training.session import load_model, text_to_score

    path, meta = _open_checkpoint(options)
    split: Split = options.split or ("all" if options.data else "val")
    config = updated(meta.config.eval, protocol=options.protocol, window=options.window)
    if options.window and config.protocol != "windows":
        raise CharlmError("--window: it goes with --protocol windows")
    ids, unknown = text_to_score(meta, options.data, split, options.on_unknown == "skip")
    if unknown:
        _warn_unknown(unknown)
    model = load_model(path, meta, options.device)
    score = evaluate(model, ids, config, meta.config.train.seed)
    if not math.isfinite(score.nats):
        raise CharlmError(f"{path}: its loss is not finite: the weights are broken; take another")
    result = {
        "checkpoint": str(path),
        "data": options.data or meta.config.data.path,
        "split": split,
        "protocol": score.protocol,
        "description": score.description,
        "chars": score.chars,
        "unknown_chars": unknown,
        "nats_per_char": score.nats_per_char,
        "bits_per_char": score.bits_per_char,
        "perplexity": score.perplexity,
    }
    if options.json:
        print(json.dumps(result))
    else:
        _print_table(
            result
            | {
                "nats_per_char": f"{score.nats_per_char:.4f}",
                "bits_per_char": f"{score.bits_per_char:.4f}",
                "perplexity": f"{score.perplexity:.3f} per character",
                "chars": f"{score.chars:,}",
            }
        )
    return 0


def _print_table(rows: dict[str, Any]) -> None:
    width = max(map(len, rows))
    for key, value in rows.items():
        print(f"{key:<{width}}  {value}")


# --- charlm info, charlm config --------------------------------------------------------------


def _info(options: argparse.Namespace) -> int:
    from charlm.describe import describe_checkpoint

    path, meta = _open_checkpoint(options)
    if options.json:
        print(json.dumps({"path": str(path)} | meta.model_dump(mode="json")))
    else:
        _print_table(describe_checkpoint(path, meta))
    return 0


def _open_checkpoint(options: argparse.Namespace) -> tuple[Path, Meta]:
    from charlm.training.checkpoint import find_checkpoint, read_meta

    path = find_checkpoint(options.checkpoint, RUNS)
    return path, read_meta(path)


def _config_check(options: argparse.Namespace) -> int:
    from charlm.config.files import load_config, to_yaml

    print(to_yaml(load_config(options.file, options.set)), end="")
    return 0


def _config_schema(_options: argparse.Namespace) -> int:
    from charlm.config.files import to_schema

    print(to_schema(), end="")
    return 0


def _config_reference(_options: argparse.Namespace) -> int:
    from charlm.config.reference import reference

    print(reference(), end="")
    return 0


_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "train": _train,
    "sample": _sample,
    "eval": _eval,
    "info": _info,
    "config check": _config_check,
    "config schema": _config_schema,
    "config reference": _config_reference,
}
