"""Read YAML strictly: duplicate keys are refused, and plain words mean what they say.

Values follow YAML 1.2, not the 1.1 of PyYAML: `1e-3` is the number 0.001 (1.1: a text), `010` is ten (1.1: eight),
`1:30` and `2024-01-01` are texts, and so are `off`, `on`, `yes` and `no`; only `true` and `false` are truth values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, final

import yaml

from rna_ray.errors import SweepError

_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


_DEEPEST, _MOST = 100, 1_000_000  # far beyond any sweep: a few lines of aliases could otherwise fill the memory


@final
class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own shape

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[object, int] = {}
        for key_node, _ in node.value:
            key, mark = self.construct_object(key_node, deep=True), key_node.start_mark
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is not a text: quote it", mark)
            if key in first:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key!r}, first given in line {first[key]}", mark
                )
            first[key] = mark.line + 1
        return super().construct_mapping(node, deep=deep)

    def construct_integer(self, node: yaml.Node) -> int:
        text = self.construct_scalar(node)
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


for _tag, _pattern, _first in (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)


def read(path: str | Path) -> Any:
    """Return the value of a YAML file; what cannot be read is a SweepError with file, line and column."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SweepError(f"{path}: there is no such sweep file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    return parse(text, where=str(path))


def parse(text: str, *, where: str) -> Any:
    """Return the value of a YAML text; `where` begins the sentence of a SweepError."""
    try:
        value = yaml.load(text, Loader=_Loader)
        _check_size(value, {})
        json.dumps(value)  # refuses what contains itself (`&a [*a]`) and tags that are no JSON values (`!!binary`)
        return value
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise SweepError(f"{where}{place}: {_sentence(error)}") from None
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise SweepError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


def _check_size(value: object, known: dict[int, int], depth: int = 0) -> int:
    """Return how many values there are once aliases are spelled out; ValueError where they are too many or too deep."""
    if not isinstance(value, list | dict):
        return 1
    if id(value) in known:
        return known[id(value)]
    if depth > _DEEPEST:
        raise ValueError(f"it is nested more than {_DEEPEST} deep")
    known[id(value)] = 0  # what contains itself is refused elsewhere
    inside = value.values() if isinstance(value, dict) else value
    found = 1 + sum(_check_size(one, known, depth + 1) for one in inside)
    if found > _MOST:
        raise ValueError(f"it holds more than {_MOST:,} values once its aliases are spelled out")
    known[id(value)] = found
    return found


def _sentence(error: yaml.MarkedYAMLError) -> str:
    if isinstance(error, yaml.constructor.ConstructorError) and error.context is None:
        return str(error.problem)
    if error.problem and r"'\t'" in error.problem:
        return "not valid YAML: a tab stands where YAML allows only spaces"
    return "not valid YAML: " + " ".join(f"{error.problem} {error.context or ''}".split())
