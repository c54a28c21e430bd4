"""From bytes to characters: chunks of any size give the same text."""

from __future__ import annotations

import io
import re
import unicodedata
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charlm.config import DataConfig
from charlm.data import sources as sources_module
from charlm.data import text as module
from charlm.data.sources import Source
from charlm.data.text import LOOKED_AT, clean, read_texts, read_whole
from charlm.errors import DataError

MARK = "\ufeff"
ALPHABET = st.characters(exclude_categories=["Cs"], exclude_characters="\0")  # all of Unicode
TEXT = st.text(ALPHABET)
CHUNK = st.integers(1, 7)
BAD = st.lists(st.one_of(st.binary(max_size=4), TEXT.map(str.encode)), max_size=8).map(b"".join)


def chunks(
    *raws: bytes, chunk: int = 1 << 20, found: bool = False, unit: str = "char", **options: Any
) -> list[str]:
    sources = [Source(f"{i}.txt", lambda raw=raw: io.BytesIO(raw), found=found)  # type: ignore[misc]
               for i, raw in enumerate(raws)]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources_module, "CHUNK", chunk)
        return list(read_texts(sources, DataConfig(path="x", unit=unit, **options)))


def read(*raws: bytes, **options: Any) -> str:
    return "".join(chunks(*raws, **options))


