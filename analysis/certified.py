"""Certified accuracy: from the counts that a sweep's certifications left, by each method's radius, and as a table."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rna_ray.analysis import captions
from rna_ray.analysis.cells import sql
from rna_ray.analysis.papers import PUBLISHED
from rna_ray.analysis.query import answer
from rna_ray.analysis.sheet import Item, Sheet
from rna_ray.analysis.statistics import mean_interval
from rna_ray.errors import QueryError
from rna_ray.evaluation.radii import ALPHA, METHODS, certify, largest

RADII = ("0.25", "0.5", "1", "1.5")
"""The radii of a table that nothing is printed of, in [0, 1] pixels."""
SHARE = 1 - ALPHA
"""What STN multiplies certified accuracies by, because a certificate may be wrong (Section 4)."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of images in [0, 1] with its 95 % Wilson interval over them."""

    value: float
    low: float
    high: float


_NOTHING = Share(value=0.0, low=0.0, high=0.0)


@dataclass(frozen=True, kw_only=True)
class Certified:
    """What one certification of one variant found: an entry for each image and seed, R in all, where it was done."""

    variant: str
    nth: int
    data: str | None
    """None, as all of its settings, where no unit of it is done yet."""
    checkpoint: str | None
    noise_255: float | None
    sigma: float | None
    """The standard deviation of the noise, in [0, 1] pixels."""
    draws: int | None
    selection: int | None
    abandon: str | None
    seeds: int
    missing: int
    """Units of it that the store does not have yet."""
    units: tuple[str, ...]
    """Those that it has."""
    examples: NDArray[np.int64]
    right: NDArray[np.bool_]
    """Whether the class that the selection draws chose is the label."""
    radii: Mapping[str, NDArray[np.float64]]
    """Method → the certified radius, whatever the label; 0 is an abstention."""

    @property
    def n(self) -> int:
        """How many images, each counted once for all seeds."""
        return len(np.unique(self.examples))

    @property
    def natural(self) -> Share | None:
        """The accuracy of the smoothed classifier: the class that the selection draws chose is right."""
        return self._share(self.right)

    def certified(self, method: str, radius: float) -> Share | None:
        """Return the share of images that are right and certified at this radius or a larger one; None without rows."""
        return self.curve(method, [radius])[0] if self.n else None

    def curve(self, method: str, radii: Sequence[float]) -> list[Share]:
        """Return that share at each of several radii; ValueError without rows.

        Beyond the largest radius that so many draws can certify it is 0 for all images, so without an interval.
        """
        if (most := self.largest(method)) is None:
            raise ValueError(f"{self.variant} has no certificates yet, so no curve")
        kept = self.right & (self.radii[method] > 0)
        order = np.argsort(self.radii[method][kept])
        held, weights = self.radii[method][kept][order], _weights(self.examples)[kept][order]
        beyond = np.append(weights[::-1].cumsum()[::-1], 0.0)  # from each radius on, and behind the last
        found = [_interval(float(beyond[np.searchsorted(held, radius)]), self.n) for radius in radii]
        return [share if radius <= most else _NOTHING for radius, share in zip(radii, found, strict=True)]

    def abstained(self, method: str) -> Share | None:
        """Return the share of images for which nothing is certified, right or not."""
        return self._share(self.radii[method] == 0)

    def mean_radius(self, method: str) -> float | None:
        """Return the average certified radius, 0 for an image that is wrong or an abstention."""
        score = np.where(self.right, self.radii[method], 0.0)
        return round(float(score @ _weights(self.examples)), 12) if self.n else None

    def largest(self, method: str) -> float | None:
        """Return the largest radius that so many draws under this noise can certify."""
        return None if self.draws is None or self.sigma is None else largest(self.draws, self.sigma, method)

    def _share(self, score: NDArray[np.bool_]) -> Share | None:
        return _interval(float(score @ _weights(self.examples)), self.n) if self.n else None


