"""Evaluate one unit: attack a range of test images, and let the defender answer on fresh draws. One row an example."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch

from rna_ray.attacks import catalog
from rna_ray.attacks.base import Attack
from rna_ray.attacks.expectation import Forward, Passes
from rna_ray.attacks.make import make
from rna_ray.data import Split
from rna_ray.evaluation.knowledge import Defence, Knowledge
from rna_ray.networks.build import Network
from rna_ray.networks.paths import mode
from rna_ray.randomness import Randomness

Settings = Mapping[str, Any]
Sharing = Literal["example", "batch", "attack"]


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What a unit found: columns with a value an example, and what the attack library said."""

    columns: dict[str, list[Any]]
    flags: dict[str, Any]
    path_sharing: Sharing


def evaluate(
    settings: Settings, unit_id: str, network: Network, images: Split, *, device: torch.device,
    forward: Forward | None = None,
) -> Evaluated:
    """Return the rows of one evaluate unit, for a network on `device` with its weights loaded.

    Batches belong to the unit: always `batch` images, the last one padded by its own first images, whose rows are
    dropped. Every draw is a function of (unit id, example, step, draw). The network's parameters stop requiring grad.
    """
    start, stop = settings["examples"]
    network.requires_grad_(False)
    attack, sharing = make(settings["attack"]), path_sharing(settings, network)
    columns: dict[str, list[Any]] = {}
    with mode(network, settings["eval"]):
        for first in range(start, stop, settings["batch"]):
            batch = _Batch.cut(images, first, min(first + settings["batch"], stop), settings["batch"], device)
            defences = _defences(settings, unit_id, network, batch, sharing, forward)
            for name, values in _rows(attack, defences, batch).items():
                columns.setdefault(name, []).extend(values)
    if sharing == "attack":
        attack.flags["untouched"] = columns["linf"].count(0.0)
    return Evaluated(columns, attack.flags, sharing)


def path_sharing(settings: Settings, network: Network) -> Sharing:
    """Return who shares a path: nobody (`example`), a `batch`, or a batch under `attack` while answers are drawn apart.

    AutoAttack and Square attack the survivors again, so that a row cannot be told to be an example: one path a batch.
    """
    if not network.paths.sizes:
        return "example"
    if settings["paths"] == "batch":
        return "batch"
    return "attack" if catalog.find(settings["attack"]["name"]).library == "pyautoattack" else "example"


@dataclasses.dataclass(frozen=True)
class _Batch:
    x: torch.Tensor
    y: torch.Tensor
    examples: torch.Tensor
    real: int
    """How many images are not padding."""

    @classmethod
    def cut(cls, images: Split, start: int, stop: int, size: int, device: torch.device) -> _Batch:
        index = np.resize(np.arange(start, stop), size)
        x = torch.from_numpy(images.images[index]).to(device).float() / 255
        y = torch.from_numpy(images.labels[index]).to(device)
        return cls(x, y, torch.from_numpy(index).to(device), stop - start)


def _defences(
    settings: Settings, unit_id: str, network: Network, batch: _Batch, sharing: Sharing, forward: Forward | None
) -> list[Defence]:
    """Return the defences to attack: one, or under `fixed` one for each draw, as each is attacked on its own path."""
    knowledge, draws = Knowledge.parse(settings["knowledge"]), settings["draws"]
    known = knowledge.kind == "fixed" and sharing == "attack"  # the one path of the attack is then the answer's too

    def passes(shared: bool) -> Passes:
        return Passes(
            network, forward=forward, bf16=settings["precision"] == "bf16", shared=shared,
            separate=settings["eval"] != "eval",
        )

    answers, attacks = passes(sharing == "batch" or known), passes(sharing != "example")
    each = range(draws) if knowledge.kind == "fixed" else range(1)
    return [
        Defence(
            answers, network.paths, Randomness(unit_id), batch.examples, knowledge,
            draws=draws // len(each), draw=draw, attack_passes=attacks,
        )
        for draw in each
    ]


def _rows(attack: Attack, defences: list[Defence], batch: _Batch) -> dict[str, list[Any]]:
    natural = torch.cat([defence.answer(batch.x, "natural") for defence in defences], 1)
    outcomes = [attack(defence, batch.x, batch.y) for defence in defences]
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
    return {name: values[: batch.real].cpu().tolist() for name, values in columns.items()}


def _answers(image: str, logits_NMC: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    predicted = logits_NMC.argmax(2)
    return {f"{image}_predictions": predicted, f"{image}_correct": (predicted == y[:, None]).sum(1)}


def margin(logits_NMC: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return (N, m): the true class's logit minus the largest other one; negative where misclassified."""
    index = y.view(-1, 1, 1).expand(-1, logits_NMC.shape[1], 1)
    return logits_NMC.gather(2, index)[..., 0] - logits_NMC.scatter(2, index, -torch.inf).amax(2)
