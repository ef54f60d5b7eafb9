"""The numbers behind the figures, against numbers worked out by hand."""

from __future__ import annotations

import json
from math import inf, isnan, nan
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from figures_base import (
    ELL,
    NET,
    answers,
    courses,
    epoch,
    landscapes,
    only,
    rows_of,
    similarities,
    statistics,
    stronger,
    student,
    surfaces,
    table_of_cells,
    theories,
    transfers,
)

from rna_ray.analysis import figures
from rna_ray.analysis.figures import files, strength
from rna_ray.analysis.figures.catalog import ABLATION
from rna_ray.analysis.figures.setting import setting
from rna_ray.analysis.statistics import Variance, mean_interval, wilson
from rna_ray.errors import FigureError, QueryError
from rna_ray.store import connect


def test_transfer_counts_images_and_averages_their_seeds(book) -> None:
    rows = rows_of(transfers(book), "rna-figure1")
    assert [(row["source_training"], row["training"], row["source"], row["target"]) for row in rows] == [
        ("natural", "natural", "BN natural", "BN natural"), ("natural", "natural", "BN natural", "LN natural"),
        *(("adversarial", "adversarial", *pair) for pair in (("BN", "BN"), ("BN", "LN"), ("LN", "BN"), ("LN", "LN"))),
        ("natural", "adversarial", "BN natural", "LN"),
    ]  # fmt: skip
    assert (rows[-1]["accuracy"], rows[-1]["printed"]) == (0.75, None)
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
    for label, space in (("transfer-7", {}), ("transfer-7 eps_space=normalized", {"eps_space": "normalized"})):
        attack = {"name": "pgd", "threat": "linf", "eps_255": 8.0, "step_255": 2.0, "steps": 7, **space}
        held = answers([0, 1], source_id=net)
        probed.probed("transfer", "BN", net, held, view="transfers", label=label, attack_settings=json.dumps(attack))
    with pytest.raises(FigureError, match="transfer-7 and transfer-7 eps_space=normalized of sweep 's' would share"):
        rows_of(probed.close(), "rna-figure1")


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


def test_figure_3_shows_the_held_out_images_of_figure_8_and_both_are_of_one_sweep(
    make_book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "pictures", lambda draw: {"png": b"", "svg": b""})  # no one looks at them
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


def test_the_footer_says_of_imported_networks_that_they_were_not_trained_here(book) -> None:
    book.trained("BN", network="resnet18", width=16, data="cifar10", train_examples=10000, epochs=8, precision="bf16")
    book.trained("mine", network="mynet:mixed", data="cifar10", objective="imported", state="imported")
    assert setting(connect(book.close()), "s").about == (
        "ResNet-18, width 16, CIFAR-10, 10,000 training images, 8 epochs, trained in bf16; "
        "imported, not trained here: mynet:mixed"
    )


def test_the_footer_counts_what_is_missing(make_book) -> None:
    book = make_book("missing")
    table_of_cells(book)
    said = setting(connect(book.store), "s").footer([{"n": 1, "seeds": 1}], "x")
    assert said.endswith("; 1 of the sweep's measurements are still missing.")
