"""How long `rna-ray plan` and `rna-ray status` take, beside a Python that does nothing.

    python benchmarks/start.py [--repeat N] [--small]

Both look at the quickstart: 6 networks and 110 evaluations.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pairs import Command, Comparison, Side, at_most_more, in_turn, main
from subjects import folder

from rna_ray.running.run import plan_rows
from rna_ray.store import open_store
from rna_ray.store.records import from_rows
from rna_ray.sweep import bundled, plan, spec

MINUTES = 1
RNA_RAY = Path(sys.executable).with_name("rna-ray")
SWEEP = "quickstart"


def compare(repeat: int, small: bool) -> Iterator[Comparison]:
    """Yield the rows; small ones are not smaller."""
    store = open_store(folder() / "start")
    store.put_plan(SWEEP, from_rows("plans", list(plan_rows(plan.plan(spec.load(bundled.find(SWEEP)))))))
    nothing = Command(sys.executable, "-c", "pass")
    for words in (("plan", bundled.find(SWEEP)), ("status", SWEEP)):
        ours = Command(RNA_RAY, *words, "--store", store.uri)
        mine, theirs = in_turn(ours, nothing, repeat=repeat, name=f"rna-ray {words[0]}")
        yield Comparison(
            row=f"start: rna-ray {words[0]}", unit="seconds", goal=at_most_more(0.5),
            ours=Side("rna-ray", mine, 1), peer=Side("python -c pass", theirs, 1),
        )


if __name__ == "__main__":
    main(compare, __doc__)
