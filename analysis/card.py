"""The card of a network: what it is, how it was trained, how accurate it is and against whom, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow.compute as pc

from rna_ray.analysis import audit, captions, query, render
from rna_ray.analysis.cells import BALLS, Cell, ablation
from rna_ray.analysis.figures.setting import called
from rna_ray.errors import QueryError

_KNOWS = {
    "transfer": "one draw made before the attack and kept; the network draws afresh",
    "fixed": "the very draw that the network will use",
    "resample": "a fresh draw at every step",
    "eot": "the mean over k fresh draws at every step",
    "aggmo-eot": "the mean over k fresh draws at every step, along aggregated momentum",
    "enumerate": "the mean over all paths",
}
"""What an attacker of each knowledge takes its gradient from."""
_OF_THE_FILE = ("weights", "weights_sha256", "source_sha256")
"""What of a network's settings its exported file takes the place of."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The network that a card is about."""

    name: str
    """What its files are called."""
    trial: Mapping[str, Any]
    """Its row in `trials`."""
    checkpoint: str
    sha256: str
    """Of the exported file."""
    sweep: str | None = None
    variant: str | None = None
    axes: str | None = None
    """As its plan has them; None where no sweep asks for it."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that decided it."""
        return json.loads(self.trial["settings"])


def card(connection: duckdb.DuckDBPyConnection, subject: Subject) -> str:
    """Return the card as Markdown, with the front matter that model hubs read; the licence is left to its owner.

    Accuracies are those that the sweep's table would have of this network alone, of the weights that the file holds.
    """
    parts = [
        _FRONT,
        f"# {subject.name}",
        _about(subject),
        render.markdown(["", ""], _facts(subject)).rstrip(),
        "## Accuracy",
        _accuracy(connection, subject),
        "## How to load it",
        _loading(subject),
        "## All settings",
        f"```json\n{json.dumps(subject.settings, indent=1, sort_keys=True)}\n```",
        "## Licence",
        "Not stated yet: say here, and as `license` above, under which terms these weights may be used.",
    ]
    return "\n\n".join(parts) + "\n"


_FRONT = """---
library_name: rna-ray
tags: [image-classification, adversarial-robustness, random-normalization]
license:   # yours to say
---"""


def _about(subject: Subject) -> str:
    trial = subject.trial
    what = f"A {called(trial['network'])} for images of {called(trial['data'])}"
    if trial["objective"] == "imported":
        return f"{what}, trained elsewhere and evaluated by rna-ray."
    inner = f", under {captions.attack(json.loads(trial['attack']))}" if trial["attack"] else ""
    return f"{what}, trained by rna-ray: {trial['objective']}, {trial['epochs']} epochs{inner}."


def _facts(subject: Subject) -> list[list[str]]:
    trial, normalised = subject.trial, subject.settings["network"]
    paths = f"{trial['norm']}, 2^{trial['log2_paths']:.3g} paths" if trial["log2_paths"] else trial["norm"]
    facts = {
        "network": f"{trial['network']}, width {trial['width']}" if trial["width"] else trial["network"],
        "norm space": f"{paths}, one draw for the whole network" if trial["layer_based"] else paths,
        "parameters": f"{trial['parameters']:,}",
        "input": "images in [0, 1]; what is taken from them and divided by is inside: "
        + (f"mean {normalised['mean']}, std {normalised['std']}" if normalised.get("mean") else "its data set's"),
        "data": f"{trial['data']}, digest {trial['data_digest'][:16]}",
        "training": f"{trial['train_examples']:,} images, {trial['held_out']:,} held out, seed {trial['seed']}",
        "weights": _weights(subject),
        "made by": f"rna-ray {trial['rna_ray']}, commit {(trial['commit'] or 'unknown')[:12]}, torch {trial['torch']}, "
        f"{trial['device']}, {trial['precision']}",
        "unit": trial["unit_id"],
        "SHA-256 of the file": subject.sha256,
    }
    if trial["objective"] == "imported":
        del facts["training"]
    return [[name, fact] for name, fact in facts.items()]


