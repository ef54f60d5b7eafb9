"""The loss landscape: how long its directions are, its values against networks moved by hand, weights left alone."""

from __future__ import annotations

import copy

import pytest
import torch
from probes_base import CPU, PGD, network, probed, role, split, unit
from torch.nn import functional as F

from rna_ray.evaluation.batches import Batch
from rna_ray.networks.build import Network
from rna_ray.networks.paths import mode
from rna_ray.probes.landscape import direction, landscape, offsets
from rna_ray.probes.subject import Subject
from rna_ray.randomness import Randomness

RANDOM = Randomness("unit")
BATCH = Batch.cut(split(), 0, 8, 8, CPU)


def moved(made: Network, steps: tuple[float, float]) -> Network:
    """Return a copy of the network whose weights were moved in place."""
    other = copy.deepcopy(made)
    with torch.no_grad():
        for step, axis in zip(steps, ("first", "second"), strict=True):
            for name, value in direction(made, RANDOM, axis).items():
                other.get_parameter(name).add_(step * value)
    return other


def test_each_filter_of_a_direction_is_as_long_as_the_networks_and_one_dimensional_parameters_stay() -> None:
    made = network("BN+IN")
    first, second = (direction(made, RANDOM, axis) for axis in ("first", "second"))
    named = dict(made.named_parameters())
    assert set(first) == {name for name, weight in named.items() if weight.dim() > 1}
    assert "body.head.weight" in first and not any("norm" in name or "bias" in name for name in first)
    for name in first:
        own = named[name].detach().flatten(1).norm(dim=1)
        for axis in (first, second):
            assert axis[name].shape == named[name].shape
            torch.testing.assert_close(axis[name].flatten(1).norm(dim=1), own)
        cosine = F.cosine_similarity(first[name].flatten(), second[name].flatten(), dim=0)
        assert abs(cosine) < 4 / named[name].numel() ** 0.5
    assert all(torch.equal(first[name], value) for name, value in direction(made, RANDOM, "first").items())
    assert not torch.equal(first["body.head.weight"], direction(made, Randomness("b"), "first")["body.head.weight"])


def test_a_filter_of_zeros_does_not_move() -> None:
    made = network("BN")
    with torch.no_grad():
        made.body.head.weight[3] = 0
    assert direction(made, RANDOM, "first")["body.head.weight"][3].eq(0).all()


