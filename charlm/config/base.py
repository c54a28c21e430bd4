"""The value types of settings, and the base class of a group of settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

# Every number has bounds. Those of a kind of number that has no closer ones are far outside of what
# is useful, but within what the arithmetic can do: counts are exact as float64, and products of
# the others with weights and logits do not overflow.
MAX_COUNT = 10**15
SMALLEST, LARGEST = 1e-12, 1e9
MAX_SEED = 2**64 - 1
MAX_LENGTH = 10_000_000  # of a dimension of a tensor: sequences or characters


def _refuse_bool(value: Any) -> Any:
    """Refuse `true` and `false`, which pydantic would read as 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("mistyped", "a number")
    return value


def _as_integer(value: Any) -> Any:
    """Read 1e6 as an integer, so that 1e30 is compared with the bounds like any other."""
    value = _refuse_bool(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _refuse_tiny(temperature: float) -> float:
    """Refuse values by which a logit cannot be divided."""
    if 0 < temperature < SMALLEST:
        raise PydanticCustomError("mistyped", f"0, or at least {SMALLEST:g}")
    return temperature


def is_unicode(text: str) -> bool:
    """Whether a string has no lone surrogate. Python uses these in paths that are not UTF-8."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _refuse_surrogates(text: str) -> str:
    if not is_unicode(text):
        raise PydanticCustomError("mistyped", "valid Unicode, without lone surrogates")
    return text


Text = Annotated[str, AfterValidator(_refuse_surrogates)]
_NUMBER, _INTEGER = BeforeValidator(_refuse_bool), BeforeValidator(_as_integer)
Fraction = Annotated[float, Field(ge=0, lt=1), _NUMBER]
PositiveFloat = Annotated[float, Field(ge=SMALLEST, le=LARGEST), _NUMBER]
NonNegativeFloat = Annotated[float, Field(ge=0, le=LARGEST), _NUMBER]
Ratio = Annotated[float, Field(gt=0, le=1), _NUMBER]
Beta = Annotated[float, Field(gt=0, lt=1), _NUMBER]
Epsilon = Annotated[float, Field(ge=1e-30, le=1), _NUMBER]  # above 0 in float32
Temperature = Annotated[NonNegativeFloat, AfterValidator(_refuse_tiny)]
PositiveInt = Annotated[int, Field(ge=1, le=MAX_COUNT), _INTEGER]
NonNegativeInt = Annotated[int, Field(ge=0, le=MAX_COUNT), _INTEGER]
AtLeastTwo = Annotated[int, Field(ge=2, le=MAX_COUNT), _INTEGER]
Length = Annotated[int, Field(ge=1, le=MAX_LENGTH), _INTEGER]
Context = Annotated[int, Field(ge=2, le=1 << 16), _INTEGER]  # tables are as long as this
Width = Annotated[int, Field(ge=1, le=100_000), _INTEGER]
Layers = Annotated[int, Field(ge=1, le=1000), _INTEGER]
Threads = Annotated[int, Field(ge=1, le=1024), _INTEGER]
VocabSize = Annotated[int, Field(ge=2, le=0x110000), _INTEGER]  # as many characters as Unicode has
# A number, or `auto`. The tags are no part of a setting's name; see `explain`.
NUMBER_TAG = "number"
_AUTO = Annotated[Literal["auto"], Tag("auto")]
_NUMBER_OR_AUTO = Discriminator(lambda value: "auto" if value == "auto" else NUMBER_TAG)
PositiveIntOrAuto = Annotated[Annotated[PositiveInt, Tag(NUMBER_TAG)] | _AUTO, _NUMBER_OR_AUTO]
AtLeastTwoOrAuto = Annotated[Annotated[AtLeastTwo, Tag(NUMBER_TAG)] | _AUTO, _NUMBER_OR_AUTO]
Seed = Annotated[int, Field(ge=0, lt=MAX_SEED + 1), _INTEGER]


class Group(BaseModel):
    """A frozen group of settings. An unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def problems(self) -> Iterator[str]:
        """Yield a line `key: message` for each setting that does not fit the others."""
        yield from ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if problems := list(self.problems()):
            raise ValueError("\n".join(problems))
        return self


@dataclass(frozen=True)
class MayChange:
    """Marks a setting that a resumed run may change.

    Such a setting controls what is read, when the run stops or what is recorded. It never affects
    what is computed.
    """


def changeable(group: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of the settings marked `MayChange`, in a group and its subgroups."""
    for name, field in group.model_fields.items():
        if any(isinstance(mark, MayChange) for mark in field.metadata):
            yield prefix + name
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from changeable(field.annotation, f"{prefix}{name}.")
