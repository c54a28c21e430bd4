"""Writing text: the loop, past a GPT's context, and where to stop."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.config import SampleConfig
from charlm.data.vocab import Ids, Vocab
from charlm.models import CharModel
from charlm.randomness import generator
from charlm.sampling.filters import Floats
from charlm.sampling.generate import Writer, choose, generate, until
from tests.training.helpers import KINDS, decided_model

CONTEXT = 6
VOCAB = Vocab("\nabcde")
PLAIN = SampleConfig(length=40, temperature=1.0)


def make_model(kind: str, context: int = CONTEXT, vocab_size: int = len(VOCAB)) -> CharModel:
    return decided_model(kind, vocab_size, context)


def write(model: CharModel, prompt: str, config: SampleConfig = PLAIN, seed: int = 0) -> str:
    return "".join(generate(model, VOCAB, VOCAB.encode(prompt), config, seed))


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
        text.append(choose(logits, config, randomness))
    assert write(model.train(), prompt, config) == VOCAB.decode(text)[len(prompt) :]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_text_and_another_another(kind: str) -> None:
    model = make_model(kind)
    texts = [write(model, "ab", seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert set("".join(texts)) <= set(VOCAB.chars)


@pytest.mark.parametrize("kind", KINDS)
def test_each_number_of_a_seed_is_a_sample_of_its_own(kind: str) -> None:
    model, prompt = make_model(kind), VOCAB.encode("ab")
    texts = ["".join(generate(model, VOCAB, prompt, PLAIN, 1, number)) for number in (0, 1, 2, 1)]
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
    model, vocab = make_model(kind), Vocab(chars)
    empty, started = (
        "".join(generate(model, vocab, vocab.encode(prompt), PLAIN, 3)) for prompt in ("", start)
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
    writers = [generate(model, VOCAB, VOCAB.encode("ab"), PLAIN, seed) for seed in (1, 2, 3)]
    rows = zip(*writers, strict=True)
    together = ["".join(column) for column in zip(*rows, strict=True)]
    assert together == alone


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_writing_leaves_model_and_random_numbers_as_they_were(kind: str, training: bool) -> None:
    model = make_model(kind).train(training)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    before_us = torch.get_rng_state()
    characters = generate(model, VOCAB, VOCAB.encode("ab"), PLAIN, 0)
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
    writer, text = Writer(model), list[int]()
    for piece in pieces:
        text += piece
        expected = whole(model, in_view(model, text))
        assert writer.read(piece) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("context", [2, 5, 6])
def test_past_its_context_a_gpt_sees_at_least_half_of_it(context: int) -> None:
    seen: list[int] = []
    model = make_model("gpt", context)

    def look(_model: CharModel, given_: tuple[Any, ...]) -> None:
        ids, state = given_
        seen.append(ids.shape[1] + (state[0].shape[2] if state else 0))

    model.register_forward_pre_hook(look)
    write(model, "a", SampleConfig(length=5 * context))
    assert max(seen) == context
    assert min(seen[context:]) == context // 2 + 1


# --- where to stop ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "stop", "written"),
    [
        ("hello", "l", "he"),
        ("hello", "ll", "he"),
        ("hello", "hello", ""),
        ("hello", "lo!", "hello"),  # held back, then released at the end
        ("hello", "z", "hello"),
        ("", "z", ""),
        ("aaab", "aab", "a"),
        ("aabaac", "aac", "aab"),
        ("ababac", "abac", "ab"),
        ("ababab", "abac", "ababab"),
        ("xx\n\nyy", "\n\n", "xx"),
        ("aaaa", "aa", ""),
    ],
)
def test_writing_ends_where_the_stop_text_begins(text: str, stop: str, written: str) -> None:
    assert "".join(until(iter(text), stop)) == written


@settings(deadline=None)
@given(st.text("ab", max_size=30), st.text("ab", min_size=1, max_size=4))
def test_what_comes_before_the_stop_text_is_written_whole(text: str, stop: str) -> None:
    assert "".join(until(iter(text), stop)) == text.partition(stop)[0]


def test_a_character_is_held_back_only_while_it_may_belong_to_the_stop_text() -> None:
    def reading(text: str) -> Iterator[str]:
        for character in text:
            asked.append(character)
            yield character

    asked: list[str] = []
    came = [("".join(asked), character) for character in until(reading("xabyaabz"), "aab")]
    assert came == [
        ("x", "x"),
        ("xab", "a"),  # "a" could have been the first of "aab" until "b" came
        ("xab", "b"),
        ("xaby", "y"),
    ]
    assert "".join(asked) == "xabyaab"  # and nothing is written in vain after it


def test_generation_stops_when_the_stop_text_is_written() -> None:
    model = make_model("lstm")
    text = write(model, "ab")
    stop = text[20:22]
    characters = generate(model, VOCAB, VOCAB.encode("ab"), PLAIN, 0)
    assert "".join(until(characters, stop)) == text.partition(stop)[0]


def test_ids_may_be_of_any_integer_type(tmp_path: Path) -> None:
    model = make_model("gru")
    prompts: list[Ids] = [np.array([1, 2], dtype=kind) for kind in (np.uint8, np.uint16, np.int64)]
    texts = {"".join(generate(model, VOCAB, prompt, PLAIN, 0)) for prompt in prompts}
    assert len(texts) == 1