def refusal(*raws: bytes, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(*raws, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- decoding --------------------------------------------------------------------------------


@given(TEXT, CHUNK)
def test_a_text_is_decoded(text: str, chunk: int) -> None:
    assert read(text.encode(), chunk=chunk) == text.removeprefix(MARK)
    assert read(text.encode(), chunk=chunk, encoding="utf-16-le", errors="replace") == (
        text.encode().decode("utf-16-le", "replace").removeprefix(MARK)
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be", "gb18030"])
@given(text=TEXT, chunk=CHUNK)
def test_a_text_in_another_encoding_of_unicode_is_decoded(
    encoding: str, text: str, chunk: int
) -> None:
    text = text.lstrip(MARK)
    assert read(text.encode(encoding), encoding=encoding, chunk=chunk) == text


@pytest.mark.parametrize("encoding", ["shift_jis", "cp1252", "latin-1", "iso2022_jp", "koi8-r"])
@given(data=st.data(), chunk=CHUNK)
def test_a_text_in_a_smaller_encoding_is_decoded(
    encoding: str, data: st.DataObject, chunk: int
) -> None:
    odd = "\0\\~\x1b\x0e\x0f\xa5\u203e"  # these encodings change them, or read them as commands
    text = data.draw(st.text(st.characters(codec=encoding, exclude_characters=odd)))
    assert read(text.encode(encoding), encoding=encoding, chunk=chunk) == text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-32-be", "shift_jis", "cp1252"])
@given(raw=BAD, chunk=CHUNK)
@example(raw=b"caf\xe9", chunk=4)
@example(raw=b"\xf0\x9f\x90\xf0\x9f\x90\x8d\xed\xa0\x80\xe2\x82", chunk=2)
def test_bad_bytes_are_replaced_as_python_does(encoding: str, raw: bytes, chunk: int) -> None:
    raw = raw.replace(b"\0", b"\1")
    text = raw.decode(encoding, "replace").removeprefix(MARK)
    assert read(raw, encoding=encoding, errors="replace", chunk=chunk) == text


@pytest.mark.parametrize(
    "encoding", ["utf-8", "ascii", "utf-16", "utf-16-be", "utf-32", "shift_jis", "cp1252"]
)
@given(before=st.text(st.characters(max_codepoint=0x7F, exclude_characters="\0")), raw=BAD,
       chunk=CHUNK)  # fmt: skip
@example(before="", raw=b"\xed\xa0\x80", chunk=1)  # a surrogate
@example(before="x" * 1234, raw=b"\xff", chunk=7)
@example(before="abc", raw=b"\xe2\x82", chunk=4)  # incomplete
@example(before="abc", raw=b"\x81", chunk=2)
@example(before="ab", raw=b"\xe2(", chunk=1)  # bad only together with the next chunk
@example(before="ab", raw=b"\x00\xd8a\x00", chunk=1)  # half a surrogate pair
def test_the_first_bad_byte_is_reported_with_its_position(
    encoding: str, before: str, raw: bytes, chunk: int
) -> None:
    raw = before.encode(encoding) + raw.replace(b"\0", b"\1")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        message = refusal(raw, encoding=encoding, chunk=chunk)
        position = f"at byte {error.start:,} (0x{raw[error.start]:02x}); "
        assert message.startswith(f"0.txt: not {encoding} {position}")
    else:
        assert read(raw, encoding=encoding, chunk=chunk) == text.removeprefix(MARK)


@pytest.mark.parametrize("found", [False, True])
def test_every_advice_about_bad_bytes_works(found: bool) -> None:
    """Others are in test_detect.py."""
    raw = b"caf\xe9"
    message = refusal(raw, found=found)
    advice = dict(re.findall(r"data\.(\w+)=([\w-]+)", message))
    assert advice == {"encoding": "cp1252", "errors": "replace", "unit": "byte"}
    assert ("leave it out with data.exclude" in message) == found
    assert read(raw, encoding=advice["encoding"]) == "café"
    assert read(raw, errors=advice["errors"]) == "caf\ufffd"
    assert read(raw, unit=advice["unit"]) == raw.decode("latin-1")


def test_a_wrong_encoding_is_refused_whatever_python_raises() -> None:
    assert refusal(b"no byte-order mark", encoding="utf-16").startswith("0.txt: not utf-16 at byte")


def test_the_byte_order_mark_of_every_file_is_removed() -> None:
    marked = b"\xef\xbb\xbf"
    for chunk in range(1, 8):
        assert read(marked + b"a", marked, marked * 2 + b"b", chunk=chunk) == f"a\n\n{MARK}b"
        assert read(b"a" + marked, chunk=chunk) == f"a{MARK}"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_only_one_byte_order_mark_is_removed_in_every_encoding(encoding: str) -> None:
    assert read(f"{MARK}a".encode(encoding), encoding=encoding) == f"{MARK}a"


def test_a_source_with_an_encoding_of_its_own_keeps_it() -> None:
    source = Source("x", lambda: io.BytesIO("é".encode()), encoding="utf-8")
    assert next(read_texts([source], DataConfig(path="x", encoding="latin-1"))) == "é"


# --- binary files ----------------------------------------------------------------------------


@pytest.mark.parametrize("found", [False, True])
@pytest.mark.parametrize("position", [0, 1, 1234, LOOKED_AT - 1])
@pytest.mark.parametrize("chunk", [7, 1000, 1 << 20])
def test_a_file_with_a_nul_near_its_start_is_refused(
    found: bool, position: int, chunk: int
) -> None:
    raw = ("é" * position + "\0" + "b" * LOOKED_AT).encode()
    message = refusal(raw, found=found, chunk=chunk)
    assert message.startswith(f"0.txt: not a text: character {position:,} is a NUL; ")
    assert "data.unit=byte" in message
    assert ("data.exclude" in message) == found
    assert read(raw, unit="byte") == raw.decode("latin-1")


@pytest.mark.parametrize("chunk", [7, 1000, 1 << 20])
def test_a_later_nul_is_a_character(chunk: int) -> None:
    text = "é" * LOOKED_AT + "\0" + "b" * 3
    assert read(text.encode(), chunk=chunk) == text


# --- bytes -----------------------------------------------------------------------------------


@given(st.lists(st.binary(), min_size=1, max_size=3), CHUNK)
def test_every_byte_is_read_as_the_character_with_its_code_point(
    raws: list[bytes], chunk: int
) -> None:
    text = read(*raws, unit="byte", separator="—", chunk=chunk)
    assert bytes(map(ord, text)) == "—".encode().join(raws)


# --- several files ---------------------------------------------------------------------------


@given(st.lists(TEXT, min_size=1, max_size=4), TEXT, CHUNK)
def test_a_separator_is_between_files_and_nowhere_else(
    texts: list[str], separator: str, chunk: int
) -> None:
    raws = [text.encode() for text in texts]
    whole = separator.join(text.removeprefix(MARK) for text in texts)
    assert read(*raws, separator=separator, chunk=chunk) == whole


def test_files_do_not_join_at_their_ends() -> None:
    assert read(b"a\r", b"\nb", separator="", newlines="lf") == "a\n\nb"
    assert read(b"e", "\u0301".encode(), separator="", normalize="NFC") == "e\u0301"


def test_a_message_names_the_file() -> None:
    assert refusal(b"a", b"b\xff").startswith("1.txt: not utf-8 at byte 1 (0xff)")
    assert refusal(b"a", b"\0").startswith("1.txt: not a text: character 0 is a NUL")


# --- line ends and normalization -------------------------------------------------------------


JOINING = "e \u0301\u0323\u0344\u0345\u1100\u1161\u11a8가각\uff76\uff9e\uffa1\uffc2\u3164ﬁé"
JOINING += "\u0dd9\u0dcf\u0dca\u0b47\u0b3e\u0bc6\u0fb2\u0f77\u0f81\u1e9b\u212b\u2126\u00a8\u037a"
JOINING += "\U000110a5\U000110ba\U0001d15f\U0001d165\U0001d16e\ufb2c\u05bc\u05c1\ufdfa\u00bd\u3099"
FORMS: list[Literal["NFC", "NFKC"]] = ["NFC", "NFKC"]


@given(st.lists(st.text("a\r\n\x85\u2028"), max_size=8))
def test_line_ends_become_line_feeds_in_chunks_of_any_size(parts: list[str]) -> None:
    whole = re.sub("\r\n|\r", "\n", "".join(parts))
    assert "".join(clean(parts, DataConfig(path="x", newlines="lf"))) == whole
    assert "".join(clean(parts, DataConfig(path="x"))) == "".join(parts)


@pytest.mark.parametrize("form", FORMS)
@given(parts=st.lists(st.one_of(st.text(JOINING), TEXT), max_size=8))
def test_a_text_is_normalized_in_chunks_of_any_size(
    form: Literal["NFC", "NFKC"], parts: list[str]
) -> None:
    whole = unicodedata.normalize(form, "".join(parts))
    assert "".join(clean(parts, DataConfig(path="x", normalize=form))) == whole
    characters = clean("".join(parts), DataConfig(path="x", normalize=form))
    assert "".join(characters) == whole


@given(text=st.text(JOINING + "\r\n"), chunk=CHUNK, form=st.sampled_from(FORMS))
def test_all_steps_together_give_the_same_text_in_chunks_of_any_size(
    text: str, chunk: int, form: Literal["NFC", "NFKC"]
) -> None:
    whole = unicodedata.normalize(form, text.replace("\r\n", "\n").replace("\r", "\n"))
    for encoding in ("utf-8", "utf-16"):
        raw = text.encode(encoding)
        done = read(raw, encoding=encoding, chunk=chunk, newlines="lf", normalize=form)
        assert done == whole


def test_at_most_one_character_is_held_back() -> None:
    plain = ["ab\n", "naïve", " 中文가", "ж1"]
    for options in ({"newlines": "lf"}, {"normalize": "NFC"}, {"normalize": "NFKC"}):
        done = clean(plain, DataConfig.model_validate({"path": "x"} | options))
        given_, yielded = 0, 0
        for part in plain:
            given_ += len(part)
            yielded += len(next(done))
            assert given_ - 1 <= yielded <= given_


def test_chunks_stay_small() -> None:
    text = "ab" * 1000
    assert max(map(len, chunks(text.encode(), chunk=7, newlines="lf", normalize="NFC"))) <= 8


@pytest.fixture(scope="module")
def assigned() -> list[str]:
    """All assigned characters of Unicode."""
    chars = map(chr, range(0x110000))
    return [char for char in chars if unicodedata.category(char) not in ("Cn", "Cs", "Co")]


def test_no_text_is_cut_before_a_character_that_may_join(assigned: list[str]) -> None:
    pairs = [
        (chr(int(first, 16)), chr(int(second, 16)))
        for char in assigned
        for first, second in [unicodedata.decomposition(char).split()]
        * (len(unicodedata.decomposition(char).split()) == 2)
        if not first.startswith("<")
    ]
    syllables = [unicodedata.normalize("NFD", chr(i)) for i in range(0xAC00, 0xD7A4)]
    pairs += [(syllable[0], syllable[1]) for syllable in syllables]
    pairs += [
        (unicodedata.normalize("NFC", syllable[:2]), syllable[2])
        for syllable in syllables
        if len(syllable) == 3
    ]
    joining = {second for first, second in pairs}
    composable = [pair for pair in pairs if len(unicodedata.normalize("NFC", "".join(pair))) == 1]
    assert len(composable) > 900 + 11_172
    assert joining > {"\u0301", "\u1161", "\u11a8", "\u0b3e"}
    for char in assigned:
        firsts = {unicodedata.normalize(form, char)[0] for form in ("NFD", "NFKD")}
        joins = any(first in joining or unicodedata.combining(first) for first in firsts)
        assert not (joins and module._is_boundary(char)), f"U+{ord(char):04X}"


# --- one small file --------------------------------------------------------------------------


def test_a_small_file_is_read_with_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbfe\xcc\x81\r\n")
    assert read_whole(path, DataConfig(path="x")) == "e\u0301\r\n"
    assert read_whole(path, DataConfig(path="x", newlines="lf", normalize="NFC")) == "é\n"
    assert read_whole(path, DataConfig(path="x", unit="byte")) == "\ufeffe\u0301\r\n"
    path.write_bytes(b"\xff")
    assert read_whole(path, DataConfig(path="x", unit="byte")) == "\udcff"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"text\.txt: this text is empty"):
        read_whole(path, DataConfig(path="x"))
