"""`charlm sample`: writing with a model."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from charlm.cli.arguments import RUNS
from charlm.cli.interactive import talk
from charlm.cli.streaming import Stream, note, tell
from charlm.errors import CharlmError
from charlm.units import Likelihood

if TYPE_CHECKING:
    from charlm.api import Model
    from charlm.checkpoint.format import Meta
    from charlm.config import SampleConfig
    from charlm.data.vocab import Ids
    from charlm.sampling.novelty import Novelty
    from charlm.sampling.text import SampleSpec

DEFAULT_BATCH = 32  # texts written side by side where --batch does not say


@dataclass(frozen=True)
class Request:
    """What is to be written: `count` texts by each spec, so many side by side."""

    specs: list[SampleSpec]
    prompt: Ids
    seed: int
    count: int
    batch: int
    of_documents: bool


def sample(options: argparse.Namespace) -> int:
    """Write text to standard output."""
    # numpy's threads wait for each other so busily that two are slower than one
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from charlm.api import open_model
    from charlm.checkpoint.read import find_checkpoint, read_meta

    path = find_checkpoint(options.checkpoint, RUNS)
    meta = read_meta(path)
    plan = _make_plan(options, meta)
    bf16 = options.precision == "bf16"
    model = open_model(path, meta, options.engine, options.device, plan.batch, bf16)
    spec = plan.specs[0]
    note(f"{path}, temperature {spec.sample.temperature:g}, seed {plan.seed}, by {model.engine}")
    if options.interactive:
        return talk(model, spec, plan.prompt, plan.seed)
    written = [
        text
        for spec in plan.specs
        for text in _write(model, plan, spec, options, is_last=spec is plan.specs[-1])
    ]
    if options.novelty:
        _tell_novelty(model, written, options)
    return 0


# --- what is asked for -----------------------------------------------------------------------


def _make_plan(options: argparse.Namespace, meta: Meta) -> Request:
    from charlm.api import new_seed
    from charlm.sampling.text import SampleSpec

    configs = [_settings(options, meta, value) for value in options.temperature or [None]]
    of_documents = meta.config.data.documents == "lines"
    count = (10 if of_documents else 1) if options.num_samples is None else options.num_samples
    for option, value in (("--num-samples", count), ("--batch", options.batch)):
        if value is not None and value < 1:
            raise CharlmError(f"{option}: {value} is below 1")
    if options.interactive:
        count = 1
    length, stop = configs[0].length or None, options.stop or ("\n" if of_documents else None)
    _refuse(options, endless=length is None and stop is None, several=count * len(configs) > 1)
    scored, slide = options.score or options.show_prob, options.past_context == "slide"
    return Request(
        specs=[SampleSpec(config, length, stop, scored, slide) for config in configs],
        prompt=_read_prompt(meta, configs[0].prompt, options),
        seed=new_seed(options.seed),
        count=count,
        batch=min(count, options.batch or DEFAULT_BATCH),
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


def _refuse(options: argparse.Namespace, endless: bool, several: bool) -> None:
    """Options that contradict each other."""
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
            raise CharlmError(f"--interactive: one text in turns; leave out {', '.join(found)}")
    elif endless and (several or jsonl or options.score or options.novelty):
        raise CharlmError(
            "--length 0: such a text has no end, and something is to come after it; give --stop, "
            "or leave out --num-samples, further temperatures, --format jsonl, --score, --novelty"
        )
    if jsonl and options.show_prob:
        raise CharlmError("--show-prob: it colours a terminal; leave it out with --format jsonl")


def _read_prompt(meta: Meta, usual: str, options: argparse.Namespace) -> Ids:
    """The ids of the prompt; unknown characters are an error, or left out and counted, as asked."""
    data, vocab, prompt = meta.config.data, meta.vocabulary, options.prompt
    skip = options.on_unknown == "skip"
    if options.prompt_file:
        from charlm.data.text import read_whole

        prompt = read_whole(options.prompt_file, data)
    elif prompt is None:
        prompt, skip = usual, True  # the config's prompt is a wish, of this text or another
    if prompt:
        from charlm.data.text import clean

        prompt = "".join(clean([prompt], data))
    if skip:
        ids, skipped = vocab.encode_known(prompt)
        if skipped:
            tell(f"note: {skipped:,} unknown characters left out")
        return ids
    try:
        return vocab.encode(prompt)
    except CharlmError as error:
        raise CharlmError(f"the prompt: {error}; --on-unknown skip leaves such out") from error


# --- writing it ------------------------------------------------------------------------------


def _write(
    model: Model, plan: Request, spec: SampleSpec, options: argparse.Namespace, is_last: bool
) -> list[str]:
    """Write the texts of one spec; returns them where they are looked at afterwards."""
    from charlm.sampling.generate import in_order

    if len(plan.specs) > 1:
        note(f"temperature {spec.sample.temperature:g}")
    show = _Lines(model, plan, spec) if options.format == "jsonl" else _Plain(model, plan, options)
    keep = options.novelty or options.format == "jsonl"
    texts: list[str] = []
    for first in range(0, plan.count, plan.batch):
        numbers = range(first, min(first + plan.batch, plan.count))
        text, nats, units, is_new = "", 0.0, 0, True
        for number, piece in in_order(
            numbers, model.sample_texts(plan.prompt, spec, plan.seed, numbers)
        ):
            if is_new:
                show.begin(number)
                is_new = False
            if piece is not None:
                show.add(piece.text, piece.nats)
                text += piece.text if keep else ""
                nats, units = nats + piece.nats, units + piece.units
            else:
                cost = Likelihood(nats, units) if options.score else None
                show.end(number, text, cost, is_last and number + 1 == plan.count)
                texts.append(text)
                text, nats, units, is_new = "", 0.0, 0, True
    return texts


class _Plain:
    """The texts as they are, each with its prompt."""

    def __init__(self, model: Model, plan: Request, options: argparse.Namespace) -> None:
        self._out, self._plan, self._coloured = Stream(), plan, options.show_prob
        self._prompt = model.vocab.decode(plan.prompt)

    def begin(self, number: int) -> None:
        if self._plan.count > 1 and not self._plan.of_documents:
            note(f"sample {number + 1} of {self._plan.count}")
        self._out.write(self._prompt)

    def add(self, text: str, nats: float) -> None:
        if self._coloured:
            self._out.write_coloured(text, nats)
        else:
            self._out.write(text)

    def end(self, number: int, _text: str, cost: Likelihood | None, is_last: bool) -> None:
        if not is_last or self._plan.of_documents or self._out.is_terminal:
            self._out.write("\n")
        if cost is not None:
            tell(
                f"score of text {number + 1}: {-cost.nats:.3f} nats for {cost.chars:,} characters, "
                f"{cost.nats_per_char:.4f} nats/char, {cost.bits_per_char:.4f} bits/char"
            )


class _Lines:
    """A JSON object a line for each text."""

    def __init__(self, model: Model, plan: Request, spec: SampleSpec) -> None:
        self._out = Stream()
        self._about = {
            "prompt": model.vocab.decode(plan.prompt),
            "seed": plan.seed,
            "temperature": spec.sample.temperature,
        }

    def begin(self, number: int) -> None:
        pass

    def add(self, text: str, nats: float) -> None:
        pass

    def end(self, number: int, text: str, cost: Likelihood | None, _is_last: bool) -> None:
        scores = (
            {}
            if cost is None
            else {
                "log_likelihood": -cost.nats,
                "nats_per_char": cost.nats_per_char,
                "bits_per_char": cost.bits_per_char,
            }
        )
        self._out.write(json.dumps({"text": text, "number": number} | self._about | scores) + "\n")


# --- beside the training text ----------------------------------------------------------------


def _tell_novelty(model: Model, written: list[str], options: argparse.Namespace) -> None:
    try:
        novelty = model.novelty(written)
    except CharlmError as error:
        tell(f"note: novelty cannot be told without the training text: {error}")
        return
    if options.format == "jsonl":
        print(json.dumps({"novelty": _as_dict(novelty)}))
        return
    tell(f"longest passage copied: {len(novelty.longest):,} characters: {novelty.longest!r}")
    shares = ", ".join(f"{n}: {share:.1%}" for n, share in novelty.new_ngrams.items())
    tell(f"n-grams that are new, by n: {shares}")
    if novelty.items is not None:
        tell(f"items that are new: {novelty.new_items:,} of {novelty.items:,} different ones")


def _as_dict(novelty: Novelty) -> dict[str, object]:
    from dataclasses import asdict

    return {key: value for key, value in asdict(novelty).items() if value is not None}
