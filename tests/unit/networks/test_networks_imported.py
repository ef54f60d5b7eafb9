"""A network of the user's own is built by his function, from the file that was planned, and tried on images."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import rna_ray
from rna_ray.errors import NetworkError
from rna_ray.networks import imported, source
from rna_ray.networks.build import Network
from rna_ray.networks.norms import Norm
from rna_ray.networks.paths import PathSpace, following
from rna_ray.networks.spaces import NormLayer, parse

HEAD = "import torch\nfrom torch import nn\n"
LINEAR = HEAD + "def build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, 10))\n"
Write = Callable[[str], dict[str, Any]]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    """Write a module `own_network` and return the settings that a plan would make of it."""

    def write(text: str, function: str = "build") -> dict[str, Any]:
        (tmp_path / "own_network.py").write_text(text, encoding="utf-8")
        return {"import": f"own_network:{function}", "source_sha256": source.sha256(tmp_path / "own_network.py")}

    return write


@pytest.fixture
def built(written: Write, tmp_path: Path) -> Callable[..., Network]:
    def build(text: str, function: str = "build", seed: int = 3, **settings: Any) -> Network:
        with source.importing(str(tmp_path)):
            return imported.build({**written(text, function), **settings}, root=str(tmp_path), seed=seed)

    return build


def norm(channels: int, space: str) -> Norm:
    layer = NormLayer(name="norm", channels=channels, height=4, width=4)
    return Norm(channels, parse(space).at(layer), name="norm")


def wrapped(body: nn.Module) -> Network:
    return Network(body, imported.path_space_of(body), mean=(0.0,), std=(1.0,), draws_globally=True)


def test_a_network_takes_images_as_they_are(built: Callable[..., Network]) -> None:
    network, x = built(LINEAR), torch.rand(5, 3, 2, 2)
    assert torch.equal(network(x), network.body(x))
    assert network.paths == PathSpace(()) and network.draws_globally


def test_its_first_weights_follow_from_the_seed_and_move_no_global_generator(built: Callable[..., Network]) -> None:
    text = LINEAR + "import numpy, random\nhere = (numpy.random.rand(), random.random(), float(torch.rand(())))\n"
    states = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    a, b, c = (built(text, seed=seed).body[1].weight for seed in (3, 3, 4))
    assert torch.equal(a, b) and not torch.equal(a, c)
    after = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    assert torch.equal(states[0], after[0]) and states[1:] == after[1:]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_library\n", r"cannot be imported on .*: ModuleNotFoundError: No module named 'no_such_libra"),
        ("import sys\nsys.exit(3)\n", "cannot be imported on .*: SystemExit: 3"),
        ("def other():\n    pass\n", r"own_network\.py has no function build$"),
        ("build = 3\n", r"own_network\.py has no function build$"),
        ("def build():\n    raise KeyError('x')\n", r"own_network:build\(\) did not return on .*: KeyError: 'x'"),
        ("def build(width):\n    pass\n", r"did not return on .*: TypeError: build\(\) missing 1 required"),
        ("def build():\n    return 3\n", r"returned an object of type int; it must return a torch\.nn\.Module"),
        (
            HEAD + "class build(nn.Module):\n    def get_extra_state(self):\n        return 3\n",
            "the state _extra_state is no tensor",
        ),
    ],
)
def test_what_does_not_give_a_network_is_told_in_a_sentence(
    text: str, said: str, built: Callable[..., Network]
) -> None:
    with pytest.raises(NetworkError, match=said) as error:
        built(text)
    assert "\n" not in str(error.value)


def test_another_file_than_was_planned_is_refused_with_the_node(built: Callable[..., Network]) -> None:
    with pytest.raises(NetworkError, match=r"own_network\.py on .* is not the file that was planned"):
        built(LINEAR, source_sha256="0" * 64)
    with pytest.raises(NetworkError, match=r"network\.import: on .* there is no module elsewhere in "):
        built(LINEAR, **{"import": "elsewhere:build"})


def test_weights_are_those_that_were_planned(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(2)}, path)
    digest = source.sha256(path)
    assert source.weights_file(str(path), digest) == path
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(NetworkError, match="is not the file that was planned: give every node the same"):
        source.weights_file(str(path), digest)
    path.unlink()
    with pytest.raises(NetworkError, match=f"has no file {path}"):
        source.weights_file(str(path), digest)


# -- paths -------------------------------------------------------------------------------------------------------------


def convolutions() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))


def test_the_paths_are_those_of_the_random_norms_inside() -> None:
    by_hand = nn.Sequential(norm(4, "BN+IN"), norm(4, "BN"), norm(4, "BN+IN+LN"))
    assert imported.path_space_of(by_hand) == PathSpace((2, 3))
    once = rna_ray.randomize(convolutions(), "BN+IN", layer_based=True)
    assert imported.path_space_of(nn.Sequential(nn.Identity(), once)) == PathSpace((2, 2), ((0, 0), (1, 1)))
    twice = nn.Sequential(rna_ray.randomize(convolutions(), "BN+IN"), rna_ray.randomize(convolutions()[3:], "BN+LN"))
    assert imported.path_space_of(twice) == PathSpace((2, 2, 2))
    assert imported.path_space_of(convolutions()) == PathSpace(())
    with pytest.raises(NetworkError, match="layer_based random norms and others beside them"):
        imported.path_space_of(nn.Sequential(once, norm(4, "BN+IN")))


def test_a_randomised_network_inside_another_follows_the_path_it_is_given() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 4, 4)
    network = wrapped(nn.Sequential(nn.Identity(), rna_ray.randomize(convolutions(), "BN+IN"))).eval()
    with following(network, torch.tensor([[0, 0], [1, 1]])):
        mixed = network(x)
    with following(network, torch.tensor([[1, 1], [1, 1]])):
        other = network(x)
    assert torch.equal(mixed[1], other[1]) and not torch.equal(mixed[0], other[0])


# -- the trial on images -----------------------------------------------------------------------------------------------

IMAGES = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))


class Body(nn.Module):
    """A network that answers as it is told to."""

    def __init__(self, answer: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> Any:
        return self.answer(x)


def logits(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1)[:, :10]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: logits(x)[:, :9], r"with logits \(4, 10\), and gave a tensor \(4, 9\) of torch\.float32"),
        (lambda x: logits(x)[:3], r"and gave a tensor \(3, 10\)"),
        (lambda x: logits(x).argmax(1), r"and gave a tensor \(4,\) of torch\.int64"),
        (lambda x: (logits(x) * 9).long(), r"of torch\.int64"),
        (lambda x: {"logits": logits(x)}, "and gave an object of type dict"),
        (lambda x: logits(x) / 0, "gave logits that are not finite"),
        (lambda x: x.view(7, 7), r"net cannot take images \(4, 3, 2, 2\) in \[0, 1\]: RuntimeError: shape '\[7, 7\]'"),
    ],
)
def test_what_does_not_map_images_to_finite_logits_is_refused(answer: Callable[..., Any], said: str) -> None:
    with pytest.raises(NetworkError, match=said):
        imported.check(wrapped(Body(answer)), IMAGES, classes=10, random=True, name="net")


RANDOM = {
    "torch's generator": Body(lambda x: logits(x) + torch.rand(())),
    "dropout that stays on": Body(lambda x: nn.functional.dropout(logits(x), 0.5, training=True)),
    "numpy's generator": Body(lambda x: logits(x) + np.random.rand()),
    "Python's generator": Body(lambda x: logits(x) + random.random()),
    "random norms": nn.Sequential(norm(3, "BN+IN"), nn.Flatten(), nn.Linear(12, 10)),
}


@pytest.mark.parametrize("name", RANDOM)
def test_who_says_that_nothing_is_random_is_held_to_it(name: str) -> None:
    network = wrapped(RANDOM[name])
    imported.check(network, IMAGES, classes=10, random=True, name="net")
    with pytest.raises(NetworkError, match="random: false was said of net, but two passes over the same 4 images"):
        imported.check(network, IMAGES, classes=10, random=False, name="net")


def test_what_is_only_random_in_training_may_say_so_and_keeps_its_mode() -> None:
    network = wrapped(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 10))).train()
    imported.check(network, IMAGES, classes=10, random=False, name="net")
    assert network.training and network.body[1].training