def _weights(subject: Subject) -> str:
    if subject.checkpoint == "best":
        return f"best on held-out images, of epoch {subject.trial['best_epoch']} of {subject.trial['epochs']}"
    return "as given" if subject.trial["objective"] == "imported" else "after the last epoch"


def _accuracy(connection: duckdb.DuckDBPyConnection, subject: Subject) -> str:
    """Return the table of its accuracies, or why there is none."""
    cells, judged = _cells(connection, subject)
    if not cells:
        return f"The store holds no evaluation of its {subject.checkpoint} weights."
    header = ["attack", "radius", "attacker knows", "images", "draws", "accuracy, %", "95 % interval", "audit"]
    grid = [[*_cell(cell), _audited(cell, judged)] for cell in cells]
    knows = dict.fromkeys(_kind(cell.knowledge) for cell in cells)
    told = [f"* `{kind}`: {_KNOWS[kind]}" for kind in knows if kind in _KNOWS]
    notes = [
        "Means over fresh draws, intervals over the images. The audit counts checks of an honest evaluation that were",
        "passed ✓, failed ✗, or that nobody measured ?.",
        *(["What the attacker took its gradient from:", "", *told] if told else []),
    ]
    return "\n".join([render.markdown(header, grid), *notes])


def _cells(connection: duckdb.DuckDBPyConnection, subject: Subject) -> tuple[Sequence[Cell], audit.Judged]:
    """Return the cells of this network alone, measured on these weights, and their audit."""
    if subject.sweep is None:
        return [], {}
    plans = query.answer(connection, "FROM plans")
    own = {"sweep": subject.sweep, "variant": subject.variant, "axes": subject.axes}
    for column, value in own.items():
        plans = plans.filter(pc.equal(plans[column], value))
    connection.register("plans", plans)
    try:
        cells = ablation(connection, subject.sweep)
    except QueryError:  # the sweep asks for no evaluation
        return [], {}
    measured = [cell for cell in cells if cell.accuracy is not None and cell.checkpoint == subject.checkpoint]
    return measured, audit.judge(connection, subject.sweep) if measured else {}


def _cell(cell: Cell) -> list[str]:
    assert cell.accuracy is not None
    ball = f"{BALLS[cell.threat]} {captions.length(cell.eps_255, cell.eps_space)}" if cell.threat in BALLS else ""
    within = ball or captions.distortion(cell)
    interval = "" if cell.low is None or cell.high is None else f"{100 * cell.low:.1f} to {100 * cell.high:.1f}"
    knows = "" if cell.knowledge == "none" else cell.knowledge
    return [cell.attack, within, knows, f"{cell.n:,}", str(cell.draws), f"{100 * cell.accuracy:.1f}", interval]


def _audited(cell: Cell, judged: audit.Judged) -> str:
    checks = judged.get((cell.variant, cell.attack, cell.knowledge))
    return audit.total(checks) if checks else ""


def _kind(knowledge: str) -> str:
    """Return a knowledge without its k."""
    kind, _, k = knowledge.rpartition("-")
    return kind if k.isdecimal() else knowledge


def _loading(subject: Subject) -> str:
    given = subject.settings["network"]
    stated = {key: value for key, value in given.items() if value is not None and key not in _OF_THE_FILE}
    file = f"{subject.name}.safetensors"
    network = ", ".join(f"{key}: {json.dumps(value)}" for key, value in {**stated, "weights": file}.items())
    module = ", root=FOLDER" if "import" in given else ""
    own = f" `FOLDER` is that of the module of `{given['import']}`, whose code is run." if module else ""
    return "\n".join(
        [
            f"With rna-ray ({subject.trial['rna_ray']} or later), in Python:",
            "",
            "```python",
            "import rna_ray",
            f'network = rna_ray.load_network("{file}"{module})',
            "logits = network(images)    # images (N, C, H, W) in [0, 1]; random norms draw a path for each image",
            "```",
            "",
            f"or in a sweep that evaluates it, or trains on from it:{own}",
            "",
            "```yaml",
            f"network: {{{network}}}",
            "```",
        ]
    )
