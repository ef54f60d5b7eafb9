from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rna_ray.sweep import units

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(one) for one in value] if isinstance(value, list) else value


@given(JSON)
def test_the_order_of_keys_does_not_count(value: Any) -> None:
    assert units.digest(reversed_keys(value)) == units.digest(value)


@given(JSON)
def test_canonical_json_says_all_that_the_value_holds(value: Any) -> None:
    assert json.loads(units.canonical(value)) == value
    assert units.canonical(json.loads(units.canonical(value))) == units.canonical(value)


def test_whole_numbers_and_floats_differ_but_zeros_do_not() -> None:
    assert units.canonical({"b": [8, 8.0, True], "a": -0.0}) == '{"a":0.0,"b":[8,8.0,true]}'
    assert units.canonical({"a": "é"}) == '{"a":"\\u00e9"}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": -float("inf")}])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        units.digest(value)
    with pytest.raises(TypeError):
        units.digest({1: "a key that is no text"})


def test_the_id_is_pinned() -> None:
    unit = units.train({"network": {"norm": "BN+IN", "width": 16}, "training": {"lr": 0.1}, "seed": 0})
    assert unit.version == 1
    assert unit.id == "70ff058478d5a0f0694fb1d4f10328b3"
    assert pickle.loads(pickle.dumps(unit)).id == unit.id


def test_kind_and_version_count() -> None:
    kinds: list[units.Kind] = ["train", "evaluate"]
    made = [units.Unit(kind=kind, settings={}, version=version) for kind in kinds for version in (1, 2)]
    assert len({unit.id for unit in made}) == len(set(made)) == 4


def test_units_of_one_evaluation_share_its_digest_and_nothing_else_does() -> None:
    settings = {"network": "n", "draws": 10}
    first, second = units.evaluate(settings, examples=(0, 100)), units.evaluate(settings, examples=(100, 200))
    other = units.evaluate({**settings, "draws": 1}, examples=(0, 100))
    for unit in (first, second, other):  # which writes the text once for all units of an evaluation
        assert unit.id == units.digest({"kind": unit.kind, "version": unit.version, "settings": unit.settings})
    assert first.needs == ("n",)
    assert first.settings["evaluation"] == second.settings["evaluation"] != other.settings["evaluation"]
    assert len({first.id, second.id, other.id}) == 3
