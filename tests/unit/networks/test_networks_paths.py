"""Paths: drawn by name, followed, recorded, replayed, compared."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rna_ray.networks import paths
from rna_ray.networks.build import Network, build
from rna_ray.networks.describe import describe
from rna_ray.networks.paths import PathSpace, difference, following, path_space, random_layers
from rna_ray.networks.spaces import NormLayer, parse
from rna_ray.randomness import Randomness


def network(norm: str = "BN+IN", *, layer_based: bool = False, seed: int = 0) -> Network:
    settings = {"name": "resnet8", "width": 4, "norm": norm, "layer_based": layer_based, "paths": "example"}
    return build(settings, shape=(1, 8, 8), classes=10, mean=(0.5,), std=(0.5,), seed=seed)


@settings(max_examples=25)
@given(st.permutations(range(20)), st.integers(1, 20), st.integers(0, 2**40), st.integers(0, 9))
def test_a_path_is_a_function_of_unit_example_step_and_draw(order: list[int], size: int, step: int, draw: int) -> None:
    space, random = PathSpace((2, 3, 5, 2)), Randomness("unit")
    whole = space.draw(random, "path", torch.arange(20), step=step, draw=draw)
    some = torch.tensor(order[:size])
    assert torch.equal(space.draw(Randomness("unit"), "path", some, step=step, draw=draw), whole[some])


def test_other_units_names_steps_and_draws_give_other_paths() -> None:
    space, examples = PathSpace((2,) * 20), torch.arange(50)
    drawn = [
        space.draw(Randomness(unit), name, examples, step=step, draw=draw)
        for unit in ("a", "b")
        for name in ("attack", "defence")
        for step in (0, 1)
        for draw in (0, 1)
    ]
    for one in range(len(drawn)):
        for other in range(one):
            assert difference(drawn[one], drawn[other]).float().mean().item() == pytest.approx(10, abs=1.5)


def test_every_member_is_drawn_equally_often() -> None:
    path = PathSpace((2, 3, 7)).draw(Randomness("u"), "path", torch.arange(21000))
    for column, size in enumerate((2, 3, 7)):
        counts = torch.bincount(path[:, column], minlength=size)
        assert counts.shape == (size,)
        assert (counts - 21000 / size).abs().max() < 5 * math.sqrt(21000 / size)


def test_layer_based_draws_take_only_the_listed_rows() -> None:
    choices = ((0, 0, 1), (1, 2, 0), (1, 1, 1))
    path = PathSpace((2, 3, 2), choices).draw(Randomness("u"), "path", torch.arange(3000))
    rows, counts = torch.unique(path, dim=0, return_counts=True)
    assert {tuple(row) for row in rows.tolist()} == set(choices)
    assert (counts - 1000).abs().max() < 150


@pytest.mark.parametrize("layer_based", [False, True])
@pytest.mark.parametrize("space", ["BN", "BN+IN", "GN[1-16]", "BN+GN[8-16]"])
def test_listing_gives_as_many_distinct_paths_as_the_space_counts(space: str, layer_based: bool) -> None:
    layers = [NormLayer(name=str(channels), channels=channels, height=4, width=4) for channels in (4, 8, 16)]
    listed = path_space(parse(space), layers, layer_based=layer_based).all()
    assert (
        len({tuple(row) for row in listed.tolist()})
        == len(listed)
        == parse(space).paths(layers, layer_based=layer_based)
    )


def test_a_path_has_a_column_for_each_random_layer_of_the_network() -> None:
    built = network("LN+GN[16]")  # one member in the first two stages (4 and 8 channels), one in the third too
    assert built.paths.sizes == () and random_layers(built) == []
    built = network("LN+GN[4]")
    names = [layer.name for layer in describe("resnet8", width=4, image_shape=(1, 8, 8), classes=10).layers]
    assert [layer.name for layer in random_layers(built)] == names[3:]  # where 4 channels are all, both are LN
    assert built.paths.sizes == tuple(len(layer.members) for layer in random_layers(built))


def test_a_recorded_path_replays_bit_for_bit_whatever_the_batch() -> None:
    built = network().eval()
    x = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    path = built.paths.draw(Randomness("u"), "path", torch.arange(10))
    with following(built, path):
        y = built(x)
    recorded = torch.tensor(path.tolist())
    with following(built, recorded):
        assert torch.equal(built(x), y)
    for rows in (slice(0, 3), slice(3, 10)):
        with following(built, recorded[rows]):
            torch.testing.assert_close(built(x[rows]), y[rows], rtol=1e-6, atol=1e-6)
    other = built.paths.draw(Randomness("u"), "path", torch.arange(10), step=1)
    with following(built, other):
        assert not torch.allclose(built(x), y, atol=1e-3)


def test_a_shared_path_gives_what_the_same_path_for_each_example_gives() -> None:
    built = network("BN+IN+LN").eval()
    x = torch.rand(4, 1, 8, 8)
    path = built.paths.draw(Randomness("u"), "path", torch.arange(1))[0]
    with following(built, path, shared=True):
        native = built(x)
        assert all(isinstance(layer.path, int) for layer in random_layers(built))
    with following(built, path.expand(4, -1)):
        torch.testing.assert_close(built(x), native, rtol=1e-4, atol=1e-5)


def test_following_nests_and_ends_with_its_block() -> None:
    built = network()
    outer, inner = torch.zeros(9, dtype=torch.int64), torch.ones(9, dtype=torch.int64)
    with following(built, outer, shared=True):
        with pytest.raises(ZeroDivisionError), following(built, inner, shared=True):
            assert {layer.path for layer in random_layers(built)} == {1}
            raise ZeroDivisionError
        assert {layer.path for layer in random_layers(built)} == {0}
    assert {layer.path for layer in random_layers(built)} == {None}
    with pytest.raises(ValueError, match="9 random layers, not 8"), following(built, outer[:8], shared=True):
        pass


def test_the_path_difference_is_a_hamming_distance() -> None:
    a = torch.tensor([[0, 1, 2, 0], [1, 1, 1, 1]])
    b = torch.tensor([[0, 2, 2, 1], [1, 1, 1, 1]])
    assert difference(a, b).tolist() == [2, 0]
    assert difference(a[0], b[0]).item() == 2


def test_modes_are_put_back() -> None:
    built = network()
    built.body.stages[0].eval()
    before = [module.training for module in built.modules()]
    for name in paths.MODES:
        with paths.mode(built, name):
            assert {module.training for module in built.modules()} == {name != "eval"}
        assert [module.training for module in built.modules()] == before
