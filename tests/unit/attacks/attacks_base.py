"""The victims that the tests of this room attack: a tiny network, and linear classifiers with known optima."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from rna_ray.attacks.base import Judgement, margin
from rna_ray.attacks.expectation import Passes
from rna_ray.evaluation.knowledge import Defence, Knowledge
from rna_ray.networks.build import Network, build
from rna_ray.randomness import Randomness


def network(norm: str = "BN+IN", *, classes: int = 10) -> Network:
    settings = {"name": "resnet8", "width": 4, "norm": norm, "layer_based": False, "paths": "example"}
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


class Linear:
    """A linear classifier, x → xW + b: what the nearest other class is, and how far, is known."""

    def __init__(self, classes: int, n: int = 4, *, bias: float = 0.0, scale: float = 0.3) -> None:
        generator = torch.Generator().manual_seed(1)
        self.weight = scale * torch.randn(64, classes, generator=generator)
        self.bias = bias
        self.random, self.examples = Randomness("unit"), torch.arange(n)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 0.5).flatten(1) @ self.weight + self.bias

    def gradient(self, x: torch.Tensor, y: torch.Tensor, *, step: int) -> torch.Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(torch.nn.functional.cross_entropy(self.logits(x), y, reduction="sum"), x)[0]

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
