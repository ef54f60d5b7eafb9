"""The mode in which an attack is crafted, apart from that in which the network answers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from evaluation_base import evaluated, network, settings, split

from rna_ray.evaluation.evaluate import evaluate
from rna_ray.networks.build import Network
from rna_ray.networks.paths import mode

EPS, STEP, STEPS = 16 / 255, 4 / 255, 3
ASKED: dict[str, Any] = {
    "attack": "bim", "attack_eps_255": 16.0, "attack_step_255": 4.0, "attack_steps": STEPS, "knowledge": "fixed",
    "draws": 1, "examples": (0, 12),
}  # fmt: skip


def learned() -> Network:
    """Return a BN network whose running statistics are not those of a batch."""
    made = network("BN")
    for at in range(3):
        made.train()(torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(at)) ** 2)
    return made.eval()


def by_hand(made: Network, crafted: str) -> tuple[list[list[int]], list[float]]:
    """Return predictions and linf: attacked batch by batch in one mode of torch's, answered in eval mode."""
    images = torch.from_numpy(split().images[:12]).float() / 255
    labels = torch.from_numpy(split().labels[:12])
    predictions, far = [], []
    for x, y in zip(images.split(4), labels.split(4), strict=True):
        attacked = copy.deepcopy(made).train(crafted != "eval")  # a copy's running statistics may move
        x_adv = x
        for _ in range(STEPS):
            x_adv = x_adv.detach().requires_grad_()
            loss = torch.nn.functional.cross_entropy(attacked(x_adv), y)
            (gradient,) = torch.autograd.grad(loss, x_adv)
            x_adv = (x_adv + STEP * gradient.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
        with torch.no_grad():
            predictions += made.eval()(x_adv.detach()).argmax(1, keepdim=True).tolist()
        far += (x_adv - x).detach().flatten(1).norm(dim=1).tolist()
    return predictions, far


@pytest.mark.parametrize("crafted", ["eval", "train_frozen"])
def test_crafted_in_one_mode_and_answered_in_eval_is_what_it_is_by_hand(crafted: str) -> None:
    made = learned()
    before = {key: tensor.clone() for key, tensor in made.state_dict().items()}
    found = evaluated(made, attack_mode=crafted, **ASKED).columns
    predictions, far = by_hand(made, crafted)
    assert found["adversarial_predictions"] == predictions
    assert found["l2"] == pytest.approx(far, abs=1e-5)
    assert all(torch.equal(tensor, before[key]) for key, tensor in made.state_dict().items())


def test_the_mode_makes_another_attack_and_the_same_clean_answers() -> None:
    made = learned()
    running, batch, answered = (
        evaluated(made, **ASKED, **given).columns
        for given in ({}, {"attack_mode": "train_frozen"}, {"eval": "train_frozen", "attack_mode": "eval"})
    )
    assert running == evaluated(made, attack_mode="eval", **ASKED).columns
    assert batch["natural_predictions"] == running["natural_predictions"]
    assert batch["margin"] != running["margin"] and batch["l2"] != running["l2"]
    assert answered["l2"] == running["l2"] and answered["margin"] != running["margin"]


def test_draws_that_see_batch_statistics_are_passes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attacker judges its restarts in the mode in which it crafts: ten draws there are ten batches."""
    made, sizes = network("BN+IN"), []
    plain = Network.forward

    def forward(self: Network, x: torch.Tensor) -> torch.Tensor:
        sizes.append((self.training, len(x)))
        return plain(self, x)

    monkeypatch.setattr(Network, "forward", forward)
    asked = settings(knowledge="eot-2", attack_mode="train_frozen", attack_restarts=2, draws=3, batch=4)
    evaluate(asked, "unit", made, split(), device=torch.device("cpu"))
    crafted = [size for training, size in sizes if training]
    assert set(crafted) == {4} and len(crafted) == 2 * (2 * 3 * 2 + 2 * 10)  # batches · (starts · steps · k + judged)
    with mode(made, "eval"):
        assert not made.training
