"""Small stores written by hand, with accuracies that can be worked out on paper."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rna_ray.store import Store, open_store
from rna_ray.store.records import SCHEMAS, from_rows

_FILLED = {pa.string(): "x", pa.bool_(): False, pa.timestamp("us", tz="UTC"): datetime(2024, 5, 6, tzinfo=UTC)}


def _row(view: str, **given: Any) -> dict[str, Any]:
    def value(column: pa.Field) -> Any:
        return None if column.nullable else [0] if pa.types.is_list(column.type) else _FILLED.get(column.type, 0)

    given = {"settings": "{}", **given}
    return {column.name: given.get(column.name, value(column)) for column in SCHEMAS[view]}


class Book:
    """A sweep's plan and results, written cell by cell."""

    def __init__(self, store: Store, sweep: str = "s") -> None:
        self.store, self.sweep = store, sweep
        self.plan: list[dict[str, Any]] = []

    def trained(
        self, variant: str, seed: int = 0, course: Sequence[dict[str, Any]] = (), **settings: Any
    ) -> str:
        """Plan a train unit, write its trial and the rows of its epochs (its `course`), and return its id."""
        unit = f"train-{len(self.plan)}"
        self._ask(variant, seed, unit_id=unit, kind="train")
        row = _row("trials", **({"unit_id": unit, "state": "finished", "seed": seed} | settings))
        views = {"trials": from_rows("trials", [row])}
        if course:
            given = [{"unit_id": unit, "epoch": epoch} | each for epoch, each in enumerate(course, 1)]
            views["epochs"] = from_rows("epochs", [_row("epochs", **each) for each in given])
        self.store.commit(unit, views, record="trials")
        return unit

    def probed(
        self,
        probe: str,
        variant: str,
        network: str,
        rows: Sequence[dict[str, Any]],
        *,
        source: tuple[str, str] | None = None,
        seed: int = 0,
        view: str = "measures",
        label: str | None = None,
        **settings: Any,
    ) -> None:
        """Plan a probe unit of a network (of `source`, another label and id, and it) and write its rows of a view.

        `label` is what the plan calls the entry, where that is not the probe's name.
        """
        unit, other, position = f"{probe}-{len(self.plan)}", source[0] if source else None, len(self.plan)
        self._ask(variant, seed, unit_id=unit, kind="probe", attack=label or probe, source=other, position=position)
        shared = {"unit_id": unit, "evaluation": unit, "network_id": network}
        shared |= {"source_id": source[1]} if source else {}
        kind = {"probe": probe} if view == "measures" else {}
        views = {
            view: from_rows(view, [_row(view, **(shared | kind | row)) for row in rows]),
            "probes": from_rows("probes", [_row("probes", **(shared | {"probe": probe} | settings))]),
        }
        self.store.commit(unit, views, record="probes")

    def certified(
        self,
        variant: str,
        counts: Sequence[Sequence[int]],
        *,
        noise_255: float = 127.5,
        selection: Sequence[int] | None = None,
        abandoned: Sequence[int] = (),
        labels: Sequence[int] | None = None,
        seed: int = 0,
        first: int = 0,
        position: int | None = None,
        missing: bool = False,
        **settings: Any,
    ) -> None:
        """Plan a certify unit and write an image for each of its `counts`; its label is 0 where nothing else is said.

        `selection` are the classes that the ten selection draws chose, 0 where nothing else is said.
        """
        unit, position = f"certify-{len(self.plan)}", len(self.plan) if position is None else position
        self._ask(variant, seed, unit_id=unit, kind="certify", evaluation=unit, position=position)
        if missing:
            return
        classes = len(counts[0])
        shared = {"unit_id": unit, "evaluation": unit, "network_id": f"{variant}-{seed}"}
        stated = {"noise_255": noise_255, "draws": max(map(sum, counts)), "selection": 10, "abandon": "none"}
        stated |= {"start": first, "stop": first + len(counts), "classes": classes, "data": "mnist"}
        chosen = selection or [0] * len(counts)
        rows = [
            _row("certificates", **shared, example=first + at, label=labels[at] if labels else 0, sigma=noise_255 / 255)
            | {"selection_counts": [10 * (one == chosen[at]) for one in range(classes)], "counts": list(counted)}
            | {"abandoned": at in abandoned}
            for at, counted in enumerate(counts)
        ]
        views = {
            "certifications": from_rows("certifications", [_row("certifications", **(shared | stated | settings))]),
            "certificates": from_rows("certificates", rows),
        }
        self.store.commit(unit, views, record="certifications")

    def stopped(self, variant: str, epoch: int, seed: int = 0) -> None:
        """Plan a train unit that was stopped early, and a cell of the natural images that needs it."""
        unit, position = f"train-{len(self.plan)}", len(self.plan)
        self._ask(variant, seed, unit_id=unit, kind="train")
        self._ask(
            variant, seed, unit_id=f"natural-{position}", kind="evaluate", attack="natural", knowledge="none",
            position=position, needs=[unit],
        )  # fmt: skip
        self.store.stop(unit, self.sweep, epoch=epoch, compared_by="natural_correct", value=1.0)

    def answered(self, variant: str, attack: str, knowledge: str, predictions: Any, **settings: Any) -> None:
        """Plan a cell of one unit that answered (n, m) classes, where 0 is right; settings as of `cell`."""
        correct = [row.count(0) for row in map(list, predictions)]
        self.cell(variant, attack, knowledge, [correct], predictions=predictions, draws=len(predictions[0]), **settings)

    def cell(
        self,
        variant: str,
        attack: str,
        knowledge: str,
        correct: Sequence[Sequence[int]] | None,
        *,
        draws: int = 1,
        seed: int = 0,
        missing: int = 0,
        l2: Sequence[float] | None = None,
        linf: Sequence[float] | None = None,
        natural: Sequence[int] | None = None,
        predictions: Any = None,
        first: int = 0,
        called: str | None = None,
        source: tuple[str, str] | None = None,
        **settings: Any,
    ) -> None:
        """Plan a cell with one unit for each list in `correct` (right answers of each example) and `missing` others.

        `called` is the attack's name in the rows, where it is not its label; `source` the label and the id of the
        network that was attacked in the stead of this one.
        """
        position, start = len(self.plan), first
        for shard, scores in enumerate([*(correct or []), *[None] * missing]):
            unit = f"{re.sub('[^A-Za-z0-9-]', '_', attack)}-{position}-{shard}"
            self._ask(
                variant, seed, unit_id=unit, kind="evaluate", attack=attack, knowledge=knowledge, position=position,
                source=source[0] if source else None,
            )
            if scores is None:
                continue
            plain = (called or attack) == "natural"
            name = {"eps_255": None, "threat": "none"} if plain else {"eps_255": 8.0, "threat": "linf"}
            shared = {"unit_id": unit, "attack": called or attack, "knowledge": knowledge, "draws": draws}
            name |= {"eps_space": "pixel", "source_id": source[1] if source else None}
            name |= {"path_sharing": "example", "start": start, "stop": start + len(scores), "batch": len(scores)}
            name |= {"attack_settings": "{}", "settings": "{}", "eval_mode": "eval"}
            examples = [
                _row("examples", **shared, example=start + i, natural_correct=draws, adversarial_correct=score)
                | {"natural_predictions": [0] * draws, "adversarial_predictions": [0] * score + [1] * (draws - score)}
                | ({"adversarial_predictions": list(predictions[i])} if predictions is not None else {})
                | ({"l2": l2[i]} if l2 else {})
                | ({"linf": linf[i]} if linf else {})
                | ({"natural_correct": natural[i]} if natural else {})
                for i, score in enumerate(scores)
            ]
            if plain:
                for row in examples:
                    row |= {f"natural_{what}": row[f"adversarial_{what}"] for what in ("correct", "predictions")}
            views = {
                "evaluations": from_rows("evaluations", [_row("evaluations", **(shared | name | settings))]),
                "examples": from_rows("examples", examples),
            }
            self.store.commit(unit, views, record="evaluations")
            start += len(scores)

    def _ask(self, variant: str, seed: int, **row: Any) -> None:
        axes = json.dumps({"network.norm": variant, "seed": seed})
        self.plan.append(_row("plans", sweep=self.sweep, variant=variant, axes=axes, **row))

    def close(self) -> Store:
        self.store.put_plan(self.sweep, from_rows("plans", self.plan))
        return self.store


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(open_store(tmp_path / "store"))


@pytest.fixture(scope="session")
def new_book() -> type[Book]:
    return Book


@pytest.fixture
def small(book: Book) -> Store:
    """Two networks, three columns, one unit missing."""
    for variant in ("BN", "BN+IN"):
        book.trained(variant)
        book.cell(variant, "natural", "none", [[1] * 8 + [0] * 2], draws=1)
        book.cell(variant, "pgd-20", "transfer", [[2, 2, 1, 0], [2, 0, 0, 1, 1, 1]], draws=2)
        book.cell(variant, "pgd-20", "eot-10", [[2, 0, 0, 1]], draws=2, missing=variant == "BN+IN")
    return book.close()


@pytest.fixture
def make_book(tmp_path: Path) -> Callable[..., Book]:
    return lambda name, sweep="s": Book(open_store(tmp_path / name), sweep)
