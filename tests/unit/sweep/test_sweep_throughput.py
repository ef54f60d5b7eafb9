"""What an estimate rests on: the finished units of the store, on the device that the sweep asks for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sweep_base import BASE, Planned

from rna_ray.store import Store, open_store
from rna_ray.store.records import SCHEMAS, from_rows
from rna_ray.sweep.cost import GPU_MACS_PER_SECOND
from rna_ray.sweep.forecast import Usual
from rna_ray.sweep.plan import Plan
from rna_ray.sweep.throughput import Measured, measured, nearest, prices, usual
from rna_ray.sweep.units import Unit, canonical

H100 = "NVIDIA H100 80GB HBM3"
SMALL, WIDE = "resnet8 of width 16 in fp32", "resnet18 of width 64 in compiled bf16"
_FILLED = {pa.string(): "x", pa.bool_(): False, pa.timestamp("us", tz="UTC"): datetime(2024, 5, 6, tzinfo=UTC)}


def row(view: str, **given: Any) -> dict[str, Any]:
    return {
        column.name: given.get(column.name, None if column.nullable else _FILLED.get(column.type, 0))
        for column in SCHEMAS[view]
    }


def commit(store: Store, unit: Unit, *, device: str, threads: int = 1, seconds: float, **given: Any) -> None:
    """Write a unit's record as if it had taken so long on a device; a training in two epochs, resumed in between."""
    shared = {"unit_id": unit.id, "device": device, "threads": threads, "settings": canonical(unit.settings)} | given
    if unit.kind == "train":
        epochs = [row("epochs", unit_id=unit.id, epoch=epoch, seconds=seconds / 2) for epoch in (1, 2)]
        trial = {"state": "finished", "seconds": seconds / 2} | shared
        tables = {"epochs": from_rows("epochs", epochs), "trials": from_rows("trials", [row("trials", **trial)])}
        store.commit(unit.id, tables, record="trials")
    else:
        record = row("evaluations", network_id=unit.needs[0], seconds=seconds, **shared)
        store.commit(unit.id, {"evaluations": from_rows("evaluations", [record])}, record="evaluations")


@pytest.fixture
def made(planned: Planned) -> Plan:
    return planned(BASE + "grid: {seed: [0, 1, 2]}\n")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def trains(plan: Plan) -> list[Unit]:
    return [unit for unit in plan.units if unit.kind == "train"]


def evaluates(plan: Plan) -> list[Unit]:
    return [unit for unit in plan.units if unit.kind == "evaluate"]


def test_what_the_plan_counts_of_all_units_over_the_seconds_of_all_epochs(made: Plan, store: Store) -> None:
    for unit, seconds in zip(trains(made), (10.0, 40.0, 20.0), strict=True):
        commit(store, unit, device=H100, seconds=seconds)
    work = made.costs[trains(made)[0].id]
    assert measured(store) == [Measured(kind="train", of=SMALL, device=H100, units=3, macs_per_second=3 * work / 70)]


@pytest.mark.parametrize("view", ["trials", "epochs"])
def test_a_damaged_file_is_left_out(view: str, made: Plan, store: Store) -> None:
    for unit, seconds in zip(trains(made), (10.0, 40.0, 20.0), strict=True):
        commit(store, unit, device=H100, seconds=seconds)
    path = Path(store.uri, view, f"{trains(made)[0].id}.parquet")
    path.write_bytes(path.read_bytes()[:300])
    rate = 2 / (40 + 20) * made.costs[trains(made)[0].id]
    assert measured(store) == [
        Measured(kind="train", of=SMALL, device=H100, units=2, macs_per_second=pytest.approx(rate))
    ]


def test_a_cpu_counts_by_the_core(made: Plan, store: Store) -> None:
    first, *_ = trains(made)
    commit(store, first, device="cpu", threads=4, seconds=10.0)
    assert [one.macs_per_second for one in measured(store)] == [made.costs[first.id] / 40]


@pytest.mark.parametrize(("device", "devices"), [(H100, 8.0), (H100, 0.25), ("cpu", 12.0)])
def test_several_devices_count_as_so_many_and_a_shared_one_as_its_part(
    device: str, devices: float, made: Plan, store: Store
) -> None:
    first, *_ = trains(made)
    commit(store, first, device=device, threads=4, devices=devices, seconds=10.0)
    assert [one.macs_per_second for one in measured(store)] == [made.costs[first.id] / 10 / devices]


def test_evaluations_count_what_the_plan_counts_of_their_network(made: Plan, store: Store) -> None:
    unit = evaluates(made)[0]
    commit(store, trains(made)[0], device="cpu", seconds=10.0)
    commit(store, unit, device="cpu", seconds=5.0)
    found = {one.kind: one.macs_per_second for one in measured(store)}
    assert found["evaluate"] == pytest.approx(made.costs[unit.id] / 5)


def test_short_units_count_beside_a_long_one_and_not_alone(made: Plan, store: Store) -> None:
    """The first unit of a process takes seconds: as the only one that is looked at it would say far too much."""
    first, second, third = trains(made)
    commit(store, first, device="cpu", seconds=0.1)
    commit(store, second, device="cpu", seconds=0.2)
    assert measured(store) == []
    commit(store, third, device="cpu", seconds=2.7)
    assert [(one.units, one.macs_per_second) for one in measured(store)] == [(3, made.costs[first.id])]


