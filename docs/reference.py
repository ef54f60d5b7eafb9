"""Write docs/reference.md from the sentences that stand beside the settings: `make reference`.

What is said of a setting is said once, in `rna_ray/sweep/`, in the catalogs and in `store/records.py`; here it is only
put in order. `tests/unit/test_docs.py` holds that the page is what this file gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rna_ray.attacks.catalog import ATTACKS, Named, Option
from rna_ray.data import DATASETS
from rna_ray.networks import spaces
from rna_ray.networks.describe import NETWORKS
from rna_ray.probes.catalog import PROBES
from rna_ray.store.records import DETAILS, PROVENANCE, SCHEMAS, Column
from rna_ray.sweep.entries import Certification, Evaluation, Probe
from rna_ray.sweep.experiment import Experiment, SweepSpec
from rna_ray.sweep.suites import SUITES

Schema = Mapping[str, Any]
Rows = Iterable[tuple[str, ...]]

PAGE = Path(__file__).with_suffix(".md")
FREE = "°"
"""Marks a setting that does not count towards an id."""
LISTS: Mapping[str, type[BaseModel]] = {"evaluation": Evaluation, "probes": Probe, "certification": Certification}
"""The lists of a sweep file, and what an entry of each is."""
CHAPTERS = {
    "`rna_ray.data.DATASETS`": "[the table below](#data-sets)",
    "`rna_ray.networks.describe.NETWORKS`": "[the table below](#networks)",
    "`rna_ray.attacks.catalog.ATTACKS`": "[the chapter below](#the-attacks)",
    "`rna_ray.probes.catalog.PROBES`": "[the chapter below](#the-probes)",
}
"""What a sentence says of the code, and where this page has it."""
SCOPES = {"network": "each network", "pair": "each ordered pair of networks", "unordered pair": "every two networks"}

INTRODUCTION = f"""\
# Every setting of a sweep file

`make reference` writes this page from the sentences beside the settings in the code; a change here would be lost.

The keys of a section stand below its name, so `training.attack.steps` is `steps:` in `attack:` in `training:`, and
`--set training.attack.steps=5` overrides it. Unknown and duplicate keys are refused. What ends in `_255` is in 255ths
of the pixel range. Settings marked {FREE} do not count towards an id: what is done stays done when they change.

