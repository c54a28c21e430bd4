"""Settings of the text: its source, its encoding, its vocabulary and its splits."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from charlm.config.base import Fraction, Group, MayChange, PositiveInt, Text, VocabSize, is_unicode

MAX_PATH = 4096  # characters; no system opens a longer path


def _as_tuple(value: Any) -> Any:
    strings = (value,) if isinstance(value, str) else value
    if not isinstance(strings, list | tuple) or not all(isinstance(x, str) and x for x in strings):
        raise PydanticCustomError("mistyped", "a non-empty string, or a list of such strings")
    if any(len(x) > MAX_PATH for x in strings):
        raise PydanticCustomError("mistyped", f"a path of at most {MAX_PATH:,} characters")
    if not all(map(is_unicode, strings)):
        raise PydanticCustomError(
            "mistyped", "valid UTF-8; rename the file, or give the folder that contains it"
        )
    return tuple(strings)


def _as_yaml(value: tuple[str, ...]) -> str | list[str]:
    return value[0] if len(value) == 1 else list(value)


Strings = Annotated[  # in YAML a string, or a list of strings
    tuple[str, ...],
    BeforeValidator(_as_tuple),
    PlainSerializer(_as_yaml),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Source = Annotated[Strings, Field(min_length=1)]


def _supported_encoding(name: str) -> str:
    try:
        codec = codecs.lookup(name)
        decodes = codec.incrementaldecoder().decode(b"", final=True) == ""
        decodes = decodes and codec.name not in _UNSUPPORTED
    except (LookupError, TypeError, ValueError):
        decodes = False
    if not decodes:
        raise PydanticCustomError(
            "mistyped",
            "an encoding that Python supports, such as utf-8, utf-16, latin-1, cp1252 or shift_jis",
        )
    return name


# these decode to lone surrogates, or are encodings of single words
_UNSUPPORTED = ("idna", "punycode", "raw-unicode-escape", "unicode-escape", "utf-7")


# settings whose names were changed; files, checkpoints and --set may have the old ones
OLD_NAMES = {"min_count": "vocab_min_count", "max_size": "vocab_size"}


def with_new_names(raw: Any) -> Any:
    """Replace the old names in a raw group `data`. If a setting is given by both names, the old one
    stays, and is then an unknown key."""
    if not isinstance(raw, dict):
        return raw
    return {
        new if (new := OLD_NAMES.get(key, key)) not in raw else key: value
        for key, value in raw.items()
    }


class DataConfig(Group):
    """Settings of the text."""

    path: Annotated[Source, MayChange()] = Field(
        description="source of the text: a file (also .gz, .bz2 or .xz); a folder; a glob such as "
        "`src/**/*.c`; `-` for standard input; `builtin:python` or `builtin:python-topics` for "
        "texts that come with Python; the name of a well-known text from `charlm data list`; or a "
        "list of these. In folders and globs, links to files are followed, links to folders are "
        "not, and pipes, sockets and devices are skipped. If the source is read from a checkpoint, "
        "only regular files are opened; name any other source again with --data"
    )
    val_path: Annotated[Source | None, MayChange()] = Field(
        None,
        description="source of a separate validation text, given like data.path; replaces "
        "data.val_fraction",
    )
    test_path: Annotated[Source | None, MayChange()] = Field(
        None,
        description="source of a separate test text, given like data.path; replaces "
        "data.test_fraction",
    )
    val_fraction: Fraction = Field(
        0.1,
        description="fraction of the text that is held out for validation, right after the "
        "training part; the default is 0 if data.val_path is set",
    )
    test_fraction: Fraction = Field(
        0.0, description="fraction of the text that is held out for testing, at the end of the text"
    )
    include: Annotated[Strings, MayChange()] = Field(
        (),
        description="patterns such as `*.c`; in a folder, only files that match at least one "
        "pattern are read; empty for all files",
    )
    exclude: Annotated[Strings, MayChange()] = Field(
        (),
        description="patterns such as `*.c`; in a folder or a glob, files and folders that match "
        "at least one pattern are skipped",
    )
    separator: Text = Field("\n", description="text that is inserted between two files")
    documents: Literal["none", "lines"] = Field(
        "none",
        description="none: the text is continuous; lines: each line is a separate document, for "
        "example a name; the documents are shuffled before the text is split into train, val and "
        "test, blank lines are left out, and each text of `charlm sample` is one document",
    )
    unit: Literal["char", "byte"] = Field(
        "char", description="unit of the text: char for Unicode characters, byte for bytes"
    )
    encoding: Annotated[str, AfterValidator(_supported_encoding)] = Field(
        "utf-8", description="encoding of the files; needs data.unit char"
    )
    errors: Literal["strict", "replace"] = Field(
        "strict",
        description="handling of bytes that are invalid in the encoding: strict stops with an "
        "error, replace reads them as U+FFFD; needs data.unit char",
    )
    normalize: Literal["none", "NFC", "NFKC"] = Field(
        "none", description="Unicode normalisation form of the text; needs data.unit char"
    )
    newlines: Literal["keep", "lf"] = Field(
        "keep",
        description="keep: line ends stay as they are; lf: CRLF and CR are read as LF; needs "
        "data.unit char",
    )
    vocab_min_count: PositiveInt = Field(
        1,
        description="minimum number of occurrences in the text; rarer characters are not in the "
        "vocabulary and are read as U+FFFD; needs data.unit char",
    )
    vocab_size: VocabSize | None = Field(
        None,
        description="maximum number of characters in the vocabulary, including U+FFFD; the most "
        "frequent characters are kept and all others are read as U+FFFD; null for no limit; needs "
        "data.unit char",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, raw: Any) -> Any:
        """Old names become new ones. With val_path, the default of val_fraction is 0."""
        raw = with_new_names(raw)
        if isinstance(raw, dict) and raw.get("val_path") is not None:
            return {"val_fraction": 0.0} | raw
        return raw

    def problems(self) -> Iterator[str]:
        paths = (*self.path, *(self.val_path or ()), *(self.test_path or ()))
        if paths.count("-") > 1:
            yield "path: - is given twice, but standard input can be read only once; give it once"
        held_out = self.val_fraction + self.test_fraction
        if held_out >= 1:
            yield (
                f"val_fraction: the sum with data.test_fraction is {held_out:g}, which leaves "
                "nothing to train on; lower one of them"
            )
        for part in ("val", "test"):
            if getattr(self, f"{part}_path") and getattr(self, f"{part}_fraction"):
                yield f"{part}_fraction: data.{part}_path is set too; leave one of them out"
        for key in _CHAR_ONLY if self.unit == "byte" else ():
            if getattr(self, key) != type(self).model_fields[key].default:
                needs = "this setting needs data.unit char, but data.unit is byte"
                yield f"{key}: {needs}; leave it out"

    @property
    def is_limited(self) -> bool:
        """Whether the vocabulary is limited, so that rare characters share one id."""
        return self.vocab_min_count > 1 or self.vocab_size is not None


_CHAR_ONLY = ("encoding", "errors", "normalize", "newlines", "vocab_min_count", "vocab_size")
