"""What the sections of a sweep file are made of: the frozen model, what does not count, refusals in one sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from rna_ray.errors import UserError


def uncounted(default: Any, **limits: Any) -> Any:
    """Declare a field that does not count towards a unit's id."""
    return Field(default, json_schema_extra={"counts": False}, **limits)


def refusal(sentence: str, *, kind: Literal["refused", "refused_key"] = "refused") -> PydanticCustomError:
    """Return the error of a sentence about a field, or of one that starts with a key of the section."""
    return PydanticCustomError(kind, "{sentence}", {"sentence": sentence})


def absolute(path: str) -> str:
    """Return a path in full: ~ is a home, and stays as it is written where nobody has one of that name."""
    return str(Path(os.path.expanduser(path)).absolute())


def known(look_up: Any) -> Any:
    """Accept the texts that `look_up` accepts, its UserError becoming the field's."""

    def check(given: object) -> object:
        if isinstance(given, str):
            try:
                look_up(given)
            except UserError as error:
                raise refusal(str(error)) from None
        return given

    return BeforeValidator(check)


def as_tuple(given: object) -> object:
    """Return a list as a tuple, anything else as it is for the field to judge."""
    return tuple(given) if isinstance(given, list) else given


def _several(given: object) -> object:
    """Return one value or a list of them as a tuple, each given once."""
    values = tuple(given) if isinstance(given, list | tuple) else given if given is None else (given,)
    if isinstance(values, tuple) and (not values or len(set(map(repr, values))) < len(values)):
        raise refusal("give at least one value, each once")
    return values


SEVERAL = BeforeValidator(_several)
Whole = Annotated[int, Field(ge=1)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Texts = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]


class Section(BaseModel):
    """A frozen section of a sweep file: unknown keys are errors, and types are exact."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True,
        serialize_by_alias=True,
    )
