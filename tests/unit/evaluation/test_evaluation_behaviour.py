"""What is seen of a network while it answers: columns of every evaluation."""

from __future__ import annotations

import pytest
import torch
from evaluation_base import evaluated, network, split
from torch import nn
from torch.autograd import grad

from rna_ray.data import Split
from rna_ray.evaluation.behaviour import IMAGES, LOOKS, Behaviour
from rna_ray.networks.build import Network
from rna_ray.networks.paths import PathSpace


class Body(nn.Module):
    """A linear classifier of as many classes, whose logits a test may change."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(64, classes, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight


class Softmax(Body):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).softmax(1)


class LogSoftmax(Body):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).log_softmax(1)


class Optimising(Body):
    """Takes a step towards what it believes before it answers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (step,) = self.taken(super().forward(x).amax(1).sum(), x)
        return super().forward(x + 0.1 * step)

    def taken(self, loss: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(loss, x)


class Backward(Optimising):
    def taken(self, loss: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        loss.backward()
        assert x.grad is not None
        return (x.grad,)


class Imported(Optimising):
    """Knows torch's function by a name of its own, from before anyone looked."""

    def taken(self, loss: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return grad(loss, x)


class Functional(Optimising):
    def taken(self, loss: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (torch.func.grad(lambda image: Body.forward(self, image).amax(1).sum())(x),)


def binary() -> Split:
    return Split(images=split().images, labels=split().labels % 2)


def seen(body: nn.Module) -> Behaviour:
    made = Network(body, PathSpace(()), mean=(0.5,), std=(0.5,))
    return evaluated(made, binary(), attack="natural", draws=1).behaviour


PLAIN = {
    "random_output": False, "softmax_output": False, "optimizes": False, "global_generator": False, "repeats": True,
}  # fmt: skip


@pytest.mark.parametrize("classes", [2, 4, 100])
def test_a_plain_network_only_has_classes(classes: int) -> None:
    assert seen(Body(classes)) == Behaviour(classes=classes, **PLAIN)


@pytest.mark.parametrize(("body", "softmax"), [(Softmax, True), (LogSoftmax, False), (Body, False)])
def test_probabilities_are_no_logits(body: type[Body], softmax: bool) -> None:
    assert seen(body()) == Behaviour(classes=4, **PLAIN | {"softmax_output": softmax})


@pytest.mark.parametrize("body", [Optimising, Backward, Imported, Functional])
def test_a_gradient_taken_while_answering_is_noticed_however_it_is_called(body: type[Body]) -> None:
    before = torch.autograd._make_grads
    assert seen(body()) == Behaviour(classes=4, **PLAIN | {"optimizes": True})
    assert torch.autograd._make_grads is before


@pytest.mark.parametrize(
    ("norm", "noise", "random"), [("BN", 0.0, False), ("BN+IN", 0.0, True), ("BN", 8.0, True), ("IN", 0.0, False)]
)
@pytest.mark.parametrize("attack", ["natural", "pgd"])
def test_random_answers_are_noticed_and_the_attacks_own_gradients_are_not(
    attack: str, norm: str, noise: float, random: bool
) -> None:
    found = evaluated(network(norm), attack=attack, noise_255=noise).behaviour
    assert found == Behaviour(classes=10, **PLAIN | {"random_output": random})


def test_every_batch_counts_for_the_rows_but_one_is_looked_at() -> None:
    calls: list[int] = []

    class Counted(Body):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(len(x))
            return super().forward(x)

    made = Network(Counted(), PathSpace(()), mean=(0.5,), std=(0.5,))
    evaluated(made, binary(), attack="natural", draws=1, examples=(0, 24))
    assert calls == [4] * (1 + LOOKS + 2 * 6)  # the looks, one of them twice; each batch clean and attacked


@pytest.mark.parametrize(("evaluated_in", "images"), [("eval", IMAGES), ("train_frozen", 20)])
def test_a_few_images_are_looked_at_and_all_of_a_batch_that_hang_together(evaluated_in: str, images: int) -> None:
    calls: list[int] = []
    made = network("BN")
    made.register_forward_hook(lambda module, given, answer: calls.append(len(answer)))
    evaluated(made, attack="natural", draws=1, batch=20, examples=(0, 20), eval=evaluated_in)
    assert calls == [images] * (1 + LOOKS) + [20] * 2


class Private(Body):
    """Draws from a generator of its own, which nobody else can seed."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + torch.randn((len(x), 4), generator=self.generator)


def test_a_generator_of_the_networks_own_shows_as_answers_that_do_not_repeat() -> None:
    assert seen(Private()) == Behaviour(classes=4, **PLAIN | {"random_output": True, "repeats": False})
