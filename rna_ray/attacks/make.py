"""From a unit's `attack` settings to the attack: the one place that knows every class by its name in the catalog."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rna_ray.attacks.base import Attack, Ball
from rna_ray.attacks.gradient import GradientAttack, Natural, Noise
from rna_ray.attacks.libraries import AutoAttack, Square, TorchAttack

Settings = Mapping[str, Any]


def make(settings: Settings) -> Attack:
    """Return the attack that resolved settings (the catalog's names, radii in 255ths) describe."""
    return _MAKERS[settings["name"]](settings)


def _ball(settings: Settings) -> Ball:
    return Ball(settings["threat"], settings["eps_255"] / 255)


def _fgsm(settings: Settings) -> Attack:
    ball = _ball(settings)
    return GradientAttack(ball, step=ball.eps, steps=1)


def _pgd(settings: Settings) -> Attack:
    return GradientAttack(
        _ball(settings), step=settings["step_255"] / 255, steps=settings["steps"],
        random_start=settings["random_start"],
    )


def _mifgsm(settings: Settings) -> Attack:
    return GradientAttack(
        _ball(settings), step=settings["step_255"] / 255, steps=settings["steps"], decay=settings["decay"]
    )


_MAKERS: dict[str, Callable[[Settings], Attack]] = {
    "natural": lambda settings: Natural(),
    "noise": lambda settings: Noise(_ball(settings), settings["kind"]),
    "fgsm": _fgsm,
    "pgd": _pgd,
    "mifgsm": _mifgsm,
    "cw": lambda s: TorchAttack("CW", c=s["c"], kappa=s["kappa"], steps=s["steps"], lr=s["lr"]),
    "deepfool": lambda s: TorchAttack("DeepFool", steps=s["steps"], overshoot=s["overshoot"]),
    "autoattack": lambda s: AutoAttack(_ball(s), s["version"]),
    "square": lambda s: Square(_ball(s), s["queries"]),
}
