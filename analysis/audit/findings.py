"""What the audit finds: the checks of each claim, counted for tables and in sentences for people.

Computed from stored rows, or from printed numbers; never from a log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

import duckdb

from rna_ray.analysis import papers, render
from rna_ray.analysis.audit import evidence, printed
from rna_ray.analysis.audit.checks import Check, Status, Verdict, judged, wanted
from rna_ray.analysis.audit.claims import LEVEL, Claim, Comparison, Evidence
from rna_ray.analysis.query import answer
from rna_ray.errors import QueryError, unknown

PASSED, FAILED, NOT_MEASURED = "✓", "✗", "?"
_UNSEEN = "; images of a batch were attacked on the same draws, a chance that is not in the interval"
_UNSAID = "the paper does not say"
SIGNS: Mapping[Status, str] = {"passed": PASSED, "failed": FAILED, "not measured": NOT_MEASURED}
"""How a status is written."""

_WAITING = """
WITH halted AS (
    SELECT list(unit_id) AS networks FROM stops
    WHERE sweep = $sweep AND unit_id NOT IN (SELECT unit_id FROM trials)
)
SELECT variant FROM plans CROSS JOIN halted
    LEFT JOIN (SELECT unit_id, true AS has_rows FROM evaluations) USING (unit_id)
WHERE sweep = $sweep AND kind = 'evaluate' AND list_has_any(needs, networks) IS NOT TRUE
GROUP BY variant HAVING count(has_rows) = 0 ORDER BY min(position)
"""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check of one claim: the two accuracies that it compares, and the rows that they came from."""

    variant: str
    attack: str
    knowledge: str
    check: str
    status: Status
    says: str
    accuracy: float | None
    """Of the claim, in [0, 1]; where a check looks at another radius, of the same attack there."""
    other_accuracy: float | None
    difference: float | None
    low: float | None
    """The paired difference's interval, None for printed numbers."""
    high: float | None
    level: float
    half_width: float | None
    """For printed numbers: that of the unpaired 95 % interval, so that a reader can weigh the difference."""
    n: int | None
    evaluations: tuple[str, ...]
    units: tuple[str, ...]
    other_evaluations: tuple[str, ...]
    other_units: tuple[str, ...]


class Counts(NamedTuple):
    """How many checks passed, failed, or were not measured."""

    passed: int = 0
    failed: int = 0
    not_measured: int = 0

    @property
    def columns(self) -> dict[str, int]:
        """The counts as columns of a table for programs."""
        return {f"audit_{status}": count for status, count in self._asdict().items()}


class Judgement(NamedTuple):
    """One check of one claim in words, without the numbers of a Finding."""

    attack: str
    knowledge: str
    check: str
    status: Status
    says: str

    @property
    def text(self) -> str:
        """The sentence, as in pgd-20@fixed, fixed ≤ transfer: …."""
        return _sentence(self.attack, self.knowledge, self.check, self.says)


Judged = Mapping[tuple[str, str, str], Sequence[Judgement]]
"""Variant, attack and knowledge as asked → the checks of that cell; cells without a check are not there."""


def audit(connection: duckdb.DuckDBPyConnection, sweep: str) -> list[Finding]:
    """Return every check that applies to a sweep's claims, in the order of its plan; none of a cell without rows."""
    return _findings(*_stored(connection, sweep))


def _stored(connection: duckdb.DuckDBPyConnection, sweep: str) -> tuple[list[Claim], Evidence]:
    made = evidence.claims(connection, sweep)
    pairs = [pair for claim in made for _, found in wanted(claim) for pair in found]
    return made, evidence.Stored(connection, made, pairs)


def published() -> list[Finding]:
    """Return every check of the printed tables that ship; any excess as printed fails.

    What they do not print cannot be run again: there nothing is asked for.
    """
    found = _findings(*printed.claims(papers.read()))
    return [replace(one, says=_UNSAID) if one.status == "not measured" else one for one in found]


def judge(connection: duckdb.DuckDBPyConnection, sweep: str) -> Judged:
    """Return the judgements of each cell; without findings, whose intervals take much longer."""
    found: dict[tuple[str, str, str], list[Judgement]] = {}
    made, numbers = _stored(connection, sweep)
    for claim in made:
        if judgements := _judgements(claim, numbers):
            found.setdefault((claim.variant, claim.attack, claim.knowledge), []).extend(judgements)
    return found


def judge_printed(lines: Sequence[papers.Line]) -> Mapping[papers.Line, Sequence[Judgement]]:
    """Return the judgements of each printed number, compared with the others of its row."""
    made, numbers = printed.claims(lines)
    return {line: _judgements(claim, numbers) for line, claim in zip(lines, made, strict=True)}


def _judgements(claim: Claim, numbers: Evidence) -> list[Judgement]:
    return [
        Judgement(claim.attack, claim.knowledge, check.name, verdict.status, verdict.says)
        for check, verdict in judged(claim, numbers)
    ]


def of_variant(judged: Judged, variant: str) -> list[Judgement]:
    """Return the judgements of all of a variant's cells."""
    return [one for (name, _, _), held in judged.items() if name == variant for one in held]


