"""What stands under every figure: networks, data, scale, n, seeds, and what the intervals are."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from rna_ray.analysis import captions
from rna_ray.analysis.cells import Cell, sql
from rna_ray.analysis.query import answer
from rna_ray.errors import FigureError

TRAINING = {"natural": "natural training", "adversarial": "adversarial training", "imported": "imported"}
"""How networks were trained, as queries/figures/networks.sql tells them apart, and in words."""
WILSON = "95 % Wilson intervals over the images"
STUDENT = "95 % Student intervals over the images"
OVER = {"seeds": "95 % Student intervals over seeds", "images": WILSON}
"""What the intervals of accuracies are over, in words."""
_PRINTED = {
    "resnet8": "ResNet-8", "resnet18": "ResNet-18", "resnet50": "ResNet-50", "wide-resnet-34": "WideResNet-34",
    "cifar-resnet20": "CIFAR ResNet-20", "cifar-resnet38": "CIFAR ResNet-38", "cifar-resnet50": "CIFAR ResNet-50",
    "vgg11": "VGG-11", "vgg16": "VGG-16",
    "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "mnist": "MNIST", "imagenet": "ImageNet", "digits": "digits",
    "folder": "a folder",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Setting:
    """On what a sweep's rows were measured, in words."""

    about: str
    """Such as: ResNet-18, width 16, CIFAR-10, 10,000 training images, 8 epochs, trained in bf16, …"""
    missing: int
    """Measurements that the sweep asks for and the store does not have yet."""
    sharing: tuple[str, ...]
    """Variants whose images of a batch share one drawn path."""
    attacks: Mapping[str, str]
    """What the sweep's probes attacked with, such as transfer → PGD-7 within ℓ∞ ε = 8/255."""

    def footer(
        self, rows: Sequence[Mapping[str, Any]], intervals: str, *more: str, images: str = "images",
        averaged: str = ", averaged within each image",
    ) -> str:
        """Return the sentence for rows that have columns n and seeds; `averaged` says what becomes of several seeds."""
        seeds = span(rows, "seeds")
        parts = [self.about, f"n = {span(rows, 'n')} {images}"]
        parts += [f"{seeds} {'seed' if seeds == '1' else f'seeds{averaged}'}", intervals, *more]
        if self.missing:
            parts.append(f"{self.missing:,} of the sweep's measurements are still missing")
        return "; ".join(part for part in parts if part) + "."


_ENTRIES = """
SELECT list(DISTINCT plans.attack ORDER BY plans.attack) AS labels
FROM plans JOIN probes USING (unit_id)
WHERE sweep = $sweep AND plans.kind = 'probe' AND probe = $probe
GROUP BY source IS NULL
"""


def ask(connection: duckdb.DuckDBPyConnection, query: str, sweep: str) -> list[dict[str, Any]]:
    """Return the rows that a query of queries/figures gives for a sweep."""
    connection.execute(sql("figures/networks"))
    return answer(connection, sql(f"figures/{query}"), {"sweep": sweep}).to_pylist()


def refuse_entries(connection: duckdb.DuckDBPyConnection, probe: str, sweep: str) -> None:
    """Raise FigureError where several entries ask for a probe of one kind: a figure would take their mean."""
    for row in answer(connection, _ENTRIES, {"sweep": sweep, "probe": probe}).to_pylist():
        if len(row["labels"]) > 1:
            both = " and ".join(row["labels"])
            raise FigureError(f"{both} of sweep {sweep!r} would share a figure: give them sweeps of their own")


def refuse_repeats(points: Iterable[tuple[str, float]]) -> None:
    """Raise FigureError where a line, given by its name, would have two accuracies at one place."""
    for (line, x), times in Counter(points).items():
        if times > 1:
            raise FigureError(
                f"{line} has {times} accuracies at {x:.3g}; a line can show one: give attacks that differ in more than "
                "that sweeps of their own"
            )


