"""What of a text being written is certain, and where it stops."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.config import SampleConfig
from charlm.data.vocab import Vocab
from charlm.sampling.text import SampleSpec, Text

PLAIN = SampleConfig(temperature=1.0)


def until(characters: Iterator[str], stop: str) -> Iterator[str]:
    """What comes out when a text is made of these characters."""
    text = Text(Vocab("".join(map(chr, range(128)))), SampleSpec(PLAIN, None, stop))
    for char in characters:
        yield from (piece.text for piece in text.add([ord(char)], None))
        if text.ended:
            return
    yield from (piece.text for piece in text.rest())


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
