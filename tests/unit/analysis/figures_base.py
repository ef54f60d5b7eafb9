"""A store for each figure, written by hand, and what a figure reads of it."""

from __future__ import annotations

from collections.abc import Callable
from math import nan, sqrt
from typing import Any

from scipy import stats

from rna_ray.analysis.figures.catalog import FIGURES
from rna_ray.store import Store, connect

NET = {
    "network": "resnet18", "width": 16, "data": "cifar10", "train_examples": 10_000, "epochs": 8, "precision": "bf16",
    "attack": '{"name": "pgd", "threat": "linf", "eps_255": 8.0, "step_255": 6.0, "steps": 2}',
}  # fmt: skip
PGD_7 = {
    "attack_settings": '{"name": "pgd", "threat": "linf", "eps_255": 8.0, "step_255": 2.0, "steps": 7}',
    "data": "cifar10",
}
ELL = "\N{SCRIPT SMALL L}"


def rows_of(store: Store, name: str) -> list[dict[str, Any]]:
    return FIGURES[name].tabulate(connect(store), "s").to_pylist()


def only(rows: list[dict[str, Any]], **where: Any) -> dict[str, Any]:
    (found,) = [row for row in rows if all(row[key] == value for key, value in where.items())]
    return found


def student(values: list[float]) -> tuple[float, float]:
    mean, n = sum(values) / len(values), len(values)
    half = stats.t.ppf(0.975, n - 1) * sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return mean - half, mean + half


# -- stores ------------------------------------------------------------------------------------------------------------


def answers(right: list[int], **row: Any) -> list[dict[str, Any]]:
    """Return rows of `transfers`: class 0 is right."""
    return [
        {"example": example, "label": 0, "natural_prediction": 0, "source_prediction": 1, "prediction": 1 - one} | row
        for example, one in enumerate(right)
    ]


def transfers(book: Any) -> Store:
    """Two norms, naturally and adversarially trained; BN → LN under adversarial training with two seeds."""
    nets = {}
    for trained, objective in ((" natural", "natural"), ("", "whitebox")):
        for norm in ("BN", "LN"):
            for seed in (0, 1):
                nets[norm + trained, seed] = book.trained(norm + trained, seed, norm=norm, objective=objective, **NET)

    def attacked(source: str, target: str, right: list[int], seed: int = 0) -> None:
        pair = {"source": (source, nets[source, seed]), "seed": seed, "view": "transfers"}
        book.probed("transfer", target, nets[target, seed], answers(right), **pair, **PGD_7)

    attacked("BN natural", "BN natural", [0, 0, 0, 0])
    attacked("BN natural", "LN natural", [1, 1, 0, 0])
    attacked("BN", "BN", [1, 0, 0, 0])
    attacked("BN", "LN", [1, 1, 0, 1])
    attacked("BN", "LN", [1, 1, 0, 0], seed=1)
    attacked("LN", "BN", [0, 1, 0, 1])
    attacked("LN", "LN", [0, 0, 0, 1])
    attacked("BN natural", "LN", [1, 1, 1, 0])  # trained otherwise: a panel of its own
    return book.close()


def losses(values: dict[tuple[float, float], list[float]]) -> list[dict[str, Any]]:
    return [
        {"measure": "loss", "example": example, "x": x, "y": y, "value": value}
        for (x, y), column in values.items()
        for example, value in enumerate(column)
    ]


def surfaces(book: Any) -> Store:
    for trained, objective in ((" natural", "natural"), ("", "blackbox")):
        for norm in ("BN", "IN"):
            net = book.trained(norm + trained, norm=norm, objective=objective, **NET)
            plane = {(x, y): [x + 9, x + 10, x + 14] for x in (-8.0, 0.0, 8.0) for y in (-8.0, 0.0, 8.0)}
            plane[8.0, 8.0] = [1.0, 3.0, nan]  # the third image has no gradient, and no plane
            book.probed("surface", norm + trained, net, losses(plane))
    return book.close()


def cosines(values: list[float], **row: Any) -> list[dict[str, Any]]:
    return [{"measure": "cosine", "example": at, "value": value} | row for at, value in enumerate(values)]


def similarities(book: Any) -> Store:
    nets = {
        (norm, objective): book.trained(f"{norm} {objective}", norm=norm, objective=objective, **NET)
        for norm in ("BN", "IN")
        for objective in ("natural", "blackbox")
    }
    both = book.trained("BN+IN", norm="BN+IN", objective="blackbox", **NET)
    for objective, values in (("natural", [0.0, 0.1, 0.2]), ("blackbox", [0.31, 0.5, 0.78])):
        pair = {"source": (f"BN {objective}", nets["BN", objective])}
        book.probed("similarity", f"IN {objective}", nets["IN", objective], cosines(values), **pair)
    book.probed("similarity", "BN+IN", both, cosines([-0.25, 0.25], member="BN", other="IN"))
    return book.close()


