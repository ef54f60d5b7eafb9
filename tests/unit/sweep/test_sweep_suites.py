"""Suites: an entry that stands for others, as if they had been written out; and what they cost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweep_base import Load, Planned

from rna_ray.errors import SweepError
from rna_ray.sweep import evaluations, suites
from rna_ray.sweep.evaluations import Cell
from rna_ray.sweep.plan import Plan

SWEEP = """\
name: s
data: {name: digits}
network: {name: resnet8, norm: BN+IN}
training: {objective: blackbox, epochs: 1, attack: {eps_255: 25.5, step_255: 6.4}}
evaluation:
"""


def asking(*entries: dict[str, Any]) -> str:
    return SWEEP + "".join(f"  - {yaml.safe_dump(entry, default_flow_style=True, width=1000)}" for entry in entries)


def label(cell: Cell) -> str:
    return f"{cell.attack}@{cell.knowledge}"


def images(plan: Plan, cell: Cell) -> int:
    units = {unit.id: unit for unit in plan.units}
    return sum(stop - start for start, stop in (units[unit].settings["examples"] for unit in cell.units))


def test_a_suite_is_its_entries_and_others_stay() -> None:
    own = {"attack": "fgsm", "eps_255": 4}
    entries = suites.expanded([own, {"suite": "randomised", "examples": 100}, own])
    assert entries[0] is entries[-1] is own
    assert len(entries) == 2 + len(suites.SUITES["randomised"])
    assert all("suite" not in entry for entry in entries)
    assert entries[1:4] == [
        {"attack": "natural", "examples": 100},
        {"attack": "noise", "examples": 100},
        {"attack": "fgsm", "knowledge": ["resample", "eot-20"], "examples": 100},
    ]


def test_what_stands_beside_holds_for_the_attacks_that_take_it_but_never_over_what_the_suite_varies() -> None:
    entries = suites.expanded([{"suite": "randomised", "threat": "l2", "eps_255": 128, "step_255": 16, "draws": 3}])
    by_attack = {entry["attack"]: entry for entry in entries[:6]}
    assert by_attack["natural"] == {"attack": "natural", "draws": 3}
    ball = {"threat": "l2", "eps_255": 128}
    assert ball.items() <= by_attack["fgsm"].items() and "step_255" not in by_attack["fgsm"]
    assert (ball | {"step_255": 16}).items() <= by_attack["pgd"].items()
    whole = [(entry["threat"], entry["eps_255"], entry["step_255"]) for entry in entries if entry.get("eps_255") == 255]
    assert whole == [("l2", 255, 64)]
    assert [entry["eps_255"] for entry in entries if entry.get("eps_255") == 0] == [0]


def test_a_radius_beside_a_suite_takes_its_step_along() -> None:
    entries = suites.expanded([{"suite": "randomised", "threat": "l2", "eps_255": 100}])
    stepping = [entry for entry in entries if entry["attack"] in ("pgd", "cascade") and entry["eps_255"] == 100]
    assert len(stepping) > 3 and {entry["step_255"] for entry in stepping} == {25}


@pytest.mark.parametrize(("given", "fewer"), [({}, 200), ({"examples": 101}, 21), ({"examples": 3}, 1)])
def test_the_costly_comparisons_are_on_the_first_fifth(planned: Planned, given: dict[str, int], fewer: int) -> None:
    plan = planned(asking({"suite": "randomised", **given}))
    every = given.get("examples", 360)
    found = {label(cell): images(plan, cell) for cell in plan.cells}
    assert set(found.values()) == {every, fewer}
    costly = [name for name, n in found.items() if n == fewer]
    assert costly == [
        "pgd-100@resample", "pgd-100@eot-20", "pgd-20 restarts=5@resample", "pgd-20 restarts=5@eot-20",
        "pgd-20 eps_255=0@eot-20", "pgd-20 eps_255=255 step_255=64@eot-20", "square-200@eot-20",
        "autoattack-rand@resample",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"suite": "randomized"}, "evaluation.1.suite: unknown suite 'randomized'; did you mean 'randomised'?"),
        ({"suite": ["randomised"]}, "evaluation.1.suite: unknown suite"),
        (
            {"suite": "randomised", "knowledge": "fixed"},
            "evaluation.1.knowledge: unknown key beside suite: 'knowledge'",
        ),
        ({"suite": "randomised", "step": 5}, "evaluation.1.step: unknown key beside suite: 'step'"),
        ({"suite": "randomised", "eps_255": -1}, "eps_255: -1 is not a number from 0"),
    ],
    ids=str,
)
def test_a_mistake_is_one_sentence(load_text: Load, entry: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SweepError) as error:
        load_text(asking({"attack": "natural"}, entry))
    assert sentence in str(error.value)


def test_an_entry_of_the_users_own_that_a_suite_asks_for_too_says_that_suites_count(planned: Planned) -> None:
    with pytest.raises(SweepError, match=r"two entries ask for natural \(none\).*\(a suite stands for its entries\)"):
        planned(asking({"suite": "randomised", "examples": 100}, {"attack": "natural", "examples": 50}))
    same = planned(asking({"suite": "randomised", "examples": 100}, {"attack": "natural", "examples": 100}))
    assert len({unit.id for unit in same.units}) == len(planned(asking({"suite": "randomised", "examples": 100})).units)


@pytest.mark.parametrize("beside", [{}, {"threat": "l2", "eps_255": 128, "step_255": 16}], ids=["linf", "l2"])
def test_its_units_are_those_of_the_entries_written_out(planned: Planned, beside: dict[str, Any]) -> None:
    entry = {"suite": "randomised", "examples": 50, **beside}
    by_name = planned(asking(entry))
    written = planned(asking(*suites.expanded([entry])))
    assert [unit.id for unit in by_name.units] == [unit.id for unit in written.units]
    assert [label(cell) for cell in by_name.cells] == [label(cell) for cell in written.cells]
    assert len(by_name.cells) == 20
    threats = {unit.settings["attack"].get("threat", "linf") for unit in by_name.units if unit.kind == "evaluate"}
    assert threats == ({"l2", "linf"} if beside else {"linf"})  # natural has no ball


def test_its_cost_is_the_one_stated(planned: Planned) -> None:
    plan = planned(asking({"suite": "randomised", "examples": 100}))
    units = {unit.id: unit for unit in plan.units}

    def gradients(cell: Cell) -> float:
        passes = sum(evaluations.forward_passes(units[unit].settings, 10) for unit in cell.units)
        return passes / 3 / images(plan, cell)

    every = sum(gradients(cell) for cell in plan.cells if images(plan, cell) == 100)
    fewer = sum(gradients(cell) for cell in plan.cells if images(plan, cell) == 20)
    (cascade,) = [gradients(cell) for cell in plan.cells if cell.attack == "cascade-20"]
    broken = cascade - 20 - 20 / 3  # one step of 20 draws, and twice ten answers
    found = [every + fewer / 5, every + fewer, every]
    stated = [round(cost, -2) for cost in (*found, *(cost - broken for cost in found))]
    assert stated == [6100, 14400, 4000, 3600, 11900, 1500]
    for path in (Path(suites.__file__), Path(__file__).parents[3] / "README.md"):
        said = path.read_text(encoding="utf-8").split("costs at most about ")[1].split("`rna-ray plan`")[0]
        assert [int(number.replace(",", "")) for number in re.findall(r"\d+,\d{3}", said)] == stated


def test_a_list_of_an_option_stands_for_an_entry_each(planned: Planned) -> None:
    listed = planned(asking({"attack": "pgd", "steps": [5, 10], "eps_255": [4, 8], "examples": 10}))
    spelled = planned(
        asking(*({"attack": "pgd", "steps": s, "eps_255": e, "examples": 10} for s in (5, 10) for e in (4, 8)))
    )
    assert {unit.id for unit in listed.units} == {unit.id for unit in spelled.units}
    wanted = {f"pgd-{steps} eps_255={eps}" for steps in (5, 10) for eps in (4, 8)}
    assert {cell.attack for cell in listed.cells} == wanted


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"attack": "pgd", "steps": []}, "evaluation.0.steps: the list is empty"),
        ({"attack": "pgd", "steps": [5, "six"]}, "steps"),
        ({"attack": "pgd", "stpes": [5]}, "unknown key 'stpes'; did you mean 'steps'?"),
        ({"attack": "natural", "examples": [5, 6]}, "evaluation.0.examples"),
    ],
)
def test_a_list_that_cannot_be_is_refused(load_text: Load, entry: dict[str, Any], said: str) -> None:
    with pytest.raises(SweepError, match=re.escape(said)):
        load_text(asking(entry))