def _weights(examples: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what each entry counts for: an image's seeds share its weight, all images together weigh 1."""
    images, which, seeds = np.unique(examples, return_inverse=True, return_counts=True)
    return 1 / seeds[which.reshape(-1)] / max(1, len(images))


def _interval(value: float, n: int) -> Share:
    value = min(1.0, round(value, 12))
    low, high = mean_interval(value, n)
    return Share(value=value, low=round(low, 12), high=round(high, 12))


def certified(connection: duckdb.DuckDBPyConnection, sweep: str) -> list[Certified]:
    """Return the certifications that a sweep asks for, in the order of its plan; none where it asks for none.

    An image without all of its draws is an abstention: nothing is certified from a part of them.
    """
    asked = answer(connection, sql("certifications"), {"sweep": sweep}).to_pylist()
    groups = itertools.groupby(asked, key=lambda row: (row["variant"], row["nth"]))
    return [_gathered(connection, *key, list(rows)) for key, rows in groups]


def _gathered(
    connection: duckdb.DuckDBPyConnection, variant: str, nth: int, rows: Sequence[Mapping[str, Any]]
) -> Certified:
    done = [row for row in rows if row["draws"] is not None]
    stated = {name: _one(variant, name, done) for name in ("data", "checkpoint", "noise_255", "draws", "selection",
                                                           "abandon")}  # fmt: skip
    found = answer(connection, sql("certificates"), {"units": [row["unit_id"] for row in done] or [""]})
    shared = {"variant": variant, "nth": nth, **stated, "missing": len(rows) - len(done),
              "units": tuple(row["unit_id"] for row in done)}  # fmt: skip
    shared |= {"seeds": len({row["axes"] for row in done})}
    if not found.num_rows:
        nothing = {method: np.zeros(0) for method in METHODS}
        return Certified(**shared, sigma=None, examples=np.zeros(0, int), right=np.zeros(0, bool), radii=nothing)
    chosen, held = (_matrix(found[name]) for name in ("selection_counts", "counts"))
    sigma, examples, labels = (found[name].to_numpy() for name in ("sigma", "example", "label"))
    partial = found["abandoned"].to_numpy() | (held.sum(axis=1) < stated["draws"])
    by_method = {name: certify(chosen, held, sigma, ALPHA, name, partial) for name in METHODS}
    return Certified(
        **shared,
        sigma=float(sigma[0]),
        examples=examples,
        right=by_method["renyi"].predictions == labels,  # of every method: the selection draws alone choose
        radii={name: found.radius for name, found in by_method.items()},
    )


def _one(variant: str, name: str, rows: Iterable[Mapping[str, Any]]) -> Any:
    values = {row[name] for row in rows}
    if len(values) > 1:
        both = " and ".join(sorted(map(str, values)))
        raise QueryError(f"the certificates of {variant} would mix {name} {both}: give them sweeps of their own")
    return next(iter(values), None)


def _matrix(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return a column of lists, one count for each class, as (N, C)."""
    lists = column.combine_chunks()
    return lists.flatten().to_numpy().astype(np.int64).reshape(len(lists), -1)


# -- printed numbers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Printed:
    """A certified accuracy that a paper printed."""

    data: str
    method: str
    radius: str
    """In [0, 1] pixels, as printed: 1.58 or 36/255."""
    certified: str
    """In %, as printed."""
    natural: str
    source: str

    @property
    def label(self) -> str:
        """How our table calls its row."""
        return f"{self.method}, printed"


def printed(sweep: str, data: Iterable[str | None]) -> list[Printed]:
    """Return what is printed of a sweep on these data sets: of stn-table1 for stn-table1 and stn-table1-cifar10."""
    known, found = set(data), []
    for file in sorted((PUBLISHED / "certified").iterdir(), key=lambda file: file.name):
        if f"{sweep}-".startswith(f"{file.name.removesuffix('.csv')}-"):
            found += [Printed(**row) for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines())]
    return [one for one in found if one.data in known]


def radius(text: str) -> float:
    """Return a radius from what was given, 0.5 or 36/255; QueryError for what is no number of at least 0."""
    try:
        value = float(Fraction(text) if "/" in text else text)
    except (ValueError, ZeroDivisionError, OverflowError):
        value = -1.0
    if not 0 <= value < math.inf:
        raise QueryError(f"a radius is a number of [0, 1] pixels such as 0.5 or 36/255, not {text!r}")
    return value


# -- the table ---------------------------------------------------------------------------------------------------------


def _radii(given: Sequence[str], theirs: Sequence[Printed]) -> list[str]:
    """Return the radii of a sweep's table, ascending: those given, else those printed of it, else RADII."""
    texts = given or [one.radius for one in theirs] or RADII
    return sorted(dict.fromkeys(texts), key=radius)


def rows(sweep: str, found: Sequence[Certified], given: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the table for programs: a row for each certification, method and radius, then the printed numbers."""
    theirs = printed(sweep, (each.data for each in found))
    texts = _radii(given, theirs)
    ours = [
        _row(each, method, text) | {"source": "measured"} for each in found for method in METHODS for text in texts
    ]
    empty = dict.fromkeys(ours[0]) if ours else {}
    printed_rows = [
        empty | {"variant": one.label, "data": one.data, "radius": radius(one.radius), "source": one.source,
                 "natural": _of_percent(one.natural), "certified_as_printed": _of_percent(one.certified)}
        for one in theirs
    ]  # fmt: skip
    return ours + printed_rows


def _of_percent(text: str) -> float:
    return round(float(text) / 100, 12)


def _row(each: Certified, method: str, text: str) -> dict[str, Any]:
    settings = ("variant", "data", "checkpoint", "sigma", "noise_255", "draws", "selection", "abandon")
    share, natural, abstained = each.certified(method, radius(text)), each.natural, each.abstained(method)
    return {name: getattr(each, name) for name in settings} | {
        "method": method,
        "radius": radius(text),
        "certified": share and share.value,
        "low": share and share.low,
        "high": share and share.high,
        "certified_as_printed": share and round(SHARE * share.value, 12),
        "natural": natural and natural.value,
        "natural_low": natural and natural.low,
        "natural_high": natural and natural.high,
        "abstained": abstained and abstained.value,
        "mean_radius": each.mean_radius(method),
        "largest": each.largest(method),
        "n": each.n,
        "seeds": each.seeds,
        "missing": each.missing,
    }


def sheet(sweep: str, found: Sequence[Certified], given: Sequence[str] = ()) -> Sheet:
    """Return the table for people, printed rows first."""
    theirs = printed(sweep, (each.data for each in found))
    texts = _radii(given, theirs)
    differing = [name for name in ("data", "n") if len({value for each in found if (value := getattr(each, name))}) > 1]
    header = ["variant", *differing, "σ", "draws", "method", "natural", "abstains", "mean radius", "largest",
              *(f"{captions.L2} {text}" for text in texts)]  # fmt: skip
    lines = []
    for label, data in dict.fromkeys((one.label, one.data) for one in theirs):
        held = {one.radius: one for one in theirs if (one.label, one.data) == (label, data)}
        first = next(iter(held.values()))
        blank = Item(text="")
        numbers = [_printed(f"({held[text].certified})", held[text]) if text in held else blank for text in texts]
        known = [Item(text=data) if name == "data" else blank for name in differing]
        lines.append([Item(text=label), *known, *[blank] * 3, _printed(first.natural, first), *[blank] * 3, *numbers])
    for each, method in itertools.product(found, METHODS):
        known = [_stated(each, name) for name in differing]
        lines.append([Item(text=each.variant), *known, *_items(each, method, texts)])
    return Sheet(header=header, rows=lines, caption=" ".join(_caption(sweep, found, theirs)))


def _stated(each: Certified, name: str) -> Item:
    value = getattr(each, name)
    if not value:
        return Item(text=captions.MISSING)
    return Item(text=value) if name == "data" else Item(text=f"{value:,}", number=value)


def _printed(text: str, of: Printed) -> Item:
    return Item(text=text, number=_of_percent(text.strip("()")), of=of)


def _items(each: Certified, method: str, radii: Sequence[str]) -> list[Item]:
    abstained, mean, most = each.abstained(method), each.mean_radius(method), each.largest(method)
    about = Item(text=METHODS[method].about)
    if abstained is None or mean is None or most is None or each.sigma is None or each.draws is None:
        missing = Item(text=captions.MISSING)
        return [missing, missing, about, *[missing] * (4 + len(radii))]
    stated = [
        Item(text=f"{each.sigma:.3g}", number=each.sigma),
        Item(text=f"{each.draws:,}", number=each.draws),
        about,
        _percent(each, each.natural),
        Item(text=f"{100 * abstained.value:.1f}", number=abstained.value, of=each),
        Item(text=f"{mean:.3f}", number=mean, of=each),
        Item(text=f"{most:.3f}", number=most, of=each),
    ]
    return stated + [_at(each, each.certified(method, radius(text))) for text in radii]


def _at(each: Certified, share: Share | None) -> Item:
    """Return the accuracy at a radius, in brackets as STN counts."""
    if share is None or share == _NOTHING:
        return Item(text="0", number=0.0, of=each)
    return replace(_percent(each, share), note=f"({100 * SHARE * share.value:.1f})")


def _percent(each: Certified, share: Share | None) -> Item:
    if share is None:
        return Item(text=captions.MISSING)
    half = max(share.value - share.low, share.high - share.value)
    return Item(text=f"{100 * share.value:.1f}", margin=f"±{100 * half:.1f}", number=share.value, of=each)


def _caption(sweep: str, found: Sequence[Certified], theirs: Sequence[Printed]) -> Iterator[str]:
    yield (
        f"{sweep}: certified accuracy in % at {captions.L2} radii in [0, 1] pixels: the share of images whose class, "
        f"chosen by {_counts(each.selection for each in found)} selection draws, is right and certified at that radius "
        "or beyond by separate draws, each certificate at 95 % (one-sided Clopper-Pearson bounds, Bonferroni where "
        "there are two). ± the larger side of the 95 % Wilson interval over the images; in brackets × 0.95, as STN "
        "counts."
    )
    yield f"n = {_counts(each.n for each in found)} images."
    if (seeds := max((each.seeds for each in found), default=0)) > 1:
        yield f"Means over up to {seeds} seeds, averaged within each image."
    yield (
        "natural: the chosen class is right. abstains: nothing certified. mean radius: 0 where wrong or an abstention. "
        "largest: what so many draws can certify at most, 0 without an interval beyond. Methods stand apart: the best "
        "of several would need a correction of its own."
    )
    if any(each.abandon == "misclassified" for each in found):
        yield "Images whose selection draws chose a wrong class got no further draws: abstentions."
    if theirs:
        yield f"Printed: {'; '.join(dict.fromkeys(one.source for one in theirs))}, σ not stated."
    if missing := sum(each.missing for each in found):
        yield f"Units still missing: {missing} ({captions.MISSING} where a row has none)."


def _counts(values: Iterable[int | None]) -> str:
    return " or ".join(f"{value:,}" for value in sorted({value for value in values if value})) or "0"
