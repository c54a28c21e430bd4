"""From bytes to characters in chunks: decoding, line ends, normalization.

The chunks do not change the result: together they are the same as if the whole text was processed
at once.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Literal

from charlm.config import DataConfig
from charlm.data.detect import SAMPLE, advise
from charlm.data.sources import Source, find_sources
from charlm.errors import DataError

MARK = "\ufeff"  # the byte-order mark
_WITHOUT_MARK = ("utf-8-sig", "utf-16", "utf-32")  # these codecs remove it
LOOKED_AT = 8000  # characters at the start of a file that must not be NUL


def read_texts(sources: Sequence[Source], data: DataConfig) -> Iterator[str]:
    """The characters of all sources in chunks, with `data.separator` between two sources.

    With `data.unit: byte`, every byte b becomes the character with code point b.

    Raises:
        DataError: A source cannot be read or decoded. The message names the source and position.
    """
    for i, source in enumerate(sources):
        if i:
            yield data.separator if data.unit == "char" else _as_chars(data.separator.encode())
        yield from _read(source, data)


def read_whole(path: Path, data: DataConfig) -> str:
    """The text of one small file, read with the settings in `data`.

    With `data.unit: byte`, the file is decoded as UTF-8, and bad bytes become surrogates.

    Raises:
        DataError: The file cannot be read or decoded, or is empty.
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
    raws, encoding = _Bytes(source), source.encoding or data.encoding
    chunks = _decoded(source, raws, data)
    if codecs.lookup(encoding).name not in _WITHOUT_MARK:
        chunks = _without_mark(chunks)
    return clean(_refuse_binary(source, raws, chunks, encoding), data)


def clean(chunks: Iterable[str], data: DataConfig) -> Iterator[str]:
    """The chunks of a text with the line ends and the normalization that `data` sets."""
    chunks = iter(chunks)
    if data.newlines == "lf":
        chunks = _with_line_feeds(chunks)
    if data.normalize != "none":
        chunks = _normalized(chunks, data.normalize)
    return chunks


# --- decoding --------------------------------------------------------------------------------


class _Bytes:
    """The bytes of a source in chunks. Keeps those at the start, to describe a file by them."""

    def __init__(self, source: Source) -> None:
        self._chunks, self.start = source.chunks(), b""

    def __iter__(self) -> Iterator[bytes]:
        for raw in self._chunks:
            self.start += raw[: SAMPLE - len(self.start)]
            yield raw

    def sample(self, position: int, known: bytes) -> bytes:
        """Bytes from the start, and around a position.

        Args:
            position: of the first byte in `known`, which are the last bytes that were read.
        """
        with suppress(DataError):
            while len(known) < SAMPLE and (more := next(iter(self), b"")):
                known += more
        if position <= len(self.start):
            return self.start[:position] + known[:SAMPLE]
        first = re.search(rb"[\0-/]", known)  # no character continues here
        return self.start + known[first.end() if first else 0 :][:SAMPLE]


def _decoded(source: Source, raws: _Bytes, data: DataConfig) -> Iterator[str]:
    encoding = source.encoding or data.encoding
    decoder = codecs.getincrementaldecoder(encoding)(data.errors)
    done = 0  # bytes decoded before this chunk
    for raw in chain(raws, [b""]):
        held, _ = decoder.getstate()  # bytes of an incomplete character of the last chunk
        try:
            yield decoder.decode(raw, final=not raw)
        except UnicodeError as error:
            start = error.start if isinstance(error, UnicodeDecodeError) else 0
            known, position = held + raw, done - len(held)
            bad = known[start : start + 1].hex()
            first = max(0, start - SAMPLE // 2)
            where = f"not {encoding} at byte {position + start:,}" + f" (0x{bad})" * bool(bad)
            sample = raws.sample(position + first, known[first:])
            raise _undecodable(source, where, sample, encoding) from error
        done += len(raw)


def _undecodable(source: Source, what: str, sample: bytes, encoding: str) -> DataError:
    leave = "; or leave it out with data.exclude" * source.found
    return DataError(f"{source.name}: {what}; {advise(sample, encoding)}{leave}")


def _without_mark(chunks: Iterator[str]) -> Iterator[str]:
    """The chunks without a byte-order mark at the start."""
    for chunk in chunks:
        if chunk:
            yield chunk.removeprefix(MARK)
            break
    yield from chunks


def _refuse_binary(
    source: Source, raws: _Bytes, chunks: Iterator[str], encoding: str
) -> Iterator[str]:
    """The chunks unchanged. A file with a NUL near its start is refused, as it is not a text."""
    start = 0  # of the chunk, in characters
    for chunk in chunks:
        if start < LOOKED_AT and (position := chunk[: LOOKED_AT - start].find("\0")) >= 0:
            what = f"not a text: character {start + position:,} is a NUL"
            raise _undecodable(source, what, raws.start, encoding)
        start += len(chunk)
        yield chunk


# --- line ends and normalization -------------------------------------------------------------


def _with_line_feeds(chunks: Iterator[str]) -> Iterator[str]:
    held = ""  # a carriage return at the end of a chunk may be followed by a line feed
    for chunk in chunks:
        text = held + chunk
        held = "\r" if text.endswith("\r") else ""
        yield text.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n")
    yield "\n" if held else ""


def _normalized(chunks: Iterator[str], form: Literal["NFC", "NFKC"]) -> Iterator[str]:
    held = ""
    for chunk in chunks:
        text = held + chunk
        cut = _last_boundary(text)
        yield unicodedata.normalize(form, text[:cut])
        held = text[cut:]
    yield unicodedata.normalize(form, held)


def _last_boundary(text: str) -> int:
    """The last position where a text can be cut so that both parts can be normalized alone."""
    return next((i for i in range(len(text) - 1, 0, -1) if _is_boundary(text[i])), 0)


def _is_boundary(char: str) -> bool:
    """Whether normalization never joins a character with the one before it.

    It joins marks, vowels and final consonants of Hangul, and characters that decompose to one of
    these (Unicode Standard Annex 15).
    """
    if char.isascii():
        return True
    first = unicodedata.normalize("NFKD", char)[0]
    hangul = "\u1160" <= first <= "\u11ff" or "\ud7b0" <= first <= "\ud7ff"
    return not hangul and not unicodedata.category(first).startswith("M")
