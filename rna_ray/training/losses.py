"""What an update minimises, and what the attack inside training climbs.

With f the network, x an image, x' the same under attack or with noise, p = softmax f(x), p' = softmax f(x') and y the
label:

    cross-entropy   CE(f(x'), y); without an attack CE(f(x), y)
    mixed           [CE(f(x), y) + CE(f(x'), y)] / 2                                    (Goodfellow et al. 2015)
    trades          CE(f(x), y) + beta·KL(p ‖ p')                                       (Zhang et al. 2019)
    mart            -log p'_y - log(1 - max_{k≠y} p'_k) + beta·KL(p ‖ p')·(1 - p_y)     (Wang et al. 2020)
    stability       CE(f(x), y) - gamma·Σ_k t_k log p'_k, where t is p                  (STN, Section 5.1)

is minimised, each the mean over a batch, differentiated through p too, as published. The attack climbs cross-entropy,
but for TRADES KL(p ‖ p') with p as it is before the attack, from a little Gaussian noise: at x itself the divergence is
flat.

In stability training x' is x with Gaussian noise, not clipped. The target `logits` puts t = f(x), the raw logits, in
the place of probabilities, and holds it constant, as STN's later code does (its framework passes no gradient to
labels). That has no minimum, for t may be negative: logits soon feed their own growth, and with gamma 1 we saw nothing
learned.

The update's passes over x and x' follow one path, in this order, each a batch of its own: both move the running
statistics. The attack's two passes follow the attacker's path, in the mode that `training.attack_mode` says (the
published ones attack in eval mode).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch.nn import functional as F

from rna_ray.evaluation.knowledge import Defence

Answer = Callable[[torch.Tensor], torch.Tensor]
"""Images (N, C, H, W) → logits (N, classes), along the path of the update."""

Measured = tuple[torch.Tensor, torch.Tensor]
"""A batch's mean loss, and the logits (N, classes) of its attacked or noisy images in the same pass."""

START = 0.001
"""The standard deviation of the noise from which TRADES attacks, where its ε is measured: that of its published code,
whose networks take [0, 1] pixels as they are."""


@final
class Loss:
    """The loss of a training, by the `loss` of its settings; None is cross-entropy."""

    def __init__(self, settings: Mapping[str, Any] | None) -> None:
        given = settings or {"name": "cross-entropy"}
        self.name, self.beta = given["name"], given.get("beta", 0.0)
        self.gamma, self.target = given.get("gamma", 0.0), given.get("target")
        self._loss = {
            "cross-entropy": self._cross_entropy, "mixed": self._mixed, "trades": self._trades, "mart": self._mart,
            "stability": self._stability,
        }[self.name]  # fmt: skip

    def __call__(self, answer: Answer, x: torch.Tensor, x_adv: torch.Tensor, y: torch.Tensor) -> Measured:
        """Return the mean loss of the images x and their attacked or noisy selves (N, C, H, W) with labels y (N,)."""
        return self._loss(answer, x, x_adv, y)

    def attack(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of the attack inside training with the start that this loss asks for."""
        return {**settings, "random_start": False, "start_noise": START} if self.name == "trades" else {**settings}

    def victim(self, defence: Defence, x: torch.Tensor) -> Defence:
        """Return a defence of the images x as the attack inside training sees it."""
        if self.name != "trades":
            return defence
        with torch.no_grad():
            clean = _predictions(defence.attack_passes.logits(x, defence.attacker_draws(x, 0))[0])
        victim = copy.copy(defence)
        victim.attack_passes = defence.attack_passes.climbing(
            lambda logits_kNC, y: divergence(clean, _predictions(logits_kNC)).sum()
        )
        return victim

    def _cross_entropy(self, answer: Answer, x: torch.Tensor, x_adv: torch.Tensor, y: torch.Tensor) -> Measured:
        logits = answer(x_adv)
        return F.cross_entropy(logits, y), logits

    def _mixed(self, answer: Answer, x: torch.Tensor, x_adv: torch.Tensor, y: torch.Tensor) -> Measured:
        clean, logits = F.cross_entropy(answer(x), y), answer(x_adv)
        return (clean + F.cross_entropy(logits, y)) / 2, logits

    def _trades(self, answer: Answer, x: torch.Tensor, x_adv: torch.Tensor, y: torch.Tensor) -> Measured:
        clean, logits = _predictions(answer(x)), answer(x_adv)
        return F.nll_loss(clean, y) + self.beta * divergence(clean, _predictions(logits)).mean(), logits

    def _mart(self, answer: Answer, x: torch.Tensor, x_adv: torch.Tensor, y: torch.Tensor) -> Measured:
        clean, logits = _predictions(answer(x)), answer(x_adv)
        attacked = _predictions(logits)
        # log(1 - p'_k) is the log of the other classes' sum: nothing to add lest the log of zero be taken.
        rival = attacked.scatter(1, y[:, None], -torch.inf).argmax(1, keepdim=True)
        boosted = F.nll_loss(attacked, y) - attacked.scatter(1, rival, -torch.inf).logsumexp(1).mean()
        missed = 1 - clean.gather(1, y[:, None])[:, 0].exp()
        return boosted + self.beta * (divergence(clean, attacked) * missed).mean(), logits

    def _stability(self, answer: Answer, x: torch.Tensor, x_noisy: torch.Tensor, y: torch.Tensor) -> Measured:
        clean, logits = answer(x), answer(x_noisy)
        target = clean.softmax(1) if self.target == "softmax" else clean.detach()
        moved = -(target * _predictions(logits)).sum(1).mean()
        return F.cross_entropy(clean, y) + self.gamma * moved, logits


def divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Return KL(p ‖ q) (..., N) of predictions given as logarithms (..., N, classes)."""
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1)


def _predictions(logits: torch.Tensor) -> torch.Tensor:
    return F.log_softmax(logits, dim=-1)