def stronger(book: Any) -> Store:
    """Steps 10 and 100 at 8/255, 20 steps at 2 and 20/255, two kinds of knowledge, and two pairs of paths."""
    norms = {"BN": 0.0, "BN+IN": 20.0}
    nets = {norm: book.trained(norm, norm=norm, objective="blackbox", log2_paths=paths, paths_drawn="example", **NET)
            for norm, paths in norms.items()}  # fmt: skip
    strengths = [(10, 8.0, [2, 2, 1, 1]), (100, 8.0, [2, 1, 1, 0]), (20, 2.0, [2, 2, 2, 2]), (20, 20.0, [0, 0, 1, 0])]
    for norm, net in nets.items():
        for knowledge in ("transfer", "eot-5"):
            for steps, eps, right in strengths:
                book.cell(norm, f"pgd-{steps}", knowledge, [right], draws=2, network_id=net, steps=steps, eps_255=eps,
                          data="cifar10", called="pgd")  # fmt: skip
    for difference, pairs in ((0, ([0, 0, 0, 1], [0, 0, 0, 0])), (20, ([1, 1, 1, 1], [1, 1, 0, 0]))):
        held = [
            row
            for pair, right in enumerate(pairs)
            for row in answers(right, pair=pair, path_difference=difference, source_id=nets["BN+IN"])
        ]
        book.probed("path-transfer", "BN+IN", nets["BN+IN"], held, view="transfers", **PGD_7)
    return book.close()


LAYERS = ("norm", "stages.0.0.norm1")
PER_EXAMPLE = ("gradient_norm", "gradient_norm_eq5", "curvature", "curvature_eq6")


def theories(book: Any) -> Store:
    """BN keeps Eq. 6 on every image, IN on one of two; a pair with a bound, and one without."""
    nets = {name: book.trained(name, norm=name, objective="blackbox", **NET) for name in ("BN", "IN", "BN+IN")}
    values = {"BN": [(1.0, 1.0, 2.0, 2.0), (3.0, 3.0, 4.0, 4.0)], "IN": [(1.0, 1.0, -2.0, 2.0), (2.0, 2.0, 3.0, 1.0)]}
    for variant, members in {"BN": ["BN"], "IN": ["IN"], "BN+IN": ["BN", "IN"]}.items():
        held = [
            {"measure": measure, "example": example, "member": member, "layer": layer, "x": depth + 0.0, "value": value}
            for member in members
            for depth, layer in enumerate(LAYERS, 1)
            for example, given in enumerate(values[member])
            for measure, value in zip(PER_EXAMPLE, given, strict=True)
        ]
        book.probed("smoothness", variant, nets[variant], held)
    for first, second, gradient in (("BN", "IN", 0.0), ("IN", "BN", 100.0)):
        flat = ("gradient_norm", "smoothness", "target_gradient_norm", "target_smoothness")
        given = {f"{what}_{side}": 0.0 for what in flat for side in "ab"}
        given |= {"target_loss_a": 8.0, "target_loss_b": 4.0, "loss_a": 0.5, "loss_b": 0.5}
        given |= {"gradient_norm_a": gradient, "cosine": 1.0, "label": 0, "target": 1, "prediction_a": 0,
                  "prediction_b": 0, "adversarial_prediction_a": 1}  # fmt: skip
        held = [
            {"measure": measure, "example": example, "member": first, "other": second, "value": float(value)}
            for example in range(4)
            for measure, value in (given | {"adversarial_prediction_b": int(example == 0)}).items()
        ]
        book.probed("bound", "BN+IN", nets["BN+IN"], held, eps_255=127.5)
    return book.close()


def landscapes(book: Any) -> Store:
    """Two networks and two seeds of one; natural and attacked images; one loss that is no number."""
    for variant, objective in (("BN natural", "natural"), ("BN", "whitebox")):
        for seed in (0, 1) if variant == "BN" else (0,):
            net = book.trained(variant, seed, norm="BN", objective=objective, **NET)
            for label, extra in (("landscape-natural", {}), ("landscape-attacked", PGD_7)):
                rows = [
                    {"measure": measure, "example": example, "x": x, "y": y, "value": value}
                    for x in (-1.0, 0.0, 1.0)
                    for y in (-1.0, 0.0, 1.0)
                    for example, loss in enumerate((1.0, 2.0, 6.0))
                    for measure, value in (("loss", loss * (1 + abs(x) + y**2 + seed)), ("correct", float(loss < 2)))
                ]
                if variant == "BN natural":
                    rows[0]["value"] = nan
                book.probed("landscape", variant, net, rows, label=label, seed=seed, **({"data": "cifar10"} | extra))
    return book.close()