def test_what_tells_nothing_is_left_out(made: Plan, store: Store) -> None:
    first, second, third = trains(made)
    commit(store, first, device="cpu", seconds=10.0, state="diverged")
    strange = Unit(kind="train", version=1, settings={**second.settings, "network": {"name": "alexnet", "width": 3}})
    commit(store, strange, device="cpu", seconds=10.0)
    commit(store, third, device="cpu", seconds=0.9)
    commit(store, Unit(kind="evaluate", version=1, settings={}, needs=("gone",)), device="cpu", seconds=1.0)
    assert measured(store) == []
    assert not measured(open_store(Path(store.uri).parent / "none"))


def of(kind: Any, device: str, units: int, speed: float, network: str = SMALL) -> Measured:
    return Measured(kind=kind, of=network, device=device, units=units, macs_per_second=speed)


@pytest.mark.parametrize(
    ("kind", "gpu", "found", "chosen"),
    [
        ("train", True, [of("train", H100, 12, 4e12)], 0),
        ("evaluate", True, [of("train", H100, 1, 4e12)], 0),
        ("evaluate", False, [of("train", "cpu", 9, 1e10), of("evaluate", "cpu", 2, 3e10)], 1),
        ("train", False, [of("train", "cpu", 9, 1e10, WIDE), of("train", "cpu", 2, 3e10)], 1),
        ("train", False, [of("train", "cpu", 2, 1e10, WIDE), of("evaluate", "cpu", 9, 3e10)], 0),
        ("certify", False, [of("train", "cpu", 2, 1e10, WIDE), of("evaluate", "cpu", 1, 3e10)], 1),
        ("train", True, [of("train", "A", 2, 1e12), of("train", "B", 3, 2e12)], 1),
        ("import", True, [], None),
        ("train", True, [of("train", "cpu", 9, 1e10)], None),
        ("train", False, [of("train", H100, 9, 1e10)], None),
    ],
)
def test_what_tells_most_of_a_speed(kind: str, gpu: bool, found: list[Measured], chosen: int | None) -> None:
    expected = None if chosen is None else found[chosen]
    assert nearest(kind, SMALL, gpu=gpu, measured=found) == expected


def test_few_of_many_evaluations_are_read(
    made: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rna_ray.sweep.throughput.LOOKED_AT", 2)
    for unit in trains(made):
        commit(store, unit, device="cpu", seconds=10.0)
    for unit in evaluates(made):
        commit(store, unit, device="cpu", seconds=2.0)
    assert {one.kind: one.units for one in measured(store)} == {"train": 3, "evaluate": 2}


def test_certifications_tell_how_fast_they_are(planned: Planned, tmp_path: Path) -> None:
    plan, store = planned(BASE, "certification=[{noise_255: 25, examples: 100}]"), open_store(tmp_path / "store")
    commit(store, plan.units[0], device="cpu", seconds=10.0)
    unit = next(unit for unit in plan.units if unit.kind == "certify")
    record = row(
        "certifications", unit_id=unit.id, network_id=unit.needs[0], device=H100, seconds=4.0,
        settings=canonical(unit.settings),
    )
    store.commit(unit.id, {"certifications": from_rows("certifications", [record])}, record="certifications")
    found = next(one for one in measured(store) if one.kind == "certify")
    assert (found.device, found.units) == (H100, 1)
    assert found.macs_per_second == pytest.approx(plan.costs[unit.id] / 4.0)
    assert found.words == f"1 certification of {SMALL} on {H100}"


def test_a_unit_is_as_fast_as_all_that_it_takes(planned: Planned) -> None:
    made = planned(BASE + "resources: {train: {cpu: 4}, evaluate: {cpu: 1, gpu: 1}}\n")
    found = usual(made, [of("train", "cpu", 3, 2e9)])
    assert found["train"] == Usual(macs_per_second=pytest.approx(8e9), measured=True)
    assert found["evaluate"] == found["probe"] == Usual(macs_per_second=GPU_MACS_PER_SECOND)


def test_each_network_of_a_plan_is_priced_at_its_own_rate(planned: Planned) -> None:
    made = planned(BASE + "grid: {network.width: [16, 32], precision: [fp32, bf16]}\n")
    wide = "resnet8 of width 32 in bf16"
    found = prices(made, made.units, [of("train", "cpu", 9, 1e9), of("train", "cpu", 2, 4e9, wide)])["train"]
    costs = {
        (unit.settings["network"]["width"], unit.settings["precision"]): made.costs[unit.id] for unit in trains(made)
    }
    seconds = costs.pop((32, "bf16")) / 4e9 + sum(costs.values()) / 1e9
    assert found.device_seconds == pytest.approx(seconds) and found.measured
    assert found.macs_per_second == pytest.approx(sum(made.costs[unit.id] for unit in trains(made)) / seconds)
    assert found.basis == (
        f"measured in this store on 9 trials of {SMALL} on CPU cores, 2 trials of {wide} on CPU cores"
    )
