"""The sampling loop, reading past a context, several texts, and conversations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

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
from charlm.sampling.generate import Conversation, choose, generate, in_order, sample_texts
from charlm.sampling.text import Chunk, SampleSpec
from charlm.sampling.torch import TorchEngine
from tests.sampling import numpy_engine
from tests.training.helpers import KINDS, decided_model

CONTEXT = 6
VOCAB = Vocab("\nabcde")
PLAIN = SampleConfig(length=40, temperature=1.0)


def make_model(kind: str, context: int = CONTEXT, vocab_size: int = len(VOCAB)) -> CharModel:
    return decided_model(kind, vocab_size, context)


ENGINES: list[Callable[[CharModel], Engine]] = [numpy_engine, TorchEngine]


def sample(model: CharModel, prompt: str, config: SampleConfig = PLAIN, seed: int = 0) -> str:
    return "".join(generate(numpy_engine(model), VOCAB, VOCAB.encode(prompt), config, seed))


def sample_side_by_side(engine: Engine, spec: SampleSpec, numbers: list[int]) -> dict[int, str]:
    texts = dict.fromkeys(numbers, "")
    for number, chunk in sample_texts(engine, VOCAB, VOCAB.encode("ab"), spec, 1, numbers):
        texts[number] += chunk.text if chunk else ""
    return texts


@torch.no_grad()
def full_logits(model: CharModel, ids: list[int]) -> Floats:
    """The model's logits after all ids, read at once from a fresh state, (V,)."""
    model.eval()
    return np.asarray(model(torch.tensor([ids]), None)[0][0, -1].double().numpy())


def visible(model: CharModel, ids: list[int]) -> list[int]:
    """The ids that a model looks at: all, or with a context, those of the documented rule.

    When the context is full, its last half is read again from a fresh state.
    """
    if model.context is None:
        return ids
    window: list[int] = []
    for id_ in ids:
        if len(window) == model.context:
            window = window[len(window) - model.context // 2 :]
        window = [*window, id_]
    return window


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
        logits = full_logits(model, visible(model, [int(i) for i in text]))
        text.append(int(choose(logits[None], config, np.array([randomness.random()]))[0]))
    for engine in ENGINES:
        sampled = generate(engine(model.train()), VOCAB, VOCAB.encode(prompt), config, 0)
        assert "".join(sampled) == VOCAB.decode(text)[len(prompt) :]


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_text_and_another_seed_another_text(kind: str) -> None:
    model = make_model(kind)
    texts = [sample(model, "ab", seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert set("".join(texts)) <= set(VOCAB.chars)


@pytest.mark.parametrize("kind", KINDS)
def test_each_number_gives_another_text(kind: str) -> None:
    model, prompt = make_model(kind), VOCAB.encode("ab")
    engine = numpy_engine(model)
    texts = ["".join(generate(engine, VOCAB, prompt, PLAIN, 1, number)) for number in (0, 1, 2, 1)]
    assert len(set(texts)) == 3
    assert texts[1] == texts[3]
    assert texts[0] == sample(model, "ab", seed=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [0, 1, CONTEXT, 30])
def test_a_text_has_the_requested_length(length: int, kind: str) -> None:
    assert len(sample(make_model(kind), "ab", SampleConfig(length=length))) == length


@pytest.mark.parametrize("kind", KINDS)
def test_a_shorter_text_is_the_beginning_of_a_longer_one(kind: str) -> None:
    model = make_model(kind)
    short, long = (sample(model, "ab", SampleConfig(length=n)) for n in (10, 30))
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
def test_greedy_sampling_does_not_depend_on_the_seed(kind: str) -> None:
    model, greedy = make_model(kind), SampleConfig(length=20, temperature=0)
    assert sample(model, "ab", greedy, seed=1) == sample(model, "ab", greedy, seed=2)


@pytest.mark.parametrize("kind", KINDS)
def test_interleaved_generators_of_one_engine_are_independent(kind: str) -> None:
    model = make_model(kind)
    alone = [sample(model, "ab", seed=seed) for seed in (1, 2, 3)]
    engine = numpy_engine(model)
    generators = [generate(engine, VOCAB, VOCAB.encode("ab"), PLAIN, seed) for seed in (1, 2, 3)]
    rows = itertools.zip_longest(*generators, fillvalue="")  # the number of pieces depends on time
    together = ["".join(column) for column in zip(*rows, strict=True)]
    assert together == alone


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_sampling_changes_neither_the_model_nor_torchs_generator(kind: str, training: bool) -> None:
    model = make_model(kind).train(training)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    rng_state = torch.get_rng_state()
    pieces = generate(TorchEngine(model), VOCAB, VOCAB.encode("ab"), PLAIN, 0)
    for _ in itertools.islice(pieces, 3):
        assert model.training is training  # also between two pieces
        assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), rng_state)
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is None


# --- reading ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["lstm", "mlp", "gpt"]), st.integers(2, 7), st.data())
def test_the_logits_do_not_depend_on_how_a_text_is_split_into_reads(
    kind: str, context: int, data: st.DataObject
) -> None:
    model = make_model(kind, context)
    pieces = data.draw(
        st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=12), min_size=1, max_size=6)
    )
    reader, text = Reader(numpy_engine(model)), list[int]()
    for piece in pieces:
        text += piece
        expected = full_logits(model, visible(model, text))
        assert reader.read(np.array([piece]))[0] == pytest.approx(expected, abs=1e-4)


