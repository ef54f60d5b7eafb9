"""Say what is wrong with a sweep in one sentence: where, what was given, what is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from rna_ray.errors import unknown

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "bool_type": "true or false",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "dict_type": "a mapping of keys",
    "mapping_type": "a mapping of keys",
    "tuple_type": "a list",
    "list_type": "a list",
    "none_required": "null",
}
_LIMITS = {"greater_than": ("gt", "above"), "greater_than_equal": ("ge", "at least"),
           "less_than": ("lt", "below"), "less_than_equal": ("le", "at most")}  # fmt: skip


def sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first problem of a validation error as one sentence that starts with the dotted key.

    A key that nobody knows comes first: what is missing may be meant by it.
    """
    found = error.errors(include_url=False)
    first = next((one for one in found if one["type"] in ("extra_forbidden", "unknown")), found[0])
    place, kind = [str(part) for part in first["loc"]], first["type"]
    context = first.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{'.'.join(place)}: {unknown('key', place[-1], _fields(model, place[:-1]))}"
    if kind == "unknown":
        return f"{'.'.join([*place, context['key']])}: {unknown('key', context['key'], context['known'])}"
    if kind == "missing":
        return f"{'.'.join(place)}: missing; {_about(model, place)}"
    if kind in ("refused", "refused_key"):
        return (": " if kind == "refused" else ".").join(filter(None, [".".join(place), context["sentence"]]))
    if kind == "too_short":
        return f"{'.'.join(place)}: the list is empty; give at least one value"
    return f"{'.'.join(place)}: {_shown(first['input'])} is not {_allowed(first)}"


def _allowed(problem: ErrorDetails) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in _LIMITS:
        limit, word = _LIMITS[kind]
        return f"{word} {context[limit]:g}"
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "string_pattern_mismatch":
        return "made of letters, digits, '.', '_' and '-', a letter or digit first"
    return _EXPECTED.get(kind, problem["msg"])


def _shown(given: object) -> str:
    """Return a given value as its writer would recognise it; a text that looks like a number keeps its quotes."""
    if given is None or isinstance(given, bool):
        return {None: "null", True: "true", False: "false"}[given]
    if isinstance(given, Mapping | Sequence) and not isinstance(given, str):
        return "a mapping of keys" if isinstance(given, Mapping) else "a list"
    return repr(given) if not isinstance(given, str) else f"the text {given!r}"


def _fields(model: type[BaseModel], place: Sequence[str]) -> list[str]:
    """Return the keys that a section takes."""
    for part in place:
        found = _model(model.model_fields.get(part))
        model = found or model
    return [field.alias or name for name, field in model.model_fields.items()]


def _about(model: type[BaseModel], place: Sequence[str]) -> str:
    """Return the sentence of a field."""
    field: FieldInfo | None = None
    for part in place:
        if part.isdecimal():
            continue
        field = model.model_fields[part]
        model = _model(field) or model
    return (field.description or "") if field else ""


def _model(field: Any) -> type[BaseModel] | None:
    """Return the section that a field holds, alone or in a list."""
    if field is None:
        return None
    kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
