"""A laboratory of made-up evaluations, straight into the views: an honest one, to be spoilt in one place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from rna_ray.analysis.audit import Counts, Finding, audit, count, judge
from rna_ray.store.records import SCHEMAS, from_rows

N = 400
NATURAL = 0.80
_FILLED = {pa.string(): "x", pa.bool_(): False, pa.timestamp("us", tz="UTC"): datetime(2024, 5, 6, tzinfo=UTC)}


def row(view: str, **given: Any) -> dict[str, Any]:
    def value(column: pa.Field) -> Any:
        return None if column.nullable else [0] if pa.types.is_list(column.type) else _FILLED.get(column.type, 0)

    assert set(given) <= set(SCHEMAS[view].names), given
    return {column.name: given.get(column.name, value(column)) for column in SCHEMAS[view]}


def right(accuracy: float, n: int = N) -> list[int]:
    """Return scores of n examples, the first ones right: stronger attacks break more of the same examples."""
    return [int(at < accuracy * n) for at in range(n)]


def counted_by_cell(connection: duckdb.DuckDBPyConnection) -> dict[tuple[str, str, str], Counts]:
    """Return how many checks of each cell of the sweep s had which outcome."""
    return {cell: count(judged) for cell, judged in judge(connection, "s").items()}


class Lab:
    """Evaluations of networks, and the sweeps that asked for them."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {view: [] for view in SCHEMAS if view != "examples"}
        self.examples: list[pa.Table] = []

    def evaluate(
        self,
        attack: str,
        knowledge: str,
        scores: Sequence[int] | float,
        *,
        network: str = "net",
        sweep: str | None = None,
        variant: str = "BN+IN",
        eps_255: float | None = 8.0,
        draws: int = 1,
        natural: Sequence[int] | float = NATURAL,
        start: int = 0,
        options: Mapping[str, Any] | None = None,
        zero_gradients: Sequence[int | None] | None = None,
        l2: float = 0.0,
        linf: float = 0.0,
        **settings: Any,
    ) -> str:
        """Add a unit of one evaluation; return its id. A sweep's name adds it to that sweep's plan."""
        scores = right(scores) if isinstance(scores, float) else scores
        clean = right(natural, len(scores)) if isinstance(natural, float) else natural
        unit = f"unit-{len(self.rows['evaluations'])}"
        name, _, steps = attack.partition("-")
        told = {"name": name, "eps_255": eps_255, "threat": settings.get("threat", "linf")} | dict(options or {})
        told |= {"steps": int(steps), "step_255": 2.0, "random_start": True} if steps else {}
        k = knowledge.rpartition("-")[2]
        columns = {
            "attack_settings": json.dumps(told), "steps": told.get("steps"), "eps_255": eps_255, "threat": "linf",
            "eps_space": "pixel", "knowledge_k": int(k) if k.isdigit() else None, "settings": "{}", "batch": 100,
            "path_sharing": "example", "eval_mode": "eval", "checkpoint": "best", "classes": 10, "restarts": 1,
            "global_generator": False, "repeats": True, "softmax_output": False, "optimizes": False,
        }  # fmt: skip
        shared = {
            "unit_id": unit,
            "evaluation": f"evaluation-{unit}",
            "network_id": network,
            "attack": name,
            "knowledge": knowledge,
            "draws": draws,
        }
        self.rows["evaluations"].append(row("evaluations", **(shared | columns | settings)))
        n = len(scores)
        measured = {
            "example": range(start, start + n),
            "adversarial_correct": scores,
            "natural_correct": clean,
            "zero_gradients": zero_gradients or [0] * n,
            "l2": [l2] * n,
            "linf": [linf] * n,
        }
        filled, schema = row("examples", **shared), SCHEMAS["examples"]
        columns = [
            pa.array(measured[name], type) if name in measured else pa.repeat(pa.scalar(filled[name], type), n)
            for name, type in zip(schema.names, schema.types, strict=True)
        ]
        self.examples.append(pa.table(columns, schema=schema))
        if sweep is not None:
            self.plan(unit, sweep, variant, attack, knowledge)
        return unit

    def certify(
        self, counts: Sequence[Sequence[int]], *, network: str = "net", abandoned: bool = False, label: int = 0,
        noise_255: float = 127.5, **stated: Any,
    ) -> None:
        """Add a certification of the first images, each by its counts."""
        unit = f"certify-{len(self.rows['certifications'])}"
        shared = {"unit_id": unit, "evaluation": unit, "network_id": network}
        stated = {"noise_255": noise_255, "precision": "fp32"} | stated
        self.rows["certifications"].append(row("certifications", **shared, **stated))
        self.rows["certificates"] += [
            row("certificates", **shared, example=at, label=label, sigma=noise_255 / 255, counts=list(held),
                abandoned=abandoned)
            for at, held in enumerate(counts)
        ]  # fmt: skip

    def plan(self, unit: str, sweep: str, variant: str, attack: str, knowledge: str) -> None:
        asked = {"variant": variant, "attack": attack, "knowledge": knowledge, "position": len(self.rows["plans"])}
        self.rows["plans"].append(row("plans", sweep=sweep, unit_id=unit, kind="evaluate", axes="{}", **asked))

    def connect(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect()
        for view, rows in self.rows.items():
            connection.register(view, from_rows(view, rows) if rows else SCHEMAS[view].empty_table())
        connection.register("examples", pa.concat_tables(self.examples))
        return connection

    def audit(self, sweep: str = "s") -> list[Finding]:
        return audit(self.connect(), sweep)


HONEST: dict[str, dict[str, Any]] = {
    # A name → what is evaluated. "claim" is the cell of the sweep; the others stand in other sweeps, or in none.
    "noise": {"attack": "noise", "knowledge": "none", "scores": 0.78},
    "fgsm": {"attack": "fgsm", "knowledge": "eot-5", "scores": 0.60},
    "square": {"attack": "square", "knowledge": "eot-5", "scores": 0.55},
    "autoattack": {"attack": "autoattack", "knowledge": "eot-5", "scores": 0.48},
    "pgd": {"attack": "pgd-20", "knowledge": "eot-5", "scores": 0.50},
    "fewer steps": {"attack": "pgd-10", "knowledge": "eot-5", "scores": 0.505},
    "more steps": {"attack": "pgd-40", "knowledge": "eot-5", "scores": 0.50},
    "more restarts": {"attack": "pgd-20", "knowledge": "eot-5", "scores": 0.50, "restarts": 5},
    "smaller eps": {"attack": "pgd-20", "knowledge": "eot-5", "scores": 0.65, "eps_255": 4.0},
    "eps 0": {"attack": "pgd-20", "knowledge": "eot-5", "scores": NATURAL, "eps_255": 0.0},
    "eps 255": {"attack": "pgd-20", "knowledge": "eot-5", "scores": 0.0, "eps_255": 255.0},
    "resample": {"attack": "pgd-20", "knowledge": "resample", "scores": 0.505},
    "larger k": {"attack": "pgd-20", "knowledge": "eot-10", "scores": 0.50},
    "transfer": {"attack": "pgd-20", "knowledge": "transfer", "scores": 0.52},
    "fixed": {"attack": "pgd-20", "knowledge": "fixed", "scores": 0.45},
    "enumerate": {"attack": "pgd-20", "knowledge": "enumerate", "scores": 0.49},
    "deepfool": {
        "attack": "deepfool",
        "knowledge": "eot-5",
        "scores": 0.40,
        "eps_255": None,
        "threat": "none",
        "l2": 0.25,
        "linf": 0.03125,
    },
}


def lab(claim: str = "pgd", *, without: Sequence[str] = (), **changed: Mapping[str, Any]) -> Lab:
    """Return the honest laboratory where a sweep `s` claims one of its evaluations, some changed or left out.

    Spaces in a name are underscores in `changed`.
    """
    found = Lab()
    random = row("trials", unit_id="net", log2_paths=20.0, best_sha256="a" * 64, last_sha256="b" * 64)
    found.rows["trials"].append(random)
    for name, honest in HONEST.items():
        if name not in without:
            sweep = "s" if name == claim else "another"
            found.evaluate(**(honest | {"sweep": sweep} | changed.get(name.replace(" ", "_"), {})))
    return found


def failed(findings: Sequence[Finding]) -> list[str]:
    return [found.check for found in findings if found.status == "failed"]


def found_of(findings: Sequence[Finding], check: str) -> Finding:
    (only,) = [found for found in findings if found.check == check]
    return only


def drawn(generator: np.random.Generator, rates: np.ndarray, draws: int) -> list[int]:
    return generator.binomial(draws, rates).tolist()
