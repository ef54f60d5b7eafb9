"""Figures: the numbers behind them against numbers worked out by hand, and the pictures that hold nothing else."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from math import inf, isnan, nan, sqrt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy import stats

from rna_ray.analysis import figures
from rna_ray.analysis.figures import strength, style
from rna_ray.analysis.figures.catalog import ABLATION, FIGURES
from rna_ray.analysis.figures.setting import setting
from rna_ray.analysis.statistics import Variance, mean_interval, wilson
from rna_ray.errors import FigureError, QueryError
from rna_ray.store import Store, connect, open_store

NET = {
    "network": "resnet18", "width": 16, "data": "cifar10", "train_examples": 10_000, "epochs": 8, "precision": "bf16",
    "attack": '{"name": "pgd", "threat": "linf", "eps_255": 8.0, "step_255": 6.0, "steps": 2}',
}  # fmt: skip
PGD_7 = {
    "attack_settings": '{"name": "pgd", "threat": "linf", "eps_255": 8.0, "step_255": 2.0, "steps": 7}',
    "data": "cifar10",
}
Drawn = tuple[str, Store, Path]
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
    attacked("BN natural", "LN", [1, 1, 1, 1])  # trained otherwise: not in the figure
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
SAID = {
    "rna-figure1": ["natural training", "adversarial training", "accuracy (%)",
                    "target: the network that answers", "source: the network that was attacked"],
    "rna-figure2": ["along the attack (1/255)", "orthogonal to it (1/255)", "loss (cross-entropy, nats)", "IN"],
    "rna-figure3": ["cosine similarity", "images (%)", "BN, IN", "BN, IN in BN+IN", "two networks,"],
    "rna-figure5": ["steps of PGD", "radius ε (1/255)", "path difference (layers)", "@eot-5",
                    "BN+IN, printed"],
    "rna-theory": ["gradient norm", "curvature along gradient", "attacked → answers", "IN, formula", "BN, measured",
                   "vacuous: says nothing"],
    "robustnorm-figure1": ["tracked", "batch, mean over batches", "(a) mean, natural images", "BN+IN: BN", "BN",
                           "(d) difference, natural images", "(h) difference, attacked images", "deviation"],
    "robustnorm-figure9": ["first direction", "second direction", "loss (cross-entropy, nats; log scale)",
                           "(a) BN natural", "natural training, natural images", "at the dot: loss 4.5, 33.3 % right"],
    "robustnorm-figure3": ["loss", "accuracy (%)", "epoch", "held-out images, natural", "held-out images, attacked",
                           "BN, 3 seeds †", "IN, 1 seed", "RN natural, 2 seeds"],
    "robustnorm-figure8": ["training images, natural", "training images, attacked", "held-out images, natural",
                           "held-out images, attacked", "BN, 3 seeds †"],
    "s": ["accuracy over fresh draws (%)", "variant", "natural", f"pgd-20@transfer #2, {ELL}∞ ε = 16/255"],
}  # fmt: skip
"""What each figure must say: labels of its axes, titles, its legend."""
SIZES = {"rna-figure1": (9.2, 4.7), "rna-figure3": (7.7, 3.4), "rna-figure5": (14.2, 4.6)}  # inches, at 150 dpi


# -- the data ----------------------------------------------------------------------------------------------------------


def test_transfer_counts_images_and_averages_their_seeds(book) -> None:
    rows = rows_of(transfers(book), "rna-figure1")
    assert [(row["training"], row["source"], row["target"]) for row in rows] == [
        ("natural", "BN natural", "BN natural"), ("natural", "BN natural", "LN natural"),
        ("adversarial", "BN", "BN"), ("adversarial", "BN", "LN"), ("adversarial", "LN", "BN"),
        ("adversarial", "LN", "LN"),
    ]  # fmt: skip
    row = only(rows, source="BN", target="LN")
    assert (row["accuracy"], row["n"], row["seeds"]) == (0.625, 4, 2)  # (1 + 1 + 0 + 1/2) / 4: four images, not eight
    assert (row["low"], row["high"]) == pytest.approx(mean_interval(0.625, 4))
    assert (row["printed"], only(rows, source="LN", target="BN")["printed"]) == (0.7129, None)
    assert only(rows, source="BN natural", target="LN natural")["accuracy"] == 0.5


def test_printed_numbers_stand_beside_their_own_data_set_only(make_book) -> None:
    book = make_book("digits")
    net = book.trained("BN", norm="BN", objective="whitebox", **(NET | {"data": "digits"}))
    other = book.trained("LN", norm="LN", objective="whitebox", **(NET | {"data": "digits"}))
    book.probed("transfer", "LN", other, answers([1, 0]), source=("BN", net), view="transfers")
    assert [row["printed"] for row in rows_of(book.close(), "rna-figure1")] == [None]


def test_a_surface_is_the_mean_loss_with_its_interval_and_images_without_a_plane_are_left_out(book) -> None:
    rows = rows_of(surfaces(book), "rna-figure2")
    assert len(rows) == 4 * 9
    row = only(rows, variant="IN natural", x=-8.0, y=0.0)
    assert (row["loss"], row["n"], row["training"]) == (3.0, 3, "natural")  # of 1, 2 and 6
    assert (row["low"], row["high"]) == pytest.approx(student([1, 2, 6]))
    corner = only(rows, variant="BN", x=8.0, y=8.0)
    assert (corner["loss"], corner["n"]) == (2.0, 2) and not isnan(corner["low"])


def test_histograms_hold_every_image_once_in_bins_that_all_pairs_share(book) -> None:
    rows = rows_of(similarities(book), "rna-figure3")
    pairs = {(row["pair"], row["training"]) for row in rows}
    assert pairs == {("BN, IN", "natural"), ("BN, IN", "adversarial"), ("BN, IN in BN+IN", "adversarial")}
    assert {row["bin_low"] for row in rows if row["pair"] == "BN, IN"} == {
        row["bin_low"] for row in rows if row["between"] == "members"
    }
    held = [row for row in rows if (row["pair"], row["training"]) == ("BN, IN", "natural")]
    assert len(held) == 40 and sum(row["images"] for row in held) == held[0]["n"] == 3
    assert sum(row["share"] for row in held) == pytest.approx(1)
    assert (held[0]["bin_low"], held[-1]["bin_high"]) == (-0.3, 0.8)  # of all: from -0.25 to 0.78
    assert [row["bin_low"] <= 0.1 < row["bin_high"] for row in held if row["images"]].count(True) == 1
    assert held[0]["mean"] == pytest.approx(0.1)
    assert (held[0]["low"], held[0]["high"]) == pytest.approx(student([0.0, 0.1, 0.2]))
    assert (held[0]["first"], held[0]["second"]) == ("BN natural", "IN natural")


def test_points_of_figure_5(book) -> None:
    rows = rows_of(stronger(book), "rna-figure5")
    point = only(rows, panel="steps", variant="BN+IN", knowledge="eot-5", x=100.0)
    assert (point["accuracy"], point["n"], point["eps_255"]) == (0.5, 4, 8.0)
    assert (point["low"], point["high"]) == pytest.approx(mean_interval(0.5, 4))
    assert [row["x"] for row in rows if row["panel"] == "eps" and row["variant"] == "BN"] == [2.0, 20.0]
    assert {row["knowledge"] for row in rows if row["variant"] == "BN"} == {"transfer"}  # one path: one curve
    printed = {(row["panel"], row["x"], row["accuracy"]) for row in rows if row["origin"] != "measured"}
    assert printed == {
        ("steps", 10.0, 0.607), ("steps", 100.0, 0.5994), ("eps", 2.0, 0.8006), ("eps", 20.0, 0.249),
        ("difference", 10.0, 0.6109),
    }  # fmt: skip


def test_a_panel_of_figure_5_holds_one_space_and_printed_numbers_of_that(book) -> None:
    net = book.trained("BN", norm="BN", objective="blackbox", log2_paths=0.0, paths_drawn="example", **NET)
    shared = {"network_id": net, "data": "cifar10", "called": "pgd"}
    for steps, eps in ((10, 8.0), (50, 8.0), (100, 8.0), (20, 2.0), (20, 9.0), (20, 20.0)):
        label = f"pgd-{steps} {eps:g}"
        book.cell("BN", label, "transfer", [[1, 0]], steps=steps, eps_255=eps, eps_space="normalized", **shared)
    book.cell("BN", "pgd-20", "transfer", [[1, 0]], steps=20, eps_255=8.0, **shared)
    book.cell("BN", "pgd-40", "transfer", [[1, 0]], steps=40, eps_255=8.0, **shared)
    rows = rows_of(book.close(), "rna-figure5")
    assert [(row["panel"], row["x"]) for row in rows] == [
        ("steps", 10.0), ("steps", 50.0), ("steps", 100.0), ("eps", 2.0), ("eps", 9.0), ("eps", 20.0),
    ]  # fmt: skip
    assert {(row["eps_space"], row["threat"], row["origin"]) for row in rows} == {("normalized", "linf", "measured")}
    picture = strength.draw(rows, setting(connect(book.store), "s"))
    steps, radii = picture.axes[:2]
    assert "ε = 8/255 (normalized)" in steps.get_title(loc="left")
    assert radii.get_xlabel() == "radius ε (1/255), normalized"


def test_no_figure_mixes_two_spaces(make_book) -> None:
    dots = make_book("dots")
    dots.cell("a", "pgd-20", "fixed", [[1, 0]])
    dots.cell("b", "pgd-20", "fixed", [[1, 0]], eps_space="normalized")
    with pytest.raises(QueryError, match="column pgd-20@fixed would mix eps_space normalized and pixel"):
        ABLATION.tabulate(connect(dots.close()), "s")
    probed = make_book("probed")
    net = probed.trained("BN", norm="BN", objective="blackbox", **NET)
    for space in ({}, {"eps_space": "normalized"}):
        attack = {"name": "pgd", "threat": "linf", "eps_255": 8.0, "step_255": 2.0, "steps": 7, **space}
        held = answers([0, 1], source_id=net)
        probed.probed("transfer", "BN", net, held, view="transfers", attack_settings=json.dumps(attack))
    with pytest.raises(QueryError, match="the transfer probes of sweep 's' would mix eps_space normalized and pixel"):
        setting(connect(probed.close()), "s")


def test_paths_apart_give_the_mean_of_their_pairs_the_worst_and_the_best(book) -> None:
    rows = rows_of(stronger(book), "rna-figure5")
    far = only(rows, panel="difference", x=20.0)
    assert (far["accuracy"], far["worst"], far["best"], far["pairs"], far["n"]) == (0.75, 0.5, 1.0, 2, 4)
    pairs = Variance(0.125 / 2, 1)  # the variance of 1/2 and 1, over two
    assert (far["low"], far["high"]) == pytest.approx(mean_interval(0.75, 4, paths=pairs))
    assert far["low"] < wilson(3, 4)[0]  # the pairs' chance makes it wider
    assert only(rows, panel="difference", x=0.0)["accuracy"] == 0.125


def test_theory_compares_each_layer_with_its_formula_and_says_where_a_bound_is_vacuous(book) -> None:
    rows = rows_of(theories(book), "rna-theory")
    row = only(rows, panel="eq5", variant="BN+IN", member="BN", layer="stages.0.0.norm1")
    assert (row["measured"], row["formula"], row["held"], row["n"], row["depth"]) == (2.0, 2.0, 1.0, 2, 2)
    assert (row["low"], row["high"]) == pytest.approx(student([1, 3]))
    held = only(rows, panel="eq6", variant="IN", layer="norm")
    assert (held["measured"], held["formula"], held["held"]) == (0.5, 1.5, 0.5)
    assert (held["held_low"], held["held_high"]) == pytest.approx(mean_interval(0.5, 2))
    bounded = only(rows, panel="bound", member="BN")
    assert (bounded["formula"], bounded["vacuous"], bounded["denominator"]) == (0.25, False, 4.0)  # (0.5 + 0.5) / 4
    assert (bounded["measured"], bounded["n"]) == (0.25, 4)  # one of four fools both
    assert (bounded["low"], bounded["high"]) == pytest.approx(wilson(1, 4))
    without = only(rows, panel="bound", member="IN")
    assert (without["formula"], without["vacuous"]) == (None, True)
    assert without["denominator"] == pytest.approx(4 - 100 * 0.5 * 2)


def test_a_landscape_is_the_mean_loss_and_accuracy_at_each_point_of_each_entry(book) -> None:
    rows = rows_of(landscapes(book), "robustnorm-figure9")
    assert len(rows) == 2 * 2 * 9
    row = only(rows, variant="BN", label="landscape-natural", x=1.0, y=0.0)
    assert (row["loss"], row["n"], row["seeds"]) == (7.5, 3, 2)  # images of 2.5, 5 and 15: of two and three times each
    assert (row["low"], row["high"]) == pytest.approx(student([2.5, 5, 15]))
    assert row["accuracy"] == pytest.approx(1 / 3)
    assert only(rows, variant="BN", label="landscape-attacked", x=1.0, y=-1.0)["loss"] == 10.5
    broken = only(rows, variant="BN natural", label="landscape-natural", x=-1.0, y=-1.0)
    assert broken["loss"] is broken["low"] is broken["high"] is None  # never a mean of the others
    assert [row["label"] for row in rows] == ["landscape-natural"] * 18 + ["landscape-attacked"] * 18


def test_statistics_are_compared_in_units_of_what_inference_divides_by(book) -> None:
    rows = rows_of(statistics(book), "robustnorm-figure1")
    natural = {"label": "statistics-natural", "variant": "BN"}
    row = only(rows, **natural, panel="channel", quantity="mean", layer="norm", seed=0)
    assert (row["tracked"], row["batch"], row["batches"], row["n"]) == (4, 4.5, 2, 20)
    assert (row["low"], row["high"]) == pytest.approx(student([4, 5]))
    assert row["difference"] == pytest.approx((0 + 1) / 2 / 3)  # σ is 3
    row = only(rows, **natural, panel="channel", quantity="variance", layer="stages.0.0.norm1", seed=0)
    assert (row["batch"], row["tracked"]) == pytest.approx((36, 9), abs=1e-4)
    assert row["difference"] == pytest.approx(1)  # twice the deviation
    whole = only(rows, **natural, panel="network", quantity="mean")
    first, second = (0 + 3 + 1 + 3) / 4 / 3, (1 + 2 + 2 + 2) / 4 / 3  # two layers of two seeds, in each batch
    assert (whole["difference"], whole["seeds"], whole["n"]) == (pytest.approx((first + second) / 2), 2, 20)
    assert (whole["low"], whole["high"]) == pytest.approx(student([first, second]))
    attacked = only(rows, variant="BN", label="statistics-attacked", panel="network", quantity="mean")
    assert attacked["difference"] == pytest.approx(((3 + 0 + 4 + 0) / 4 + (4 + 1 + 5 + 1) / 4) / 2 / 3)
    assert only(rows, variant="BN+IN", panel="network", quantity="variance")["member"] == "BN"
    of_rn = [row for row in rows if (row["variant"], row["panel"]) == ("RN", "network")]
    ranges = {row["quantity"]: row["difference"] for row in of_rn}
    assert ranges == pytest.approx({"mean": 0.25, "range": 0.5}, rel=1e-4)  # in units of the tracked range, 4


def test_curves_are_means_over_seeds_with_students_intervals(book) -> None:
    rows = rows_of(courses(book), "robustnorm-figure8")
    bn = {"variant": "BN", "epoch": 1}
    training = only(rows, **bn, images="training", quantity="accuracy")
    assert (training["attack"], training["value"], training["n"], training["seeds"]) == ("adversarial", 0.2, 100, 3)
    low, high = student([0.2, 0.3, 0.1])
    assert low < 0 and (training["low"], training["high"]) == (0.0, pytest.approx(high))
    loss = only(rows, **bn, images="training", quantity="loss")
    assert loss["value"] == pytest.approx(2.2)
    assert (loss["low"], loss["high"]) == pytest.approx(student([2.0, 2.2, 2.4]))
    natural = only(rows, **bn, images="held-out", attack="natural", quantity="accuracy")
    assert (natural["value"], natural["n"]) == (0.5, 10)  # of 4, 5 and 6 of ten
    attacked = only(rows, **bn, images="held-out", attack="adversarial", quantity="loss")
    assert attacked["value"] == 2.25 and (attacked["low"], attacked["high"]) == pytest.approx(student([2.0, 2.25, 2.5]))
    later = only(rows, variant="BN", epoch=2, images="held-out", attack="adversarial", quantity="accuracy")
    assert (later["value"], later["seeds"], later["diverged"]) == (0.75, 2, 1)  # the third diverged before
    assert {row["attack"] for row in rows if row["variant"] == "RN natural"} == {"natural"}
    assert {row["n"] for row in rows if row["variant"] == "IN" and row["images"] == "training"} == {10_000}


def test_one_seed_has_no_interval_and_what_an_older_release_did_not_measure_no_curve(book) -> None:
    rows = [row for row in rows_of(courses(book), "robustnorm-figure8") if row["variant"] == "IN"]
    assert {(row["images"], row["attack"], row["quantity"]) for row in rows} == {
        ("training", "adversarial", "loss"), ("held-out", "natural", "accuracy"),
        ("held-out", "adversarial", "accuracy"),
    }  # fmt: skip
    assert {(row["seeds"], row["low"], row["high"]) for row in rows} == {(1, 0.0, inf), (1, 0.0, 1.0)}


def test_a_loss_that_is_not_finite_is_left_out(book) -> None:
    for seed, loss in enumerate([nan, inf, 3.0]):
        book.trained("BN", seed, [epoch(1.0, 10, 1, natural_loss=loss)], norm="BN", objective="natural", **NET)
    row = only(rows_of(book.close(), "robustnorm-figure3"), quantity="loss")
    assert (row["value"], row["seeds"]) == (3.0, 1)


def test_figure_3_shows_the_held_out_images_of_figure_8_and_both_are_of_one_sweep(make_book, tmp_path: Path) -> None:
    store = courses(make_book("courses", "robustnorm-figure3"))
    connection = connect(store)
    kept = {}
    for name in ("robustnorm-figure3", "robustnorm-figure8"):
        figures.figure(connection, name, tmp_path)
        kept[name] = pq.read_table(tmp_path / f"{name}.parquet").to_pylist()
    held_out = [row for row in kept["robustnorm-figure8"] if row["images"] == "held-out"]
    assert kept["robustnorm-figure3"] == held_out and len(kept["robustnorm-figure8"]) > len(held_out) > 0


def test_any_sweep_has_its_table_as_a_figure(book) -> None:
    rows = ABLATION.tabulate(connect(table_of_cells(book)), "s").to_pylist()
    row = only(rows, variant="BN", column=f"pgd-20@transfer #2, {ELL}∞ ε = 16/255")
    assert (row["accuracy"], row["n"], row["draws"]) == (0.375, 4, 2)
    assert (row["low"], row["high"]) == pytest.approx(mean_interval(0.375, 4))
    assert len(rows) == 8


def test_the_footer_says_on_what_it_was_measured(book) -> None:
    store = transfers(book)
    said = setting(connect(store), "s").footer(rows_of(store, "rna-figure1"), "95 % intervals", "more")
    assert said == (
        "ResNet-18, width 16, CIFAR-10, 10,000 training images, 8 epochs, trained in bf16, adversarial "
        f"training under PGD-2 within {ELL}∞ ε = 8/255, steps of 6/255; n = 4 images; "
        "1 to 2 seeds, averaged within each image; 95 % intervals; more."
    )
    assert setting(connect(store), "s").attacks == {"transfer": f"PGD-7 within {ELL}∞ ε = 8/255, steps of 2/255"}


def test_the_footer_counts_what_is_missing(make_book) -> None:
    book = make_book("missing")
    table_of_cells(book)
    said = setting(connect(book.store), "s").footer([{"n": 1, "seeds": 1}], "x")
    assert said.endswith("; 1 of the sweep's measurements are still missing.")


# -- the files ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=list(STORES))
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, new_book: Any) -> Drawn:
    """Each figure from a store of its own: its name, the store, and the folder with its files."""
    folder = tmp_path_factory.mktemp(request.param)
    store = STORES[request.param](new_book(open_store(folder / "store")))
    paths = figures.figure(connect(store), request.param, folder / "out", None if request.param == "s" else "s")
    assert paths == [folder / "out" / f"{request.param}.{suffix}" for suffix in ("png", "svg", "parquet")]
    return request.param, store, folder / "out"


def test_three_files_and_no_other(drawn: Drawn) -> None:
    name, _, folder = drawn
    assert {path.name for path in folder.iterdir()} == {f"{name}.{kind}" for kind in ("png", "svg", "parquet")}


def test_the_parquet_file_is_the_table(drawn: Drawn) -> None:
    name, store, folder = drawn
    found = pq.read_table(folder / f"{name}.parquet")
    assert found.equals(FIGURES.get(name, ABLATION).tabulate(connect(store), "s")) and found.num_rows
    assert found.schema.metadata[b"about"].startswith(b"ResNet-18, width 16, CIFAR-10")


def test_the_picture_has_its_size_and_is_not_blank(drawn: Drawn) -> None:
    name, _, folder = drawn
    with Image.open(folder / f"{name}.png") as image:
        if name in SIZES:
            assert image.size == pytest.approx([150 * side for side in SIZES[name]], abs=1)
        colours = image.convert("RGB").getcolors(maxcolors=2**24)
        assert len(colours) > 50
        white = max(count for count, colour in colours if colour == (255, 255, 255))
        assert white < 0.95 * image.width * image.height


def test_the_svg_holds_its_words_as_text(drawn: Drawn) -> None:
    name, _, folder = drawn
    root = ElementTree.parse(folder / f"{name}.svg").getroot()
    texts = ["".join(each.itertext()).strip() for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert not [said for said in SAID[name] if said not in texts]
    footer = " ".join(texts)
    for said in ("ResNet-18", "10,000 training images", "n = ", "95 %", "seed"):
        assert said in footer


def test_the_same_rows_give_the_same_bytes(drawn: Drawn, tmp_path: Path) -> None:
    name, store, folder = drawn
    for path in figures.figure(connect(store), name, tmp_path, None if name == "s" else "s"):
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_words_stay_inside_the_picture_and_legends_off_the_data(drawn: Drawn) -> None:
    name, store, _ = drawn
    chosen, connection = FIGURES.get(name, ABLATION), connect(store)
    with style.applied():
        picture = chosen.draw(chosen.tabulate(connection, "s").to_pylist(), setting(connection, "s"))
        picture.canvas.draw()
        width, height = picture.canvas.get_width_height()
        panels = [axes.get_tightbbox() for axes in picture.axes if axes.name != "3d"]  # with their titles and labels
        legends = [each.get_window_extent() for part in (picture, *picture.subfigs) for each in part.legends]
        lines = [picture._suptitle.get_window_extent(), picture._supxlabel.get_window_extent()]
    assert panels and (legends or name in ("rna-figure1", "rna-figure2", "robustnorm-figure9"))
    for box in (*panels, *legends, *lines):
        assert box.x0 > -2 and box.y0 > -2 and box.x1 < width + 2 and box.y1 < height + 2
    for above in (*legends, *lines):
        assert not [box for box in panels if above.overlaps(box)]


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_an_unknown_name_lists_the_known(book, tmp_path: Path) -> None:
    connection = connect(table_of_cells(book))
    known = "Known: rna-figure1, .*, s, stn-figure1, .*"
    with pytest.raises(FigureError, match=rf"unknown figure 'rna-figure4'; did you mean .* {known}"):
        figures.figure(connection, "rna-figure4", tmp_path / "out")
    with pytest.raises(FigureError, match=r"unknown sweep of this store: 't'. Known: s"):
        figures.figure(connection, "rna-figure1", tmp_path / "out", "t")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(name for name in FIGURES if FIGURES[name].rows))
def test_a_figure_without_rows_says_which_sweep_to_run(book, tmp_path: Path, name: str) -> None:
    book.trained("BN")
    connection, own = connect(book.close()), FIGURES[name].sweep or name
    with pytest.raises(FigureError, match=f"no rows for figure {name} yet: .* rna-ray run sweeps/{own}.yaml$"):
        figures.figure(connection, name, tmp_path / "out")
    says = rf"no rows for figure {name} in sweep 's' yet: it draws what .*{own}.yaml|'s' asks for no evaluation"
    with pytest.raises((FigureError, QueryError), match=says):
        figures.figure(connection, name, tmp_path / "out", "s")
    assert not (tmp_path / "out").exists()


def test_a_sweep_without_evaluations_says_so(book, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="asks for no evaluation"):
        figures.figure(connect(transfers(book)), "s", tmp_path)


def test_nothing_is_half_written(book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, out = connect(table_of_cells(book)), tmp_path / "out"
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FigureError, match=r"cannot write figure s to .*file, which is a file: give a folder"):
        figures.figure(connection, "s", tmp_path / "file")
    before = figures.figure(connection, "s", out)[0].read_bytes()

    written = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "parquet" in path.name:  # the last of the three
            raise OSError(28, "No space left on device")
        return written(path, data + b"other")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FigureError, match=r"cannot write figure s to .*out: No space left on device"):
        figures.figure(connection, "s", out)
    assert sorted(path.name for path in out.iterdir()) == ["s.parquet", "s.png", "s.svg"]
    assert (out / "s.png").read_bytes() == before


def test_matplotlib_is_imported_only_to_draw() -> None:
    code = "import sys, rna_ray.analysis.figures; print([name for name in sys.modules if 'matplotlib' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_readers_own_settings_change_nothing(book, tmp_path: Path) -> None:
    import matplotlib

    connection = connect(table_of_cells(book))
    plain = figures.figure(connection, "s", tmp_path / "plain")
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "path", "savefig.dpi": 30, "axes.grid": True}):
        styled = figures.figure(connection, "s", tmp_path / "styled")
    assert [path.read_bytes() for path in styled] == [path.read_bytes() for path in plain]


def test_the_colours_are_okabe_and_itos() -> None:
    known = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"]
    assert sorted(style.COLOURS) == sorted(known) and len(set(style.MARKERS)) == len(style.MARKERS)


def test_all_columns_of_a_table_are_of_the_stated_types(drawn: Drawn) -> None:
    name, _, folder = drawn
    schema = pq.read_schema(io.BytesIO((folder / f"{name}.parquet").read_bytes()))
    assert {"n", "seeds", "low", "high"} <= set(schema.names)
    assert all(schema.field(column).type == pa.float64() for column in ("low", "high"))
