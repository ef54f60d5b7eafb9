"""STN's networks against torch's own layers and known sizes; dropout, whose masks are named draws."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from rna_ray.errors import SweepError
from rna_ray.networks.build import Network, build
from rna_ray.networks.describe import describe
from rna_ray.networks.dropout import Dropout, dropping
from rna_ray.networks.paths import MODES, mode
from rna_ray.randomness import Randomness

RANDOM = Randomness("unit/epoch-0")
EXAMPLES = torch.tensor([5, 900, 3])


def built(name: str, shape: tuple[int, int, int], width: int, activation: str) -> Network:
    settings = {
        "name": name, "width": width, "norm": "none", "layer_based": False, "paths": "example", "activation": activation
    }  # fmt: skip
    return build(settings, shape=shape, classes=10, mean=(0.0,) * shape[0], std=(1.0,) * shape[0], seed=0)


def mnist(classes: int = 10) -> nn.Sequential:
    """Return STN's network for MNIST as its paper's code lists the layers, without dropout."""
    return nn.Sequential(
        nn.Conv2d(1, 64, 5), nn.ReLU(), nn.Conv2d(64, 64, 5), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * 20 * 20, 128), nn.ReLU(), nn.Linear(128, classes),
    )  # fmt: skip


def cifar10(classes: int = 10) -> nn.Sequential:
    """Return STN's network for CIFAR-10 as its paper's code lists the layers, without dropout."""

    def conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, kernel, padding="same"), nn.ELU()]

    return nn.Sequential(
        *conv(3, 96, 5), *conv(96, 96, 1), nn.MaxPool2d(2), *conv(96, 192, 5), *conv(192, 192, 1), nn.MaxPool2d(2),
        *conv(192, 256, 3), *conv(256, 256, 1), nn.Conv2d(256, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shape", "width", "activation", "reference", "parameters"),
    [
        ("stn-mnist", (1, 28, 28), 64, "relu", mnist, 3_382_346),
        ("stn-cifar10", (3, 32, 32), 96, "elu", cifar10, 1_025_642),
    ],
)
def test_a_network_is_the_papers(name, shape, width, activation, reference, parameters) -> None:
    made, expected = built(name, shape, width, activation), reference()
    for ours, theirs in zip(made.parameters(), expected.parameters(), strict=True):
        theirs.data = ours.data
    x = torch.rand(2, *shape)
    torch.testing.assert_close(made(x), expected(x), atol=1e-5, rtol=1e-4)
    assert sum(parameter.numel() for parameter in made.parameters()) == parameters
    assert describe(name, width=None, image_shape=shape, classes=10).layers == ()


def test_images_for_which_the_mnist_network_is_too_deep_are_refused() -> None:
    with pytest.raises(SweepError, match=r"stn-mnist has two 5x5 convolutions .* images of 8x8 pixels are too small"):
        describe("stn-mnist", width=None, image_shape=(1, 8, 8), classes=10)


def small() -> Network:
    return built("stn-cifar10", (3, 16, 16), 6, "elu")


def test_dropout_is_the_identity_outside_updates_in_every_mode() -> None:
    made, x = small(), torch.rand(3, 3, 16, 16)
    plain = made(x)
    for name in MODES:
        with mode(made, name):
            assert torch.equal(made(x), plain)
    with dropping(made, RANDOM, EXAMPLES):
        dropped = made(x)
    assert not torch.allclose(dropped, plain) and torch.equal(made(x), plain)
    assert torch.equal(pickle.loads(pickle.dumps(made))(x), plain)


def test_what_falls_out_is_a_function_of_unit_epoch_example_and_layer() -> None:
    made, x = small().double(), torch.rand(3, 3, 16, 16, dtype=torch.float64)
    state = torch.get_rng_state()
    with dropping(made, RANDOM, EXAMPLES):
        whole = made(x)
        assert torch.equal(made(x), whole)  # a second pass of the update drops the same
    assert torch.equal(torch.get_rng_state(), state)
    with dropping(made, RANDOM, EXAMPLES[1:]):
        torch.testing.assert_close(made(x[1:]), whole[1:])  # whichever batch, or worker's slice, holds the example
    for random, examples in ((Randomness("unit/epoch-1"), EXAMPLES), (RANDOM, EXAMPLES + 1)):
        with dropping(made, random, examples):
            assert not torch.allclose(made(x), whole)
    layers = [part for part in made.modules() if isinstance(part, Dropout)]
    with dropping(made, RANDOM, EXAMPLES):
        first, second = (layer.kept(torch.Size([40, 4, 4])) for layer in layers if layer.kept)
    assert 0.3 < (first == second).float().mean() < 0.7


@pytest.mark.parametrize("p", [0.25, 0.5])
def test_dropout_keeps_as_many_as_it_says_and_the_mean(p: float) -> None:
    layer, x = Dropout(p), torch.ones(64, 4, 8, 8)
    with dropping(layer, RANDOM, torch.arange(64)):
        y = layer(x)
    assert y.unique().tolist() == [0.0, pytest.approx(1 / (1 - p))]
    kept = (y > 0).float()
    deviation = (p * (1 - p) / kept.numel()) ** 0.5
    assert abs(kept.mean() - (1 - p)) < 5 * deviation
    assert y.mean() == pytest.approx(1, abs=5 * deviation / (1 - p))
    a, b = kept[:, 0].flatten() - (1 - p), kept[:, 1].flatten() - (1 - p)
    assert abs((a * b).mean()) < 5 * p * (1 - p) / a.numel() ** 0.5  # two channels fall out independently


def test_descriptions_of_these_networks_import_no_torch() -> None:
    code = (
        "import sys; from rna_ray.networks.describe import describe as d;"
        "d('stn-mnist', width=None, image_shape=(1, 28, 28), classes=10); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
