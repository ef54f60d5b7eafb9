"""Stores of a sweep of many units that nobody did: their rows are made up, and some of their networks too."""

from __future__ import annotations

import functools
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from rna_ray.running.run import plan_rows
from rna_ray.store import Store
from rna_ray.store.records import SCHEMAS, from_rows
from rna_ray.sweep import plan
from rna_ray.sweep.units import Unit, canonical

SWEEP = """\
name: many
data: {name: digits, held_out: 128}
network: {name: resnet8, width: 4, norm: BN+IN}
training: {objective: blackbox, epochs: 3, attack: {eps_255: 25.5, step_255: 6.4, steps: 5}}
grid: {seed: SEEDS}
evaluation:       # 252 units a network
  - {attack: natural, examples: 360, batch: 10, shard: 10}
  - {attack: pgd, steps: [10, 20], examples: 360, batch: 10, shard: 10, knowledge: [transfer, fixed, eot-10]}
"""
UNITS_A_NETWORK = 253


def sweep_file(folder: Path, units: int) -> Path:
    """Write a sweep of about so many units."""
    path = folder / f"many-{units}.yaml"
    seeds = list(range(max(1, round(units / UNITS_A_NETWORK))))
    path.write_text(SWEEP.replace("SEEDS", str(seeds)), encoding="utf-8")
    return path


def fill(store: Store, planned: plan.Plan) -> Unit:
    """Let every unit be finished, with made-up rows, but for the last; return that one. Its network's weights exist."""
    missing = planned.units[-1]
    networks(store, planned, missing.needs)
    for unit in (one for one in planned.units[:-1] if one.kind == "evaluate"):
        shared = {"unit_id": unit.id, "network_id": unit.settings["network"]}
        record = rows("evaluations", 1, settings=canonical(unit.settings), **shared)
        views = {"evaluations": record, "examples": rows("examples", 10, **shared)}
        store.commit(unit.id, views, record="evaluations")
    store.put_plan(planned.sweep, from_rows("plans", list(plan_rows(planned))))
    return missing


def networks(store: Store, planned: plan.Plan, whole: Collection[str]) -> None:
    """Let every network of a plan be trained, with made-up rows; the weights of those that are `whole` exist."""
    from rna_ray.running import inputs  # here: who makes up no weights should not wait for torch
    from rna_ray.training.checkpoint import Checkpoints

    for unit in (one for one in planned.units if one.kind == "train"):
        said: dict[str, Any] = {"settings": canonical(unit.settings)}
        if unit.id in whole:
            state = inputs.built(unit.settings, unit.id).state_dict()
            digest = Checkpoints(store, unit.id).write("best", state, {})
            trainable = sum(value.numel() for name, value in state.items() if "running_" not in name)
            said |= {"last_sha256": digest, "best_sha256": digest, "parameters": trainable}
        trial, epochs = rows("trials", 1, unit_id=unit.id, **said), rows("epochs", 3, unit_id=unit.id)
        store.commit(unit.id, {"trials": trial, "epochs": epochs}, record="trials")


def rows(view: str, count: int, **said: Any) -> pa.Table:
    """Return rows of a view, filled in where nothing is said."""
    found = _filled(view, count)
    for name, value in said.items():
        at = found.schema.get_field_index(name)
        field = found.schema.field(at)
        found = found.set_column(at, field, pa.array([value] * count, field.type))
    return found


@functools.cache
def _filled(view: str, count: int) -> pa.Table:
    filled = {pa.string(): "x", pa.bool_(): False, pa.timestamp("us", tz="UTC"): datetime(2024, 5, 6, tzinfo=UTC)}

    def value(column: pa.Field) -> Any:
        if column.nullable:
            return None
        return [0] if pa.types.is_list(column.type) else filled.get(column.type, 1)

    return from_rows(view, [{column.name: value(column) for column in SCHEMAS[view]}] * count)
