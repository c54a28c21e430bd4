"""From bytes to characters: decoding, line ends, normalisation, in pieces.

The pieces of a text are those of the whole: nothing that belongs together is cut in two.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from charlm.config import DataConfig
from charlm.data.sources import Source, find_sources
from charlm.errors import DataError

MARK = "\ufeff"  # the byte-order mark
_WITHOUT_MARK = ("utf-8-sig", "utf-16", "utf-32")  # these take it away themselves
LOOKED_AT = 8000  # characters at the start of a file that tell whether it is a text


def read_texts(sources: Sequence[Source], data: DataConfig) -> Iterator[str]:
    """All sources, one after the other with `data.separator` between, in pieces.

    With `data.unit` byte every byte is the character of its number.

    Raises:
        DataError: a source cannot be read or decoded; the message names it and the place.
    """
    for i, source in enumerate(sources):
        if i:
            yield data.separator if data.unit == "char" else _as_chars(data.separator.encode())
        yield from _read(source, data)


def read_whole(path: Path, data: DataConfig) -> str:
    """The text of one file, small enough to be held, read as `data` says; bytes as UTF-8.

    Raises:
        DataError: it cannot be read or decoded, or is empty.
    """
    data = data.model_copy(update={"path": (str(path),)})
    text = "".join(read_texts(find_sources(data.path, data), data))
    if not text:
        raise DataError(f"{path}: this text is empty")
    return text if data.unit == "char" else text.encode("latin-1").decode(errors="surrogateescape")


def _as_chars(raw: bytes) -> str:
    return raw.decode("latin-1")


def _read(source: Source, data: DataConfig) -> Iterator[str]:
    if data.unit == "byte":
        return map(_as_chars, source.chunks())
    pieces = _decoded(source, data)
    if codecs.lookup(source.encoding or data.encoding).name not in _WITHOUT_MARK:
        pieces = _without_mark(pieces)
    return clean(_refuse_binary(source, pieces), data)


def clean(pieces: Iterable[str], data: DataConfig) -> Iterator[str]:
    """A text with the line ends and the normalisation that `data` asks for."""
    pieces = iter(pieces)
    if data.newlines == "lf":
        pieces = _with_line_feeds(pieces)
    if data.normalize != "none":
        pieces = _normalised(pieces, data.normalize)
    return pieces


# --- decoding ---------------------------------------------------------------------------------


def _decoded(source: Source, data: DataConfig) -> Iterator[str]:
    encoding = source.encoding or data.encoding
    decoder = codecs.getincrementaldecoder(encoding)(data.errors)
    done = 0  # bytes given to the decoder
    beginning = b""
    for raw in _and_the_end(source.chunks()):
        beginning = beginning or raw[:4]
        held, _ = decoder.getstate()  # of a character begun in the chunk before
        try:
            yield decoder.decode(raw, final=not raw)
        except UnicodeError as error:
            start = error.start if isinstance(error, UnicodeDecodeError) else 0
            bad = (held + raw)[start : start + 1].hex()
            where = f"at byte {done - len(held) + start:,}" + f" (0x{bad})" * bool(bad)
            raise DataError(
                f"{source.name}: not {encoding} {where}; {_ways_out(beginning, source)}"
            ) from error
        done += len(raw)


def _and_the_end(chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield from chunks
    yield b""


def _ways_out(beginning: bytes, source: Source) -> str:
    utf_16 = beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    likely = "utf-16" if utf_16 else "latin-1"
    leave = "leave it out with data.exclude, " if source.found else ""
    return (
        f"{leave}name its encoding with data.encoding={likely} or another, read bad bytes as "
        "U+FFFD with data.errors=replace, or learn bytes with data.unit=byte"
    )


def _without_mark(pieces: Iterator[str]) -> Iterator[str]:
    """Without a byte-order mark at the start."""
    for piece in pieces:
        if piece:
            yield piece.removeprefix(MARK)
            break
    yield from pieces


def _refuse_binary(source: Source, pieces: Iterator[str]) -> Iterator[str]:
    """A file with a NUL near its start is no text."""
    seen = 0
    for piece in pieces:
        if seen < LOOKED_AT and (place := piece[: LOOKED_AT - seen].find("\0")) >= 0:
            encoding = ", is of another encoding (data.encoding=utf-16-le?)"
            leave = ", or is to be left out with data.exclude" * source.found
            raise DataError(
                f"{source.name}: not a text: character {seen + place:,} is a NUL; perhaps it is to "
                f"be learnt as bytes (data.unit=byte){encoding}{leave}"
            )
        seen += len(piece)
        yield piece


# --- line ends and normalisation ----------------------------------------------------------------


def _with_line_feeds(pieces: Iterator[str]) -> Iterator[str]:
    held = ""  # a carriage return at the end may be half a line end
    for piece in pieces:
        text = held + piece
        held = "\r" if text.endswith("\r") else ""
        yield text.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n")
    yield "\n" if held else ""


def _normalised(pieces: Iterator[str], form: Literal["NFC", "NFKC"]) -> Iterator[str]:
    held = ""
    for piece in pieces:
        text = held + piece
        cut = _last_start(text)
        yield unicodedata.normalize(form, text[:cut])
        held = text[cut:]
    yield unicodedata.normalize(form, held)


def _last_start(text: str) -> int:
    """The last place in a text where it can be cut, and its parts normalised one by one."""
    return next((i for i in range(len(text) - 1, 0, -1) if _starts_afresh(text[i])), 0)


def _starts_afresh(char: str) -> bool:
    """Whether a character never joins with one before it.

    Those that do are marks, or vowels and final consonants of Hangul (Unicode Standard Annex 15),
    or what decomposes to such.
    """
    if char.isascii():
        return True
    first = unicodedata.normalize("NFKD", char)[0]
    hangul = "\u1160" <= first <= "\u11ff" or "\ud7b0" <= first <= "\ud7ff"
    return not hangul and not unicodedata.category(first).startswith("M")
