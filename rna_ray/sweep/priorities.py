"""Which units come first: priorities that a sweep states become one for each unit, and an order. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rna_ray.sweep.networks import Found
from rna_ray.sweep.units import Unit


def settled(found: Sequence[Found], asked: Sequence[tuple[Iterable[Unit], int]]) -> dict[str, int]:
    """Return the priority of each unit, by id, from those of the variants and of the entries that ask for units.

    A unit has its entry's on top of that of its network; of several networks, of the least urgent one, without which it
    cannot be done. Where several ask for one unit, the highest counts. A network is as urgent as what needs it.
    """
    networks: dict[str, int] = {}
    for one in found:
        priority = one.variant.experiment.priority
        networks[one.unit.id] = max(networks.get(one.unit.id, priority), priority)
    others: dict[str, int] = {}
    raised = dict(networks)
    for cut, stated in asked:
        for unit in cut:
            priority = stated + min(networks[need] for need in unit.needs)
            others[unit.id] = max(others.get(unit.id, priority), priority)
            for need in unit.needs:
                raised[need] = max(raised[need], priority)
    return raised | others


def ordered(units: Iterable[Unit], priorities: Mapping[str, int]) -> tuple[Unit, ...]:
    """Return the units, the most urgent first, those of one priority in the order that they have.

    So where networks come before what needs them, they still do.
    """
    return tuple(sorted(units, key=lambda unit: -priorities.get(unit.id, 0)))