@pytest.mark.parametrize(("points", "radius", "expected"), [(5, 1, [-1, -0.5, 0, 0.5, 1]), (2, 0.25, [-0.25, 0.25])])
def test_the_plane_is_even_and_around_the_weights(points: int, radius: float, expected: list[float]) -> None:
    assert offsets(radius=radius, points=points) == expected
    assert all(offsets(radius=0.7, points=odd)[odd // 2] == 0 for odd in range(3, 60, 2))  # exactly


@pytest.mark.parametrize(
    ("norm", "how"), [("BN", "eval"), ("BN", "train_frozen"), ("BN(track=false)", "eval"), ("RN", "eval")]
)
def test_each_point_is_the_answer_of_a_network_whose_weights_were_moved(norm: str, how: str) -> None:
    """Also where images share the statistics of their batch, in a mode or always."""
    made = network(norm)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    plane = [direction(made, RANDOM, axis) for axis in ("first", "second")]
    with mode(made, how):
        defence = Subject(made, role(), RANDOM, batch=8).drawn(BATCH)
        found = {(a, b): logits for a, b, logits in landscape(defence, BATCH.x, plane, [-1.0, 0.0, 0.5])}
        assert len(found) == 9
        with torch.no_grad():
            for steps, logits in found.items():
                other = moved(made, steps)
                torch.testing.assert_close(logits, other(BATCH.x), msg=lambda text, at=steps: f"at {at}: {text}")
            assert torch.equal(found[0.0, 0.0], made(BATCH.x))
            if (norm, how) != ("BN", "eval"):
                assert not torch.allclose(moved(made, (0.5, 0.0))(BATCH.x[:4]), found[0.5, 0.0][:4])
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_a_unit_has_the_loss_and_the_verdict_of_each_example_at_each_point() -> None:
    made = network("BN")
    before = {name: (value, value.clone()) for name, value in made.named_parameters()}
    found = probed(unit("landscape", (0, 6), attack=None, radius=0.5, points=3, images="natural"), made)
    assert found.native and not found.rows.transfers
    for name, value in made.named_parameters():
        assert value is before[name][0] and torch.equal(value, before[name][1])
    rows = found.rows.measures
    assert len(rows) == 2 * 6 * 9 and {row["measure"] for row in rows} == {"loss", "correct"}
    assert {(row["x"], row["y"]) for row in rows} == {(x, y) for x in (-0.5, 0, 0.5) for y in (-0.5, 0, 0.5)}
    images = split()
    x, y = torch.from_numpy(images.images[:6]).float() / 255, torch.from_numpy(images.labels[:6])
    at_the_weights = [row for row in rows if row["x"] == row["y"] == 0]
    loss = {row["example"]: row["value"] for row in at_the_weights if row["measure"] == "loss"}
    right = {row["example"]: row["value"] for row in at_the_weights if row["measure"] == "correct"}
    expected = F.cross_entropy(made(x), y, reduction="none").tolist()
    assert [loss[n] for n in range(6)] == pytest.approx(expected, rel=1e-5)
    assert [right[n] for n in range(6)] == (made(x).argmax(1) == y).double().tolist()
    away = {row["example"]: row["value"] for row in rows if (row["x"], row["y"], row["measure"]) == (0.5, 0, "loss")}
    assert away[0] != loss[0]


def test_a_network_has_one_plane_whatever_is_asked_of_it() -> None:
    made = network("BN")

    def far(name: str, images: str, points: int) -> list[float]:
        asked = unit("landscape", attack=PGD | {"eps_255": 0.0}, radius=1.0, points=points, images=images,
                     network=role(name))  # fmt: skip
        return [row["value"] for row in probed(asked, made).rows.measures if row["x"] == 1 and row["y"] == -1]

    assert far("a", "natural", 3) == far("a", "attacked", 5)
    assert far("a", "natural", 3) != far("b", "natural", 3)


def at_the_weights(made: Network, **given: object) -> list[float]:
    rows = probed(unit("landscape", radius=0.5, points=3, **given), made).rows.measures
    return [row["value"] for row in rows if row["x"] == row["y"] == 0 and row["measure"] == "loss"]


def test_attacked_images_are_those_of_the_trained_weights_everywhere() -> None:
    made = network("BN")
    natural = at_the_weights(made, attack=None, images="natural")
    assert at_the_weights(made, attack={**PGD, "eps_255": 0.0}, images="attacked") == pytest.approx(natural)
    attacked = at_the_weights(made, attack=PGD, images="attacked")
    assert all(after > before for after, before in zip(attacked, natural, strict=True))


@pytest.mark.parametrize("given", [{}, {"paths": "batch"}, {"noise_255": 32.0}], ids=["example", "batch", "noise"])
def test_all_points_are_answered_on_one_draw(given: dict[str, object]) -> None:
    """At a radius of next to nothing all points are the trained weights, so only another draw could tell them apart."""
    made = network("BN+IN")
    asked = unit("landscape", attack=None, radius=1e-7, points=3, images="natural", network=role(**given))
    found = probed(asked, made)
    assert found.native is (given == {"paths": "batch"})
    losses: dict[int, list[float]] = {}
    for row in found.rows.measures:
        if row["measure"] == "loss":
            losses.setdefault(row["example"], []).append(row["value"])
    assert len(losses) == 8 and all(values == pytest.approx([values[0]] * 9, rel=1e-3) for values in losses.values())
