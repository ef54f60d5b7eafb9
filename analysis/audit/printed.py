"""The papers' printed tables as claims: numbers without rows, all at the paper's radius under the paper's protocol."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from importlib.resources import files
from typing import NamedTuple

from rna_ray.analysis.audit.claims import Claim, Comparison, Facts, Pair, Rows, Setting

N = 10_000
"""The test images of CIFAR-10 and CIFAR-100."""
_EPS_255 = 8.0
_UNBOUNDED = frozenset({"cw", "deepfool"})
_PUBLISHED = files("rna_ray.analysis") / "published"


class _Line(NamedTuple):
    rows: Rows
    attack: str
    accuracy: float


class Printed:
    """The printed accuracies; a comparison of two has no interval."""

    def __init__(self, accuracies: Mapping[Rows, float], natural: Mapping[Rows, float]) -> None:
        self._accuracies, self._natural = accuracies, natural

    def compare(self, pair: Pair) -> Comparison | None:
        """Return the two numbers; None where one of them was not printed."""
        other = self._natural if pair.natural else self._accuracies
        return Comparison(N, self._accuracies[pair.x], other[pair.y]) if pair.y in other else None

    def facts(self, rows: Rows) -> Facts:
        """Return nothing: tables print accuracies alone."""
        return Facts()


def read() -> list[dict[str, str]]:
    """Return the lines of every printed table that ships: model, method, attack, accuracy in %, source."""
    found = sorted((entry for entry in _PUBLISHED.iterdir() if entry.name.endswith(".csv")), key=lambda file: file.name)
    return [line for file in found for line in csv.DictReader(file.read_text(encoding="utf-8").splitlines())]


def claims(lines: Sequence[Mapping[str, str]]) -> tuple[list[Claim], Printed]:
    """Return a claim for each printed number, to be compared within its own row of the table, and all the numbers."""
    table: dict[str, list[_Line]] = {}
    for line in lines:
        variant = f"{line['source']}: {line['model']} {line['method']}"
        held = _Line(Rows(setting=_setting(line["attack"])), line["attack"], float(Decimal(line["accuracy"]) / 100))
        table.setdefault(variant, []).append(held)
    found: list[Claim] = []
    accuracies: dict[Rows, float] = {}
    natural: dict[Rows, float] = {}
    for variant, row in table.items():
        clean = next((line.accuracy for line in row if line.attack == "natural"), None)
        for line in row:
            accuracies[line.rows] = line.accuracy
            if clean is not None:
                natural[line.rows] = clean
            others = [other.rows for other in row if other is not line]
            labels = {"variant": variant, "attack": line.rows.setting.label, "knowledge": line.rows.setting.who}
            found.append(Claim(**labels, rows=line.rows, others=others))
    return found, Printed(accuracies, natural)


def _setting(label: str) -> Setting:
    """Return the setting of a printed attack: one path attacked, another answers."""
    name, steps = re.fullmatch(r"(.+?)(?:-(\d+))?", label).groups()  # type: ignore[union-attr]
    name = name.replace("-", "")
    if name == "natural":
        return Setting(attack=name, threat="none")
    return Setting(
        attack=name,
        threat="none" if name in _UNBOUNDED else "linf",
        eps_255=None if name in _UNBOUNDED else _EPS_255,
        steps=int(steps) if steps else None,
        knowledge="transfer",
    )
