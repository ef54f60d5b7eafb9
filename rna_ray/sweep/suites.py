"""Entries of `evaluation:` that stand for several: lists of options, and suites such as `{suite: randomised}`.

A suite is what a reviewer would ask of a defence. Its headline is the cascade: the cheapest attack that breaks an
example is tried first, and a broken example is not attacked again. The other entries are there for `rna-ray audit`:
each is one side of a comparison that must hold if the headline is to be believed (Athalye et al. 2018, Carlini et al.
2019).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rna_ray.attacks import catalog
from rna_ray.errors import SweepError, unknown
from rna_ray.sweep.entries import Evaluation

Entry = dict[str, Any]

FEWER = 5
"""The costly comparisons run on the first fifth of the examples, 200 where the entry states no number."""

_EVERY, _FEWER = "every", "fewer"

SUITES: Mapping[str, Sequence[tuple[str, Entry]]] = {
    "randomised": (
        (_EVERY, {"attack": "natural"}),
        (_EVERY, {"attack": "noise"}),
        (_EVERY, {"attack": "fgsm", "knowledge": ["resample", "eot-20"]}),
        (_EVERY, {"attack": "pgd", "knowledge": ["transfer", "fixed", "resample", "eot-10", "eot-20", "aggmo-eot-20"]}),
        (_EVERY, {"attack": "cascade", "knowledge": "eot-20"}),
        (_EVERY, {"attack": "square", "queries": 1000, "knowledge": "resample"}),
        (_FEWER, {"attack": "pgd", "steps": 100, "knowledge": ["resample", "eot-20"]}),
        (_FEWER, {"attack": "pgd", "restarts": 5, "knowledge": ["resample", "eot-20"]}),
        (_FEWER, {"attack": "pgd", "eps_255": 0, "knowledge": "eot-20"}),
        (_FEWER, {"attack": "pgd", "eps_255": 255, "step_255": 64, "knowledge": "eot-20"}),
        (_FEWER, {"attack": "square", "queries": 200, "knowledge": "eot-20"}),
        (_FEWER, {"attack": "autoattack", "version": "rand", "knowledge": "resample"}),
    ),
}
"""Suite → its entries, each on every example or on fewer.

`randomised` costs at most about 6,100 forward-backward passes an example: 14,400 for one of the first fifth, 4,000 for
another. Where the cascade's first attack breaks it: 3,600, of which 11,900 and 1,500. `rna-ray plan` gives it for a
network.
"""

_SHARED = (*(name for name in Evaluation.model_fields if name not in ("attack", "knowledge", "options")), "threat",
           "eps_255", "step_255", "eps_space")  # fmt: skip


def expanded(entries: Sequence[Any]) -> list[Any]:
    """Return the entries of a sweep file with each suite replaced by its own, and each list of options by its values.

    What an entry states beside `suite` holds for all of its attacks that take it. `steps: [10, 20]` stands for two
    entries; lists of several options for all combinations. SweepError for an unknown suite, and for an empty list.
    """
    return [one for at, entry in enumerate(entries) for stated in _entries(at, entry) for one in _each(at, stated)]


def _each(at: int, entry: Any) -> Iterator[Any]:
    """Yield an entry once for each combination of the values that its batch, its attack_mode or its options list."""
    attack = catalog.ATTACKS.get(entry["attack"]) if _named(entry) else None
    options = {"batch", "attack_mode", *(option.name for option in attack.options)} if attack else set()
    lists = {key: value for key, value in entry.items() if key in options and isinstance(value, list)} if attack else {}
    for name, values in lists.items():
        if not values:
            raise SweepError(f"evaluation.{at}.{name}: the list is empty; give at least one value")
    for point in itertools.product(*lists.values()):
        yield {**entry, **dict(zip(lists, point, strict=True))} if lists else entry


def _named(entry: Any) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("attack"), str)


def _entries(at: int, entry: Any) -> list[Any]:
    if not isinstance(entry, Mapping) or "suite" not in entry:
        return [entry]
    stated = {key: value for key, value in entry.items() if key != "suite"}
    where, name = f"evaluation.{at}", entry["suite"]
    if not isinstance(name, str) or name not in SUITES:
        raise SweepError(f"{where}.suite: {unknown('suite', str(name), SUITES)}")
    for key in stated:
        if key not in _SHARED:
            raise SweepError(f"{where}.{key}: {unknown('key beside suite:', key, _SHARED)}")
    return [_entry(share, given, stated) for share, given in SUITES[name]]


def _entry(share: str, given: Entry, stated: Mapping[str, Any]) -> Entry:
    taken = {key: value for key, value in stated.items() if _takes(given["attack"], key)}
    if "eps_255" in stated and "step_255" not in stated and _takes(given["attack"], "step_255"):
        taken["step_255"] = stated["eps_255"] / 4  # as 2 is of 8: twenty steps reach any point of the ball
    if share == _FEWER:
        examples = stated.get("examples")
        taken["examples"] = math.ceil(examples / FEWER) if isinstance(examples, int) else 200
    return taken | given


def _takes(attack: str, key: str) -> bool:
    return key in Evaluation.model_fields or key in {option.name for option in catalog.find(attack).options}
