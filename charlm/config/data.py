"""Settings of the text: where it is, how its bytes become characters, how it is parted."""

from __future__ import annotations

import codecs
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from charlm.config.base import AtLeastTwo, Count, Fraction, Group, MayChange, refuse


def _as_list(value: Any) -> Any:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(x, str) and x for x in texts):
        raise PydanticCustomError("mistyped", "some text, or a list of texts")
    if not all(map(_is_unicode, texts)):
        raise PydanticCustomError(
            "mistyped", "a path that is valid UTF-8: rename it, or name the folder it is in"
        )
    return tuple(texts)


def _is_unicode(text: str) -> bool:
    """Whether it has no half of a character, as a path that is not UTF-8 has."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _as_written(value: tuple[str, ...]) -> str | list[str]:
    return value[0] if len(value) == 1 else list(value)


Texts = Annotated[  # one text stands for a list of one
    tuple[str, ...],
    BeforeValidator(_as_list),
    PlainSerializer(_as_written),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


def _known_encoding(name: str) -> str:
    try:
        codec = codecs.lookup(name)
        decodes = codec.incrementaldecoder().decode(b"", final=True) == ""
        decodes = decodes and codec.name not in _NO_ENCODINGS
    except (LookupError, TypeError, ValueError):
        decodes = False
    if not decodes:
        raise PydanticCustomError(
            "mistyped",
            "an encoding that Python knows, such as utf-8, utf-16, latin-1, cp1252 or shift_jis",
        )
    return name


# these make halves of characters, or are of single words
_NO_ENCODINGS = ("idna", "punycode", "raw-unicode-escape", "unicode-escape", "utf-7")


class DataConfig(Group):
    """The text."""

    path: Annotated[Annotated[Texts, Field(min_length=1)], MayChange()] = Field(
        description="the text: a file (also .gz, .bz2 or .xz), a folder, a glob such as "
        "`src/**/*.c`, `-` for standard input, `builtin:python`, `builtin:python-topics`, the name "
        "of a known corpus (`charlm data list`), or a list of these"
    )
    val_path: Annotated[Annotated[Texts, Field(min_length=1)] | None, MayChange()] = Field(
        None, description="a text of its own for validation, in place of val_fraction"
    )
    test_path: Annotated[Annotated[Texts, Field(min_length=1)] | None, MayChange()] = Field(
        None, description="a text of its own for testing, in place of test_fraction"
    )
    val_fraction: Fraction = Field(
        0.1,
        description="share of the text, after the training part, held out for validation; 0 where "
        "there is a val_path",
    )
    test_fraction: Fraction = Field(
        0.0, description="share of the text, at its very end, that training never looks at"
    )
    include: Annotated[Texts, MayChange()] = Field(
        (), description="of folders, take only files that match one of these, such as `*.c`"
    )
    exclude: Annotated[Texts, MayChange()] = Field(
        (), description="of folders and globs, leave out what matches one of these"
    )
    separator: str = Field("\n", description="what is put between two files")
    documents: Literal["none", "lines"] = Field(
        "none",
        description="lines: the text is a list, such as of names; its lines are shuffled before "
        "they are parted, and sampling writes lines",
    )
    unit: Literal["char", "byte"] = Field(
        "char", description="what a model reads and writes: characters, or bytes of any file"
    )
    encoding: Annotated[str, AfterValidator(_known_encoding)] = Field(
        "utf-8", description="of the files (char)"
    )
    errors: Literal["strict", "replace"] = Field(
        "strict", description="bytes that are not of the encoding: refuse, or read as U+FFFD (char)"
    )
    normalize: Literal["none", "NFC", "NFKC"] = Field(
        "none", description="Unicode normalisation (char)"
    )
    newlines: Literal["keep", "lf"] = Field(
        "keep", description="lf: read CRLF and CR as one line feed (char)"
    )
    min_count: Count = Field(
        1, description="characters seen less often are read as one unknown character, U+FFFD (char)"
    )
    max_size: AtLeastTwo | None = Field(
        None,
        description="most characters in the vocabulary, U+FFFD for the rest among them (char)",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, raw: Any) -> Any:
        """A text of its own needs no share of the other."""
        if isinstance(raw, dict) and raw.get("val_path") is not None:
            return {"val_fraction": 0.0} | raw
        return raw

    @model_validator(mode="after")
    def _check(self) -> Self:
        held_out = self.val_fraction + self.test_fraction
        paths = (*self.path, *(self.val_path or ()), *(self.test_path or ()))
        refuse(
            "path: - stands twice, and what is piped in can be read once only"
            if paths.count("-") > 1
            else None,
            "separator: it has half of a character" if not _is_unicode(self.separator) else None,
            f"val_fraction: with test_fraction it holds out {held_out:g} of the text and leaves "
            "nothing to train on; lower one"
            if held_out >= 1
            else None,
            *(
                f"{part}_fraction: there is a {part}_path; leave one of them out"
                for part in ("val", "test")
                if getattr(self, f"{part}_path") and getattr(self, f"{part}_fraction")
            ),
            *(
                f"{key}: it is of characters, and data.unit is byte; leave it out"
                for key in _OF_CHARACTERS
                if self.unit == "byte"
                and getattr(self, key) != type(self).model_fields[key].default
            ),
        )
        return self

    @property
    def is_limited(self) -> bool:
        """Whether rare characters share one id."""
        return self.min_count > 1 or self.max_size is not None


_OF_CHARACTERS = ("encoding", "errors", "normalize", "newlines", "min_count", "max_size")
