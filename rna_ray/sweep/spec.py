"""A sweep file becomes a frozen, validated spec, or one sentence that says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rna_ray.errors import SweepError, UserError, unknown
from rna_ray.sweep import expand, suites, yaml_file
from rna_ray.sweep.experiment import SweepSpec, validated
from rna_ray.sweep.overrides import Tree, covers, overrides

__all__ = ["SweepSpec", "from_json", "load", "to_json"]

_Stage = tuple[str, Tree]  # what was applied last, and the tree it gave


def load(path: str | Path, sets: Sequence[str] = (), preset: str | None = None) -> SweepSpec:
    """Return the spec of a sweep file, with a preset and then the `key=value` texts of `sets` applied.

    Raises SweepError (or SpaceError, DataError) with one sentence that starts with the file or the `--set`.
    """
    tree = yaml_file.read(path)
    if not isinstance(tree, dict):
        raise SweepError(f"{path}: a sweep file is a mapping of keys such as name, data, network and training")
    stages: list[_Stage] = [(str(path), tree)]
    if preset is not None:
        stages.append(_preset(path, tree, preset))
    for text in sets:
        stages.append(_set(stages[-1][1], text))
    _refuse_undone(stages[-1][1], stages, sets, preset)
    return _build(stages)


def to_json(spec: SweepSpec) -> str:
    """Return what `from_json` needs to give an equal spec, presets and `--set`s applied."""
    return json.dumps(spec.model_dump(mode="json", exclude_unset=True))


def from_json(text: str) -> SweepSpec:
    """Return the spec that `to_json` wrote; one that this version does not accept is a SweepError."""
    return _settled(json.loads(text))


def _preset(path: str | Path, tree: Tree, preset: str) -> _Stage:
    presets = tree.get("presets") or {}
    if not presets:
        raise SweepError(f"{path}: defines no presets, so --preset {preset} cannot be taken")
    if not isinstance(presets, dict) or preset not in presets:
        raise SweepError(f"{path}: {unknown('preset', preset, presets)}")
    if not isinstance(presets[preset], dict):
        raise SweepError(f"{path}: presets.{preset}: must be a mapping of dotted keys")
    return _applied(f"{path}, preset {preset}", tree, presets[preset])


def _set(tree: Tree, text: str) -> _Stage:
    key, equals, value = text.partition("=")
    if not equals:
        raise SweepError(f"--set {text}: write key=value, such as training.epochs=3")
    where = f"--set {text}"
    return _applied(where, tree, {key.strip(): yaml_file.parse(value, where=where)})


def _applied(where: str, tree: Tree, values: Mapping[str, Any]) -> _Stage:
    try:
        return where, overrides(tree, values)
    except SweepError as error:
        raise SweepError(f"{where}: {error}") from None


def _refuse_undone(tree: Tree, stages: Sequence[_Stage], sets: Sequence[str], preset: str | None) -> None:
    """Refuse an override of a key that the grid or a variant sets anew: it would do nothing, silently."""
    keys = [(f"--set {text}", text.partition("=")[0].strip()) for text in sets]
    if preset is not None:
        keys += [(stages[1][0], key) for key in stages[0][1]["presets"][preset]]
    for where, key in keys:
        for axis in _mapping(tree.get("grid")):
            if covers(axis, key):
                raise SweepError(f"{where}: the grid varies {axis}; replace its values: --set grid.{axis}='[…]'")
        for axis in _searched(tree):
            if covers(axis, key):
                raise SweepError(f"{where}: the search draws {axis}; set from what: --set search.over.{axis}='[…]'")
        for name, values in _mapping(tree.get("variants")).items():
            for axis in _mapping(values):
                if covers(axis, key):
                    raise SweepError(
                        f"{where}: variant {name!r} sets {axis} itself; set that: --set 'variants.{name}.{axis}=…'"
                    )


def _build(stages: Sequence[_Stage]) -> SweepSpec:
    """Return the last stage's spec; its problem is told of the first stage that has it."""
    try:
        return _settled(stages[-1][1])
    except UserError as error:
        where = next(name for name, tree in stages if _problem(tree) == str(error))
        raise type(error)(f"{where}: {error}") from None


def _problem(tree: Tree) -> str | None:
    try:
        _settled(tree)
    except UserError as error:
        return str(error)
    return None


def _settled(tree: Tree) -> SweepSpec:
    spec = validated(SweepSpec, _filled(_plain(tree)))
    expand.check(spec)
    return spec


def _plain(tree: Tree) -> Tree:
    """Return the tree with the suites of its evaluation spelled out."""
    entries = tree.get("evaluation")
    return {**tree, "evaluation": suites.expanded(entries)} if isinstance(entries, list) else tree


def _filled(tree: Tree) -> Tree:
    """Return the tree with the first value of each axis set, so that what only the axes give is not missing.

    Only keys that the grid, the search or every variant sets: nothing leaks into a variant, each sets them anew.
    """
    variants = [_mapping(values) for values in _mapping(tree.get("variants")).values()]
    first = {key: value for key, value in (variants or [{}])[0].items() if all(key in values for values in variants)}
    if isinstance(seeds := first.get("seed"), list):
        first = {**first, "seed": next(iter(seeds), 0)}
    for key, values in _mapping(tree.get("grid")).items():
        if isinstance(values, list) and values:
            first[key] = values[0]
    for key, domain in _searched(tree).items():
        if isinstance(domain, list) and domain:
            first[key] = domain[0]
        elif isinstance(domain, Mapping) and "high" in domain:
            first[key] = domain["high"]
    return overrides(expand.without_other_kind(tree, first), first)


def _searched(tree: Tree) -> Mapping[str, Any]:
    return _mapping(_mapping(tree.get("search")).get("over"))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
