"""The vocabulary: characters or bytes, and their ids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.data.vocab import UNKNOWN, Decoder, Vocab, describe
from charlm.errors import DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)  # all of Unicode


@given(TEXT)
def test_decoding_reverses_encoding(text: str) -> None:
    vocab = Vocab.of(text)
    ids = vocab.encode(text)
    assert vocab.decode(ids) == text
    assert vocab.decode(ids.tolist()) == text


@given(TEXT)
def test_an_id_is_the_index_among_the_sorted_distinct_characters(text: str) -> None:
    vocab = Vocab.of(text)
    assert list(vocab.chars) == sorted(set(text))
    assert len(vocab) == len(set(text))
    assert vocab.encode(text).tolist() == [vocab.chars.index(char) for char in text]


@given(TEXT, TEXT)
def test_an_extended_vocabulary_keeps_its_ids_and_adds_the_new_characters(
    old: str, new: str
) -> None:
    known = Vocab.of(old)
    extended = known.extended(Vocab.of(new))
    assert extended.chars[: len(known)] == known.chars
    assert list(extended.chars[len(known) :]) == sorted(set(new) - set(old))
    assert extended.encode(old).tolist() == known.encode(old).tolist()
    assert extended.decode(extended.encode(new)) == new


@given(TEXT, TEXT)
def test_known_characters_are_encoded_and_unknown_ones_are_counted(known: str, text: str) -> None:
    vocab = Vocab.of(known)
    ids, unknown = vocab.encode_known(text)
    assert vocab.decode(ids) == "".join(char for char in text if char in known)
    assert len(ids) + unknown == len(text)


@given(TEXT, TEXT)
def test_a_text_is_encoded_only_if_every_character_is_known(known: str, text: str) -> None:
    vocab = Vocab.of(known)
    if set(text) <= set(known):
        assert vocab.decode(vocab.encode(text)) == text
    else:
        with pytest.raises(DataError, match="the vocabulary does not have"):
            vocab.encode(text)


@pytest.mark.parametrize(
    ("size", "bits"), [(1, 8), (255, 8), (256, 8), (257, 16), (65_535, 16), (65_537, 32)]
)
def test_ids_have_the_smallest_type_that_holds_them(size: int, bits: int) -> None:
    text = "".join(map(chr, range(0x10000, 0x10000 + size)))
    ids = Vocab.of(text).encode(text)
    assert ids.dtype == f"uint{bits}"
    assert ids.tolist() == list(range(size))


def test_the_message_about_unknown_characters_names_counts_and_locates_them() -> None:
    with pytest.raises(DataError) as caught:
        Vocab.of("aeiou\n").encode("eau? ééé!")
    assert str(caught.value).startswith(
        "the vocabulary does not have ' ' (U+0020), '!' (U+0021), '?' (U+003F), 'é' (U+00E9) "
        "(6 of 9 characters, the first at character 3); nearest known: "
    )


def test_at_most_five_unknown_characters_are_named() -> None:
    with pytest.raises(DataError) as caught:
        Vocab.of("a").encode("zyxwvut")
    named = str(caught.value).partition("; nearest")[0]
    assert named.count("U+") == 5
    assert "'x' (U+0078), ... (7 of 7 characters" in named


@pytest.mark.parametrize(
    ("char", "nearest"),
    [
        ("E", "e"),  # the other case
        ("é", "e"),  # without its accent
        ("É", "e"),  # both
        ("ß", "z"),  # a near letter, not a sign
        ("9", "0"),  # a digit for a digit
        ("“", '"'),  # a sign for a sign
        ("ﬁ", "f"),  # the first part of a ligature
        ("\u00a0", " "),  # a space for a space
    ],
)
def test_the_nearest_known_character_is_similar_to_the_unknown_one(char: str, nearest: str) -> None:
    vocab = Vocab.of('abcdefz 0"')
    assert vocab.nearest(char)[0] == nearest
    with pytest.raises(DataError) as caught:
        vocab.encode(char)
    assert f"nearest known: {describe(nearest)}" in str(caught.value)


def test_at_most_four_nearest_characters_are_named() -> None:
    assert Vocab.of("ab").nearest("c") == ["b", "a"]
    assert len(Vocab.of("abdefg").nearest("c")) == 4


@given(TEXT)
def test_encoding_does_not_change_a_vocabulary(text: str) -> None:
    vocab = Vocab.of(text)
    before = vocab.encode(text)
    before_copy = before.copy()
    vocab.encode_known(text + "\U0010fffd")
    assert np.array_equal(vocab.encode(text), before_copy)
    assert vocab == Vocab.of(text)


# --- limited vocabularies, and bytes ---------------------------------------------------------


@given(TEXT, TEXT)
def test_a_limited_vocabulary_encodes_other_characters_as_unknown(known: str, text: str) -> None:
    vocab = Vocab("".join(sorted({*known, UNKNOWN})), limited=True)
    expected = "".join(char if char in vocab.chars else UNKNOWN for char in text)
    assert vocab.decode(vocab.encode(text)) == expected
    assert vocab.encode_known(text)[1] == 0
    assert vocab.decode(vocab.table(text)) == expected


@given(TEXT, TEXT)
def test_a_table_has_the_ids_of_known_characters_and_v_for_others(known: str, text: str) -> None:
    vocab = Vocab.of(known)
    expected = [known_id if (known_id := vocab.chars.find(c)) >= 0 else len(vocab) for c in text]
    assert vocab.table(text).tolist() == expected


def test_a_table_has_the_smallest_type() -> None:
    vocab = Vocab("".join(map(chr, range(256))))
    assert vocab.table("a").dtype == np.uint8
    assert vocab.table("aж").dtype == np.uint16  # ж has the id 256


def test_an_extended_vocabulary_is_limited_if_the_other_one_is() -> None:
    limited, free = Vocab(f"a{UNKNOWN}", limited=True), Vocab("ab")
    assert free.extended(limited) == Vocab(f"ab{UNKNOWN}", limited=True)
    assert limited.extended(free) == Vocab(f"a{UNKNOWN}b")


@given(st.binary())
def test_any_bytes_are_decoded_and_encoded_without_loss(raw: bytes) -> None:
    vocab = Vocab.of_bytes()
    ids = np.frombuffer(raw, np.uint8)
    text = vocab.decode(ids)
    assert text.encode("utf-8", "surrogateescape") == raw
    assert vocab.encode(text).tolist() == list(raw)
    decoder = Decoder(vocab)
    pieces = [decoder.add(byte) for byte in raw] + [decoder.rest()]
    assert "".join(pieces) == text


@given(TEXT)
def test_the_ids_of_a_text_as_bytes_are_its_utf_8(text: str) -> None:
    vocab = Vocab.of_bytes()
    assert vocab.encode(text).tolist() == list(text.encode())
    assert vocab.decode(vocab.encode(text)) == text
    assert vocab.encode_known(text)[1] == 0


def test_a_character_of_several_bytes_is_decoded_when_it_is_complete() -> None:
    decoder = Decoder(Vocab.of_bytes())
    assert [decoder.add(byte) for byte in "aé€".encode()] == ["a", "", "é", "", "", "€"]
    assert decoder.rest() == ""


def test_characters_are_decoded_one_by_one() -> None:
    decoder = Decoder(Vocab("ab"))
    assert [decoder.add(1), decoder.add(0), decoder.rest()] == ["b", "a", ""]


def test_a_backslash_that_is_not_known_may_be_meant_as_a_line_break() -> None:
    with pytest.raises(
        DataError, match=r"a line break in bash or zsh is written as in \$'one\\ntwo'"
    ):
        Vocab.of("abc\n").encode("a\\nb")
