"""How many units fit, and how the machine is shared between training and evaluation. Pure functions."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rna_ray.errors import ResourceError
from rna_ray.sweep.sections import Share

Node = Mapping[str, float]  # a node's resources as Ray names them: {"CPU": 8, "GPU": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeType:
    """A kind of node that an autoscaler may start, up to so many of it."""

    name: str
    resources: Node
    """Empty where the autoscaler does not say."""
    most: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Growth:
    """What an autoscaler may start: nodes of some types, up to `most` of all."""

    types: tuple[NodeType, ...]
    most: int

    def text(self) -> str:
        """Return it in words."""
        return ", ".join(
            f"up to {min(one.most, self.most)} {one.name} "
            + (f"({one.resources.get('CPU', 0):g} CPU, {one.resources.get('GPU', 0):g} GPU)" if one.resources else
               "(it does not say how large)")
            for one in self.types
        )

    def guessed(self, *shares: Share) -> Growth:
        """Return the same, nodes of an unknown size taken to hold one unit of the largest of some shares."""
        size = {"CPU": max(share.cpu for share in shares), "GPU": max(share.gpu for share in shares)}
        types = tuple(dataclasses.replace(one, resources=one.resources or size) for one in self.types)
        return dataclasses.replace(self, types=types)


def growth(config: Mapping[str, Any]) -> Growth:
    """Return what the configuration of Ray's cluster launcher lets its autoscaler start."""
    most, head = config.get("max_workers", 0), config["head_node_type"]
    types = tuple(
        NodeType(name=name, resources=one.get("resources") or {}, most=limit)
        for name, one in config["available_node_types"].items()
        if (limit := one.get("max_workers", 0 if name == head else most))
    )
    return Growth(types=types, most=most)


def grown(nodes: Sequence[tuple[str | None, Node]], may: Growth) -> list[Node]:
    """Return the nodes that there are, each given with the name of its type, and all that may be added to them."""
    alive = Counter(name for name, _ in nodes)
    left = may.most - sum(alive[one.name] for one in may.types)
    added: list[Node] = []
    for one in may.types:
        added += [one.resources] * max(0, min(one.most - alive[one.name], left - len(added)))
    return [*(node for _, node in nodes), *added]


def count(nodes: Sequence[Node], share: Share) -> int:
    """Return how many units of a share fit on the nodes at once; a unit never spans two nodes."""
    return sum(_on_node(node, share) for node in nodes)


def check(nodes: Sequence[Node], share: Share, kind: str, *, grows: bool = False) -> None:
    """Raise ResourceError where no node can hold even one unit: Ray would wait for ever.

    `grows` says that nodes are among them which an autoscaler may add.
    """
    if count(nodes, share) == 0:
        cluster = "the cluster and of what its autoscaler may add" if grows else "the cluster"
        most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in ("CPU", "GPU")}
        raise ResourceError(
            f"resources.{kind} asks for {share.cpu:g} CPU and {share.gpu:g} GPU a unit, but the largest node of "
            f"{cluster} has {most['CPU']:g} CPU and {most['GPU']:g} GPU; ask for less, or add a larger node"
        )


def trials_at_once(
    nodes: Sequence[Node], train: Share, evaluate: Share, *, train_cost: float, evaluate_cost: float, wanted: bool
) -> int:
    """Return how many trials may run at once; no slot is kept for evaluators that have nothing to do.

    All that fit, unless evaluators are `wanted` now and find no place beside so many. Then slots are divided as the
    estimated work is, and both get at least one where there are two.
    """
    most = max(count(nodes, train), 1)
    if most == 1 or not wanted or evaluators(nodes, evaluate, train, trials=most, most=None):
        return most
    fair = round(most * train_cost / (train_cost + evaluate_cost))
    return min(max(fair, 1), most - 1)


def evaluators(nodes: Sequence[Node], evaluate: Share, train: Share, *, trials: int, most: int | None) -> int:
    """Return how many evaluators may live beside this many trials; 0 means that they wait until training ends.

    A wrong count costs waiting, never a deadlock: every unit takes all it needs in one step, and evaluators leave.
    """
    total = {"CPU": sum(node.get("CPU", 0) for node in nodes), "GPU": sum(node.get("GPU", 0) for node in nodes)}
    left = {"CPU": total["CPU"] - trials * train.cpu, "GPU": total["GPU"] - trials * train.gpu}
    fit = count(nodes, evaluate) if not trials else min(count(nodes, evaluate), max(_on_node(left, evaluate), 0))
    return fit if most is None else min(fit, most)


def _on_node(node: Node, share: Share) -> int:
    asked = {"CPU": share.cpu, "GPU": share.gpu}
    fits = [int(node.get(name, 0) / amount + 1e-9) for name, amount in asked.items() if amount]
    return min(fits) if fits else 1
