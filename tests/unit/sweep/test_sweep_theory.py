"""The probes of theory in a sweep file: their own precision, their defaults, and what they refuse."""

from __future__ import annotations

import pytest
from sweep_base import Planned

from rna_ray.errors import SweepError

TWO = """\
name: two
data: {name: digits, held_out: 128}
network: {name: resnet8, width: 16}
training: {objective: blackbox, epochs: 3, attack: {eps_255: 25.5, step_255: 6.4, steps: 5}}
precision: bf16
compile: true
variants:
  A: {network.norm: BN, noise_255: 20}
  B: {network.norm: BN+IN}
"""


def test_second_derivatives_have_a_precision_of_their_own_and_nothing_is_compiled(planned: Planned) -> None:
    entries = "{probe: surface}, {probe: smoothness}, {probe: bound, eps_255: 128, between: networks}"
    plan = planned(TWO, f"probes=[{entries}, {{probe: transfer}}]")
    found = {}
    for unit in (unit for unit in plan.units if unit.kind == "probe"):
        for role in ("source", "network"):
            if role in unit.settings:
                one = unit.settings[role]
                found.setdefault(unit.settings["probe"], set()).add((one["precision"], one["compile"]))
    assert found["surface"] == {("fp32", False)} == found["bound"] and found["smoothness"] == {("fp64", False)}
    assert found["transfer"] == {("bf16", False), ("bf16", True)}
    examples = {unit.settings["probe"]: unit.settings["examples"] for unit in plan.units if unit.kind == "probe"}
    assert examples["surface"] == [0, 16] and examples["smoothness"] == [100, 200]
    assert all(plan.costs[unit.id] > 0 for unit in plan.units)


def test_the_bounds_attack_is_of_its_own_ball(planned: Planned) -> None:
    plan = planned(TWO, "probes=[{probe: bound, eps_255: 128, only: [B]}]")
    unit = next(unit for unit in plan.units if unit.kind == "probe")
    assert unit.settings["attack"] == {"name": "pgd", "threat": "l2", "eps_255": 128.0, "step_255": 16.0, "steps": 20}
    assert unit.settings["options"] == {"between": "members"}
    assert [one.probe for one in plan.probes] == ["bound-members"]
    with pytest.raises(SweepError, match="eps_255: state it, as training"):
        planned(TWO, "probes=[{probe: bound, only: [B]}]")


def test_a_network_of_one_member_has_no_pair_of_members(planned: Planned) -> None:
    with pytest.raises(SweepError, match="BN has one member"):
        planned(TWO, "probes=[{probe: bound, eps_255: 128}]")
