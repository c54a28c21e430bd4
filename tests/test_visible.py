"""What comes from a file is shown by visible characters only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.visible import SAMPLE, visible

# Control characters, surrogates, separators, and format characters apart from the visible Arabic
# ones (Unicode 14, UnicodeData.txt)
HIDDEN = [
    *((0x00, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x61C, 0x61C), (0x70F, 0x70F), (0x180E, 0x180E)),
    *((0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x2064), (0x2066, 0x206F), (0xD800, 0xDFFF)),
    *((0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB), (0x110BD, 0x110BD), (0x110CD, 0x110CD)),
    *((0x13430, 0x13438), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0001, 0xE0001)),
    (0xE0020, 0xE007F),
]
ANY = st.text(st.characters() | st.sampled_from([chr(n) for ends in HIDDEN for n in ends]))


def is_hidden(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in HIDDEN)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x07\r\n\t\x9b", r"\x1b[2J\x07\r\n\t\x9b"),
        ("a\u202eb\u2028c\U000e0001", r"a\u202eb\u2028c\U000e0001"),
        ("\udcff\ud800", r"\xff\ud800"),
        ("l'œuvre \u3000 中 שלום \u0600 \U0001f600", "l'œuvre \u3000 中 שלום \u0600 \U0001f600"),
    ],
)
def test_examples(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(ANY)
def test_nothing_hidden_is_left_and_one_line_stays_one(text: str) -> None:
    shown = visible(text)
    assert not any(map(is_hidden, shown))
    assert len(shown.splitlines()) <= 1


@given(ANY)
def test_visible_characters_stay_as_they_are(text: str) -> None:
    plain = "".join(char for char in text if not is_hidden(char))
    assert visible(plain) == plain


@given(ANY)
def test_a_sample_keeps_its_lines_and_joiners_only(text: str) -> None:
    shown = visible(text, SAMPLE)
    assert {char for char in shown if is_hidden(char)} <= set("\n\t\u200c\u200d")
    assert [shown.count(char) for char in "\n\t"] == [text.count(char) for char in "\n\t"]
