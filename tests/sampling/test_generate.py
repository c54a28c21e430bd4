"""Writing text: the loop, past a GPT's context, and where to stop."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.config import SampleConfig
from charlm.data.vocab import Ids, Vocab
from charlm.models import CharModel
from charlm.randomness import generator
from charlm.sampling.engine import Engine, Reader
from charlm.sampling.filters import Floats
from charlm.sampling.generate import Conversation, choose, generate, in_order
from charlm.sampling.generate import sample_texts as write_texts
from charlm.sampling.text import Chunk, SampleSpec
from charlm.sampling.torch import TorchEngine
from tests.sampling import numpy_engine
from tests.training.helpers import KINDS, decided_model

CONTEXT = 6
VOCAB = Vocab("\nabcde")
PLAIN = SampleConfig(length=40, temperature=1.0)


def make_model(kind: str, context: int = CONTEXT, vocab_size: int = len(VOCAB)) -> CharModel:
    return decided_model(kind, vocab_size, context)


ENGINES = [numpy_engine, TorchEngine]


def write(model: CharModel, prompt: str, config: SampleConfig = PLAIN, seed: int = 0) -> str:
    return "".join(generate(numpy_engine(model), VOCAB, VOCAB.encode(prompt), config, seed))


def write_side_by_side(engine: Engine, spec: SampleSpec, numbers: list[int]) -> dict[int, str]:
    texts = dict.fromkeys(numbers, "")
    for number, piece in write_texts(engine, VOCAB, VOCAB.encode("ab"), spec, 1, numbers):
        texts[number] += piece.text if piece else ""
    return texts


@torch.no_grad()
def whole(model: CharModel, ids: list[int]) -> Floats:
    """The logits of the next character, everything read at once from a fresh state."""
    model.eval()
    return np.asarray(model(torch.tensor([ids]), None)[0][0, -1].double().numpy())


def in_view(model: CharModel, ids: list[int]) -> list[int]:
    """What a model looks at: all, or with a context the rule of the documentation, one by one.

    Whenever the context is full, the last half of it is read afresh.
    """
    if model.context is None:
        return ids
    view: list[int] = []
    for character in ids:
        if len(view) == model.context:
            view = view[len(view) - model.context // 2 :]
        view = [*view, character]
    return view


# --- the loop --------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [PLAIN, SampleConfig(length=25, temperature=0.7, top_k=3)])
@pytest.mark.parametrize("prompt", ["a", "abcde", "abcdeabcdeabcde"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_character_is_drawn_from_the_logits_after_all_before_it(
    kind: str, prompt: str, config: SampleConfig
) -> None:
    model = make_model(kind)
    text, randomness = list(VOCAB.encode(prompt)), generator(0, "text", 0)
    for _ in range(config.length):
        logits = whole(model, in_view(model, [int(i) for i in text]))
        text.append(int(choose(logits[None], config, np.array([randomness.random()]))[0]))
    for engine in ENGINES:
        written = generate(engine(model.train()), VOCAB, VOCAB.encode(prompt), config, 0)
        assert "".join(written) == VOCAB.decode(text)[len(prompt) :]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_text_and_another_another(kind: str) -> None:
    model = make_model(kind)
    texts = [write(model, "ab", seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert set("".join(texts)) <= set(VOCAB.chars)


@pytest.mark.parametrize("kind", KINDS)
def test_each_number_of_a_seed_is_a_sample_of_its_own(kind: str) -> None:
    model, prompt = make_model(kind), VOCAB.encode("ab")
    engine = numpy_engine(model)
    texts = ["".join(generate(engine, VOCAB, prompt, PLAIN, 1, number)) for number in (0, 1, 2, 1)]
    assert len(set(texts)) == 3
    assert texts[1] == texts[3]
    assert texts[0] == write(model, "ab", seed=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [0, 1, CONTEXT, 30])
def test_a_text_is_as_long_as_asked_for(length: int, kind: str) -> None:
    assert len(write(make_model(kind), "ab", SampleConfig(length=length))) == length


@pytest.mark.parametrize("kind", KINDS)
def test_a_shorter_text_is_the_beginning_of_a_longer_one(kind: str) -> None:
    model = make_model(kind)
    short, long = (write(model, "ab", SampleConfig(length=n)) for n in (10, 30))
    assert long.startswith(short)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("chars", "start"), [("\nabcde", "\n"), ("ab\ncde", "\n"), ("bcdefg", "b")]
)
def test_an_empty_prompt_starts_after_a_line_end_or_the_first_character(
    chars: str, start: str, kind: str
) -> None:
    engine, vocab = numpy_engine(make_model(kind)), Vocab(chars)
    empty, started = (
        "".join(generate(engine, vocab, vocab.encode(prompt), PLAIN, 3)) for prompt in ("", start)
    )
    assert empty == started


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_writing_needs_no_luck(kind: str) -> None:
    model, greedy = make_model(kind), SampleConfig(length=20, temperature=0)
    assert write(model, "ab", greedy, seed=1) == write(model, "ab", greedy, seed=2)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_written_in_turns_do_not_disturb_each_other(kind: str) -> None:
    model = make_model(kind)
    alone = [write(model, "ab", seed=seed) for seed in (1, 2, 3)]
    engine = numpy_engine(model)
    writers = [generate(engine, VOCAB, VOCAB.encode("ab"), PLAIN, seed) for seed in (1, 2, 3)]
    rows = itertools.zip_longest(*writers, fillvalue="")  # in as many pieces as the time allows
    together = ["".join(column) for column in zip(*rows, strict=True)]
    assert together == alone


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_writing_leaves_model_and_random_numbers_as_they_were(kind: str, training: bool) -> None:
    model = make_model(kind).train(training)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    before_us = torch.get_rng_state()
    characters = generate(TorchEngine(model), VOCAB, VOCAB.encode("ab"), PLAIN, 0)
    for _ in itertools.islice(characters, 3):
        assert model.training is training  # between two characters too
        assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before_us)
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is None


# --- reading ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["lstm", "gpt"]), st.integers(2, 7), st.data())
def test_it_does_not_matter_in_what_pieces_a_text_is_read(
    kind: str, context: int, data: st.DataObject
) -> None:
    model = make_model(kind, context)
    pieces = data.draw(
        st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=12), min_size=1, max_size=6)
    )
    reader, text = Reader(numpy_engine(model)), list[int]()
    for piece in pieces:
        text += piece
        expected = whole(model, in_view(model, text))
        assert reader.read(np.array([piece]))[0] == pytest.approx(expected, abs=1e-4)


class Counting:
    """An engine that only counts what it has read."""

    vocab_size = 2

    def __init__(self, context: int, seen: list[int], before: int = 0) -> None:
        self.context: int | None = context
        self._seen, self._before = seen, before

    def fresh(self) -> Counting:
        return Counting(self.context or 0, self._seen)

    def restart(self) -> None:
        self._before = 0

    def select(self, texts: list[int]) -> None:
        pass

    def read(self, ids: Ids) -> Floats:
        self._before += ids.shape[1]
        self._seen.append(self._before)
        return np.zeros((len(ids), 2))


@pytest.mark.parametrize("slide", [False, True])
@pytest.mark.parametrize("context", [2, 5, 6])
def test_past_its_context_a_gpt_sees_half_of_it_or_when_it_slides_all(
    context: int, slide: bool
) -> None:
    seen: list[int] = []
    reader = Reader(Counting(context, seen), slide)
    for _ in range(5 * context):
        reader.read(np.zeros((1, 1), np.uint8))
    assert seen[:context] == list(range(1, context + 1))
    assert max(seen) == context
    assert min(seen[context:]) == (context if slide else context // 2 + 1)


def test_sliding_is_reading_the_last_characters_of_a_context_each_time() -> None:
    model, text = make_model("gpt"), [1, 2, 3, 4, 5, 0, 2, 4, 1, 3, 5, 5, 1]
    reader = Reader(numpy_engine(model), slide=True)
    for end in range(1, len(text) + 1):
        logits = reader.read(np.array([text[end - 1 : end]]))[0]
        assert logits == pytest.approx(whole(model, text[:end][-CONTEXT:]), abs=1e-4)


# --- many texts, and one in turns ------------------------------------------------------------


@pytest.mark.parametrize("stop", [None, "a", "ca"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_does_not_depend_on_what_is_written_beside_it(kind: str, stop: str | None) -> None:
    model, spec = make_model(kind), SampleSpec(PLAIN, PLAIN.length, stop)
    alone = {n: write_side_by_side(numpy_engine(model), spec, [n])[n] for n in range(6)}
    assert len(set(alone.values())) > 2
    for engine in ENGINES:
        assert write_side_by_side(engine(model), spec, list(range(6))) == alone
        assert write_side_by_side(engine(model), spec, [4, 1]) == {n: alone[n] for n in (4, 1)}


@given(st.lists(st.integers(0, 3), max_size=30))
def test_texts_come_out_one_after_the_other(steps: list[int]) -> None:
    numbers = list(dict.fromkeys(steps))
    ends = {step: i for i, step in enumerate(steps)}  # its last stands for its end
    written = [(n, None if ends[n] == i else Chunk(str(i))) for i, n in enumerate(steps)]
    ordered = list(in_order(numbers, iter(written)))
    assert ordered == [it for number in numbers for it in written if it[0] == number]


def test_the_first_text_is_not_held_up_by_the_others() -> None:
    def written() -> Iterator[tuple[int, Chunk | None]]:
        for number in (1, 0, 1):
            asked.append(number)
            yield number, Chunk("x")

    asked: list[int] = []
    assert next(in_order([0, 1], written())) == (0, Chunk("x"))
    assert asked == [1, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_written_in_turns_goes_on_from_all_before(kind: str) -> None:
    penalised = PLAIN.model_copy(update={"repetition_penalty": 1.5})
    engine, spec = numpy_engine(make_model(kind)), SampleSpec(penalised, 9)
    talk = Conversation(engine, VOCAB, seed=0)
    texts = ["".join(piece.text for piece in talk.write(VOCAB.encode("ab"), spec))]
    broken_off = talk.write(VOCAB.encode("ccc"), spec)
    texts.append("".join(next(broken_off).text for _ in range(4)))
    del broken_off
    texts.append("".join(piece.text for piece in talk.write(VOCAB.encode(""), spec)))
    randomness, text = generator(0, "text", 0), ""
    for typed, count in (("ab", 9), ("ccc", 4), ("", 9)):
        text += typed
        for _ in range(count):
            logits = Reader(engine).read(VOCAB.encode(text)[None]).astype(np.float64)
            before = VOCAB.encode(text)[None]
            drawn = choose(logits, penalised, np.array([randomness.random()]), before)
            text += VOCAB.decode(drawn.tolist())
    assert text == f"ab{texts[0]}ccc{texts[1]}{texts[2]}"


@pytest.mark.parametrize("numbers", [[0], [3, 1, 2]], ids=len)
@pytest.mark.parametrize("scored", [False, True])
def test_characters_handed_out_together_are_those_handed_out_one_by_one(
    numbers: list[int], scored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, spec = numpy_engine(make_model("lstm")), SampleSpec(PLAIN, 50, scored=scored)
    found = []
    for patience in (0.0, 1e9):
        monkeypatch.setattr("charlm.sampling.generate.PATIENCE", patience)
        pieces = list(write_texts(engine, VOCAB, VOCAB.encode("ab"), spec, 1, numbers))
        by_text = {number: [piece for n, piece in pieces if n == number] for number in numbers}
        assert all(len(its[0].text) == 1 and its[-1] is None for its in by_text.values() if its[0])
        counts = {number: len(its) for number, its in by_text.items()}
        together = patience > 0 and not scored
        assert counts == dict.fromkeys(numbers, 3 if together else 51)  # the first comes alone
        written = {n: [piece for piece in its if piece] for n, its in by_text.items()}
        assert all(sum(piece.units for piece in its) == 50 for its in written.values())
        found.append(
            {
                n: ("".join(p.text for p in its), [p.nats for p in its if p.nats])
                for n, its in written.items()
            }
        )
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_text_cost_is_minus_ln_of_its_probability(kind: str) -> None:
    model, spec = (
        make_model(kind),
        SampleSpec(SampleConfig(temperature=0.5, top_k=3), 20, scored=True),
    )
    prompt = VOCAB.encode("ab")
    pieces = [p for _, p in write_texts(numpy_engine(model), VOCAB, prompt, spec, 0, [0]) if p]
    text = [int(i) for i in prompt]
    for piece in pieces:
        logits = whole(model, in_view(model, text))
        assert piece.nats == pytest.approx(float(nats_of(logits, piece.text)), abs=1e-4)
        text += VOCAB.encode(piece.text).tolist()


def nats_of(logits: Floats, char: str) -> float:
    probs = np.exp(logits) / np.exp(logits).sum()
    return -float(np.log(probs[VOCAB.chars.index(char)]))


def test_generation_stops_when_the_stop_text_is_written() -> None:
    model = make_model("lstm")
    spec = SampleSpec(PLAIN, PLAIN.length)
    (text,) = write_side_by_side(numpy_engine(model), spec, [0]).values()
    stopped = write_side_by_side(numpy_engine(model), replace(spec, stop=text[20:22]), [0])
    assert stopped == {0: text.partition(text[20:22])[0]}


def test_ids_may_be_of_any_integer_type() -> None:
    engine = numpy_engine(make_model("gru"))
    prompts: list[Ids] = [np.array([1, 2], dtype=kind) for kind in (np.uint8, np.uint16, np.int64)]
    texts = {"".join(generate(engine, VOCAB, prompt, PLAIN, 0)) for prompt in prompts}
    assert len(texts) == 1
