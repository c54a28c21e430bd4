"""`charlm sample`: sample text from a model."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from charlm.cli.interactive import run_interactive
from charlm.cli.output import print_line, print_message, print_note, print_status
from charlm.cli.shared_options import RUNS
from charlm.cli.streaming import Stream
from charlm.errors import CharlmError
from charlm.units import Likelihood

if TYPE_CHECKING:
    from charlm.api import Model
    from charlm.checkpoint.format import Meta
    from charlm.config import SampleConfig
    from charlm.data.vocab import Ids
    from charlm.sampling.text import SampleSpec


@dataclass(frozen=True)
class Request:
    """What to sample: `count` texts with each spec, at most `batch` side by side.

    Attributes:
        of_documents: the model was trained on one document a line.
    """

    specs: list[SampleSpec]
    prompt: Ids
    seed: int
    count: int
    batch: int
    of_documents: bool


def sample(options: argparse.Namespace) -> int:
    """Print sampled text to standard output."""
    # numpy's threads spin while they wait for each other: two threads are slower than one
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from charlm.api import open_model
    from charlm.checkpoint.read import find_checkpoint, open_checkpoint

    path = find_checkpoint(options.checkpoint, RUNS)
    bf16 = options.precision == "bf16"
    with open_checkpoint(path) as checkpoint:
        request = _make_request(options, checkpoint.meta)
        model = open_model(checkpoint, options.engine, options.device, request.batch, bf16)
    spec = request.specs[0]
    print_status(
        f"{path}, temperature {spec.sample.temperature:g}, seed {request.seed}, "
        f"engine {model.engine}"
    )
    if options.interactive:
        return run_interactive(model, spec, request.prompt, request.seed)
    texts = [
        text
        for spec in request.specs
        for text in _sample_texts(model, request, spec, options, is_last=spec is request.specs[-1])
    ]
    if options.novelty:
        _print_novelty(model, texts, options)
    return 0


# --- the request -----------------------------------------------------------------------------


def _make_request(options: argparse.Namespace, meta: Meta) -> Request:
    from charlm.api.model import SIDE_BY_SIDE, new_seed
    from charlm.sampling.text import SampleSpec

    configs = [_settings(options, meta, value) for value in options.temperature or [None]]
    of_documents = meta.config.data.documents == "lines"
    count = (10 if of_documents else 1) if options.num_samples is None else options.num_samples
    if options.interactive:
        count = 1
    length, stop = configs[0].length or None, options.stop or ("\n" if of_documents else None)
    endless, several = length is None and stop is None, count * len(configs) > 1
    _check_options(options, endless, several)
    scored, slide = options.score or options.show_prob, options.past_context == "slide"
    return Request(
        specs=[SampleSpec(config, length, stop, scored, slide) for config in configs],
        prompt=_read_prompt(meta, configs[0].prompt, options),
        seed=new_seed(options.seed),
        count=count,
        batch=min(count, options.batch or SIDE_BY_SIDE),
        of_documents=of_documents,
    )


def _settings(options: argparse.Namespace, meta: Meta, temperature: float | None) -> SampleConfig:
    from charlm.config.files import updated

    return updated(
        meta.config.sample,
        length=options.length,
        temperature=temperature,
        **{key: getattr(options, key) for key in ("top_k", "top_p", "min_p", "repetition_penalty")},
    )


def _check_options(options: argparse.Namespace, endless: bool, several: bool) -> None:
    """Check that no two options contradict each other.

    Raises:
        CharlmError: two of them do.
    """
    jsonl = options.format == "jsonl"
    if options.interactive:
        given = {
            "--prompt-file": options.prompt_file,
            "--num-samples": options.num_samples,
            "--batch": options.batch,
            "several temperatures": options.temperature and len(options.temperature) > 1,
            "--format jsonl": jsonl,
            "--novelty": options.novelty,
            "--score": options.score,
        }
        if found := [option for option, is_given in given.items() if is_given]:
            raise CharlmError(
                f"--interactive: it samples one text in turns; leave out {', '.join(found)}"
            )
    elif endless and (several or jsonl or options.score or options.novelty):
        raise CharlmError(
            "--length 0: the text never ends, so nothing can be printed after it; give --stop, "
            "or leave out --num-samples, further temperatures, --format jsonl, --score, --novelty"
        )
    if jsonl and options.show_prob:
        raise CharlmError(
            "--show-prob: it colours text on a terminal; leave it out with --format jsonl"
        )


def _read_prompt(meta: Meta, default: str, options: argparse.Namespace) -> Ids:
    """The ids of the prompt. Unknown characters are skipped with a note, or are an error.

    Raises:
        CharlmError: the prompt has unknown characters and --on-unknown is error.
    """
    data, vocab, prompt = meta.config.data, meta.vocabulary, options.prompt
    skip = options.on_unknown == "skip"
    if options.prompt_file:
        from charlm.data.text import read_whole

        prompt = read_whole(options.prompt_file, data)
    elif prompt is None:
        prompt, skip = default, True  # the config's prompt may be for another text
    if prompt:
        from charlm.data.text import clean

        prompt = "".join(clean([prompt], data))
    if skip:
        ids, skipped = vocab.encode_known(prompt)
        if skipped:
            print_note(f"{skipped:,} unknown characters skipped")
        return ids
    try:
        return vocab.encode(prompt)
    except CharlmError as error:
        raise CharlmError(f"the prompt: {error}; --on-unknown skip leaves them out") from error


# --- sampling and printing -------------------------------------------------------------------


def _sample_texts(
    model: Model, request: Request, spec: SampleSpec, options: argparse.Namespace, is_last: bool
) -> list[str]:
    """Sample and print the texts of one spec.

    Returns:
        The texts; they are empty strings if no option needs them.
    """
    from charlm.sampling.generate import in_order

    printer = (
        _JsonPrinter(model, request, spec)
        if options.format == "jsonl"
        else _TextPrinter(model, request, spec, options)
    )
    keep = options.novelty or options.format == "jsonl"
    texts: list[str] = []
    for first in range(0, request.count, request.batch):
        numbers = range(first, min(first + request.batch, request.count))
        chunks = model.sample_texts(request.prompt, spec, request.seed, numbers)
        for number, of_text in groupby(in_order(numbers, chunks), itemgetter(0)):
            text, nats, units = "", 0.0, 0
            printer.begin(number)
            for _, chunk in of_text:
                if chunk is None:  # the end of the text
                    break
                printer.add(chunk.text, chunk.nats)
                text += chunk.text if keep else ""
                nats, units = nats + chunk.nats, units + chunk.units
            score = Likelihood(nats, units) if options.score else None
            printer.end(number, text, score, is_last and number + 1 == request.count)
            texts.append(text)
    return texts


class _TextPrinter:
    """Prints each text after its prompt. If there are several, a line before each names it. There
    is no such line with --no-separator, or if each text is a document, which is one line."""

    def __init__(
        self, model: Model, request: Request, spec: SampleSpec, options: argparse.Namespace
    ) -> None:
        self._out, self._request = Stream(coloured=options.show_prob), request
        self._prompt = model.vocab.decode(request.prompt)
        self._separated = options.separator and not request.of_documents
        several = len(request.specs) > 1
        self._temperature = f"temperature {spec.sample.temperature:g}" if several else ""

    def begin(self, number: int) -> None:
        count = self._request.count
        counted = count > 1 and not self._request.of_documents
        names = [f"sample {number + 1} of {count}"] if counted else []
        names += [self._temperature] if self._temperature and (counted or number == 0) else []
        if names and self._separated:
            self._out.write(f"--- {', '.join(names)}\n")
        elif names:
            print_status(", ".join(names))
        self._out.write(self._prompt)

    def add(self, text: str, nats: float) -> None:
        self._out.write(text, nats)

    def end(self, number: int, _text: str, score: Likelihood | None, is_last: bool) -> None:
        if not is_last or self._request.of_documents or self._out.is_terminal:
            self._out.write("\n")
        if score is not None:
            print_message(
                f"score of text {number + 1}: {-score.nats:.3f} nats for {score.chars:,} "
                f"characters, {score.nats_per_char:.4f} nats/char, "
                f"{score.bits_per_char:.4f} bits/char"
            )


class _JsonPrinter:
    """Prints one JSON object in one line for each text."""

    def __init__(self, model: Model, request: Request, spec: SampleSpec) -> None:
        self._out = Stream()
        self._about = {
            "prompt": model.vocab.decode(request.prompt),
            "seed": request.seed,
            "temperature": spec.sample.temperature,
        }

    def begin(self, number: int) -> None:
        pass

    def add(self, text: str, nats: float) -> None:
        pass

    def end(self, number: int, text: str, score: Likelihood | None, _is_last: bool) -> None:
        line = {"text": text, "number": number} | self._about
        if score is not None:
            line |= {
                "log_likelihood": -score.nats,
                "nats_per_char": score.nats_per_char,
                "bits_per_char": score.bits_per_char,
            }
        self._out.write(json.dumps(line) + "\n")


# --- novelty ---------------------------------------------------------------------------------


def _print_novelty(model: Model, texts: list[str], options: argparse.Namespace) -> None:
    try:
        novelty = model.novelty(texts)
    except CharlmError as error:
        print_note(f"novelty cannot be measured without the training text: {error}", "sample")
        return
    if options.format == "jsonl":
        known = {key: value for key, value in asdict(novelty).items() if value is not None}
        print_line(json.dumps({"novelty": known}))
        return
    print_message(
        f"longest passage copied: {len(novelty.longest):,} characters: {novelty.longest!r}"
    )
    shares = ", ".join(f"{n}: {share:.1%}" for n, share in novelty.new_ngrams.items())
    print_message(f"n-grams that are new, by n: {shares}")
    if novelty.items is not None:
        print_message(
            f"documents that are new: {novelty.new_items:,} of {novelty.items:,} different ones; "
            f"{novelty.held_out_items:,} of the new ones are in the held-out text"
        )
