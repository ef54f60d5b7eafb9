"""Evaluate one unit: attack a range of test images, and let the defender answer on fresh draws. One row an example."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import torch

from rna_ray.attacks import catalog
from rna_ray.attacks.base import Attack, Outcome, margin
from rna_ray.attacks.expectation import Forward, Passes
from rna_ray.attacks.make import make
from rna_ray.data import Split
from rna_ray.evaluation.batches import Batch, batches
from rna_ray.evaluation.behaviour import Behaviour, observe
from rna_ray.evaluation.knowledge import Defence, Knowledge
from rna_ray.networks.build import Network
from rna_ray.networks.paths import mode
from rna_ray.randomness import Randomness

Settings = Mapping[str, Any]
Sharing = Literal["example", "batch", "attack"]

MOST_COUNTED = 2**15 - 1
"""The most gradients of zero that a row tells of: as many as its column holds."""


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What a unit found: columns with a value an example, how the network behaved, and what else there is to say."""

    columns: dict[str, list[Any]]
    behaviour: Behaviour
    path_sharing: Sharing
    batch_statistics: bool
    """Whether images are answered with statistics of their batch, so that they hang together."""
    notes: tuple[str, ...] = ()


def evaluate(
    settings: Settings, unit_id: str, network: Network, images: Split, *, device: torch.device,
    forward: Forward | None = None, source: tuple[Network, Forward | None] | None = None,
) -> Evaluated:
    """Return the rows of one evaluate unit, for a network on `device` with its weights loaded.

    Where the settings name a `source`, that network (with itself compiled) is attacked in its stead, along draws of its
    own; this one answers the images that were found.

    Batches belong to the unit: always `batch` images, the last one padded by its own first images, whose rows are
    dropped. Every draw is a function of (unit id, example, step, draw). The network's parameters stop requiring grad.
    `forward` is the network compiled, and is used where each example takes a path of its own.
    """
    attacked = source[0] if source else network
    for one in (network, attacked):
        one.requires_grad_(False)
    knowledge = Knowledge.parse(settings["knowledge"])
    attack = make(settings["attack"], std=network.std, aggregated=knowledge.aggregated)
    sharing = path_sharing(settings, network, attacked)
    columns: dict[str, list[Any]] = {}
    notes: dict[str, None] = {}
    behaviour = None
    with mode(network, settings["eval"]), mode(attacked, settings["eval"]):
        for batch in batches(images, tuple(settings["examples"]), settings["batch"], device):
            defences = _defences(settings, unit_id, network, batch, sharing, forward)
            behaviour = behaviour or observe(defences[0], batch.x)
            victims = [_source(settings, unit_id, *source, batch)] if source else defences
            outcomes = [
                _outcome(attack, victim, defence, batch, crafting(settings))
                for victim, defence in zip(victims, defences, strict=True)
            ]
            for name, values in _rows(defences, outcomes, batch).items():
                columns.setdefault(name, []).extend(values)
            notes |= dict.fromkeys(note for outcome in outcomes for note in outcome.notes)
    assert behaviour is not None
    # A network that draws by itself may do so once for a whole batch, so nothing less can be taken for independent.
    shared = "batch" if behaviour.global_generator or not behaviour.repeats else sharing
    together = settings["eval"] != "eval" or network.batch_dependent or attacked.batch_dependent
    return Evaluated(columns, behaviour, shared, together, tuple(notes))


def crafting(settings: Settings) -> str:
    """Return the network's mode while the attack is crafted: `eval` says in which it answers."""
    return settings.get("attack_mode", settings["eval"])


def _outcome(attack: Attack, victim: Defence, defence: Defence, batch: Batch, crafted: str) -> Outcome:
    """Attack the one, and let the other answer."""
    with mode(victim.passes.network, crafted):
        found = attack.perturb(victim, batch.x, batch.y)
    return attack.answered(defence, batch.x, found)


def path_sharing(settings: Settings, network: Network, attacked: Network | None = None) -> Sharing:
    """Return who shares a draw: nobody (`example`), a `batch`, or a batch under `attack` while answers are drawn apart.

    AutoAttack and Square attack the survivors again, so that a row cannot be told to be an example: one draw a batch.
    The draws of the attack are those of the network that is `attacked`, by default the one that answers.
    """
    if settings["paths"] == "batch" and _random(settings, network):
        return "batch"
    return "attack" if _attack_shares(settings, attacked or network) else "example"