def channels(mean: float, variance: float, **of: Any) -> list[dict[str, Any]]:
    """Return the rows of one channel in two batches, the second's mean larger by 1; 4 and 9 are tracked."""
    return [
        {"measure": measure, "x": 0.0, "y": first, "value": value} | of
        for first in (0.0, 10.0)
        for measure, value in (
            ("batch_mean", mean + first / 10), ("batch_variance", variance), ("tracked_mean", 4.0),
            ("tracked_variance", 9.0 - 1e-5),
        )
    ]  # fmt: skip


def statistics(book: Any) -> Store:
    """BN of two seeds with two layers, attacked too; a network of two norms; one that tracks a mean and a range."""
    of = {"start": 0, "stop": 20, "data": "cifar10"}
    for seed in (0, 1):
        net = book.trained("BN", seed, norm="BN", objective="whitebox", **NET)
        for label, off, extra in (("statistics-natural", 0.0, {}), ("statistics-attacked", 3.0, PGD_7)):
            rows = channels(4 + off + seed, 9 - 1e-5, layer="norm", member="BN")
            rows += channels(1 + off, 36 - 1e-5, layer="stages.0.0.norm1", member="BN")
            book.probed("statistics", "BN", net, rows, label=label, seed=seed, **(of | extra))
    net = book.trained("BN+IN", norm="BN+IN", objective="blackbox", **NET)
    book.probed("statistics", "BN+IN", net, channels(4, 9, layer="norm", member="BN"), label="statistics-natural", **of)
    net = book.trained("RN", norm="RN(track=true)", objective="natural", **NET)
    rows = [
        {"measure": measure, "x": 1.0, "y": 0.0, "value": value, "layer": "norm", "member": "RN(track=true)"}
        for measure, value in (("batch_mean", 1.0), ("tracked_mean", 2.0), ("batch_range", 6.0), ("tracked_range", 4.0))
    ]
    book.probed("statistics", "RN", net, rows, label="statistics-natural", **of)
    return book.close()


def epoch(loss: float, right: int | None = None, natural: int = 0, attacked: int | None = None, **more: Any) -> Any:
    """Return an epoch's row: of 100 training and 10 held-out images so many were right."""
    row = {"loss": loss, "train_correct": right, "train_examples": None if right is None else 100}
    return row | {"natural_correct": natural, "adversarial_correct": attacked, "held_out": 10} | more


def courses(book: Any) -> Store:
    """BN with three seeds, of which one diverged after an epoch; IN with one, by an older release; RN natural."""
    attacked = {"objective": "whitebox", **NET}
    for seed, (loss, right) in enumerate([(2.0, 20), (2.2, 30), (2.4, 10)]):
        first = epoch(loss, right, 4 + seed, 2 + seed, natural_loss=1.5 + seed / 4, adversarial_loss=2.0 + seed / 4)
        second = epoch(loss - 1, right + 40, 9, 8 - seed, natural_loss=0.5, adversarial_loss=1.0 + seed)
        course, state = ([first], "diverged") if seed == 2 else ([first, second], "finished")
        book.trained("BN", seed, course, norm="BN", state=state, **attacked)
    book.trained("IN", 0, [epoch(2.3, None, 3, 1), epoch(2.1, None, 5, 4)], norm="IN", **attacked)
    natural = NET | {"objective": "natural", "attack": None}
    for seed in (0, 1):
        course = [epoch(1.0, 60, 6, natural_loss=1.1), epoch(0.5, 90, 8, natural_loss=0.9)]
        book.trained("RN natural", seed, course, norm="RN", **natural)
    return book.close()


def table_of_cells(book: Any) -> Store:
    for variant in ("BN", "BN+IN"):
        book.trained(variant, norm=variant, objective="blackbox", **NET)
        book.cell(variant, "natural", "none", [[1] * 8 + [0] * 2])
        book.cell(variant, "pgd-20", "transfer", [[2, 2, 1, 0]], draws=2)
        book.cell(variant, "pgd-20", "transfer", [[2, 1, 0, 0]], draws=2, eps_255=16.0)
        book.cell(variant, "pgd-20", "eot-10", [[2, 0, 0, 1]], draws=2, missing=variant == "BN+IN")
    return book.close()


STORES: dict[str, Callable[[Any], Store]] = {
    "rna-figure1": transfers, "rna-figure2": surfaces, "rna-figure3": similarities, "rna-figure5": stronger,
    "rna-theory": theories, "robustnorm-figure1": statistics, "robustnorm-figure3": courses,
    "robustnorm-figure8": courses, "robustnorm-figure9": landscapes, "s": table_of_cells,
}  # fmt: skip
