"""What a shell completes: names of sweeps, tables and figures. Light, and never an error: there the shell is silent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from typer import Context  # where typer looks at run time for what to give

TABLES = ("bound", "distortion", "smoothness")
"""The tables that are no sweep's: to ask `analysis` for them would take a second at every key."""


def sweep_files(incomplete: str) -> list[str]:
    """Return sweep files of this folder and the names of those that ship."""
    return _fitting(incomplete, [*map(str, sorted(Path().glob("*.yaml"))), *_names("rna_ray.sweeps", ".yaml")])


def sweeps(ctx: Context, incomplete: str) -> list[str]:
    """Return the sweeps that the store knows."""
    return _fitting(incomplete, _stored(ctx))


def tables(ctx: Context, incomplete: str) -> list[str]:
    """Return the tables that there are: the store's sweeps, and queries of their own."""
    return _fitting(incomplete, [*_stored(ctx), *TABLES])


def figures(ctx: Context, incomplete: str) -> list[str]:
    """Return the figures that there are: the store's sweeps, and those that have a sweep that ships."""
    shipped = [name for name in _names("rna_ray.sweeps", ".yaml") if "-figure" in name or name.endswith("-theory")]
    return _fitting(incomplete, [*_stored(ctx), *shipped])


def _fitting(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _names(package: str, suffix: str) -> Iterator[str]:
    for entry in sorted(files(package).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(suffix):
            yield entry.name.removesuffix(suffix)


def _stored(ctx: Context) -> list[str]:
    """Return the sweeps of a store on this disk: a remote one would keep whoever types waiting."""
    from rna_ray.store import open_store

    uri = ctx.params.get("store") or "rna-store"
    with contextlib.suppress(Exception):
        if "://" not in uri:
            return open_store(uri).sweeps()
    return []
