"""Training on documents, bytes, limited vocabularies and separate validation and test texts."""

from __future__ import annotations

import functools
import itertools
import math
import random
import string
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from charlm.checkpoint.format import BEST, LAST
from charlm.checkpoint.read import read_meta
from charlm.config import Config, SampleConfig
from charlm.data.corpus import Corpus, Split, open_corpus
from charlm.data.vocab import UNKNOWN, Ids, Vocab
from charlm.evaluation.evaluate import evaluate
from charlm.evaluation.scoring import text_to_score
from charlm.models import build_model
from charlm.randomness import generator
from charlm.sampling.generate import generate, sample_texts
from charlm.sampling.text import SampleSpec, Text
from charlm.sampling.torch import TorchEngine
from tests.training.helpers import (
    KINDS,
    assert_resumes,
    decided_model,
    make_config,
    metrics,
    new_run,
    plain_config,
    saved_model,
    saved_weights,
)

DOCUMENTS = ("data.documents=lines", "train.batches=items")
STEPS, LR = 3, 0.5
SGD = ("kind=sgd", "momentum=0", f"lr={LR}")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 documents, names of 1 to 12 letters; the longest is longer than a sequence."""
    choose = random.Random(5)
    words = ["".join(choose.choices("abcde", k=choose.randint(1, 12))) for _ in range(60)]
    path = tmp_path_factory.mktemp("names") / "names.txt"
    path.write_text("\n\n".join(words))
    return path


# --- documents -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_documents_stopped_twice_and_resumed_is_the_run_never_stopped(
    kind: str, names: Path, tmp_path: Path
) -> None:
    epochs = ("train.max_steps=null", "train.max_epochs=1.5", "train.batch_size=8")
    config = make_config(
        names, kind, *DOCUMENTS, *epochs, "train.grad_accum=2", "eval.max_chars=60"
    )
    steps = math.ceil(1.5 * len(pieces_of(open_corpus(config.data))) / 8)
    folder = assert_resumes(config, tmp_path, 4, steps - 2)
    assert read_meta(folder / LAST).progress.step == steps


def pieces_of(corpus: Corpus) -> list[list[int]]:
    """Every training document with the line end before it, in pieces of 8 targets."""
    text = corpus.vocab.decode(corpus.split("train")[:])
    documents = [corpus.vocab.encode("\n" + line) for line in text.splitlines(keepends=True)]
    return [list(ids[i : i + 9]) for ids in documents for i in range(0, len(ids) - 1, 8)]


def train_by_hand(config: Config) -> tuple[dict[str, Tensor], list[float]]:
    """Weights and losses of plain gradient descent in float64 that reads one document at a time."""
    corpus = open_corpus(config.data)
    model = build_model(config.model, len(corpus.vocab), config.train.seed).double()
    weights, pieces = dict(model.named_parameters()), pieces_of(corpus)
    order = itertools.chain.from_iterable(
        generator(config.train.seed, "batches", epoch).permutation(len(pieces))
        for epoch in itertools.count()
    )
    losses = []
    assert STEPS * config.train.batch_size > len(pieces)  # a second epoch begins
    for _ in range(STEPS):
        batch = [pieces[i] for i in itertools.islice(order, config.train.batch_size)]
        total = torch.zeros((), dtype=torch.float64)
        for piece in batch:
            ids = torch.tensor([int(i) for i in piece])
            logits, _ = model(ids[None, :-1], None)
            total -= F.log_softmax(logits[0], -1).gather(-1, ids[1:, None]).sum()
        loss = total / sum(len(piece) - 1 for piece in batch)
        gradients = torch.autograd.grad(loss, list(weights.values()))
        with torch.no_grad():
            for weight, gradient in zip(weights.values(), gradients, strict=True):
                weight.sub_(LR * gradient)
        losses.append(loss.item())
    return {name: weight.detach().float() for name, weight in weights.items()}, losses


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_on_documents_is_that_of_a_loop_over_single_documents(
    kind: str, pieces: int, names: Path, tmp_path: Path
) -> None:
    sgd = [f"train.optimizer.{setting}" for setting in SGD]
    shape = ("train.batch_size=27", f"train.grad_accum={pieces}", f"train.max_steps={STEPS}")
    config = plain_config(names, kind, *DOCUMENTS, *sgd, *shape)
    weights, losses = train_by_hand(config)
    folder = new_run(config, tmp_path)
    assert [record["loss"] for record in metrics(folder, "train")] == pytest.approx(
        losses, rel=1e-5
    )
    atol = 5e-5 if kind == "gpt" else 2e-6  # its norms enlarge rounding errors
    for name, weight in saved_weights(folder / LAST).items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-4, atol=atol, msg=name)


def test_a_record_counts_the_characters_of_documents_without_padding(
    names: Path, tmp_path: Path
) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(names.read_text().split()[:24]))
    epochs = ("train.max_steps=null", "train.max_epochs=2", "train.batch_size=2")
    config = plain_config(path, "rnn", *DOCUMENTS, *epochs)
    folder = new_run(config, tmp_path)
    seen = [record["chars_seen"] for record in metrics(folder, "train")]
    assert seen[-1] == 2 * len(open_corpus(config.data).split("train"))  # two epochs
    assert seen[len(seen) // 2 - 1] == pytest.approx(seen[-1] / 2, abs=10)


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_a_validation_record_is_the_evaluation_of_whole_documents(
    kind: str, names: Path, tmp_path: Path
) -> None:
    config = make_config(names, kind, *DOCUMENTS, "eval.max_chars=20")
    folder = new_run(config, tmp_path)
    meta = read_meta(folder / BEST)
    ids, _ = text_to_score(meta, (), "val", False)
    model = saved_model(folder / LAST)
    text = meta.vocabulary.decode(ids[:])
    lines = text.splitlines(keepends=True)
    ends = list(itertools.accumulate(map(len, lines)))
    n = max(end for end in ends if end <= 20)  # whole documents only
    part = ids.stretch(0, n)
    assert 2 < n < len(text)
    score = evaluate(model, part, config.eval, 0)
    assert (score.protocol, score.chars) == ("items", n)
    assert metrics(folder, "val")[-1]["loss"] == pytest.approx(score.nats_per_char, rel=1e-12)


def test_documents_are_learnt(tmp_path: Path) -> None:
    """The names are independent: the first letter is one of three, and gives the others."""
    path = tmp_path / "names.txt"
    path.write_text("Ann\nBob\nClo\n" * 50)
    settings = ("train.max_steps=100", "train.optimizer.lr=0.05", "eval.max_chars=null")
    config = plain_config(path, "gru", *DOCUMENTS, *settings, "train.batch_size=15")
    folder = new_run(config, tmp_path)
    loss = read_meta(folder / LAST).progress.best_loss
    assert loss is not None
    assert math.log(3) / 4 < loss < math.log(3) / 4 + 0.05  # ln 3 nats for four characters


def test_a_first_document_longer_than_max_chars_is_evaluated(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("".join(letter * 60 + "\n" for letter in string.ascii_lowercase))
    folder = new_run(make_config(path, "rnn", *DOCUMENTS, "eval.max_chars=40"), tmp_path)
    assert (folder / BEST).exists()


# --- other vocabularies and texts ---------------------------------------------------------


def train_and_check(config: Config, out: Path) -> tuple[Corpus, Path]:
    """Train, stop, resume and evaluate; return the corpus and the run folder."""
    folder = assert_resumes(config, out, 5)
    meta = read_meta(folder / LAST)
    corpus = open_corpus(config.data)
    assert meta.vocabulary == corpus.vocab
    assert (meta.corpus.sha256, meta.corpus.chars) == (corpus.sha256, len(corpus))
    assert metrics(folder, "val")[-1]["loss"] == loss_of(folder, "val")
    return corpus, folder


def loss_of(folder: Path, split: Split) -> float:
    """Return the loss of the last model on a split of its text."""
    meta = read_meta(folder / LAST)
    ids, unknown = text_to_score(meta, (), split, False)
    corpus = open_corpus(meta.config.data)
    assert unknown == 0
    assert meta.vocabulary.decode(ids[:]) == corpus.vocab.decode(corpus.split(split)[:])
    model = saved_model(folder / LAST)
    return evaluate(model, ids, meta.config.eval, meta.config.train.seed).nats_per_char


@pytest.mark.parametrize(("kind", "documents"), [("lstm", "none"), ("gpt", "lines")])
def test_a_model_of_bytes_is_trained_resumed_and_scored(
    kind: str, documents: str, tmp_path: Path
) -> None:
    path = tmp_path / "some.bin"
    path.write_bytes(b"".join(bytes([i, 255 - i, 0, 0xC3, 10]) for i in range(200)) + b"\xff")
    settings = ("data.unit=byte", f"data.documents={documents}", "eval.max_chars=null")
    corpus, folder = train_and_check(make_config(path, kind, *settings), tmp_path)
    assert len(corpus.vocab) == 256
    text = (folder / "samples.txt").read_bytes()
    heads = [text.index(b"--- step %d\n" % step) for step in (6, 12)]
    body = text[heads[0] + len(b"--- step 6\n") : heads[1]]
    assert len(body) == 12 + 2  # the bytes drawn, and a blank line


def test_a_model_of_a_limited_vocabulary_is_trained_resumed_and_scored(
    tiny_text: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_text, "lstm", "data.vocab_size=9", "eval.max_chars=null")
    corpus, folder = train_and_check(config, tmp_path)
    assert len(corpus.vocab) == 9
    assert saved_weights(folder / LAST)["head.weight"].shape[0] == 9
    assert UNKNOWN in (folder / "samples.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("batches", [(), DOCUMENTS])
def test_separate_validation_and_test_texts_are_scored(
    batches: tuple[str, ...], names: Path, tmp_path: Path
) -> None:
    paths = []
    for part, text in (("val", "abc\nxyz\n" * 30), ("test", "edcba\n" * 20)):
        (tmp_path / part).write_text(text)
        paths.append(f"data.{part}_path={tmp_path / part}")
    config = make_config(
        names, "gru", "data.val_fraction=0", *paths, *batches, "eval.max_chars=null"
    )
    corpus, folder = train_and_check(config, tmp_path)
    assert set(corpus.vocab.chars) == set("\nabcdexyz")
    assert (len(corpus.split("val")), len(corpus.split("test"))) == (240, 120)
    assert loss_of(folder, "test") != pytest.approx(loss_of(folder, "val"), rel=1e-3)


# --- bytes as text ---------------------------------------------------------------------------


@functools.cache
def any_model() -> TorchEngine:
    return TorchEngine(decided_model("rnn", 256, context=0))


class ScriptedEngine:
    """A model of bytes for which the next byte of `content` is certain."""

    vocab_size = 256
    context: int | None = None

    def __init__(self, content: bytes) -> None:
        self._bytes = iter(content)

    def fresh(self) -> ScriptedEngine:
        return self

    def restart(self) -> None: ...

    def select(self, texts: list[int]) -> None: ...

    def read(self, ids: Ids) -> NDArray[np.float64]:  # noqa: ARG002
        return np.where(np.arange(256) == next(self._bytes), 0.0, -1e6)[None]


def sampled_chunks(content: bytes, stop: str | None = None) -> list[str]:
    """Return the chunks of text that come out when exactly these bytes are drawn."""
    spec, vocab = SampleSpec(SampleConfig(), len(content), stop), Vocab.of_bytes()
    prompt = np.empty(0, np.uint8)
    chunks = sample_texts(ScriptedEngine(content), vocab, prompt, spec, seed=0, numbers=[0])
    return [chunk.text for _, chunk in chunks if chunk]


@given(st.binary(max_size=12))
@example("aé€🐍".encode())
@example("a€".encode()[:-1])
@example(b"\xe2\x82a\xff\xe2")
def test_the_bytes_that_are_drawn_are_the_text_that_comes_out(content: bytes) -> None:
    text = "".join(sampled_chunks(content))
    assert text == content.decode("utf-8", "surrogateescape")
    assert text.encode("utf-8", "surrogateescape") == content
    whole = [char for char in text if not "\udc80" <= char <= "\udcff"]
    assert whole == list(content.decode("utf-8", "ignore"))


@given(st.text("aé€🐍\n", max_size=8))
def test_a_character_comes_out_when_its_last_byte_is_drawn(text: str) -> None:
    alone = Text(Vocab.of_bytes(), SampleSpec(SampleConfig(), None))
    chunks = ["".join(chunk.text for chunk in alone.add([byte], None)) for byte in text.encode()]
    expected = [chunk for char in text for chunk in [""] * (len(char.encode()) - 1) + [char]]
    assert chunks == expected


def test_bytes_end_before_a_stop_of_any_length() -> None:
    content = "né€\n🐍".encode()
    for stop in ("\n", "é", "€\n", "🐍"):
        text = "".join(sampled_chunks(content, stop))
        assert text == content.decode().partition(stop)[0]
    broken = sampled_chunks(b"a\xe2\nb", "\n")  # the incomplete character comes out with the stop
    assert "".join(broken).encode("utf-8", "surrogateescape") == b"a\xe2"


@pytest.mark.parametrize("prompt", [b"", b"\xff", "é".encode()[:1], "é".encode()])
def test_a_model_of_bytes_continues_any_bytes(prompt: bytes) -> None:
    vocab, config = Vocab.of_bytes(), SampleConfig(length=40, temperature=1.0)
    ids = np.frombuffer(prompt, np.uint8)
    texts = ["".join(generate(any_model(), vocab, ids, config, seed)) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert [len(text.encode("utf-8", "surrogateescape")) for text in texts] == [40] * 3
    started = np.frombuffer(prompt or b"\n", np.uint8)  # an empty prompt is a line end
    assert texts[0] == "".join(generate(any_model(), vocab, started, config, 0))
