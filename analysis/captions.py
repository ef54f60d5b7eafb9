"""What stands under a table: all that its numbers do not say themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rna_ray.analysis.cells import BALLS, OF_DRAWS, PIXEL, Cell, Column, length, refuse_mixed, values
from rna_ray.analysis.papers import Row

MISSING, DIVERGED, GUESSES = "\N{EN DASH}", "†", "‡"
BEST = (
    "as trained here, better than every other variant of its column on the same images (95 % paired bootstrap and p, "
    "Bonferroni-corrected)"
)
"""What bold means."""
_GUESSES = "natural accuracy not above chance{}, or by no more than its interval"
MEANINGS = {DIVERGED: "training diverged", GUESSES: _GUESSES.format("")}
"""What the signs beside a label mean."""
L2, LINF = "\N{SCRIPT SMALL L}₂", "\N{SCRIPT SMALL L}∞"
_NAMED = 12
"""The most networks that a caption names."""
Columns = Mapping[Column, Sequence[Cell]]

_ACCURACY = {
    "expected": "accuracy in % over fresh draws",
    "vote": "accuracy in % of the majority vote over the draws (a tie of k classes with the true one among them: 1/k)",
    "worst": "% of images right on every draw",
}
_CRAFTED = {
    "train_frozen": "crafted with each batch's statistics and answered with the running ones",
    "eval": "crafted with the running statistics and answered with each batch's",
}
_DIFFERENCE = {
    "expected": "accuracy over fresh draws",
    "vote": "accuracy of the majority vote over the draws",
    "worst": "share of images right on every draw",
}


def accuracy(
    sweep: str, cells: Sequence[Cell], columns: Columns, n: int | None, ball: str | None, marked: bool, *,
    over_seeds: bool = False,
) -> str:
    """Return the caption of a table of accuracies, with intervals over the examples or over seeds."""
    interval = "± the larger side of its 95 % Wilson interval over the examples"
    if over_seeds:
        interval = "± its 95 % Student interval over seeds, where there are several"
    sentences = [f"{sweep}: {_answered(cells, _ACCURACY)}, {interval}.", *_setting(cells, n, ball)]
    if parts := [(cell.se_paths, cell.se_examples or 0.0) for cell in cells if cell.se_paths]:
        paths, examples = (f"{100 * max(part):.1f}" for part in zip(*parts, strict=True))
        sentences.append(f"Over several paths, standard errors: paths at most {paths}, examples {examples}.")
    sentences += [*_seeds(cells, over_seeds), *_draws(cells)]
    if len({cell.variant for cell in cells if cell.accuracy is not None}) > 1:
        sentences.append(f"Bold: {BEST}{'' if marked else '; here none is'}.")
    return " ".join([*sentences, *_shared(columns, over_seeds), *_notes(cells, columns)])


def audit(sweep: str, cells: Sequence[Cell]) -> str:
    """Return what the audit's marks mean in a table of these cells."""
    others = any(cell.answer != "expected" for cell in cells)
    always = ", always of the accuracy over fresh draws, whatever the answer here" if others else ""
    return (
        "audit: checks of an honest evaluation that a variant's cells passed ✓, failed ✗ (✗ beside a cell that fails "
        f"one), or that no one measured ?{always}: see rna-ray audit {sweep}."
    )


