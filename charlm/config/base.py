"""The value types of settings, and the base class of a group of settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

MAX_NAME_LENGTH = 100  # characters of a run's name


def _refuse_bool(value: Any) -> Any:
    """Refuse `true` and `false`, which pydantic would read as 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("mistyped", "a number")
    return value


Float = Annotated[float, BeforeValidator(_refuse_bool)]
Int = Annotated[int, BeforeValidator(_refuse_bool)]
Fraction = Annotated[Float, Field(ge=0, lt=1)]
PositiveFloat = Annotated[Float, Field(gt=0)]
NonNegativeFloat = Annotated[Float, Field(ge=0)]
Ratio = Annotated[Float, Field(gt=0, le=1)]
Beta = Annotated[Float, Field(gt=0, lt=1)]
PositiveInt = Annotated[Int, Field(ge=1)]
NonNegativeInt = Annotated[Int, Field(ge=0)]
AtLeastTwo = Annotated[Int, Field(ge=2)]


class Group(BaseModel):
    """A frozen group of settings. An unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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


def refuse(*problems: str | None) -> None:
    """Raise a ValueError that lists the problems, if there are any.

    Args:
        problems: None, or a line `key: message`.

    Raises:
        ValueError: at least one problem is not None; the message has one line per problem.
    """
    if found := [problem for problem in problems if problem]:
        raise ValueError("\n".join(found))
