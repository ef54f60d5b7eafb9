"""Eq. 5 and Eq. 6 against automatic differentiation, finite differences and closed forms, in float64."""

from __future__ import annotations

import probes_base
import pytest
import torch
from probes_base import probed, unit
from torch import nn
from torch.nn import functional as F

from rna_ray.networks.build import Network, build
from rna_ray.networks.norms import Norm
from rna_ray.networks.paths import PathSpace, following
from rna_ray.networks.spaces import NormLayer, parse
from rna_ray.probes.smoothness import smoothness

EXACT = {"rtol": 1e-9, "atol": 1e-12}


def shaken(network: Network) -> Network:
    """Give every norm its own γ, β and running statistics, as training would; float64, evaluation mode."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Norm):
                for name, value in [*module.named_parameters(), *module.named_buffers()]:
                    noise = torch.rand(value.shape, generator=generator)
                    value.copy_(noise + 0.5 if "var" in name or "weight" in name else noise - 0.5)
    return network.double().eval()


def residual(norm: str, activation: str = "relu") -> Network:
    settings = {"name": "resnet8", "width": 4, "norm": norm, "layer_based": False, "activation": activation}
    return shaken(build(settings, shape=(1, 8, 8), classes=10, mean=(0.5,), std=(0.5,), seed=0))


def single(norm: str, *, channels: int = 4, size: int = 3, classes: int = 5) -> Network:
    """A norm and a linear head: H is known in closed form."""
    layer = NormLayer(name="norm", channels=channels, height=size, width=size)
    torch.manual_seed(0)
    body = nn.Sequential(
        Norm(channels, parse(norm).at(layer), name="norm"), nn.Flatten(), nn.Linear(channels * size**2, classes)
    )
    return shaken(Network(body, PathSpace(()), mean=(0.0,), std=(1.0,)))


def images(n: int = 3, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(n, *(shape or (1, 8, 8)), generator=generator, dtype=torch.float64)
    return x, torch.arange(n) % 5


@pytest.mark.parametrize("norm", ["BN", "IN", "LN", "GN2", "BGN2", "IN(affine=false)", "BN(affine=false)"])
def test_equation_5_is_the_gradient_at_every_layer(norm: str) -> None:
    found = smoothness(residual(norm), *images(), torch.tensor([], dtype=torch.int64))
    assert [at.layer for at in found][:3] == ["norm", "stages.0.0.norm1", "stages.0.0.norm2"] and len(found) == 9
    for at in found:
        assert (at.gradient_norm > 0).all()
        torch.testing.assert_close(at.gradient_norm_eq5, at.gradient_norm, **EXACT)
        if norm.startswith("B"):
            torch.testing.assert_close(at.gradient_norm_scaled, at.gradient_norm, **EXACT)
        else:  # GN's projection only takes away
            assert (at.gradient_norm_scaled > at.gradient_norm).all()


def test_a_path_takes_each_layer_to_its_member() -> None:
    both = residual("BN+IN")
    batch, instance = (smoothness(both, *images(), torch.full((9,), member)) for member in (0, 1))
    for at in batch:
        torch.testing.assert_close(at.curvature_eq6, at.curvature, **EXACT)
    assert all((at.gradient_norm_scaled > at.gradient_norm).all() for at in instance)
    mixed = smoothness(both, *images(), torch.tensor([0] * 8 + [1]))
    last = mixed[-1]
    torch.testing.assert_close(last.gradient_norm_eq5, last.gradient_norm, **EXACT)
    assert (last.gradient_norm_scaled > last.gradient_norm).all()


@pytest.mark.parametrize("norm", ["BN", "IN", "BGN2", "GN2"])
@pytest.mark.parametrize("layer", [0, 3, 8])
def test_the_curvature_is_a_second_difference_at_the_layers_input(norm: str, layer: int) -> None:
    network, (x, y) = residual(norm, "softplus"), images()  # differences across the kink of a rectifier are none
    module = [module for module in network.modules() if isinstance(module, Norm)][layer]
    step, kept = 3e-5, {}

    def losses(move: torch.Tensor | float) -> torch.Tensor:
        def shift(_: nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            kept["y"] = arguments[0] + move
            kept["y"].retain_grad()
            return (kept["y"],)

        with module.register_forward_pre_hook(shift):
            return F.cross_entropy(network(x.clone().requires_grad_()), y, reduction="none")

    losses(0.0).sum().backward()
    gradient = kept["y"].grad
    direction = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    up, middle, down = (losses(k * step * direction).detach() for k in (1, 0, -1))
    found = next(
        at for at in smoothness(network, x, y, torch.tensor([], dtype=torch.int64)) if at.layer == module.name
    )
    torch.testing.assert_close(found.gradient_norm, (up - down) / (2 * step), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(found.curvature, (up - 2 * middle + down) / step**2, rtol=1e-4, atol=1e-5)


def test_equation_6_as_printed_where_a_group_has_one_gamma() -> None:
    network, (x, y) = single("LN"), images(3, 4, 3, 3)
    gamma = 1.7
    norm, head = network.body[0], network.body[2]
    with torch.no_grad():
        norm.members[0].weight.fill_(gamma)
        norm.members[0].eps = 0.0
    (found,) = smoothness(network, x, y, torch.tensor([], dtype=torch.int64))
    variance, mean = torch.var_mean(x.flatten(1), 1, correction=0)
    sigma, size = variance.sqrt(), x[0].numel()
    normalised = (x.flatten(1) - mean[:, None]) / sigma[:, None]
    p = network(x).softmax(1).detach()
    weight = head.weight.detach()
    g = (p - F.one_hot(y, 5)) @ weight
    hessian = torch.einsum("ci,nc,cj->nij", weight, p, weight) - torch.einsum("ni,nj->nij", p @ weight, p @ weight)
    squared, ones, along = g.square().sum(1), g.sum(1), (g * normalised).sum(1)
    eq5 = gamma / sigma * (squared - ones**2 / size - along**2 / size).sqrt()
    torch.testing.assert_close(found.gradient_norm, eq5, **EXACT)
    curved = torch.einsum("ni,nij,nj->n", g, hessian, g) / squared
    eq6 = gamma**2 / sigma**2 * (curved - along / (size * gamma))
    torch.testing.assert_close(found.curvature_eq6, eq6, **EXACT)
    # What is dropped on the way to Eq. 6: H along what the projection leaves of g gives the curvature itself.
    left = g - ones[:, None] / size - normalised * along[:, None] / size
    left = left / left.norm(dim=1, keepdim=True)
    exact = gamma**2 / sigma**2 * (torch.einsum("ni,nij,nj->n", left, hessian, left) - along / (size * gamma))
    torch.testing.assert_close(found.curvature, exact, **EXACT)


def test_equation_6_of_bgn_is_an_equality_and_of_gn_it_can_fail() -> None:
    x, y = images(40, 4, 2, 2)
    for norm in ("BN", "BGN2"):
        (found,) = smoothness(single(norm, size=2), x, y, torch.tensor([], dtype=torch.int64))
        torch.testing.assert_close(found.curvature_eq6, found.curvature, **EXACT)
    (found,) = smoothness(single("GN2", size=2), x, y, torch.tensor([], dtype=torch.int64))
    holds = found.curvature <= found.curvature_eq6
    assert 0 < holds.sum() < len(holds)


def test_a_loss_that_does_not_depend_on_the_layer_has_no_gradient_and_no_curvature() -> None:
    network, (x, y) = single("IN"), images(2, 4, 3, 3)
    with torch.no_grad():
        network.body[2].weight.zero_()
    (found,) = smoothness(network, x, y, torch.tensor([], dtype=torch.int64))
    for value in vars(found).values():
        if isinstance(value, torch.Tensor):
            assert value.tolist() == [0.0, 0.0]


def test_the_network_is_left_as_it_was() -> None:
    network, (x, y) = residual("BN+IN"), images()
    path = torch.zeros(9, dtype=torch.int64)
    with following(network, path, shared=True):
        before = network(x)
    smoothness(network, x, y, path)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    with following(network, path, shared=True):
        assert torch.equal(network(x), before)


@pytest.mark.parametrize(("norm", "members"), [("BN+IN", ["IN", "BN"]), ("LN", ["LN"])])
def test_a_unit_has_a_row_for_each_measure_of_each_layer_and_member(norm: str, members: list[str]) -> None:
    made = probes_base.network(norm)
    rows = probed(unit("smoothness", (0, 5), attack=None), made).rows.measures
    assert next(made.parameters()).dtype is torch.float32  # a copy was measured
    assert {row["member"] for row in rows} == set(members)
    assert len(rows) == 5 * 5 * 9 * len(members) and all(row["value"] == row["value"] for row in rows)
    found = {(row["measure"], row["member"], row["layer"], row["x"], row["example"]): row["value"] for row in rows}
    assert len(found) == len(rows)
    for (measure, *where), value in found.items():
        if measure == "gradient_norm":
            assert value == pytest.approx(found["gradient_norm_eq5", *where], rel=1e-9)
        if measure == "curvature" and where[0] == "BN":
            assert value == pytest.approx(found["curvature_eq6", *where], rel=1e-9, abs=1e-12)
    depths = sorted({(row["x"], row["layer"]) for row in rows})
    assert [layer for _, layer in depths] == [module.name for module in made.modules() if isinstance(module, Norm)]