def setting(connection: duckdb.DuckDBPyConnection, sweep: str) -> Setting:
    """Return on what the rows of a sweep were measured."""
    rows = ask(connection, "setting", sweep)
    attacks: dict[str, list[str]] = {}
    for row in ask(connection, "attacks", sweep):
        attacks.setdefault(row["probe"], []).append(captions.attack(json.loads(row["attack_settings"])))
    trained = [row for row in rows if row["objective"] != "imported"]
    imported = [row for row in rows if row["objective"] == "imported"]
    parts = [
        _listed(trained, "network", "{}"),
        _listed(trained, "width", "width {}"),
        _listed(trained or imported, "data", "{}"),
        _listed(trained, "train_examples", "{} training images"),
        _listed(trained, "epochs", "{} epochs"),
        _listed(trained, "precision", "trained in {}"),
    ]
    inner = {row["inner_attack"] for row in trained} - {None}
    said = sorted(captions.attack(json.loads(each)) for each in inner)
    parts += [f"adversarial training under {' and '.join(said)}"] if said else []
    about = [", ".join(part for part in parts if part)]
    about += [f"imported, not trained here: {_listed(imported, 'network', '{}')}"] if imported else []
    return Setting(
        about="; ".join(about),
        missing=rows[0]["missing"] if rows else 0,
        sharing=tuple(dict.fromkeys(row["variant"] for row in rows if row["shares_paths"])),
        attacks={probe: " and ".join(dict.fromkeys(found)) for probe, found in attacks.items()},
    )


def without_ball(attack: str) -> str:
    """Return an attack's label without its ball and steps, where a figure's panel and axis say these."""
    return re.sub(r" (threat|eps_255|step_255)=\S+", "", attack)


def interval_of(cells: Sequence[Cell]) -> tuple[str, Callable[[Cell], dict[str, Any]]]:
    """Return what a picture's intervals are over, seeds where all cells have several, and their ends for a cell."""
    if all(cell.seed_low is not None for cell in cells):
        return "seeds", lambda cell: {"low": cell.seed_low, "high": cell.seed_high}
    return "images", lambda cell: {"low": cell.low, "high": cell.high}


def answered_together(rows: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """Return what to say of rows whose answers take statistics of their batch, if any do: which, by a column of names.

    The rows have columns batch_statistics and over.
    """
    if not (named := dict.fromkeys(row[name] for row in rows if row["batch_statistics"])):
        return []
    counted = ": the intervals are over batches" if rows[0]["over"] == "images" else ""
    return [f"answers take statistics of their batch in {', '.join(named)}{counted}"]


def data(connection: duckdb.DuckDBPyConnection, sweep: str) -> set[str]:
    """Return the data sets of a sweep's networks: printed numbers stand beside those on the same one only."""
    return {row["data"] for row in ask(connection, "setting", sweep)}


def short(networks: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Return what to call networks given as (label, norm, training): by their norms where these tell them apart."""
    known = set(networks)
    alone = len({(norm, trained) for _, norm, trained in known}) == len({label for label, _, _ in known})
    return {label: norm if alone else label for label, norm, _ in known}


def called(name: str | None) -> str:
    """Return what people call a network or a data set: ResNet-18, CIFAR-10."""
    return _PRINTED.get(name or "", name or "")


def _listed(rows: Sequence[Mapping[str, Any]], column: str, text: str) -> str:
    values = sorted({row[column] for row in rows})
    shown = [called(value) if isinstance(value, str) else f"{value:,}" for value in values]
    said = text.format(" and ".join(shown)) if shown else ""
    return said.removesuffix("s") if values == [1] else said


def span(rows: Iterable[Mapping[str, Any]], column: str) -> str:
    """Return the smallest and the largest value of a column: 500, or 200 to 1,000."""
    found = sorted({row[column] for row in rows if row[column]})
    if not found:
        return "0"
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"