def stopped(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return which networks were stopped early, given the rows of queries/stopped.sql."""
    seeds = {json.loads(row["axes"]).get("seed") for row in rows}
    said = []
    for row in rows[:_NAMED]:
        seed = f"seed {json.loads(row['axes'])['seed']}, " if len(seeds) > 1 else ""
        said.append(f"{row['variant']} ({seed}after epoch {row['epoch']})")
    more = [f"and {len(rows) - _NAMED} more"] if len(rows) > _NAMED else []
    return f"Stopped early, and in no number here: {', '.join([*said, *more])}."


def mark(cells: Sequence[Cell]) -> str:
    """Return the sign beside the label of a row of these cells."""
    if any(cell.diverged for cell in cells):
        return DIVERGED
    return GUESSES if any(cell.guesses for cell in cells) else ""


def printed(
    rows: Sequence[Row], trained: Sequence[Mapping[str, Any]], unasked: Sequence[str], unlike: Mapping[str, str],
    audited: bool,
) -> str:
    """Return what there is to say of printed rows: their source, and how our networks differ from the paper's.

    `trained` are the rows of queries/trained.sql, `unasked` the printed attacks that the table has no column for,
    `unlike` the columns whose printed numbers are of an attack with other options: its label → the paper's.
    """
    sources = list(dict.fromkeys(line.source for row in rows for line in row.lines))
    checks = ", checked by rna-ray audit --published" if audited else ""
    restarts = any(line.interval for row in rows for line in row.lines)
    intervals = "with its 95 % interval over restarts" if restarts else "without interval"
    sentences = [
        f"Printed rows: {'; '.join(sources)}, {intervals} and never bold{checks}.",
        "Of ours, only rows under protocol paper, trained at its scale, compare with them like with like.",
    ]
    if trained:
        sentences.append(f"Trained for ours: {'; '.join(map(_trained, trained))}.")
    sentences += [f"Printed under {ours}: the numbers of {full}." for ours, full in unlike.items()]
    if unasked:
        sentences.append(f"Printed, but not asked for here: {', '.join(unasked)}.")
    return " ".join(sentences)


def _trained(row: Mapping[str, Any]) -> str:
    images = f"{row['train_examples']:,} images of {row['data']}"
    epochs = f"{row['epochs']} epoch{'' if row['epochs'] == 1 else 's'}"
    inner = f"under {attack(json.loads(row['attack']))}" if row["attack"] else "without an attack"
    start = " from given weights" if row["given"] else ""
    return f"{row['network']} of width {row['width']}{start} on {images} for {epochs} {inner}, in {row['precision']}"


def attack(settings: Mapping[str, Any]) -> str:
    """Return an attack, given by its resolved settings, in words: PGD-7 within ℓ∞ ε = 8/255, steps of 2/255."""
    steps = f"-{settings['steps']}" if "steps" in settings else ""
    radius = length(settings["eps_255"], settings.get("eps_space")) if "eps_255" in settings else ""
    within = f" within {BALLS[settings['threat']]} ε = {radius}" if radius else ""
    step = f", steps of {settings['step_255']:g}/255" if "step_255" in settings else ""
    return f"{settings['name'].upper()}{steps}{within}{step}"


def comparison(
    sweep: str, against: str, cells: Sequence[Cell], columns: Columns, n: int | None, ball: str | None, without: bool
) -> str:
    """Return the caption of a table of differences; `cells` are those of all variants, the compared one included."""
    compared = f"{_answered(cells, _DIFFERENCE)} minus that of {against} on the same images, in points"
    interval = "± the larger side of its 95 % paired bootstrap interval"
    tests = "p two-sided and for each cell alone (McNemar's exact test where images are right or wrong, else bootstrap)"
    sentences = [
        f"{sweep}: {compared}, {interval}, {tests}.",
        *_setting(cells, n, ball),
        *_seeds(cells),
        *_draws(cells),
    ]
    if without:
        sentences.append(f"{MISSING}: no image, data or ε in common, or shared draws whose chance is not known.")
    return " ".join([*sentences, *_shared(columns), *_notes(cells, columns)])


def distortion(cell: Cell) -> str:
    """Return how far an attack without a ball went, in the median; nothing for others."""
    if cell.accuracy is None or cell.median_l2 is None or cell.median_linf is None:
        return ""
    return f"[{L2} {cell.median_l2:.2g}, {LINF} {cell.median_linf:.2g}]"


def _answered(cells: Sequence[Cell], words: Mapping[str, str]) -> str:
    answers = list(dict.fromkeys(cell.answer for cell in cells))
    if len(answers) == 1:
        return words[answers[0]]
    return "; ".join(f"{answer}: {words[answer]}" for answer in answers)


def _setting(cells: Sequence[Cell], n: int | None, ball: str | None) -> Iterator[str]:
    yield f"n = {n} examples where nothing else is said." if n else "No example has been evaluated yet."
    if ball:
        yield f"Attacks within {ball} where nothing else is said."
    if any(cell.median_l2 is not None for cell in cells):
        yield f"[{L2}, {LINF}]: median distances of an unbounded attack on images that were right, in [0, 1]."


def _seeds(cells: Sequence[Cell], in_intervals: bool = False) -> Iterator[str]:
    seeds = max(cell.seeds for cell in cells)
    if in_intervals:
        yield "One seed: no interval over seeds can be given." if seeds == 1 else f"Means over up to {seeds} seeds."
    elif seeds > 1:
        spread = max((cell.seed_sd for cell in cells if cell.seed_sd is not None), default=0.0)
        within = "whose standard deviation, in no interval, is at most"
        yield f"Means over up to {seeds} seeds, {within} {100 * spread:.1f}."


def _draws(cells: Sequence[Cell]) -> Iterator[str]:
    """Yield a warning where answers that depend on the number of draws were given over several numbers of them."""
    counted = [cell for cell in cells if cell.answer in OF_DRAWS and cell.draws and cell.random]
    if len(draws := {cell.draws for cell in counted if cell.draws}) > 1:
        few, many = min(draws), max(draws)
        over = f"over {few} draw{'' if few == 1 else 's'}"
        if any(cell.answer == "worst" for cell in counted):
            yield f"`worst` {over} is easier than over {many}: compare columns of equal draws."
        else:
            yield f"`vote` {over} is another answer than over {many}: compare columns of equal draws."


def _shared(columns: Columns, over_seeds: bool = False) -> Iterator[str]:
    """Yield what images of a batch have in common, and whether the intervals know it."""
    named: dict[str, list[Cell]] = {}
    for (attack, knowledge, _), held in columns.items():
        named.setdefault(attack if knowledge == "none" else f"{attack}@{knowledge}", []).extend(held)

    def those(holds: Callable[[Cell], bool]) -> str:
        return ", ".join(name for name, held in named.items() if any(holds(cell) for cell in held))

    single = those(lambda cell: cell.alone)
    alone = f" (in {single}, all images count as one example)" if single else ""
    if names := those(lambda cell: cell.shared and bool(cell.shared_paths)):
        counted = "" if over_seeds else f": the intervals include its chance{alone}"
        yield f"Images of a batch share a draw in {names}{counted}."
    if together := [cell for held in columns.values() for cell in held if cell.batch_statistics]:
        variants = ", ".join(dict.fromkeys(cell.variant for cell in together))
        sizes = " or ".join(str(size) for size in sorted({cell.batch_statistics or 0 for cell in together}))
        counted = "" if over_seeds else f": the intervals are over batches{alone}"
        yield f"Attacks or answers take statistics of the batch of {sizes} in {variants}{counted}."
    if names := those(lambda cell: bool(cell.regrouped) and not cell.shared and cell.knowledge != "enumerate"):
        counted = "" if over_seeds else ": their chance is not in the intervals"
        yield f"Images of a batch were attacked on the same draws in {names}{counted}."
    if names := those(lambda cell: cell.eps_space not in (None, PIXEL) and cell.eps_255 is None):
        yield f"The deviation of {names} is one of normalised pixels."
    for mode in dict.fromkeys(cell.attack_mode for held in columns.values() for cell in held if cell.attack_mode):
        names = those(lambda cell, mode=mode: cell.attack_mode == mode)
        counted = "" if over_seeds else f": the intervals are over batches{alone}"
        yield f"{names}: attack_mode {mode}, {_CRAFTED[mode]}{counted}."
    if names := those(_stops_at_a_success):
        said = f"a success on one draw counts as one in the search of {names}"
        yield f"On random networks, {said}, which may flatter the defence."


def _stops_at_a_success(cell: Cell) -> bool:
    """Return whether one draw's success ends the search for the smallest perturbation of a random network."""
    return cell.random and cell.median_l2 is not None and cell.knowledge not in ("fixed", "none")


def _notes(cells: Sequence[Cell], columns: Columns) -> Iterator[str]:
    yield from _mixtures(columns)
    if any(cell.diverged for cell in cells):
        yield f"{DIVERGED}: {MEANINGS[DIVERGED]}."
    if chances := sorted({f"1/{cell.classes}" for cell in cells if cell.guesses}):
        above = _GUESSES.format(f" ({', '.join(chances)})")
        yield f"{GUESSES}: {above}."
    if missing := sum(bool(cell.missing) for held in columns.values() for cell in held):
        yield f"Cells with units still missing: {missing} ({MISSING} where a cell has none of them)."


_MIXED = {"eps_255": "ε (in 1/255)", "step_255": "step lengths (in 1/255)", "data": "data", "checkpoint": "checkpoints"}


def _mixtures(columns: Columns) -> Iterator[str]:
    """Yield a sentence for each setting that differs within columns; QueryError for those that bar comparison."""
    refuse_mixed(cell for held in columns.values() for cell in held)
    found: dict[tuple[str, str], list[str]] = {}  # what is mixed → the columns that mix it
    for column, held in columns.items():
        name = "@".join(column[:2])
        for setting, word in _MIXED.items():
            if len(mixed := values(held, setting)) > 1:
                found.setdefault((word, ", ".join(mixed)), []).append(name)
    for (word, mixed), names in found.items():
        if len(names) == 1:
            yield f"Column {names[0]} mixes {word}: {mixed}."
        else:
            which = "All columns" if len(names) == len(columns) else f"Columns {', '.join(names)}"
            yield f"{which} mix {word}: {mixed}."
