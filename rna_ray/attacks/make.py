"""From a unit's `attack` settings to the attack: the one place that knows every class by its name in the catalog."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from rna_ray.attacks.arc import Arc
from rna_ray.attacks.base import Attack, Ball
from rna_ray.attacks.boundary import Boundary
from rna_ray.attacks.ensemble import Ensemble
from rna_ray.attacks.expectation import negative_margin
from rna_ray.attacks.gradient import AGGREGATED, Gaussian, GradientAttack, Natural, Noise
from rna_ray.attacks.libraries import Apgd, Square, TorchAttack, autoattack

Settings = Mapping[str, Any]


def make(settings: Settings, *, std: torch.Tensor | None = None, aggregated: bool = False) -> Attack:
    """Return the attack that resolved settings (the catalog's names, lengths in 255ths) describe.

    `std` is the deviation (C, 1, 1) of the attacked network's input normalisation, in which an `eps_space` of
    normalized measures; ValueError where that is asked for and none is given. `aggregated`: its steps follow aggregated
    momentum, where the catalog says that they may.
    """
    more: dict[str, Any] = {"std": _space(settings, std)}
    if aggregated:
        more["dampings"] = AGGREGATED
    return _MAKERS[settings["name"]]({**settings, **more})


def _space(settings: Settings, std: torch.Tensor | None) -> torch.Tensor | None:
    """Return the deviation in which the settings' lengths are measured, None for pixels."""
    if settings.get("eps_space", "pixel") == "pixel":
        return None
    if std is None:
        raise ValueError("an eps_space of normalized needs the deviation of the network's input normalisation")
    return std


def _ball(settings: Settings) -> Ball:
    return Ball(settings["threat"], settings["eps_255"] / 255, settings["std"])


def _fgsm(settings: Settings) -> Attack:
    ball = _ball(settings)
    return GradientAttack(ball, step=ball.eps, steps=1)


def _pgd(settings: Settings) -> Attack:
    return GradientAttack(
        _ball(settings), step=settings["step_255"] / 255, steps=settings["steps"],
        random_start=settings["random_start"], restarts=settings.get("restarts", 1),
        start_noise=settings.get("start_noise", 0.0), dampings=settings.get("dampings", ()),
        loss=negative_margin if settings.get("loss") == "margin" else None,
    )


def _mifgsm(settings: Settings) -> Attack:
    return GradientAttack(
        _ball(settings), step=settings["step_255"] / 255, steps=settings["steps"], dampings=(settings["decay"],)
    )


def _bim(settings: Settings) -> Attack:
    return GradientAttack(_ball(settings), step=settings["step_255"] / 255, steps=settings["steps"])


def _cw(settings: Settings) -> Attack:
    of_margins = settings.get("expectation") == "margin"
    options = {name: settings[name] for name in ("c", "kappa", "steps", "lr")}
    return TorchAttack("CW", of_margins=of_margins, **options)


def _arc(settings: Settings) -> Attack:
    return Arc(
        _ball(settings), step=settings["step_255"] / 255, steps=settings["steps"], borders=settings["borders"]
    )


def _cascade(settings: Settings) -> Attack:
    ball, pgd = _ball(settings), settings | {"random_start": True, "restarts": 1}
    return Ensemble(
        ball,
        [
            ("fgsm", _fgsm(settings)),
            ("pgd", _pgd(pgd)),
            ("aggmo", _pgd(pgd | {"dampings": AGGREGATED})),
            ("apgd-ce", Apgd(ball, "ce", steps=settings["steps"])),
            ("square", Square(ball, settings["queries"])),
        ],
    )


_MAKERS: dict[str, Callable[[Settings], Attack]] = {
    "natural": lambda settings: Natural(),
    "noise": lambda settings: Noise(_ball(settings), settings["kind"]),
    "gaussian": lambda settings: Gaussian(settings["std_255"] / 255, settings["std"]),
    "fgsm": _fgsm,
    "bim": _bim,
    "pgd": _pgd,
    "mifgsm": _mifgsm,
    "cw": _cw,
    "deepfool": lambda s: TorchAttack("DeepFool", steps=s["steps"], overshoot=s["overshoot"]),
    "boundary": lambda s: Boundary(s["steps"]),
    "arc": _arc,
    "autoattack": lambda s: autoattack(_ball(s), s["version"]),
    "square": lambda s: Square(_ball(s), s["queries"]),
    "cascade": _cascade,
}
