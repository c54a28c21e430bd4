"""The kinds of values and the frozen group that settings are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _no_truth_for_a_number(value: Any) -> Any:
    """pydantic takes true for 1; a reader of YAML would call it a slip."""
    if isinstance(value, bool):
        raise PydanticCustomError("mistyped", "a number")
    return value


Float = Annotated[float, BeforeValidator(_no_truth_for_a_number)]
Int = Annotated[int, BeforeValidator(_no_truth_for_a_number)]
Fraction = Annotated[Float, Field(ge=0, lt=1)]
Positive = Annotated[Float, Field(gt=0)]
NotNegative = Annotated[Float, Field(ge=0)]
Ratio = Annotated[Float, Field(gt=0, le=1)]
Beta = Annotated[Float, Field(gt=0, lt=1)]
Count = Annotated[Int, Field(ge=1)]
WholeNumber = Annotated[Int, Field(ge=0)]
AtLeastTwo = Annotated[Int, Field(ge=2)]


class Group(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class MayChange:
    """Marks a setting that a resumed run may change: it says what is read, when to stop or what to
    record, and never what is computed."""


def changeable(group: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted names of the settings that are marked `MayChange`, in a group and below it."""
    for name, field in group.model_fields.items():
        if any(isinstance(mark, MayChange) for mark in field.metadata):
            yield prefix + name
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from changeable(field.annotation, f"{prefix}{name}.")


def refuse(*problems: str | None) -> None:
    """Raise ValueError with the problems that are not None, one a line, each as `key: text`."""
    if found := [problem for problem in problems if problem]:
        raise ValueError("\n".join(found))
