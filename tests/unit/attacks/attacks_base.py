"""The victims that the tests of this room attack: a tiny network, and linear classifiers with known optima."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import nn

from rna_ray.attacks.base import Climbed, Judgement, margin
from rna_ray.attacks.expectation import Passes, cross_entropy
from rna_ray.data import digits
from rna_ray.evaluation.knowledge import Defence, Knowledge
from rna_ray.networks.build import Network, build
from rna_ray.networks.paths import PathSpace
from rna_ray.randomness import Randomness


def network(norm: str = "BN+IN", *, classes: int = 10, layer_based: bool = False) -> Network:
    settings = {"name": "resnet8", "width": 4, "norm": norm, "layer_based": layer_based, "paths": "example"}
    return build(settings, shape=(1, 8, 8), classes=classes, mean=(0.5,), std=(0.5,), seed=0).eval()


def images(n: int = 8, *, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    return low + (high - low) * torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def defence(
    built: Network, n: int = 8, knowledge: str = "transfer", *, draws: int = 1, shared: bool = False
) -> Defence:  # fmt: skip
    """Return a network as its attacker sees it; the defender's draws are an example's own."""
    return Defence(
        Passes(built), built.paths, Randomness("unit"), torch.arange(n), Knowledge.parse(knowledge),
        draws=draws, attack_passes=Passes(built, shared=shared),
    )  # fmt: skip


def labels(built: Network, x: torch.Tensor) -> torch.Tensor:
    """Return what a network of one path says, so that an attack has something to change."""
    with torch.no_grad():
        return built(x).argmax(1)


@functools.cache
def trained() -> tuple[Network, torch.Tensor, torch.Tensor]:
    """Return a small deterministic network that knows the digits, and 360 images and labels that it never saw."""
    data = digits.load()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(128, 10),
        )  # fmt: skip
        made = Network(body, PathSpace(()), mean=(0.3,), std=(0.4,))
        images, labels = torch.from_numpy(data.train.images).float() / 255, torch.from_numpy(data.train.labels)
        weights = list(made.parameters())
        for _ in range(150):  # by hand: torch.optim takes seconds to import
            some = torch.randperm(len(images))[:100]
            loss = nn.functional.cross_entropy(made(images[some]), labels[some])
            with torch.no_grad():
                for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                    weight -= 0.2 * gradient
    x, y = torch.from_numpy(data.test.images).float() / 255, torch.from_numpy(data.test.labels)
    return made.requires_grad_(False).eval(), x, y


def shorten_libraries(monkeypatch: pytest.MonkeyPatch, *, steps: int = 3, queries: int = 30) -> None:
    """Let AutoAttack's parts make few steps instead of 100, of 2 draws where of 20, and few queries of 5,000."""

    def shortened(kind: type, **short: int) -> None:
        plain = kind.__init__  # type: ignore[misc]

        def init(self: Any, *arguments: Any, **options: Any) -> None:
            plain(self, *arguments, **options | {name: min(n, options.get(name, n)) for name, n in short.items()})

        monkeypatch.setattr(kind, "__init__", init)

    shortened(APGDAttack, n_iter=steps, eot_iter=2)
    shortened(FABAttack_PT, n_iter=steps)
    shortened(SquareAttack, n_queries=queries)


class Linear:
    """A linear classifier, x → xW + b: what the nearest other class is, and how far, is known."""

    def __init__(self, classes: int, n: int = 4, *, bias: float = 0.0, scale: float = 0.3) -> None:
        generator = torch.Generator().manual_seed(1)
        self.weight = scale * torch.randn(64, classes, generator=generator)
        self.bias = bias
        self.random, self.examples = Randomness("unit"), torch.arange(n)
        self.first_draw, self.steady, self.together = 0, True, False
        self.loss = cross_entropy

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 0.5).flatten(1) @ self.weight + self.bias

    def gradient(self, x: torch.Tensor, y: torch.Tensor, *, step: int) -> torch.Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self.loss(self.logits(x)[None], y), x)[0]

    def climbing(self, loss: Climbed) -> Linear:
        other = copy.copy(self)
        other.loss = loss
        return other

    def expected_margin(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return margin(self.logits(x)[:, None], y)[:, 0]

    def seed(self, name: str) -> int:
        return self.random.seed(name)

    def answer(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits(x)[:, None].detach()

    def judge(self, x: torch.Tensor, y: torch.Tensor) -> Judgement:
        logits = self.answer(x)
        return Judgement((logits.argmax(2) == y[:, None]).float().mean(1), margin(logits, y).mean(1))

    def members(self, x: torch.Tensor) -> list[Callable[[torch.Tensor], torch.Tensor]]:
        return [self.logits]

    def rows(self, index: torch.Tensor, part: str = "") -> Linear:
        some = copy.copy(self)
        some.examples = self.examples[index]
        return some

    def distance(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the l2 distance (N,) from each image to the nearest border of its class."""
        logits = self.logits(x)
        gaps = logits.gather(1, y[:, None]) - logits
        lengths = (self.weight[:, y].T[:, :, None] - self.weight[None]).norm(dim=1)
        return torch.where(lengths > 0, gaps / lengths, torch.inf).amin(1)


class Mixture(Linear):
    """A randomised ensemble of linear classifiers, each as likely as the others, of which the attacker knows all.

    Its gradient is the mean over the members, as under `enumerate`; its answer is that of every member.
    """

    def __init__(self, weights: torch.Tensor, biases: torch.Tensor, n: int = 4) -> None:
        super().__init__(weights.shape[2], n)
        self.weights, self.biases = weights, biases  # (members, 64, classes), (members, classes)

    def gradient(self, x: torch.Tensor, y: torch.Tensor, *, step: int) -> torch.Tensor:
        x = x.detach().requires_grad_()
        losses = [nn.functional.cross_entropy(member(x), y, reduction="sum") for member in self.members(x)]
        # One by one, so that opposite gradients cancel to the last bit.
        return torch.stack([torch.autograd.grad(loss, x)[0] for loss in losses]).mean(0)

    def seed(self, name: str) -> int:
        return self.random.seed(name)

    def answer(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([member(x) for member in self.members(x)], 1).detach()

    def members(self, x: torch.Tensor) -> list[Callable[[torch.Tensor], torch.Tensor]]:
        def member(number: int) -> Callable[[torch.Tensor], torch.Tensor]:
            return lambda images: (images - 0.5).flatten(1) @ self.weights[number] + self.biases[number]

        return [member(number) for number in range(len(self.weights))]
