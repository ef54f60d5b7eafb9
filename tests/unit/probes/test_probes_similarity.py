"""The cosine between gradients, of two networks or of the members of one."""

from __future__ import annotations

import itertools

import pytest
import torch
from probes_base import network, probed, role, split, unit
from torch.nn import functional as F

from rna_ray.networks.build import Network
from rna_ray.networks.paths import following

PAIR = {"source": role("source"), "network": role("network")}


def gradient(made: Network, n: int) -> torch.Tensor:
    images = split()
    x, y = torch.from_numpy(images.images[:n]).float() / 255, torch.from_numpy(images.labels[:n])
    x.requires_grad_()
    return torch.autograd.grad(F.cross_entropy(made(x), y, reduction="sum"), x)[0].flatten(1).double()


def cosine(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    return ((a * b).sum(1) / a.norm(dim=1) / b.norm(dim=1)).tolist()


def between(**given: object) -> dict[str, object]:
    return {"attack": None, **given}


def test_a_network_is_like_itself() -> None:
    made = network("IN")
    rows = probed(unit("similarity", **between(between="networks"), **PAIR), made, made).rows.measures
    assert [row["example"] for row in rows] == list(range(8))
    assert [row["value"] for row in rows] == pytest.approx([1.0] * 8, abs=1e-9)


def test_two_networks_are_compared_example_by_example() -> None:
    source, target = network("BN", seed=1), network("IN", seed=2)
    rows = probed(unit("similarity", **between(between="networks"), **PAIR), source, target).rows.measures
    assert {row["measure"] for row in rows} == {"cosine"} and all("member" not in row for row in rows)
    values = [row["value"] for row in rows]
    assert values == pytest.approx(cosine(gradient(source, 8), gradient(target, 8)), abs=1e-5)
    assert max(map(abs, values)) < 0.9


@pytest.mark.parametrize(("norm", "members"), [("BN+IN", 2), ("BGN+GN[1-4]", 6)])
def test_every_two_members_of_a_network_are_compared_each_taken_at_every_layer(norm: str, members: int) -> None:
    made = network(norm)
    asked = unit("similarity", (0, 6), **between(between="members"))
    rows = probed(asked, made).rows.measures
    assert len(made.members) == members and len(rows) == 6 * members * (members - 1) // 2
    gradients = {}
    for name, path in made.members.items():
        with following(made, torch.tensor(path), shared=True):
            gradients[name] = gradient(made, 6)
    for member, other in itertools.combinations(made.members, 2):
        found = [row for row in rows if (row["member"], row["other"]) == (member, other)]
        assert sorted(row["example"] for row in found) == list(range(6))
        expected = cosine(gradients[member], gradients[other])
        assert [row["value"] for row in found] == pytest.approx(expected, abs=1e-5)


def test_a_layer_based_space_has_the_same_members() -> None:
    free, based = network("BN+IN+LN"), network("BN+IN+LN", layer_based=True)
    asked = unit("similarity", **between(between="members"))
    assert probed(asked, free).rows == probed(asked, based).rows


def test_an_example_without_a_direction_has_no_row() -> None:
    made, other, asked = network("BN"), network("IN"), unit("similarity", **between(between="networks"), **PAIR)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert probed(asked, made, other).rows.measures == []
