"""The papers' printed numbers, as they shipped."""

from __future__ import annotations

import csv
from importlib.resources import files

import pytest

_PUBLISHED = files("rna_ray.analysis") / "published"


def rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((_PUBLISHED / f"{name}.csv").read_text(encoding="utf-8").splitlines()))


@pytest.mark.parametrize(
    ("name", "count"), [("rna-table1", 84), ("rna-table2", 84), ("rna-table4", 15), ("rna-table5", 50)]
)
def test_every_printed_number_is_there_once(name: str, count: int) -> None:
    found = rows(name)
    assert len(found) == count
    assert len({(row["model"], row["method"], row["attack"]) for row in found}) == count
    for row in found:
        assert list(row) == ["model", "method", "attack", "accuracy", "source"]
        assert 0 <= float(row["accuracy"]) <= 100
        assert row["source"].endswith(f"Table {name[-1]}")


@pytest.mark.parametrize(
    ("name", "model", "method", "attack", "accuracy"),
    [
        ("rna-table1", "ResNet-18", "RNA", "autoattack", 65.61),
        ("rna-table1", "ResNet-18", "RNA", "cw", 84.45),
        ("rna-table1", "WideResNet32", "IN", "deepfool", 1.62),
        ("rna-table2", "WideResNet32", "RNA", "autoattack", 42.43),
        ("rna-table4", "ResNet-18", "GN+LN", "deepfool", 62.85),
        ("rna-table5", "ResNet-18", "BN+IN+GN+LN whitebox layer-based", "natural", 10.45),
        ("rna-table5", "ResNet-18", "BGN+GN[1-4] blackbox layer-free", "pgd-20", 56.29),
    ],
)
def test_numbers_are_the_printed_ones(name: str, model: str, method: str, attack: str, accuracy: float) -> None:
    key = (model, method, attack)
    assert [float(r["accuracy"]) for r in rows(name) if (r["model"], r["method"], r["attack"]) == key] == [accuracy]
