"""A short, seeded part of `make chaos`: whoever is killed, whenever, the rows come out the same."""

from __future__ import annotations

from pathlib import Path

from chaos import disturbed
from chaos_places import OnCluster, at

from rna_ray.store import Store


def test_kills_on_a_cluster_change_no_row(sweep: Path, store: Path, reference: Store) -> None:
    with at(OnCluster, store) as place:
        report = disturbed(sweep, place, reference, seed=1, kills=3)
    assert report.differences == () and report.strikes, report.line()
