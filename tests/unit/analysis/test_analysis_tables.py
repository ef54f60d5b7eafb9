"""The ablation table against numbers worked out by hand."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import pyarrow.parquet as pq
import pytest

from rna_ray.analysis.query import write
from rna_ray.analysis.render import latex, markdown
from rna_ray.analysis.statistics import mean_interval
from rna_ray.analysis.tables import ablation, names, rows, sweeps, table
from rna_ray.errors import QueryError
from rna_ray.store import Store, connect

UNBOUNDED = {"eps_255": None, "threat": "none"}
ELL = "\N{SCRIPT SMALL L}"


def cells_of(store: Store) -> dict[tuple[str, str, str], object]:
    return {(cell.variant, cell.attack, cell.knowledge): cell for cell in ablation(connect(store), "s")}


def test_accuracies_are_means_over_examples_of_correct_over_draws(small: Store) -> None:
    cells = cells_of(small)
    assert list(cells) == [
        (variant, *column)
        for variant in ("BN", "BN+IN")
        for column in (("natural", "none"), ("pgd-20", "transfer"), ("pgd-20", "eot-10"))
    ]
    cell = cells["BN", "pgd-20", "transfer"]
    assert (cell.accuracy, cell.n, cell.draws, cell.seeds, cell.natural_accuracy) == (
        0.5,
        10,
        2,
        1,
        1.0,
    )  # 10 of 20 answers
    assert (cell.low, cell.high) == pytest.approx(mean_interval(0.5, 10))
    assert cells["BN", "natural", "none"].accuracy == 0.8
    assert (cells["BN+IN", "pgd-20", "eot-10"].state, cells["BN+IN", "pgd-20", "eot-10"].missing) == ("missing", 1)
    assert cells["BN", "pgd-20", "eot-10"].state == "finished"


def test_the_markdown_table(small: Store) -> None:
    assert table(connect(small), "s").splitlines() == [
        "| variant | draws | natural    | pgd-20@transfer | pgd-20@eot-10 (n=4) | audit        |",
        "| ------- | ----- | ---------- | --------------- | ------------------- | ------------ |",
        "| BN      | 1, 2  | 80.0 ±31.0 | 50.0 ±26.3      | 37.5 ±40.6          | 2 ✓ 0 ✗ 22 ? |",
        "| BN+IN   | 1, 2  | 80.0 ±31.0 | 50.0 ±26.3      | 37.5 ±40.6          | 2 ✓ 0 ✗ 22 ? |",
        "",
        "s: accuracy in % over fresh draws, ± the larger side of its 95 % Wilson interval over the examples. "
        "n = 10 examples where nothing else is said. Attacks within \N{SCRIPT SMALL L}∞ ε = 8/255 where nothing "
        "else is said. Over several paths, standard errors: paths at most 12.5, examples 20.4. Bold: as trained here, "
        "better than every other variant of its column on the same images (95 % paired bootstrap and p, "
        "Bonferroni-corrected); here none is. Cells with units still missing: 1 (\N{EN DASH} where a cell has none of "
        "them). audit: checks of an honest evaluation that a variant's cells passed ✓, failed ✗ (✗ beside a cell that "
        "fails one), or that no one measured ?: see rna-ray audit s.",
    ]


def test_seeds_are_averaged_within_an_example_and_their_spread_stands_apart(book) -> None:
    book.cell("BN", "pgd", "fixed", [[1, 1, 0, 0]], seed=0)
    book.cell("BN", "pgd", "fixed", [[1, 1, 1, 0]], seed=1)
    cell = cells_of(book.close())["BN", "pgd", "fixed"]
    assert (cell.accuracy, cell.n, cell.seeds) == (0.625, 4, 2)  # four examples, not eight
    assert cell.seed_sd == pytest.approx(0.25 / 2**0.5)
    said = "Means over up to 2 seeds, whose standard deviation, in no interval, is at most 17.7."
    assert said in table(connect(book.store), "s")


def test_intervals_are_over_seeds_where_they_are_asked_for(book) -> None:
    for seed, right in enumerate(([1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1])):
        book.cell("BN", "pgd", "fixed", [right], seed=seed, batch_statistics=True, batch=2)
    book.cell("IN", "pgd", "fixed", [[1, 0, 0, 0]])
    connection = connect(book.close())
    cell, alone = ablation(connection, "s")
    half = 4.302652729911275 * 0.25 / 3**0.5  # Student's for two degrees of freedom
    assert (cell.seed_low, cell.seed_high) == pytest.approx((0.75 - half, 1.0))
    assert (alone.seed_low, alone.seed_high) == (None, None)
    shown = table(connection, "s", interval="seeds")
    assert f"75.0 ±{100 * half:.1f}" in shown and "25.0" in shown and "25.0 ±" not in shown
    assert "± its 95 % Student interval over seeds, where there are several. n = 4 examples" in shown
    assert "Means over up to 3 seeds. " in shown
    said = "Attacks or answers take statistics of the batch of 2 in BN"
    assert f"{said}." in shown and f"{said}: the intervals are over batches." in table(connection, "s")
    with pytest.raises(QueryError, match="unknown interval 'seed'; did you mean 'seeds'"):
        table(connection, "s", interval="seed")
    with pytest.raises(QueryError, match="--interval seeds does not go with --against"):
        table(connection, "s", interval="seeds", against="IN")


def test_paths_that_images_share_are_said_of_their_columns(book) -> None:
    book.cell("BN+IN", "natural", "none", [[1, 0]])
    book.cell("BN+IN", "pgd", "fixed", [[1, 0]], path_sharing="batch")
    book.cell("BN+IN", "square", "transfer", [[1, 1]], path_sharing="attack")
    book.cell("BN", "square", "transfer", [[0, 0]])
    cells = cells_of(book.close())
    said = {key: (cell.shared_paths, cell.regrouped) for key, cell in cells.items()}
    assert said == {
        ("BN+IN", "natural", "none"): (False, False),
        ("BN+IN", "pgd", "fixed"): (True, False),
        ("BN+IN", "square", "transfer"): (True, True),
        ("BN", "square", "transfer"): (False, False),
    }
    text = table(connect(book.store), "s")
    said = (
        "Images of a batch share a draw in pgd@fixed: the intervals include its chance (in pgd@fixed, all images count "
        "as one example)."
    )
    assert said in text
    assert (
        "Images of a batch were attacked on the same draws in square@transfer: their chance is not in the intervals."
        in text
    )


def test_natural_images_that_share_a_draw_are_named_as_their_column(book) -> None:
    book.cell("BN+IN", "natural", "none", [[1, 0]], path_sharing="batch")
    text = table(connect(book.close()), "s")
    assert "Images of a batch share a draw in natural: " in text


def test_a_column_of_the_same_name_does_not_hide_what_another_shares(book) -> None:
    book.cell("BN+IN", "square", "fixed", [[1, 0]], path_sharing="attack")
    book.cell("BN+IN", "square", "fixed", None, missing=1)
    text = table(connect(book.close()), "s")
    assert "Images of a batch share a draw in square@fixed: " in text


def test_what_was_stopped_early_is_named_beneath_and_in_no_number(book) -> None:
    book.trained("lr=0.1")
    book.cell("lr=0.1", "natural", "none", [[1] * 8 + [0] * 2])
    book.stopped("lr=0.2", 2)
    book.stopped("lr=0.3", 1)
    connection = connect(book.close())
    text = table(connection, "s")
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:3]] == ["lr=0.1"] and text.count("| lr=") == 1
    assert "Stopped early, and in no number here: lr=0.2 (after epoch 2), lr=0.3 (after epoch 1)." in text
    assert "missing" not in text
    told = {row["variant"]: row for row in json.loads(table(connection, "s", "json"))}
    assert [(row["state"], row["stopped_early"], row["missing"]) for row in told.values()] == [
        ("finished", 0, 0), ("stopped early", 1, 0), ("stopped early", 1, 0),
    ]  # fmt: skip
    assert told["lr=0.2"]["accuracy"] is None


def test_a_seed_that_was_stopped_early_is_named(book) -> None:
    book.trained("lr=0.1")
    book.cell("lr=0.1", "natural", "none", [[1] * 8 + [0] * 2])
    book.stopped("lr=0.1", 2, seed=1)
    text = table(connect(book.close()), "s")
    assert "80.0" in text and "lr=0.1 (after epoch 2)" in text


def test_a_diverged_network_is_marked_and_its_cells_are_not_missing(book) -> None:
    book.trained("all four", state="diverged")
    book.cell("all four", "natural", "none", [[0, 0, 1, 0]])
    book.cell("all four", "pgd", "fixed", None, missing=3)
    book.trained("BN")
    book.cell("BN", "natural", "none", [[1, 1, 1, 1]])
    book.cell("BN", "pgd", "fixed", None, missing=2)
    store = book.close()
    states = {(cell.variant, cell.attack): (cell.state, cell.missing) for cell in ablation(connect(store), "s")}
    assert states["all four", "pgd"] == ("diverged", 0)
    assert states["BN", "pgd"] == ("missing", 2)
    text = table(connect(store), "s")
    assert "| all four † |" in text
    assert text.splitlines()[3].split("|")[-2].strip() == "\N{EN DASH}"
    assert "†: training diverged. Cells with units still missing: 1" in text


def test_a_column_says_which_step_lengths_it_mixes(book) -> None:
    for variant, step in (("one", 1.0), ("two", 2.0)):
        book.cell(variant, "pgd-20", "fixed", [[1, 0]], attack_settings=json.dumps({"step_255": step}))
    assert "Column pgd-20@fixed mixes step lengths (in 1/255): 1.0, 2.0." in table(connect(book.close()), "s")


def test_seeds_differ_by_what_all_of_them_were_asked(book) -> None:
    book.cell("BN", "pgd", "fixed", [[1, 1], [0, 0]], seed=0)
    book.plan[-1]["position"] = book.plan[-2]["position"]
    book.cell("BN", "pgd", "fixed", [[1, 1]], missing=1, seed=1)
    for row in book.plan:
        row["position"] = 0
    (cell,) = ablation(connect(book.close()), "s")
    assert (cell.seeds, cell.n, cell.seed_sd) == (2, 4, 0.0)  # 100 % and 100 % of the first two, not 50 and 100


def test_a_unit_shared_by_two_cells_counts_in_both(book) -> None:
    book.cell("BN", "pgd", "fixed", [[1, 0]])
    shared = book.plan[-1]
    book.plan.append(shared | {"knowledge": "transfer", "position": 7})  # one path: the knowledge cannot matter
    cells = cells_of(book.close())
    assert cells["BN", "pgd", "fixed"].accuracy == cells["BN", "pgd", "transfer"].accuracy == 0.5


def test_unbounded_attacks_carry_their_median_distance(book) -> None:
    book.cell("BN", "cw", "fixed", [[0, 1, 0]], l2=[0.1, 0.2, 0.7], linf=[0.5, 0.02, 0.01], **UNBOUNDED)
    book.cell("BN", "natural", "none", [[1, 1, 1]])
    book.cell("BN", "pgd", "fixed", [[1, 0, 1]], l2=[1.0, 1.0, 1.0])
    cells = cells_of(book.close())
    assert cells["BN", "cw", "fixed"].median_l2 == pytest.approx(0.2)
    assert cells["BN", "cw", "fixed"].median_linf == pytest.approx(0.02)
    assert cells["BN", "pgd", "fixed"].median_l2 is cells["BN", "natural", "none"].median_linf is None
    text = table(connect(book.store), "s")
    assert f"33.3 ±45.9 [{ELL}₂ 0.2, {ELL}∞ 0.02]" in text
    assert f"[{ELL}₂, {ELL}∞]: median distances of an unbounded attack on images that were right, in [0, 1]." in text
    latex = table(connect(book.store), "s", "latex")
    assert r"33.3 $\pm$45.9 [$\ell$$_2$ 0.2, $\ell$$\infty$ 0.02]" in latex
    (row,) = [
        row for row in csv.DictReader(io.StringIO(table(connect(book.store), "s", "csv"))) if row["attack"] == "cw"
    ]
    assert (float(row["median_l2"]), float(row["median_linf"])) == pytest.approx((0.2, 0.02))


def test_a_search_that_one_draw_decides_is_said_of_random_networks_alone(book) -> None:
    said = "On random networks, a success on one draw counts as one in the search of "
    for variant, knowledge, random in (("BN", "transfer", False), ("BN+IN", "fixed", True)):
        book.cell(variant, "cw", knowledge, [[1, 0]], random_output=random, **UNBOUNDED)
    assert said not in table(connect(book.close()), "s")
    book.cell("BN+IN", "cw", "transfer", [[1, 0]], random_output=True, **UNBOUNDED)
    assert f"{said}cw@transfer, which may flatter the defence." in table(connect(book.close()), "s")


def test_all_paths_leave_no_chance_of_the_attacks_draws(book) -> None:
    for knowledge in ("enumerate", "eot-20"):
        book.cell("BN+IN", "cascade", knowledge, [[1, 1]], path_sharing="attack")
    said = "Images of a batch were attacked on the same draws in cascade@eot-20: their chance is not in the intervals."
    assert said in table(connect(book.close()), "s")


def test_cells_under_the_same_labels_stay_apart_by_their_radius(book) -> None:
    for variant in ("BN", "IN"):
        book.cell(variant, "pgd", "fixed", [[1, 1, 0]])
        book.cell(variant, "pgd", "fixed", [[0, 1, 0]], eps_255=16.0)
        book.cell(variant, "fgsm", "fixed", [[1, 1, 1]])
    header = table(connect(book.close()), "s").splitlines()[0]
    assert [label.strip() for label in header.split("|")[3:-2]] == [
        "pgd@fixed (\N{SCRIPT SMALL L}∞ ε = 8/255)",
        "pgd@fixed (\N{SCRIPT SMALL L}∞ ε = 16/255)",
        "fgsm@fixed",
    ]


def test_what_may_not_share_a_column_is_said_or_refused(make_book: Callable) -> None:
    said, refused = make_book("said"), make_book("refused")
    for book, setting in ((said, "data"), (refused, "eps_space")):
        book.cell("a", "pgd", "fixed", [[1, 0]], **{setting: "one"})
        book.cell("b", "pgd", "fixed", [[1]], **{setting: "two"})
    text = table(connect(said.close()), "s")
    assert "Column pgd@fixed mixes data: one, two." in text
    assert "(n=1)" in text
    with pytest.raises(QueryError, match="column pgd@fixed would mix eps_space one and two"):
        table(connect(refused.close()), "s")


def test_two_spaces_stand_in_columns_of_their_own_and_are_said(book) -> None:
    normalized = {"eps_space": "normalized", "eps_255": 7.65}
    gaussian = {"eps_255": None, "threat": "none", "eps_space": "normalized"}
    for variant in "ab":
        book.cell(variant, "pgd-20 eps_space=normalized", "fixed", [[0, 1]], **normalized)
        book.cell(variant, "fgsm threat=linf", "fixed", [[0, 1]], **normalized)
        book.cell(variant, "fgsm threat=l2", "fixed", [[0, 1]], **normalized | {"threat": "l2"})
        book.cell(variant, "pgd-20 eps_space=pixel", "fixed", [[0, 1]])
        far = {"l2": [2, 4], "linf": [0.25, 0.5]}
        book.cell(variant, "gaussian-25.5", "none", [[0, 1]], called="gaussian", **far, **gaussian)
        crafted = {"attack_mode": "train_frozen", **normalized}
        book.cell(variant, "pgd-20 attack_mode=train_frozen", "fixed", [[1, 1], [0, 1]], **crafted)
    connection = connect(book.close())
    text = table(connection, "s")
    assert [label.strip() for label in text.splitlines()[0].split("|")[3:-2]] == [
        "pgd-20 eps_space=normalized@fixed",
        "fgsm threat=linf@fixed",
        "fgsm threat=l2@fixed (\N{SCRIPT SMALL L}₂ ε = 7.65/255 (normalized))",
        "pgd-20 eps_space=pixel@fixed (\N{SCRIPT SMALL L}∞ ε = 8/255)",
        "gaussian-25.5",
        "pgd-20 attack_mode=train_frozen@fixed (n=4)",
    ]
    assert "Attacks within \N{SCRIPT SMALL L}∞ ε = 7.65/255 (normalized) where nothing else is said." in text
    assert "The deviation of gaussian-25.5 is one of normalised pixels." in text
    assert (
        " pgd-20 attack_mode=train_frozen@fixed: attack_mode train_frozen, crafted with each batch's statistics and "
        "answered with the running ones: the intervals are over batches." in text
    )
    assert "[\N{SCRIPT SMALL L}₂ 3, \N{SCRIPT SMALL L}∞ 0.38]" in text
    rows = json.loads(table(connection, "s", "json"))
    assert [row["eps_space"] for row in rows[:6]] == ["normalized"] * 3 + ["pixel"] + ["normalized"] * 2
    assert [row["attack_mode"] for row in rows[:6]] == [None] * 5 + ["train_frozen"]
    one, _ = json.loads(table(connection, "distortion", "json"))
    assert (one["attack"], one["eps_space"], one["median_l2"]) == ("gaussian-25.5", "normalized", 3.0)


def test_what_several_columns_mix_is_said_once(book) -> None:
    for attack in ("pgd", "fgsm"):
        for variant, checkpoint in (("a", "best"), ("b", "last")):
            book.cell(variant, attack, "fixed", [[1, 0]], checkpoint=checkpoint)
    text = table(connect(book.close()), "s")
    assert "All columns mix checkpoints: best, last." in text and text.count("checkpoints") == 1
    book.cell("a", "square", "fixed", [[1, 0]], checkpoint="best")
    text = table(connect(book.close()), "s")
    assert "Columns pgd@fixed, fgsm@fixed mix checkpoints: best, last." in text and text.count("checkpoints") == 1


def test_csv_and_json_give_every_cell_with_all_its_numbers(small: Store) -> None:
    from_json = json.loads(table(connect(small), "s", "json"))
    from_csv = list(csv.DictReader(io.StringIO(table(connect(small), "s", "csv"))))
    assert len(from_json) == len(from_csv) == 6
    assert list(from_json[0]) == list(from_csv[0])
    assert {"accuracy", "low", "high", "n", "draws", "seeds", "natural_accuracy", "state", "eps_255"} <= set(
        from_csv[0]
    )
    assert [float(row["accuracy"]) for row in from_csv] == [row["accuracy"] for row in from_json]


def test_its_rows_are_the_same_in_parquet_with_types_where_all_is_null(small: Store) -> None:
    file = io.BytesIO()
    write(lambda: rows(connect(small), "s"), "parquet", file)
    found = pq.read_table(file)
    assert found.to_pylist() == json.loads(table(connect(small), "s", "json"))
    kinds = {name: str(found.schema.field(name).type) for name in ("median_l2", "seed_sd", "attack_mode", "n")}
    assert kinds == {"median_l2": "double", "seed_sd": "double", "attack_mode": "string", "n": "int64"}


def test_the_latex_table_is_booktabs_and_escaped(small: Store) -> None:
    lines = table(connect(small), "s", "latex").splitlines()
    assert lines[0] == r"\begin{table}"
    assert r"\begin{tabular}{lrrrrr}" in lines
    assert r"BN & 1, 2 & 80.0 $\pm$31.0 & 50.0 $\pm$26.3 & 37.5 $\pm$40.6 & 2 $\surd$ 0 $\times$ 22 ? \\" in lines
    assert r"accuracy in \% over" in lines[2]
    assert r"a\_b \& c\$ \{\} \textbackslash{} \textasciitilde{}" in latex(["a_b & c$ {} \\ ~"], [])
    assert markdown(["a|b"], [["c\nd"]]).splitlines()[0::2] == ["| a\\|b |", "| c d  |"]


def test_an_unknown_name_lists_the_known(small: Store, book, make_book: Callable) -> None:
    assert names() == ["bound", "distortion", "smoothness"]  # ablation is what the name of a sweep stands for
    assert sweeps(connect(small)) == ["s"]
    with pytest.raises(QueryError, match=r"unknown table 'quick'.* Known: bound, distortion, s, smoothness$"):
        table(connect(small), "quick")
    with pytest.raises(QueryError, match=r"unknown format 'html'\. Known: csv, json, latex, md, parquet"):
        table(connect(small), "s", "html")
    with pytest.raises(QueryError, match=r"'s'"):
        table(connect(make_book("empty").store), "s")


def test_a_sweep_without_evaluations_has_no_table(book) -> None:
    book.trained("BN")
    with pytest.raises(QueryError, match="sweep 's' asks for no evaluation"):
        table(connect(book.close()), "s")


def test_a_sweep_that_has_run_nothing_is_all_dashes(book) -> None:
    book.cell("BN", "pgd", "fixed", None, missing=2)
    text = table(connect(book.close()), "s")
    assert text.splitlines()[2] == "| BN      | \N{EN DASH}     | \N{EN DASH}         |"
    assert "No example has been evaluated yet. Cells with units still missing: 1" in text
