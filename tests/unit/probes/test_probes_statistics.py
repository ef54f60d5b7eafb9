"""A batch's statistics at each norm layer against convolutions done by hand, the tracked ones against the buffers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from probes_base import PGD, network, probed, split, unit

from rna_ray.networks.build import Network
from rna_ray.networks.norms import BatchGroupNorm, GroupNorm, NoNorm, Norm, RobustNorm
from rna_ray.probes.probe import Probed
from rna_ray.randomness import Randomness

NATURAL: dict[str, Any] = {"attack": None, "images": "natural"}
X = torch.from_numpy(split().images).float() / 255


def values(found: Probed, **where: Any) -> list[float]:
    """Return the values of the rows of one measure, in the order of their channels."""
    rows = [row for row in found.rows.measures if all(row[key] == value for key, value in where.items())]
    return [row["value"] for row in sorted(rows, key=lambda row: row["x"])]


def layers(made: Network) -> dict[str, Norm]:
    return {module.name: module for module in made.modules() if isinstance(module, Norm)}


def at_layer(made: Network, layer: str, x: torch.Tensor) -> torch.Tensor:
    """Return what a norm layer is given (C, N·H·W), in double."""
    seen: list[torch.Tensor] = []
    hook = layers(made)[layer].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        made(x)
    hook.remove()
    return seen[0].double().transpose(0, 1).flatten(1)


def test_batch_and_tracked_values_stand_beside_each_other_in_every_channel() -> None:
    made = network("BN")
    found = probed(unit("statistics", (0, 8), batch=4, **NATURAL), made)
    assert found.native and not found.rows.transfers
    assert {row["layer"] for row in found.rows.measures} == set(layers(made))
    assert {row["y"] for row in found.rows.measures} == {0.0, 4.0}  # the first example of each batch
    assert all("example" not in row and row["member"] == "BN" for row in found.rows.measures)
    channels = sum(layer.channels for layer in layers(made).values())
    assert len(found.rows.measures) == 2 * 4 * channels
    for layer, norm in layers(made).items():
        for first in (0, 4):
            given = at_layer(made, layer, X[first : first + 4])
            of = {"layer": layer, "y": float(first)}
            mean, variance = given.mean(1).tolist(), given.var(1).tolist()
            assert values(found, measure="batch_mean", **of) == pytest.approx(mean, rel=1e-5, abs=1e-7)
            assert values(found, measure="batch_variance", **of) == pytest.approx(variance, rel=1e-5)
            assert values(found, measure="tracked_mean", **of) == norm.members[0].running_mean.tolist()
            assert values(found, measure="tracked_variance", **of) == norm.members[0].running_var.tolist()


def test_a_network_that_was_trained_on_this_one_batch_has_tracked_it() -> None:
    made = network("BN")
    made.train()
    with torch.no_grad():
        for _ in range(200):
            made(X[:8])
    made.eval()
    found = probed(unit("statistics", batch=8, **NATURAL), made)
    for layer in layers(made):
        mean, variance = (values(found, measure=f"tracked_{name}", layer=layer) for name in ("mean", "variance"))
        # The layers before it divide by the unbiased deviation now, and by the biased one while training.
        assert values(found, measure="batch_variance", layer=layer) == pytest.approx(variance, rel=0.05)
        off = torch.tensor(values(found, measure="batch_mean", layer=layer)) - torch.tensor(mean)
        assert (off.abs() / torch.tensor(variance).sqrt()).max() < 0.05


def test_members_that_track_nothing_have_no_rows_and_groups_have_one_value() -> None:
    made = network("BN+IN+BGN2")
    found = probed(unit("statistics", (0, 4), **NATURAL), made)
    assert {row["member"] for row in found.rows.measures} == {"BN", "BGN2"}
    for member, groups in (("BN", 4), ("BGN2", 2)):
        of = {"member": member, "layer": "norm"}
        assert len(values(found, measure="batch_mean", **of)) == groups
    stem = made.body.conv((X[:4] - made.mean) / made.std).detach().double()
    grouped = stem.view(4, 2, -1).transpose(0, 1).flatten(1)
    of = {"member": "BGN2", "layer": "norm"}
    assert values(found, measure="batch_mean", **of) == pytest.approx(grouped.mean(1).tolist(), rel=1e-5, abs=1e-7)
    assert values(found, measure="batch_variance", **of) == pytest.approx(grouped.var(1).tolist(), rel=1e-5)


def test_padding_is_no_part_of_a_batch() -> None:
    made = network("BN")
    whole, padded = (probed(unit("statistics", (8, 11), batch=size, **NATURAL), made) for size in (3, 8))
    assert values(padded, measure="batch_mean", layer="norm") == pytest.approx(
        values(whole, measure="batch_mean", layer="norm"), rel=1e-6
    )
    assert len(padded.rows.measures) == len(whole.rows.measures)


def test_attacked_images_shift_what_the_layers_see() -> None:
    made = network("BN")
    natural, still, attacked = (
        probed(unit("statistics", (0, 4), **given), made)
        for given in (
            NATURAL,
            {"attack": {**PGD, "eps_255": 0.0}, "images": "attacked"},
            {"attack": {**PGD, "eps_255": 64.0, "step_255": 32.0}, "images": "attacked"},
        )
    )
    stem = {"measure": "batch_mean", "layer": "norm"}
    assert values(still, **stem) == pytest.approx(values(natural, **stem))
    assert values(attacked, **stem) != pytest.approx(values(natural, **stem), rel=1e-2)
    tracked = {"measure": "tracked_mean"}
    assert values(attacked, **tracked) == values(natural, **tracked)


def test_a_norm_says_what_it_tracks_and_measures_the_like_of_a_batch() -> None:
    x = Randomness("x").normal("x", torch.arange(6), (8, 5, 5)).double()
    without = GroupNorm(8, 2), BatchGroupNorm(8, 2, track="none"), NoNorm(8, affine=False, eps=0)
    assert [norm.tracked for norm in without] == [{}, {}, {}]
    norm = BatchGroupNorm(8, 4)
    norm.running_mean[2] = 7
    assert set(norm.tracked) == set(norm.measured(x)) == {"mean", "variance"}
    assert norm.tracked["mean"].tolist() == [0, 0, 7, 0]
    grouped = x.view(6, 4, 50).transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.measured(x)["mean"], grouped.mean(1))
    torch.testing.assert_close(norm.measured(x)["variance"], grouped.var(1))  # unbiased, as the tracked one is


def test_robust_norms_track_a_centre_and_a_range_to_its_power() -> None:
    x = Randomness("x").normal("x", torch.arange(6), (8, 5, 5)).double()
    flat = x.transpose(0, 1).flatten(1)
    powered = (flat.amax(1) - flat.amin(1)) ** 0.2
    for from_mean, name, centre in ((True, "mean", flat.mean(1)), (False, "minimum", flat.amin(1))):
        norm = RobustNorm(8, power=0.2, from_mean=from_mean, track="all")
        assert set(norm.tracked) == {name, "range"}
        torch.testing.assert_close(norm.measured(x), {name: centre, "range": powered})
    assert set(RobustNorm(8, power=0.2, track="mean").tracked) == {"mean"}
    assert RobustNorm(8, power=0.2).tracked == {}


@pytest.mark.parametrize(("norm", "names"), [("RN(track=true)", {"mean", "range"}), ("RN(track=mean)", {"mean"})])
def test_a_tracked_robust_norm_is_compared_too(norm: str, names: set[str]) -> None:
    made = network(f"{norm}+RN+BN(track=false)")
    found = probed(unit("statistics", (0, 4), **NATURAL), made)
    assert {row["member"] for row in found.rows.measures} == {norm}
    measures = {row["measure"] for row in found.rows.measures}
    assert measures == {"batch_mean", "batch_range", *(f"tracked_{name}" for name in names)}
    given = made.body.conv((X[:4] - made.mean) / made.std).detach().double().transpose(0, 1).flatten(1)
    powered = (given.amax(1) - given.amin(1)) ** 0.2
    assert values(found, measure="batch_range", layer="norm") == pytest.approx(powered.tolist(), rel=1e-5)