Chapters: [what may vary](#what-may-vary), [the sweep around it](#the-sweep-around-it), [entries](#entries),
[norms](#norms), [data sets](#data-sets), [networks](#networks), [the attacks](#the-attacks), [the suites](#the-suites),
[the probes](#the-probes), [the views of a store](#the-views-of-a-store).
"""
ATTACKS_TAKE = """\
The options of an attack stand in its entry of `evaluation:`, beside `attack`. Where an entry leaves out `threat`,
`eps_space`, `eps_255` or `step_255`, it takes what `training.attack` states, and only then the default. A list of
values, `steps: [10, 20]`, stands for an entry each. Under ℓ∞ no `eps_255` or `step_255` is above 255.
"""
PROBES_TAKE = """\
The options of a probe stand in its entry of `probes:`, beside `probe`. What it leaves out of its ball and step is taken
from `training.attack`, as for attacks.
"""
SUITES_TAKE = """\
`{suite: NAME}` in `evaluation:` stands for these entries; what stands beside it holds for each that takes it. Those
marked ⅕ are done on the first fifth of the examples, 200 where it states no number.
"""
VIEWS = """\
`rna-ray query` and `rna_ray.open_store` ask these. A column marked ? may be null.
"""


def page() -> str:
    """Return the whole page."""
    schema = SweepSpec.model_json_schema()
    varying = list(Experiment.model_fields)
    whole = [name for name in schema["properties"] if name not in varying]
    return "\n".join([
        INTRODUCTION,
        "## What may vary\n",
        "These settle one network and how it is trained; `grid:` and `variants:` may set any of them.\n",
        *_sections(schema, schema, "", varying),
        "## The sweep around it\n",
        *_sections(schema, schema, "", whole),
        "## Entries\n",
        *_entries(),
        "## Norms\n",
        spaces.__doc__.partition("\n\n")[2],
        "## Data sets\n",
        _table(("Name", "Images", "Training", "Test", "Classes", "Read from"), _data_sets()),
        "## Networks\n",
        _table(("Name", "Width", ""), ((f"`{n.name}`", str(n.width), n.about) for n in NETWORKS.values())),
        "## The attacks\n",
        ATTACKS_TAKE,
        *(part for record in ATTACKS.values() for part in _named(record, _knowledge(record.name))),
        "## The suites\n",
        SUITES_TAKE,
        *_suites(),
        "## The probes\n",
        PROBES_TAKE,
        *(part for record in PROBES.values() for part in _named(record, _scope(record.name))),
        "## The views of a store\n",
        VIEWS,
        *_views(),
    ])  # fmt: skip


def _sections(schema: Schema, section: Schema, place: str, names: Iterable[str] | None = None) -> Iterator[str]:
    """Yield a section's table, what is required first, then those of the sections in it, each under its dotted name."""
    required = section.get("required", ())
    asked = [name for name in section["properties"] if name != "options" and (names is None or name in names)]
    fields = {name: section["properties"][name] for name in sorted(asked, key=lambda name: name not in required)}
    yield _table(("Setting", "Takes", "Default", ""), (
        (f"`{name}`{FREE if _free(field) else ''}", _takes(field, f"{place}{name}"),
         "*required*" if name in required else _default(field), _about(schema, field))
        for name, field in fields.items()
    ))  # fmt: skip
    for name, field in fields.items():
        if below := _section(field):
            held = schema["$defs"][below]
            yield f"### {place}{name}\n\n{_sentence(held['description'])}\n"
            yield from _sections(schema, held, f"{place}{name}.")


def _entries() -> Iterator[str]:
    for name, model in LISTS.items():
        schema = model.model_json_schema()
        yield f"### {name}\n\n{_sentence(schema['description'])}\n"
        yield from _sections(schema, schema, f"{name}.")


def _named(record: Named, more: str) -> Iterator[str]:
    """Yield what an attack or a probe is, and its options."""
    yield f"### {record.kind}: {record.name}\n\n{record.about} {more} Tables call it `{record.called({})}`.\n"
    if record.options:
        yield _table(("Option", "Takes", "Default", ""), (
            (f"`{option.name}`", _words(option), _value(option.default), option.about) for option in record.options
        ))  # fmt: skip


def _words(option: Option) -> str:
    return _choices(option.choices) or option.allowed


def _choices(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _knowledge(attack: str) -> str:
    record = ATTACKS[attack]
    return f"By default it knows `{', '.join(record.knowledge)}`." if record.adaptive else "Takes no `knowledge`."


def _scope(probe: str) -> str:
    record = PROBES[probe]
    return f"By default for {SCOPES[record.scope(record.settings({}))]}, on {record.examples:,} images."


def _suites() -> Iterator[str]:
    for name, entries in SUITES.items():
        yield f"### suite: {name}\n"
        for share, entry in entries:
            stated = ", ".join(f"{key}: {_plain(value)}" for key, value in entry.items())
            yield f"* `{{{stated}}}`" + (" ⅕" if share == "fewer" else "")
        yield ""


def _data_sets() -> Rows:
    for record in DATASETS.values():
        if not record.classes:  # which a plan must look for
            yield f"`{record.name}`", "3×side×side", *("as found",) * 3, "`data.root`"
            continue
        shape = "×".join(map(str, record.shape))
        yield (f"`{record.name}`", shape, f"{record.train_examples:,}", f"{record.test_examples:,}",
               f"{record.classes:,}", "`data.root`" if record.needs_root else "what is installed")  # fmt: skip


def _views() -> Iterator[str]:
    for name, columns in SCHEMAS.items():
        traced = tuple(columns)[-len(PROVENANCE):] == PROVENANCE
        yield f"### view: {name}\n"
        if name in DETAILS:
            yield f"Rows count once their unit has one in `{DETAILS[name]}`.\n"
        yield _columns(tuple(columns)[: -len(PROVENANCE)] if traced else columns)
        if traced:
            yield "Then the columns of [provenance](#provenance).\n"
    yield "### provenance\n"
    yield _columns(PROVENANCE)


def _columns(columns: Iterable[Column]) -> str:
    return _table(("Column", "Type", ""), (
        (f"`{column.name}`{'?' if column.nullable else ''}", str(column.type).replace("item: ", ""),
         column.metadata[b"description"].decode())
        for column in columns
    ))  # fmt: skip


def _table(titles: tuple[str, ...], rows: Rows) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _free(field: Schema) -> bool:
    return not field.get("counts", True)


def _section(field: Schema) -> str | None:
    """Return the name of the section that a field holds, if it holds one."""
    held = next((one["$ref"] for one in _kinds(field) if "$ref" in one), None)
    return held.rpartition("/")[2] if held else None


def _kinds(field: Schema) -> list[Schema]:
    return field.get("anyOf", [field])


def _takes(field: Schema, place: str) -> str:
    """Return the values that a field takes, in words."""
    return " or ".join(_kind(kind, place) for kind in _kinds(field))


def _kind(kind: Schema, place: str) -> str:
    if "$ref" in kind:
        return f"[a section](#{place.replace('.', '').lower()})"
    if "enum" in kind:
        return _choices(kind["enum"])
    if place in LISTS:
        return f"[a list of entries](#{place})"
    match kind["type"]:
        case "array":
            return f"a list of {_each(kind['items'])}"
        case "integer" | "number":
            return f"a {'whole ' if kind['type'] == 'integer' else ''}number{_limits(kind)}"
        case simple:
            return {"boolean": "true or false", "string": "text", "object": "a mapping", "null": "null"}[simple]


def _each(kind: Schema) -> str:
    words = {"integer": "whole numbers", "number": "numbers", "string": "texts"}
    return words.get(kind.get("type", ""), "values") + _limits(kind)


def _limits(kind: Schema) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "up to", "exclusiveMaximum": "below"}
    stated = [(word, kind[name]) for name, word in words.items() if name in kind]
    return "".join(f" {word} {'2⁶³' if limit == 2**63 else f'{limit:,}'}" for word, limit in stated)


def _default(field: Schema) -> str:
    return "" if _section(field) and field["default"] is not None else _value(field["default"])


def _value(value: object) -> str:
    return f"`{_plain(value)}`"


def _plain(value: object) -> str:
    """Return a value as a sweep file would have it: 8, not 8.0."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    whole = isinstance(value, float) and value.is_integer()
    return value if isinstance(value, str) and value else json.dumps(int(value) if whole else value)


def _about(schema: Schema, field: Schema) -> str:
    """Return a field's sentence, which is left out of the schema where it is its section's too."""
    return _sentence(field.get("description") or schema["$defs"][_section(field)]["description"])


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    for code, chapter in CHAPTERS.items():
        text = text.replace(code, chapter)
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
