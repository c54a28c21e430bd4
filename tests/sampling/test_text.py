"""Text: the stop string, and which characters are final."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.config import SampleConfig
from charlm.data.vocab import Vocab
from charlm.sampling.text import SampleSpec, Text

PLAIN = SampleConfig(temperature=1.0)


def sampled_until(stop: str, characters: Iterator[str]) -> Iterator[str]:
    """What a Text releases if these characters are sampled."""
    text = Text(Vocab("".join(map(chr, range(128)))), SampleSpec(PLAIN, None, stop))
    for char in characters:
        yield from (chunk.text for chunk in text.add([ord(char)], None))
        if text.ended:
            return
    yield from (chunk.text for chunk in text.rest())


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
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
def test_a_text_ends_where_the_stop_string_begins(text: str, stop: str, expected: str) -> None:
    assert "".join(sampled_until(stop, iter(text))) == expected


@settings(deadline=None)
@given(st.text("ab", max_size=30), st.text("ab", min_size=1, max_size=4))
def test_everything_before_the_stop_string_is_released(text: str, stop: str) -> None:
    assert "".join(sampled_until(stop, iter(text))) == text.partition(stop)[0]


def test_a_character_is_held_only_while_it_may_belong_to_the_stop_string() -> None:
    def sample(text: str) -> Iterator[str]:
        for char in text:
            sampled.append(char)
            yield char

    sampled: list[str] = []
    released = [("".join(sampled), char) for char in sampled_until("aab", sample("xabyaabz"))]
    assert released == [
        ("x", "x"),
        ("xab", "a"),  # "a" could have been the first character of "aab" until "b" was sampled
        ("xab", "b"),
        ("xaby", "y"),
    ]
    assert "".join(sampled) == "xabyaab"  # nothing is sampled after the stop string
