"""Expand a sweep into its variants: named ones times the grid's product times a search's points, in a fixed order."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rna_ray.errors import SweepError, UserError
from rna_ray.networks import spaces
from rna_ray.sweep import search
from rna_ray.sweep.entries import Entry, Evaluation
from rna_ray.sweep.experiment import Experiment, SweepSpec, validated
from rna_ray.sweep.overrides import covers, override, overrides
from rna_ray.sweep.sections import GIVEN, IMPORTED_ONLY, NAMED_ONLY
from rna_ray.sweep.units import canonical

VARIED = tuple(Experiment.model_fields)
_LONGEST_NAME = 100
"""The most characters of a sweep's name that stands in the name of a file beside a unit's id."""
_PAPER = {"network.paths": "batch", "training.attack_mode": "train"}
_OTHER_KIND = {"import": NAMED_ONLY, "name": IMPORTED_ONLY}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One experiment of a sweep."""

    label: str
    """How tables call it: its name and the values of its axes; the seed is a repetition, not a variant."""
    name: str | None
    """Its name under `variants`, if it has one."""
    row: Mapping[str, Any]
    """The value of every dotted key that varies within the sweep, but for the priority."""
    experiment: Experiment
    """Its settings, the protocol's applied."""
    race: str
    """What it shares with the other points of its search: the variant and the grid point that they are tried in."""


def variants(spec: SweepSpec) -> tuple[Variant, ...]:
    """Return a sweep's variants; one that is not valid is a SweepError with its label."""
    return tuple(_variants(spec))


def check(spec: SweepSpec) -> None:
    """Raise SweepError where the axes, a variant, or an evaluation entry's `only` or protocol cannot be."""
    _check_axes(spec)
    _check_search(spec)
    found = variants(spec)
    _check_race(spec, found)
    lists: Mapping[str, Sequence[Entry]] = {
        "evaluation": spec.evaluation, "probes": spec.probes, "certification": spec.certification
    }
    for name, entries in lists.items():
        for at, entry in enumerate(entries):
            _check_only(f"{name}.{at}.only", entry, found)
    for at, entry in enumerate(spec.evaluation):
        if entry.source is not None:
            _check_called(f"evaluation.{at}.source", entry.source, found)
        if any(variant.experiment.protocol == "paper" for variant in meant(entry, found)):
            _check_paper(at, entry)


def _check_only(where: str, entry: Entry, found: Sequence[Variant]) -> None:
    for text in entry.only or ():
        _check_called(where, text, found)


def _check_called(where: str, text: str, found: Sequence[Variant]) -> None:
    if not called(text, found):
        labels = ", ".join(dict.fromkeys(variant.label for variant in found))
        raise SweepError(f"{where}: no variant is called {text!r}; there are: {labels}")


def meant(entry: Entry, found: Sequence[Variant]) -> tuple[Variant, ...]:
    """Return the variants that an entry of `evaluation`, `probes` or `certification` is for."""
    if entry.only is None:
        return tuple(found)
    named = [variant for text in entry.only for variant in called(text, found)]
    return tuple(variant for variant in found if variant in named)


