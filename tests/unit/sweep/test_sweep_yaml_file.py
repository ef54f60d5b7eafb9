from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rna_ray.errors import SweepError
from rna_ray.sweep.yaml_file import parse, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1.0e-3", 0.001), ("5E2", 500.0), (".5", 0.5), ("-2.", -2.0), ("8", 8), ("-3", -3),
        ("010", 10), ("0x10", 16), ("0o10", 8), ("off", "off"), ("on", "on"), ("yes", "yes"), ("no", "no"),
        ("true", True), ("False", False), ("~", None), ("", None), ("null", None), ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"), ("1_000", "1_000"), ("'1e-3'", "1e-3"), ("BGN+GN[1-4]", "BGN+GN[1-4]"),
        ("e3", "e3"), ("[1, a, 1e1]", [1, "a", 10.0]),
    ],
)  # fmt: skip
def test_plain_words_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    found = parse(text, where="f")
    assert found == value
    assert type(found) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["r", "e", ".17g", ".3E"]))
def test_every_way_to_write_a_float_is_a_number(number: float, how: str) -> None:
    text = repr(number) if how == "r" else format(number, how)
    found = parse(text, where="f")
    assert isinstance(found, int | float)
    assert found == float(text)


@given(st.integers())
def test_every_integer_is_read_in_base_ten(number: int) -> None:
    assert parse(f"{number:05d}", where="f") == number


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb:\n  c: 2\n  c: 3", "f:4:3: duplicate key 'c', first given in line 3"),
        ("{a: 1, a: 1}", "f:1:8: duplicate key 'a', first given in line 1"),
        ("a:\n\tb: 1", "f:2:1: not valid YAML: a tab stands where YAML allows only spaces"),
        ("1: 2", "f:1:1: the key 1 is not a text: quote it"),
        ("a: b: c", "f:1:5: not valid YAML: mapping values are not allowed here"),
        ("a: !!python/name:os.system x", "f:1:4: could not determine a constructor for the tag"),
        ("&x [*x]", "f: not valid YAML: Circular reference detected"),
        ("!!binary aGk=", "f: not valid YAML: Object of type bytes is not JSON serializable"),
        ("a: 1\n---\nb: 2", "f:2:1: not valid YAML"),
        ("a: \x00", "f: not valid YAML"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_place(text: str, sentence: str) -> None:
    with pytest.raises(SweepError) as error:
        parse(text, where="f")
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_a_folder_or_not_text(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(SweepError, match="there is no such sweep file"):
        read(tmp_path / "none.yaml")
    for path in (tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(SweepError, match="cannot be read as UTF-8 text"):
            read(path)