def _attack_shares(settings: Settings, attacked: Network) -> bool:
    """Return whether the attack sees one draw a batch of the network that it is crafted on."""
    of, library = settings.get("source", settings), catalog.find(settings["attack"]["name"]).library
    return _random(of, attacked) and (library == "pyautoattack" or of["paths"] == "batch")


def _random(settings: Settings, network: Network) -> bool:
    return bool(network.paths.sizes or settings["noise_255"])


def _defences(
    settings: Settings, unit_id: str, network: Network, batch: Batch, sharing: Sharing, forward: Forward | None
) -> list[Defence]:
    """Return the defences to attack: one, or under `fixed` one for each draw, as each is attacked on its own path."""
    knowledge, draws = Knowledge.parse(settings["knowledge"]), settings["draws"]
    if "source" in settings:
        knowledge = Knowledge("none")  # who attacks another network knows nothing of this one
    known = knowledge.kind == "fixed" and sharing == "attack"  # the one path of the attack is then the answer's too

    def passes(shared: bool) -> Passes:
        return Passes(
            network, forward=None if shared else forward, batch=settings["batch"],
            bf16=settings["precision"] == "bf16", shared=shared,
            # Attackers judge their own images by the answers' passes, in their own mode.
            separate="train_frozen" in (settings["eval"], crafting(settings)),
        )

    answers, attacks = passes(sharing == "batch" or known), passes(sharing != "example")
    each = range(draws) if knowledge.kind == "fixed" else range(1)
    return [
        Defence(
            answers, network.paths, Randomness(unit_id), batch.examples, knowledge,
            draws=draws // len(each), draw=draw, attack_passes=attacks, noise=settings["noise_255"] / 255,
        )
        for draw in each
    ]


def _source(
    settings: Settings, unit_id: str, network: Network, forward: Forward | None, batch: Batch
) -> Defence:
    """Return the network that is attacked in the defence's stead; its draws have other names than the defender's."""
    role, shared = settings["source"], _attack_shares(settings, network)
    passes = Passes(
        network, forward=None if shared else forward, batch=settings["batch"], bf16=role["precision"] == "bf16",
        shared=shared, separate=crafting(settings) == "train_frozen",
    )  # fmt: skip
    return Defence(
        passes, network.paths, Randomness(unit_id), batch.examples, Knowledge.parse(settings["knowledge"]),
        draws=1, noise=role["noise_255"] / 255,
    )  # fmt: skip


def _rows(defences: list[Defence], outcomes: list[Outcome], batch: Batch) -> dict[str, list[Any]]:
    natural = torch.cat([defence.answer(batch.x, "natural") for defence in defences], 1)
    attacked = torch.cat([outcome.logits for outcome in outcomes], 1)
    columns = {
        "example": batch.examples,
        "label": batch.y,
        **_answers("natural", natural, batch.y),
        **_answers("adversarial", attacked, batch.y),
        "natural_margin": margin(natural, batch.y).mean(1),
        "margin": margin(attacked, batch.y).mean(1),
        "linf": torch.stack([outcome.linf for outcome in outcomes]).mean(0),
        "l2": torch.stack([outcome.l2 for outcome in outcomes]).mean(0),
    }
    if (zero := [one.zero_gradients for one in outcomes if one.zero_gradients is not None]):
        columns["zero_gradients"] = torch.stack(zero).sum(0).clamp(max=MOST_COUNTED)
    rows = {name: values[: batch.real].cpu().tolist() for name, values in columns.items()}
    if "zero_gradients" in rows:
        rows["zero_gradients"] = [None if count < 0 else count for count in rows["zero_gradients"]]
    if outcomes[0].parts is not None:  # of several paths attacked by themselves, the first one's
        rows["part"] = list(outcomes[0].parts[: batch.real])
    return rows


def _answers(image: str, logits_NMC: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    predicted = logits_NMC.argmax(2)
    return {f"{image}_predictions": predicted, f"{image}_correct": (predicted == y[:, None]).sum(1)}