def without_other_kind(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a shared tree without what of its network does not go with the kind that the dotted keys of `own` set.

    So a variant may import a network where the others are named and trained, and the reverse. Weights go with the
    network beside which they stand.
    """
    network, kind = shared.get("network"), _kind(own)
    if kind is None or not isinstance(network, Mapping):
        return dict(shared)
    strangers = _OTHER_KIND[kind]
    if any(network.get(other) is not None for other in _OTHER_KIND if other != kind):
        strangers += GIVEN
    return {**shared, "network": {key: value for key, value in network.items() if key not in strangers}}


def _kind(own: Mapping[str, Any]) -> str | None:
    """Return whether dotted keys set a network's `import` or its `name`."""
    whole = own.get("network")
    stated = whole if isinstance(whole, Mapping) else {}
    return next((kind for kind in _OTHER_KIND if own.get(f"network.{kind}", stated.get(kind)) is not None), None)


def called(text: str, found: Sequence[Variant]) -> list[Variant]:
    """Return the variants of this label or name, and only where there are none, those with this norm or axis value."""
    by_name = [variant for variant in found if text in (variant.label, variant.name)]
    return by_name or [
        variant
        for variant in found
        if text == variant.experiment.network.norm or text in map(_text, variant.row.values())
    ]


def _variants(spec: SweepSpec) -> Iterator[Variant]:
    base = spec.model_dump(include=set(VARIED), exclude_unset=True)
    named: list[tuple[str | None, Mapping[str, Any]]] = list(spec.variants.items()) or [(None, {})]
    for name, values in named:
        seeds = values.get("seed")
        repeated = {**spec.grid, "seed": seeds} if isinstance(seeds, list | tuple) else spec.grid
        listed = (dict(zip(repeated, one, strict=True)) for one in itertools.product(*repeated.values()))
        for axes, race in _points(spec, name, listed):
            own = {**values, **axes}
            shared = without_other_kind(base, own)
            if _kind(own) == "import":
                shared.pop("training", None)  # how the others are trained
            yield _variant(spec, overrides(shared, own), name, axes, race)


def _points(
    spec: SweepSpec, name: str | None, listed: Iterable[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the axes of a named variant's experiments, each with the race that it is in."""
    for axes in listed:
        race = canonical({"variant": name, **axes})
        for point in search.points(spec.search, race) if spec.search else ({},):
            yield {**axes, **point}, race


def _variant(
    spec: SweepSpec, values: dict[str, Any], name: str | None, axes: Mapping[str, Any], race: str
) -> Variant:
    parts = [name] if name is not None else []
    parts += [_part(axis, value) for axis, value in axes.items() if axis != "seed"]
    label = ", ".join(parts)
    try:
        settled = validated(Experiment, values)
        _check_training(settled)
        label = label or settled.network.norm or str(settled.network.function or settled.network.name)
        row = {key: _at(settled, key) for key in _keys(spec)}
        return Variant(label=label, name=name, row=row, experiment=_protocol(values, settled), race=race)
    except UserError as error:
        raise type(error)(f"variant {label!r}: {error}" if label else str(error)) from None


def _check_training(settled: Experiment) -> None:
    if settled.training is None and settled.network.function is None and settled.network.weights is None:
        raise SweepError(f"training: missing; {Experiment.model_fields['training'].description}")
    if settled.training is not None and settled.network.function is not None:
        raise SweepError("training: does not go with network.import, which is not trained here; leave it out")


def _protocol(values: dict[str, Any], settled: Experiment) -> Experiment:
    """Return an experiment with its protocol's settings; one that contradicts them is a SweepError."""
    if settled.protocol == "ours":
        return settled
    for key, value in _PAPER.items():
        section, field = key.split(".")
        if getattr(settled, section) is None:
            continue  # a network that is not trained here
        stated = values.get(section, {}).get(field, value)
        if stated != value:
            raise SweepError(f"{key}: protocol paper means {value}, not {stated}; leave it out, or the protocol")
        values = override(values, key, value)
    if settled.network.norm is not None and spaces.parse(settled.network.norm) == spaces.parse("IN"):
        values = override(values, "network.norm", "IN(affine=false)")
    return validated(Experiment, values)


def _check_paper(at: int, entry: Evaluation) -> None:
    for field, stated, value in (("knowledge", entry.knowledge, ("transfer",)), ("draws", entry.draws, 1)):
        if field in entry.model_fields_set and stated not in (value, None):
            raise SweepError(
                f"evaluation.{at}.{field}: protocol paper means transfer and one draw; leave it out, or say with "
                "`only` for which other variants this entry is"
            )


def _check_axes(spec: SweepSpec) -> None:
    for key, values in spec.grid.items():
        texts = [_text(value) for value in values]
        if len(set(texts)) < len(texts):
            raise SweepError(f"grid.{key}: a value is given twice")
    for name, values in [("grid", spec.grid), *spec.variants.items()]:
        for key in values:
            if key.partition(".")[0] not in VARIED:
                raise SweepError(f"{name}: {key} cannot vary; allowed are {', '.join(VARIED)} and what is in them")
            other = next((axis for axis in spec.grid if axis != key and covers(axis, key)), None)
            if other or (name != "grid" and key in spec.grid):
                raise SweepError(f"{name}: {key} is also set by the grid's axis {other or key}; keep one of them")
        if name != "grid" and isinstance(seeds := values.get("seed"), list | tuple):
            _check_seeds(name, seeds)


def _check_search(spec: SweepSpec) -> None:
    over = spec.search.over if spec.search else {}
    allowed = [key for key in VARIED if key not in ("seed", "priority")]
    listed = [("the grid's axis", key) for key in spec.grid]
    listed += [(f"variant {name!r}, as", key) for name, values in spec.variants.items() for key in values]
    for key in over:
        if key.partition(".")[0] not in allowed:
            names = ", ".join(allowed)
            raise SweepError(f"search.over: {key} cannot be drawn; allowed are {names} and what is in them")
        for where, other in [*listed, *(("the search, as", other) for other in over if other != key)]:
            if covers(key, other) or covers(other, key):
                raise SweepError(f"search.over: {key} is also set by {where} {other}; keep one of them")


def _check_race(spec: SweepSpec, found: Sequence[Variant]) -> None:
    """Refuse to compare points by what they do not have, and early stopping that could stop nothing."""
    if spec.search is None or not spec.search.compares:
        return
    if len(spec.name) > _LONGEST_NAME:
        length = len(spec.name)
        raise SweepError(f"name: of a search that compares, up to {_LONGEST_NAME} characters; these are {length}")
    trained = [(one.label, one.experiment.data, one.experiment.training) for one in found if one.experiment.training]
    by = spec.search.by
    for label, data, training in trained:
        if not data.held_out:
            raise SweepError(f"search.by: variant {label!r} holds out no images to compare by: data.held_out is 0")
        if training.objective == "natural" and by.startswith("adversarial"):
            instead = by.replace("adversarial", "natural")
            raise SweepError(f"search.by: variant {label!r} learns without an attack, and has no {by}; write {instead}")
    stopping, longest = spec.search.early_stopping, max((training.epochs for *_, training in trained), default=0)
    if stopping and stopping.grace >= longest:
        raise SweepError(
            f"search.early_stopping.grace: after {stopping.grace} of {longest} epochs there is nothing to stop; write "
            "less than training.epochs"
        )


def _check_seeds(name: str, seeds: Sequence[Any]) -> None:
    if not seeds:
        raise SweepError(f"variants.{name}.seed: the list is empty; name at least one seed")
    if len(set(map(_text, seeds))) < len(seeds):
        raise SweepError(f"variants.{name}.seed: a seed is given twice")


def _keys(spec: SweepSpec) -> list[str]:
    named = itertools.chain.from_iterable(spec.variants.values())
    keys = dict.fromkeys([*named, *spec.grid, *(spec.search.over if spec.search else ())])
    return [key for key in keys if key != "priority"]  # which says when, not what


def _at(settled: Experiment, key: str) -> Any:
    value: Any = settled.model_dump(mode="json")
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None  # what other variants have, such as training
    return value


def _part(axis: str, value: Any) -> str:
    return value if isinstance(value, str) else f"{axis.rpartition('.')[2]}={_text(value)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
