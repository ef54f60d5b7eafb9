"""Training under noise, networks without norms and Adam in plans: what counts, what is settled, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from sweep_base import BASE, Planned

from rna_ray.errors import SweepError
from rna_ray.sweep import units
from rna_ray.sweep.plan import Plan, plan
from rna_ray.sweep.spec import load

STN = """\
name: stn
data: {name: mnist, held_out: 512}
network: {name: stn-mnist}
noise_255: 178.5
training:
  {objective: natural, epochs: 3, optimizer: adam, lr: 0.001, schedule: {name: constant}, loss: {name: stability}}
evaluation:
  - {attack: natural, examples: 200}
"""


def trained(plan: Plan) -> dict[str, Any]:
    (unit,) = [unit for unit in plan.units if unit.kind == "train"]
    return dict(unit.settings)


def test_a_stability_training_leaves_no_default_out(planned: Planned) -> None:
    found = planned(STN)
    settings = trained(found)
    assert settings["network"] == {
        "name": "stn-mnist", "width": 64, "norm": "none", "layer_based": False, "paths": "example"
    }  # fmt: skip
    assert settings["training"] == {
        "objective": "natural", "epochs": 3, "batch": 128, "lr": 0.001, "weight_decay": 5e-4, "optimizer": "adam",
        "schedule": {"name": "constant"}, "augment": "none", "attack": None, "attack_mode": None, "noise_255": 178.5,
        "loss": {"name": "stability", "gamma": 1.0, "target": "softmax"},
    }  # fmt: skip
    assert {trial.variant for trial in found.trials} == {"stn-mnist"}


@pytest.mark.parametrize(
    "same",
    [
        "training.noise_255=178.5", "training.momentum=0.5", "training.loss.gamma=1", "training.loss.target=softmax",
        "network.norm=none", "network.norm=null", "network.last_norm=none", "network.activation=relu",
        "network.paths=batch", "network.layer_based=true", "network.width=64",
    ],
)  # fmt: skip
def test_what_is_so_anyway_does_not_count(planned: Planned, same: str) -> None:
    assert trained(planned(STN, same)) == trained(planned(STN))


@pytest.mark.parametrize("same", ["training.noise_255=0", "training.optimizer=sgd", "network.activation=relu"])
def test_settings_that_came_later_stand_only_where_they_are_not_what_was_before(planned: Planned, same: str) -> None:
    assert planned(BASE, same).units == planned().units
    settings = trained(planned())
    assert not {"noise_255", "optimizer", "activation"} & {*settings["training"], *settings["network"]}


def test_ids_of_a_sweep_that_was_there_before_are_what_they_were() -> None:
    """The digests of all ids, taken before there were noise in training, Adam, and networks without norms."""
    found = plan(load("sweeps/rna-table5.yaml", ("evaluation.6.examples=100",), "small"), digest=lambda data: data.name)
    assert units.digest([unit.id for unit in found.units]) == "a32adface50ddb1df76f8c667a045dc9"


def test_stn_cifar10_is_elu_unless_another_activation_is_stated(planned: Planned) -> None:
    own = trained(planned(STN, "data.name=cifar10", "network.name=stn-cifar10"))["network"]
    assert (own["activation"], own["width"]) == ("elu", 96)
    relu = trained(planned(STN, "data.name=cifar10", "network.name=stn-cifar10", "network.activation=relu"))
    assert "activation" not in relu["network"]  # relu stands in no settings, whichever network has it


def test_a_variant_may_learn_without_the_noise_under_which_it_answers(planned: Planned) -> None:
    variants = "variants={stn: {}, plain: {training.loss.name: cross-entropy, training.noise_255: 0}}"
    found = planned(STN, variants)
    noises = [unit.settings["training"].get("noise_255") for unit in found.units if unit.kind == "train"]
    answers = {unit.settings["noise_255"] for unit in found.units if unit.kind == "evaluate"}
    assert noises == [178.5, None] and answers == {178.5}


REFUSED = {
    ("network.norm=BN",): r"network\.norm: stn-mnist has no norm layers, so BN cannot stand there; allowed is none",
    ("network.last_norm=BN",): r"network\.last_norm: stn-mnist has no norm layers, so BN cannot",
    ("network.name=resnet8",): r"network\.norm: missing",
    ("data.name=digits",): r"stn-mnist has two 5x5 convolutions .* images of 8x8 pixels are too small; allowed are 9x9",
    ("noise_255=0",): r"training\.loss\.name: stability compares images with noisy ones, and there is no noise; state",
    ("training.noise_255=0",): r"training\.loss\.name: .* there is no noise; state training\.noise_255 above 0",
    ("training.objective=whitebox",): r"training\.loss\.name: stability .* objective whitebox attacks them; write obj",
    ("training.loss={gamma: 2}",): r"training\.loss\.name: missing beside training\.loss\.gamma; write stability",
    ("training.loss={target: logits}",): r"training\.loss\.name: missing beside training\.loss\.target; write stab",
    ("training.loss.gamma=0",): r"training\.loss\.gamma: 0.* is not above 0",
    ("training.noise_255=-1",): r"training\.noise_255: -1.* is not at least 0",
    ("training.optimizer=rmsprop",): r"training\.optimizer: .* 'sgd' or 'adam'",
}


@pytest.mark.parametrize("sets", REFUSED)
def test_what_does_not_go_together_is_refused_by_its_key(planned: Planned, sets: tuple[str, ...]) -> None:
    with pytest.raises(SweepError, match=REFUSED[sets]):
        planned(STN, *sets)


def test_a_stability_training_costs_two_passes_an_update(planned: Planned) -> None:
    costs = []
    for sets in ((), ("training.loss.name=cross-entropy",)):
        found = planned(STN, *sets)
        costs.append(found.costs[next(unit.id for unit in found.units if unit.kind == "train")])
    assert costs[0] == 2 * costs[1] > 0