class Counting:
    """An engine that appends to `counts`, at each read, the number of ids in its state."""

    vocab_size = 2

    def __init__(self, context: int, counts: list[int]) -> None:
        self.context: int | None = context
        self._counts, self._count = counts, 0

    def fresh(self) -> Counting:
        return Counting(self.context or 0, self._counts)

    def restart(self) -> None:
        self._count = 0

    def select(self, texts: list[int]) -> None:
        pass

    def read(self, ids: Ids) -> Floats:
        self._count += ids.shape[1]
        self._counts.append(self._count)
        return np.zeros((len(ids), 2))


@pytest.mark.parametrize("slide", [False, True])
@pytest.mark.parametrize("context", [2, 5, 6])
def test_past_the_context_a_gpt_sees_at_least_half_of_it_and_with_slide_all(
    context: int, slide: bool
) -> None:
    counts: list[int] = []
    reader = Reader(Counting(context, counts), slide)
    for _ in range(5 * context):
        reader.read(np.zeros((1, 1), np.uint8))
    assert counts[:context] == list(range(1, context + 1))
    assert max(counts) == context
    assert min(counts[context:]) == (context if slide else context // 2 + 1)


def test_slide_reads_the_whole_last_context_for_each_character() -> None:
    model, text = make_model("gpt"), [1, 2, 3, 4, 5, 0, 2, 4, 1, 3, 5, 5, 1]
    reader = Reader(numpy_engine(model), slide=True)
    for end in range(1, len(text) + 1):
        logits = reader.read(np.array([text[end - 1 : end]]))[0]
        assert logits == pytest.approx(full_logits(model, text[:end][-CONTEXT:]), abs=1e-4)


# --- several texts, chunks, and conversations ------------------------------------------------


@pytest.mark.parametrize("stop", [None, "a", "ca"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_does_not_depend_on_the_texts_side_by_side(kind: str, stop: str | None) -> None:
    model, spec = make_model(kind), SampleSpec(PLAIN, PLAIN.length, stop)
    alone = {n: sample_side_by_side(numpy_engine(model), spec, [n])[n] for n in range(6)}
    assert len(set(alone.values())) > 2
    for engine in ENGINES:
        assert sample_side_by_side(engine(model), spec, list(range(6))) == alone
        assert sample_side_by_side(engine(model), spec, [4, 1]) == {n: alone[n] for n in (4, 1)}


@given(st.lists(st.integers(0, 3), max_size=30))
def test_in_order_sorts_chunks_by_text(steps: list[int]) -> None:
    numbers = list(dict.fromkeys(steps))
    last = {number: i for i, number in enumerate(steps)}  # the last step of a text is its end
    chunks = [(n, None if last[n] == i else Chunk(str(i))) for i, n in enumerate(steps)]
    ordered = list(in_order(numbers, iter(chunks)))
    assert ordered == [it for number in numbers for it in chunks if it[0] == number]


def test_in_order_passes_chunks_of_the_first_text_on_at_once() -> None:
    def sampled() -> Iterator[tuple[int, Chunk | None]]:
        for number in (1, 0, 1):
            requested.append(number)
            yield number, Chunk("x")

    requested: list[int] = []
    assert next(in_order([0, 1], sampled())) == (0, Chunk("x"))
    assert requested == [1, 0]


@pytest.mark.parametrize("slide", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_turn_of_a_conversation_continues_everything_before(kind: str, slide: bool) -> None:
    penalised = PLAIN.model_copy(update={"repetition_penalty": 1.5})
    engine, spec = numpy_engine(make_model(kind)), SampleSpec(penalised, 9, slide=slide)
    conversation = Conversation(engine, VOCAB, seed=0)
    turns = ["".join(chunk.text for chunk in conversation.sample_turn(VOCAB.encode("ab"), spec))]
    interrupted = conversation.sample_turn(VOCAB.encode("ccc"), spec)
    turns.append("".join(next(interrupted).text for _ in range(4)))
    del interrupted
    turns.append("".join(chunk.text for chunk in conversation.sample_turn(VOCAB.encode(""), spec)))
    randomness, text = generator(0, "text", 0), ""
    for typed, count in (("ab", 9), ("ccc", 4), ("", 9)):
        text += typed
        for _ in range(count):
            logits = Reader(engine, slide).read(VOCAB.encode(text)[None]).astype(np.float64)
            before = VOCAB.encode(text)[None]
            ids = choose(logits, penalised, np.array([randomness.random()]), before)
            text += VOCAB.decode(ids.tolist())
    assert text == f"ab{turns[0]}ccc{turns[1]}{turns[2]}"


@pytest.mark.parametrize("numbers", [[0], [3, 1, 2]], ids=len)
@pytest.mark.parametrize("scored", [False, True])
def test_chunks_of_several_characters_have_the_same_text_and_nats(
    numbers: list[int], scored: bool
) -> None:
    engine, found = numpy_engine(make_model("lstm")), []
    for delay in (0.0, 1e9):
        spec = SampleSpec(PLAIN, 50, scored=scored, max_delay_s=delay)
        texts: dict[int, list[Chunk | None]] = {number: [] for number in numbers}
        for number, chunk in sample_texts(engine, VOCAB, VOCAB.encode("ab"), spec, 1, numbers):
            texts[number].append(chunk)
        # the first character of a text is a chunk of its own; scored ones always are
        counts = {number: len(chunks) for number, chunks in texts.items()}
        assert counts == dict.fromkeys(numbers, 3 if delay and not scored else 51)
        assert all(chunks[-1] is None for chunks in texts.values())
        sampled = {number: [it for it in chunks if it] for number, chunks in texts.items()}
        assert all(len(chunks[0].text) == 1 for chunks in sampled.values())
        assert all(sum(it.units for it in chunks) == 50 for chunks in sampled.values())
        found.append(
            {
                number: ("".join(it.text for it in chunks), [it.nats for it in chunks if it.nats])
                for number, chunks in sampled.items()
            }
        )
    assert found[0] == found[1]
    assert all(len(nats) == 50 * scored for _, nats in found[0].values())


@pytest.mark.parametrize("kind", KINDS)
def test_nats_are_minus_ln_of_the_unfiltered_probability(kind: str) -> None:
    model, spec = (
        make_model(kind),
        SampleSpec(SampleConfig(temperature=0.5, top_k=3), 20, scored=True),
    )
    prompt = VOCAB.encode("ab")
    sampled = sample_texts(numpy_engine(model), VOCAB, prompt, spec, 0, [0])
    chunks = [chunk for _, chunk in sampled if chunk]
    assert len(chunks) == 20
    text = [int(i) for i in prompt]
    for chunk in chunks:
        logits = full_logits(model, visible(model, text))
        assert chunk.nats == pytest.approx(float(nats_of(logits, chunk.text)), abs=1e-4)
        text += VOCAB.encode(chunk.text).tolist()


def nats_of(logits: Floats, char: str) -> float:
    probs = np.exp(logits) / np.exp(logits).sum()
    return -float(np.log(probs[VOCAB.chars.index(char)]))


def test_ids_may_be_of_any_integer_type() -> None:
    engine = numpy_engine(make_model("gru"))
    prompts: list[Ids] = [np.array([1, 2], dtype=kind) for kind in (np.uint8, np.uint16, np.int64)]
    texts = {"".join(generate(engine, VOCAB, prompt, PLAIN, 0)) for prompt in prompts}
    assert len(texts) == 1
