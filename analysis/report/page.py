"""The page as HTML: one file that fetches nothing, in which names from a store are text and nothing else."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from rna_ray.analysis import audit
from rna_ray.analysis.files import put
from rna_ray.analysis.report import contents
from rna_ray.analysis.report.details import command
from rna_ray.errors import ReportError


def page(
    connection: duckdb.DuckDBPyConnection, states: Sequence[Mapping[str, Any]], kinds: Mapping[str, str], store: str,
    made: str,
) -> str:  # fmt: skip
    """Return the page of some sweeps of a store, given how far each is and what it took (`show.account`).

    `kinds` are what people call the units of each kind, `store` is how commands name the store, and `made` says when
    and by what the page was made.
    """
    sweeps = [state["sweep"] for state in states]
    style, script = (Markup(_read(name)) for name in ("page.css", "page.js"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"hours": hours}
    text = environment.from_string(_read("page.html")).render(
        style=style,
        script=script,
        policy=_policy(style, script),
        store=store,
        made=made,
        names=kinds,
        kinds=[kind for kind in kinds if any(state["units"][kind]["total"] for state in states)],
        on_gpus=any(state["gpu_hours"] for state in states),
        signs=audit.SIGNS,
        sections=[contents.section(connection, state, store) for state in states],
        across=contents.across(connection, sweeps, store),
        status=command(store, "status"),
    )
    return text.strip() + "\n"


def _read(name: str) -> str:
    return (files("rna_ray.analysis.report") / name).read_text(encoding="utf-8")


def hours(amount: float | None) -> str:
    """Return hours for people: 3.2, 0.04; nothing where there are none."""
    if not amount:
        return ""
    return f"{amount:,.1f}" if amount >= 1 else f"{amount:.2g}"


def _policy(style: str, script: str) -> str:
    """Return the content security policy: nothing is fetched, nothing runs but the one script that ships."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def write(path: Path, text: str) -> None:
    """Write a page, which appears whole; ReportError where it cannot be written."""
    if os.path.isdir(path):
        raise ReportError(f"cannot write the report to {path}, which is a folder: give a file, such as report.html")
    try:
        put({path: text.encode()})
    except OSError as error:
        raise ReportError(f"cannot write the report to {path}: {error.strerror or error}") from error
