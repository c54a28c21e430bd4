"""The advice about a file that cannot be read as text: it can be followed, and gives the text."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import random
import re
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.config import DataConfig
from charlm.data import detect, sources, stats
from charlm.data import text as module
from charlm.data.detect import advise
from charlm.data.oddities import oddities
from charlm.data.sources import find_sources
from charlm.data.text import read_texts
from charlm.errors import DataError
from tests.data.languages import TEXTS


def read(path: Path, **options: Any) -> str:
    data = DataConfig(path=str(path), **options)
    return "".join(read_texts(find_sources(data.path, data), data))


def advice(path: Path, **options: Any) -> tuple[str, dict[str, str]]:
    """What is said about a file that cannot be read, and the settings in it."""
    with pytest.raises(DataError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: not ")
    return message, dict(re.findall(r"data\.(\w+)=([\w-]+)", message))


# --- encodings -------------------------------------------------------------------------------

WESTERN = ("cp1252", "iso8859-1", "iso8859-15", "mac-roman", "cp850")
CENTRAL = ("cp1250", "iso8859-2", "cp852", "mac-latin2")
CYRILLIC = ("cp1251", "koi8-r", "koi8-u", "iso8859-5", "cp866", "mac-cyrillic")
ENCODINGS = {
    **dict.fromkeys(("french", "spanish", "german", "portuguese", "swedish"), WESTERN),
    **dict.fromkeys(("polish", "czech"), CENTRAL),
    **dict.fromkeys(("russian", "ukrainian"), CYRILLIC),
    "greek": ("cp1253", "iso8859-7"),
    "turkish": ("cp1254", "iso8859-9"),
    "hebrew": ("cp1255", "iso8859-8"),
    "arabic": ("cp1256", "iso8859-6"),
    "thai": ("cp874", "tis-620"),
    "japanese": ("shift_jis", "cp932", "euc_jp"),
    "simplified Chinese": ("gb18030", "gbk", "gb2312"),
    "traditional Chinese": ("big5", "cp950", "gb18030"),
    "korean": ("cp949", "euc_kr"),
}
PAIRS = [(language, encoding) for language in TEXTS for encoding in ENCODINGS[language]]


def encoded(language: str, encoding: str) -> tuple[str, bytes]:
    """A text without the characters that an encoding does not have, and its bytes."""
    raw = TEXTS[language].encode(encoding, "ignore")
    return raw.decode(encoding), raw


@pytest.mark.parametrize(("language", "encoding"), PAIRS)
def test_the_encoding_that_is_named_gives_the_text(
    tmp_path: Path, language: str, encoding: str
) -> None:
    text, raw = encoded(language, encoding)
    (tmp_path / "text.txt").write_bytes(raw)
    message, settings = advice(tmp_path / "text.txt")
    assert read(tmp_path / "text.txt", encoding=settings["encoding"]) == text
    assert f"it is {settings['encoding']}: " in message
    assert (
        message.endswith(f"set data.encoding={settings['encoding']}") or "; perhaps it" in message
    )


WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-16", "utf-32")


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("language", TEXTS)
def test_the_byte_order_is_known_with_and_without_a_mark(
    tmp_path: Path, language: str, encoding: str
) -> None:
    path, text = tmp_path / "text.txt", TEXTS[language]
    path.write_bytes(text.encode(encoding))
    _, settings = advice(path)
    assert read(path, encoding=settings["encoding"]) == text
    if language != "thai":  # in which nothing but spaces and line ends is not valid as UTF-8
        text = text.replace(" ", "").replace("\n", "")
    path.write_bytes(text.encode(encoding))
    _, settings = advice(path)
    assert read(path, encoding=settings["encoding"]) == text


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("text", ["a sentence\n", "To be, or not to be: that is the question.\n"])
def test_the_byte_order_of_a_short_text_is_known(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "text.txt").write_bytes(text.encode(encoding))
    _, settings = advice(tmp_path / "text.txt")
    assert read(tmp_path / "text.txt", encoding=settings["encoding"]) == text


@pytest.mark.parametrize("own", ["ascii", "utf-16", "shift_jis", "cp874", "utf-32-be"])
def test_utf_8_is_named_where_another_encoding_is_set(tmp_path: Path, own: str) -> None:
    path, text = tmp_path / "text.txt", TEXTS["polish"]
    path.write_text(text, encoding="utf-8")
    message, settings = advice(path, encoding=own)
    assert message.endswith("it is utf-8: set data.encoding=utf-8")
    assert read(path, encoding=settings["encoding"]) == text


def test_curly_quotes_are_not_letters_of_an_older_system(tmp_path: Path) -> None:
    text = "“Café” – it costs 5 €, … naïve.\n" * 40
    (tmp_path / "text.txt").write_bytes(text.encode("cp1252"))
    message, _ = advice(tmp_path / "text.txt")
    assert "perhaps it is cp1252: try data.encoding=cp1252" in message


@pytest.mark.parametrize("chunk", [999, 1 << 20])
@pytest.mark.parametrize(("language", "encoding"), [("french", "cp1252"), ("korean", "cp949")])
@pytest.mark.parametrize("before", [detect.SAMPLE - 5, 2 * detect.SAMPLE + 1, (1 << 20) - 1])
def test_the_bytes_around_the_first_bad_one_decide(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    language: str,
    encoding: str,
    before: int,
    chunk: int,
) -> None:
    monkeypatch.setattr(sources, "CHUNK", chunk)
    seen: list[bytes] = []

    def watched(sample: bytes, own: str) -> str:
        seen.append(sample)
        return advise(sample, own)

    monkeypatch.setattr(module, "advise", watched)
    path, (text, raw) = tmp_path / "text.txt", encoded(language, encoding)
    path.write_bytes(b"plain text\n" * (before // 11) + b"x" * (before % 11) + raw * 500)
    message, settings = advice(path)
    assert f"data.encoding={encoding}" in message
    assert read(path, encoding=settings["encoding"]).endswith(text)
    assert len(seen[0]) <= 3 * detect.SAMPLE


# --- data stats agrees -----------------------------------------------------------------------


@pytest.mark.parametrize(("language", "encoding"), PAIRS)
def test_data_stats_does_not_call_the_named_encoding_wrong(
    tmp_path: Path, language: str, encoding: str
) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(encoded(language, encoding)[1])
    _, settings = advice(path)
    no_yardsticks = {"val_fraction": 0, "test_fraction": 0.999}  # they are slow
    data = {"path": str(path), "encoding": settings["encoding"]} | no_yardsticks
    found = stats.measure(DataConfig.model_validate(data))
    assert [each for each in found["oddities"] if "data.encoding" in each["advice"]] == []


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=60), st.binary(min_size=1, max_size=9).map(lambda x: x * 40)))
def test_only_an_encoding_that_gives_a_text_is_named(raw: bytes) -> None:
    named = re.search(r"data\.encoding=([\w-]+)", advise(raw, "utf-7"))
    if named:
        text = raw.decode(named[1], "ignore")
        assert not any(char == "\0" or "\x7f" <= char <= "\x9f" for char in text)
        assert "wrongly decoded characters" not in [
            each.kind for each in oddities({char: text.count(char) for char in text})
        ]


# --- damaged texts ---------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "bad byte"])
def test_a_damaged_text_in_utf_8_is_called_so(tmp_path: Path, damage: str) -> None:
    path, raw = tmp_path / "text.txt", TEXTS["russian"].encode()
    last = raw.rindex("в".encode())
    path.write_bytes(raw[: last + 1] if damage == "cut" else raw[:last] + b"\xff" + raw[last:])
    message, settings = advice(path)
    assert "most of it is utf-8" in message
    assert "encoding" not in settings
    text = read(path, errors=settings["errors"])
    assert text.count("\ufffd") == 1
    assert text.partition("\ufffd")[0] == TEXTS["russian"][: text.index("\ufffd")]


def test_an_unknown_encoding_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(bytes(random.Random(0).choices(range(0x80, 0xFF), k=3000)))
    message, settings = advice(tmp_path / "text.txt")
    assert "its encoding is not recognized" in message
    assert settings == {"errors": "replace", "unit": "byte"}


# --- files that are not texts ----------------------------------------------------------------


def saved(save: Callable[[Any], object]) -> bytes:
    """The bytes that a function writes to a file."""
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def zipped(*names: str) -> bytes:
    def save(file: io.BytesIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, b"<xml/>" * 100)

    return saved(save)


def archived(file: io.BytesIO) -> None:
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("text.txt"))


def database() -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("create table t (x)")
        return connection.serialize()


NOISE = random.Random(0).randbytes(2_000)
ARRAY = np.frombuffer(NOISE, np.float32)
FORMATS = {
    "gzip": gzip.compress(NOISE),
    "x-bzip2": bz2.compress(NOISE),
    "x-xz": lzma.compress(NOISE),
    "zstd": b"\x28\xb5\x2f\xfd" + NOISE,
    "x-7z-compressed": b"7z\xbc\xaf\x27\x1c\0\4" + NOISE,
    "vnd.rar": b"Rar!\x1a\x07\1\0" + NOISE,
    "zip, as .docx, .xlsx, .odt and .epub": zipped("[Content_Types].xml", "word/document.xml"),
    "x-tar": saved(archived),
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + NOISE,
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + NOISE,
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + NOISE,
    "x-elf": b"\x7fELF\2\1\1" + bytes(9) + NOISE,
    "vnd.apache.parquet": b"PAR1\x15\4\x15" + NOISE,
    "x-sqlite3": database(),
    "npy": saved(lambda file: np.save(file, ARRAY)),
    "safetensors": safetensors.numpy.save({"weight": ARRAY}),
    "an old Microsoft Office file": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + NOISE,
}


@pytest.mark.parametrize("own", ["utf-8", "iso8859-1"])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_not_a_text_is_called_by_its_format(
    tmp_path: Path, kind: str, own: str
) -> None:
    (tmp_path / "text.txt").write_bytes(FORMATS[kind])
    message, settings = advice(tmp_path / "text.txt", encoding=own)
    assert f"it is a {kind} file: " in message or f"it is not a text ({kind}): " in message
    assert "encoding" not in settings
    if found := re.search(r"let its name end in (\.\w+)", message):
        (tmp_path / "text.txt").rename(tmp_path / f"text.txt{found[1]}")
        raw = b"".join(find_sources([f"{tmp_path}/text.txt{found[1]}"], DATA)[0].chunks())
        assert raw == NOISE
    else:
        assert read(tmp_path / "text.txt", unit=settings["unit"]).encode("latin-1") == FORMATS[kind]


DATA = DataConfig(path="x")


@pytest.mark.parametrize("raw", [NOISE, pickle.dumps(list(range(1000))), bytes(100)])
def test_other_bytes_are_not_called_a_text(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "text.txt").write_bytes(raw)
    message, settings = advice(tmp_path / "text.txt")
    assert "it is not a text in an encoding that is recognized" in message
    assert settings == {"unit": "byte"}


@pytest.mark.parametrize("start", ["BM", "MZ", "ID3", "II*", "BZh", "PAR1", "%PDF-", "OTTO"])
def test_a_text_that_starts_like_a_format_is_a_text(tmp_path: Path, start: str) -> None:
    text = start + TEXTS["german"]
    (tmp_path / "text.txt").write_bytes(text.encode("cp1252"))
    _, settings = advice(tmp_path / "text.txt")
    assert read(tmp_path / "text.txt", encoding=settings["encoding"]) == text


def test_a_text_of_a_folder_can_also_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("é".encode())
    (tmp_path / "b.txt").write_bytes(FORMATS["gzip"])
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(caught.value).endswith("; or leave it out with data.exclude")
    assert read(tmp_path, exclude="b.txt") == "é"
