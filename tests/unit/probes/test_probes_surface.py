"""The loss surface: its plane, its scale, and its values against single forward passes."""

from __future__ import annotations

import probes_base
import pytest
import torch
from probes_base import probed, split, unit
from torch.nn import functional as F

from rna_ray.networks.build import Network, build
from rna_ray.networks.paths import following
from rna_ray.probes.derivatives import along, at_input
from rna_ray.probes.surface import directions, surface
from rna_ray.randomness import Randomness


def network(norm: str = "BN+IN", activation: str = "relu") -> Network:
    settings = {"name": "resnet8", "width": 4, "norm": norm, "layer_based": False, "activation": activation}
    return build(settings, shape=(1, 8, 8), classes=10, mean=(0.5,), std=(0.5,), seed=0).double().eval()


def images(n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, torch.arange(n)


EXAMPLES, PATHS = torch.tensor([10, 11, 12]), torch.tensor([[0] * 9, [1] * 9, [0, 1] * 4 + [0]])


def test_the_plane_is_spanned_by_the_gradients_sign_and_an_orthogonal_of_the_same_length() -> None:
    made, (x, y) = network(), images()
    first, second = directions(made, x, y, PATHS, EXAMPLES, Randomness("unit"))
    gradient = at_input(along(made, PATHS), x, y).gradient
    torch.testing.assert_close(first, gradient.sign() / 255)
    length = torch.full((3,), 8 / 255, dtype=torch.float64)  # 64 pixels, each moved by a 255th
    for direction in (first, second):
        torch.testing.assert_close(direction.flatten(1).norm(dim=1), length)
    assert (first * second).sum((1, 2, 3)).abs().max() < 1e-12
    again = directions(made, x[1:], y[1:], PATHS[1:], EXAMPLES[1:], Randomness("unit"))[1]
    torch.testing.assert_close(again, second[1:])  # drawn for the example, wherever it stands in the batch
    other = directions(made, x, y, PATHS, EXAMPLES, Randomness("another"))[1]
    assert not torch.equal(other, second)


def test_each_point_is_the_loss_of_the_moved_image_along_its_own_path() -> None:
    made, (x, y) = network(), images()
    offsets, loss = surface(made, x, y, PATHS, EXAMPLES, Randomness("unit"), radius_255=16, points=9)
    assert offsets.tolist() == [-16, -12, -8, -4, 0, 4, 8, 12, 16] and loss.shape == (3, 9, 9)
    first, second = directions(made, x, y, PATHS, EXAMPLES, Randomness("unit"))
    for n, i, j in ((0, 4, 4), (1, 0, 8), (2, 7, 1)):
        moved = x[n] + offsets[i] * first[n] + offsets[j] * second[n]
        with following(made, PATHS[n], shared=True), torch.no_grad():
            expected = F.cross_entropy(made(moved[None]), y[n : n + 1])
        torch.testing.assert_close(loss[n, i, j], expected)
    assert (x + 16 * first).max() > 1  # the plane is not bent at the edge of [0, 1]


def test_the_loss_climbs_along_the_first_axis() -> None:
    made, (x, y) = network("BN", "softplus"), images()  # no kinks, so that the slope is the gradient's
    _, loss = surface(made, x, y, PATHS[:, :0], EXAMPLES, Randomness("unit"), radius_255=0.1, points=3)
    slope = at_input(along(made, PATHS[:, :0]), x, y).gradient.abs().sum((1, 2, 3)) * 0.2 / 255
    torch.testing.assert_close(loss[:, 2, 1] - loss[:, 0, 1], slope, rtol=1e-4, atol=1e-9)


def test_where_the_gradient_is_zero_there_is_no_surface() -> None:
    made, (x, y) = network("BN"), images()
    with torch.no_grad():
        made.body.head.weight.zero_()
    _, loss = surface(made, x, y, PATHS[:, :0], EXAMPLES, Randomness("unit"), radius_255=4, points=3)
    assert loss.isnan().all()


@pytest.mark.parametrize(("norm", "native"), [("BN", True), ("BN+IN", False)])
def test_a_unit_has_a_row_for_each_point_of_each_example(norm: str, native: bool) -> None:
    made = probes_base.network(norm)
    found = probed(unit("surface", (0, 6), attack=None, radius_255=8.0, points=3), made)
    assert found.native is native and not found.rows.transfers
    rows = found.rows.measures
    assert len(rows) == 6 * 9 and {row["measure"] for row in rows} == {"loss"}
    assert {(row["x"], row["y"]) for row in rows} == {(x, y) for x in (-8, 0, 8) for y in (-8, 0, 8)}
    at_the_image = {row["example"]: row["value"] for row in rows if row["x"] == row["y"] == 0}
    assert sorted(at_the_image) == list(range(6))
    if norm == "BN":
        images = split()
        x, y = torch.from_numpy(images.images[:6]).float() / 255, torch.from_numpy(images.labels[:6])
        expected = F.cross_entropy(made(x), y, reduction="none")
        assert [at_the_image[n] for n in range(6)] == pytest.approx(expected.tolist(), rel=1e-4)
