"""An attack crafted on another network: along its draws, with nothing of those that answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from evaluation_base import CPU, evaluated, network, settings, split

from rna_ray.attacks.expectation import Draws, Passes
from rna_ray.attacks.make import make
from rna_ray.evaluation.batches import Batch
from rna_ray.evaluation.evaluate import Evaluated, evaluate
from rna_ray.evaluation.knowledge import Defence, Knowledge
from rna_ray.networks.build import Network, build
from rna_ray.randomness import Randomness


def other(norm: str = "BN") -> Network:
    made = {"name": "resnet8", "width": 4, "norm": norm, "layer_based": False, "paths": "example"}
    return build(made, shape=(1, 8, 8), classes=10, mean=(0.5,), std=(0.5,), seed=7)


def transferred(
    source: Network, target: Network, *, noise_255: float = 0.0, paths: str = "example", **given: Any
) -> Evaluated:
    role = {"id": "s", "checkpoint": "last", "paths": paths, "noise_255": noise_255, "precision": "fp32"}
    asked = settings(**{"source": role, "knowledge": "transfer", **given})
    return evaluate(asked, "unit", target, split(), device=CPU, source=(source, None))


def test_the_image_is_found_on_the_one_and_answered_by_the_other() -> None:
    source, target = other(), network("BN")
    found = transferred(source, target, knowledge="fixed", draws=1, examples=(0, 4)).columns
    batch = Batch.cut(split(), 0, 4, 4, CPU)
    victim = Defence(
        Passes(source.eval()), source.paths, Randomness("unit"), batch.examples, Knowledge("fixed"), draws=1
    )
    x_adv = make(settings()["attack"]).perturb(victim, batch.x, batch.y).x_adv
    with torch.no_grad():
        assert [one for (one,) in found["adversarial_predictions"]] == target.eval()(x_adv).argmax(1).tolist()
        assert [one for (one,) in found["natural_predictions"]] == target(batch.x).argmax(1).tolist()
    assert found["linf"] == pytest.approx([8 / 255] * 4)
    own = evaluated(target, knowledge="fixed", draws=1, examples=(0, 4)).columns
    assert own["margin"] != found["margin"] and own["natural_margin"] == found["natural_margin"]


def test_no_draw_of_the_attack_is_one_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = other("BN+IN"), network("BN+IN")
    gradients: list[tuple[Network, Draws]] = []
    answers: list[tuple[Network, Draws]] = []
    plain = Passes.gradient, Passes.logits

    def gradient(self: Passes, x: torch.Tensor, y: torch.Tensor, draws: Draws) -> torch.Tensor:
        gradients.append((self.network, draws))
        return plain[0](self, x, y, draws)

    def logits(self: Passes, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        answers.append((self.network, draws))
        return plain[1](self, x, draws)

    monkeypatch.setattr(Passes, "gradient", gradient)
    monkeypatch.setattr(Passes, "logits", logits)
    found = transferred(source, target, knowledge="eot-4", draws=5, examples=(0, 4))
    assert {made for made, _ in gradients} == {source} and {made for made, _ in answers} == {target}
    assert [len(draws) for _, draws in gradients] == [4] * 3
    of_answers = {path.numpy().tobytes() for _, draws in answers for path in draws.paths}
    assert not of_answers & {path.numpy().tobytes() for _, draws in gradients for path in draws.paths}
    assert {len(one) for one in found.columns["adversarial_predictions"]} == {5}
    assert found.path_sharing == "example"


def test_a_random_network_answers_afresh_what_was_found_on_a_plain_one() -> None:
    """`fixed` says of a plain source that it has one draw; those that answer are not known, nor attacked one by one."""
    found = transferred(other(), network("BN+IN"), knowledge="fixed", draws=6)
    own = evaluated(network("BN+IN"), draws=6)
    assert found.columns["natural_predictions"] == own.columns["natural_predictions"]
    assert {len(one) for one in found.columns["adversarial_predictions"]} == {6}
    assert max(found.columns["linf"]) == pytest.approx(8 / 255)


@pytest.mark.parametrize(
    ("source", "target", "attack", "paths", "sharing"),
    [
        ("BN+IN", "BN", "pgd", "example", "example"),
        ("BN+IN", "BN", "pgd", "batch", "attack"),
        ("BN+IN", "BN", "square", "example", "attack"),
        ("BN", "BN+IN", "square", "example", "example"),
    ],
)
def test_who_shared_a_draw_is_said_of_the_source(
    source: str, target: str, attack: str, paths: str, sharing: str
) -> None:
    more = {"attack_queries": 5} if attack == "square" else {}
    more |= {"attack": attack, "knowledge": "fixed" if source == "BN" else "transfer", "examples": (0, 4)}
    assert transferred(other(source), network(target), paths=paths, **more).path_sharing == sharing


def test_noise_of_the_source_is_its_own() -> None:
    quiet, loud = (
        transferred(other(), network("BN"), noise_255=noise, draws=1, examples=(0, 4), attack_steps=1).columns
        for noise in (0.0, 100.0)
    )
    assert quiet["natural_margin"] == loud["natural_margin"]  # the defender adds none
    assert quiet["margin"] != loud["margin"]