def count(judgements: Iterable[Judgement | Finding]) -> Counts:
    """Return how many there are of each status."""
    counted = Counter(one.status for one in judgements)
    return Counts(*(counted[status] for status in SIGNS))


def total(judgements: Iterable[Judgement]) -> str:
    """Return the counts of some judgements, as in 12 ✓ 1 ✗ 5 ?."""
    counts = count(judgements)
    return f"{counts.passed} {PASSED} {counts.failed} {FAILED} {counts.not_measured} {NOT_MEASURED}"


def _findings(made: Iterable[Claim], numbers: Evidence) -> list[Finding]:
    return [_finding(claim, check, verdict) for claim in made for check, verdict in judged(claim, numbers)]


def _finding(claim: Claim, check: Check, verdict: Verdict) -> Finding:
    pair, compared = verdict.pair, verdict.comparison
    half = _half_width(compared) if compared and not compared.differences else None
    low, high = compared.interval(verdict.level) if compared and compared.differences else (None, None)
    other = pair.y if pair and (compared or pair.y is not claim.rows) else None
    unseen = compared and any(rows.attacked_together for rows in (claim.rows, other) if rows)
    return Finding(
        variant=claim.variant,
        attack=claim.attack,
        knowledge=claim.knowledge,
        check=check.name,
        status=verdict.status,
        says=verdict.says + (_UNSEEN if unseen else ""),
        accuracy=compared.x if compared else verdict.accuracy,
        other_accuracy=compared.y if compared else None,
        difference=compared.difference if compared else None,
        low=low,
        high=high,
        level=verdict.level,
        half_width=half,
        n=compared.n if compared else verdict.n,
        evaluations=claim.rows.evaluations,
        units=claim.rows.units,
        other_evaluations=other.evaluations if other else (),
        other_units=other.units if other else (),
    )


def _half_width(compared: Comparison) -> float:
    """Return the half width of the normal interval of the difference, as if other images had been used for each."""
    variance = sum(accuracy * (1 - accuracy) for accuracy in (compared.x, compared.y)) / compared.n
    return NormalDist().inv_cdf(0.5 + LEVEL / 2) * sqrt(variance)


def waiting(connection: duckdb.DuckDBPyConnection, sweep: str) -> list[str]:
    """Return the variants of a sweep none of whose evaluations has rows yet, in the order of its plan."""
    return answer(connection, _WAITING, {"sweep": sweep})["variant"].to_pylist()


def text(findings: Sequence[Finding], *, every: bool = False, waiting: Sequence[str] = ()) -> str:
    """Return the findings for people, by variant: the failed ones in sentences (`every`: all), then the counts.

    Variants that are `waiting` for their first rows follow.
    """
    if not findings:
        return "nothing to audit: no attack has rows yet\n"
    lines = []
    for variant in dict.fromkeys(found.variant for found in findings):
        held = [found for found in findings if found.variant == variant]
        lines.append(variant)
        lines += [f"  {SIGNS[found.status]} {_said(found)}" for found in held if every or found.status == "failed"]
        lines.append(f"  {_totals(held)}")
    lines += [line for variant in waiting for line in (variant, "  no rows yet")]
    if not every and any(found.status == "not measured" for found in findings):
        lines.append("--all lists every check, and what to run for those not measured")
    return "\n".join(lines) + "\n"


def _totals(held: Iterable[Finding]) -> str:
    counts = count(held)
    return f"{counts.passed} passed, {counts.failed} failed, {counts.not_measured} not measured"


def _said(found: Finding) -> str:
    return _sentence(found.attack, found.knowledge, found.check, found.says) + _weight(found)


def _sentence(attack: str, knowledge: str, check: str, says: str) -> str:
    label = attack if knowledge in ("", "none") else f"{attack}@{knowledge}"
    return f"{label}, {check}: {says}"


def _weight(found: Finding) -> str:
    if found.status == "not measured":  # its sentence says the interval, where there is one
        return ""
    if found.difference is None:
        return "" if found.n is None else f" (n = {found.n:,})"
    if found.half_width is not None:
        return f" ({100 * found.difference:+.2f}, unpaired ±{100 * found.half_width:.2f} at n = {found.n:,})"
    assert found.low is not None and found.high is not None
    interval = f"[{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
    return f" ({100 * found.difference:+.2f} {interval} on n = {found.n:,} images)"


def show(
    findings: Sequence[Finding], format: str = "table", *, every: bool = False, waiting: Sequence[str] = ()
) -> str:
    """Return the findings as table, csv or json; csv and json hold all of them with every field.

    The table also names the variants that are `waiting` for their first rows.
    """
    if format not in FORMATS:
        raise QueryError(unknown("format", format, FORMATS))
    return text(findings, every=every, waiting=waiting) if format == "table" else FORMATS[format](findings)


FORMATS: Mapping[str, Callable[[Sequence[Finding]], str]] = {
    "table": text,
    "csv": lambda found: render.csv_text([field.name for field in fields(Finding)], _plain(found)),
    "json": lambda found: render.json_text(_plain(found)),
}


def _plain(findings: Iterable[Finding]) -> list[dict[str, object]]:
    rows = [asdict(found) for found in findings]
    return [{name: list(value) if isinstance(value, tuple) else value for name, value in row.items()} for row in rows]
