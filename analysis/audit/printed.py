"""The papers' printed tables as claims: numbers without rows, under the paper's protocol."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rna_ray.analysis.audit.claims import Claim, Comparison, Facts, Pair, Rows, Setting
from rna_ray.analysis.papers import TEST_IMAGES, Line


class Printed:
    """The printed accuracies; a comparison of two has no interval."""

    def __init__(self, lines: Mapping[Rows, Line], natural: Mapping[Rows, float]) -> None:
        self._lines, self._natural = lines, natural

    def compare(self, pair: Pair) -> Comparison | None:
        """Return the two numbers; None where one of them was not printed."""
        x, y = self._lines[pair.x], self._lines.get(pair.y)
        other = self._natural.get(pair.y) if pair.natural else y.accuracy if y else None
        return None if other is None else Comparison(TEST_IMAGES[x.data], x.accuracy, other)

    def facts(self, rows: Rows) -> Facts:
        """Return nothing: tables print accuracies alone."""
        return Facts()

    def promised(self, rows: Rows) -> None:
        """Return None: tables print no counts."""


def claims(lines: Sequence[Line]) -> tuple[list[Claim], Printed]:
    """Return a claim for each printed number, to be compared within its own row, and all the numbers."""
    numbers = {Rows(setting=_setting(line)): line for line in lines}
    table: dict[str, list[Rows]] = {}
    for rows, line in numbers.items():
        table.setdefault(line.row, []).append(rows)
    clean = {line.row: line.accuracy for line in numbers.values() if line.attack == "natural"}
    natural = {rows: clean[line.row] for rows, line in numbers.items() if line.row in clean}
    found = []
    for rows, line in numbers.items():
        others = [other for other in table[line.row] if other is not rows]
        labels = {"variant": line.row, "attack": rows.setting.label, "knowledge": rows.setting.who}
        found.append(Claim(**labels, rows=rows, others=others))
    return found, Printed(numbers, natural)


def _setting(line: Line) -> Setting:
    """Return the setting of a printed attack: one path attacked, another answers."""
    name, _, version = line.attack.partition("-")
    if name == "natural":
        return Setting(attack=name, threat="none")
    return Setting(
        attack=name,
        threat=line.threat,
        eps_255=line.eps_255,
        eps_space=line.eps_space,
        steps=int(version) if re.fullmatch(r"\d+", version) else None,
        knowledge="transfer",
    )
