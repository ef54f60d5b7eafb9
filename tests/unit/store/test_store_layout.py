"""Names from outside never become paths outside."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rna_ray.errors import StoreError
from rna_ray.store import layout


@given(st.text(max_size=200))
def test_only_plain_names_pass(name: str) -> None:
    plain = re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name, re.ASCII) and len(name) <= 150
    if plain and not name.endswith("\n"):
        assert layout.stem(layout.plan_file(name).name) == name
        assert layout.plan_file(name).parent == PurePosixPath("plans")
    else:
        with pytest.raises(StoreError, match="cannot be stored"):
            layout.plan_file(name)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a\n", "a\\b", "é", "a\0"])
def test_names_that_could_leave_the_store_are_refused(name: str) -> None:
    for make in (layout.plan_file, lambda n: layout.rows_file("trials", n), lambda n: layout.checkpoint_file("u", n)):
        with pytest.raises(StoreError, match="cannot be stored"):
            make(name)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "checkpoints/../../x"])
def test_paths_that_leave_the_store_are_refused(path: str) -> None:
    with pytest.raises(StoreError):
        layout.inside(PurePosixPath(path))


def test_the_paths_are_those_the_design_promises() -> None:
    assert str(layout.rows_file("examples", "ab12")) == "examples/ab12.parquet"
    assert str(layout.failure_file("ab12", 2)) == "failures/ab12.2.parquet"
    assert str(layout.plan_file("quickstart")) == "plans/quickstart.parquet"
    assert str(layout.checkpoint_file("ab12", "last.safetensors")) == "checkpoints/ab12/last.safetensors"
    weights = layout.weights_file("ab12", "best", "0123456789abcdef" * 4)
    assert str(weights) == "checkpoints/ab12/best-0123456789abcdef.safetensors"
    with pytest.raises(KeyError):
        layout.folder("nowhere")


def test_a_file_being_written_is_no_file_of_rows() -> None:
    assert layout.stem(layout.temporary("ab12.parquet")) is None
    assert layout.stem(".ab12.parquet") is None
    assert layout.temporary("a") != layout.temporary("a")
