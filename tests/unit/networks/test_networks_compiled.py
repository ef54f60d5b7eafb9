"""One compiled graph serves every path."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator

import pytest
import torch
from test_networks_norms import images, norm
from torch import nn

from rna_ray.networks import paths
from rna_ray.networks.build import build
from rna_ray.networks.paths import PathSpace
from rna_ray.networks.randomize import randomize
from rna_ray.randomness import Randomness

pytestmark = [
    pytest.mark.slow,  # compiles
    pytest.mark.skipif(
        not any(shutil.which(name) for name in ("g++", "clang++", "c++")),
        reason="torch.compile needs a C++ compiler, and there is none on the PATH",
    ),
]
EXAMPLES = torch.arange(4)
SETTINGS = {"name": "resnet8", "width": 4, "norm": "BN+IN", "layer_based": False, "paths": "example"}


class Counting:
    """A compiler's back end that counts graphs and lets them run as they are, or through inductor."""

    def __init__(self, inner: str) -> None:
        self.graphs, self._inner = 0, inner

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        self.graphs += 1
        return torch._dynamo.lookup_backend(self._inner)(graph, inputs)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.compiler.reset()
        yield
        torch.compiler.reset()


def body() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))


def test_one_graph_for_different_paths_with_the_numbers_of_eager_mode() -> None:
    layer = norm("BN+BGN[4]+IN+LN")
    network = nn.Sequential(layer)
    space = PathSpace((len(layer.members),))
    x, backend = images(), Counting("inductor")
    compiled = torch.compile(network, backend=backend, fullgraph=True, dynamic=False)
    for step in range(4):
        path = space.draw(Randomness("u"), "path", torch.arange(len(x)), step=step)
        z = x.clone().requires_grad_()
        with paths.following(network, path):
            expected, found = network(z), compiled(z)
            gradients = [torch.autograd.grad(y.tanh().sum(), z)[0] for y in (expected, found)]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    assert backend.graphs == 1


def test_a_built_network_is_one_graph_a_mode() -> None:
    network = build(SETTINGS, shape=(1, 8, 8), classes=10, mean=(0.5,), std=(0.5,), seed=0)
    backend = Counting("eager")
    compiled = torch.compile(network, backend=backend, fullgraph=True, dynamic=False)
    x = torch.rand(4, 1, 8, 8)
    for mode in ("train", "eval", "train_frozen", "train", "eval", "train_frozen"):
        with paths.mode(network, mode):
            for step in range(3):
                path = network.paths.draw(Randomness("u"), "path", EXAMPLES, step=step)
                with paths.following(network, path):
                    assert compiled(x).shape == (4, 10)
    assert backend.graphs == 3


def test_a_randomised_model_draws_afresh_without_compiling_again() -> None:
    network = randomize(body(), "BN+LN").eval()
    backend = Counting("eager")
    compiled = torch.compile(network, backend=backend, dynamic=False)
    x = torch.rand(16, 1, 8, 8)
    drawn = []
    for call in range(5):
        y = compiled(x)
        drawn.append(network.path_source.last)
        with paths.following(network, drawn[-1]):
            torch.testing.assert_close(y, network(x))
        assert network.path_source.call == call + 1
    assert len({tuple(path.flatten().tolist()) for path in drawn}) == 5
    assert backend.graphs == 1
