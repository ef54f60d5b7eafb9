"""The door: parses, prints, decides nothing. Heavy rooms are imported by the commands that need them.

Exit status: 0 all done, 1 some units failed (the rest is kept), stores differ or a claim fails its audit, 2 a mistake
of the user's (nothing started or written), 130 stopped by Ctrl-C (what is finished is kept).
"""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import rna_ray
from rna_ray.errors import RnaRayError, StoreError, UserError, unknown

if TYPE_CHECKING:
    from rich.console import Console

    from rna_ray.running.run import Summary
    from rna_ray.store import Store
    from rna_ray.sweep.plan import Plan

app = typer.Typer(
    name="rna-ray", help=rna_ray.__doc__, no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Retry = Literal["failed", "all", "none"]
SweepFile = Annotated[str, typer.Argument(metavar="SWEEP.yaml", help="A sweep file, or the name of one that ships.")]
SweepName = Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="A sweep that the store knows.")]
StoreUri = Annotated[
    str, typer.Option("--store", envvar="RNA_RAY_STORE", help="Where results are: a folder, or a URI such as s3://…")
]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the file.")]
Preset = Annotated[str | None, typer.Option("--preset", help="Take a scale that the sweep file defines, as small.")]
Address = Annotated[
    str, typer.Option("--address", help="local: a Ray of its own; auto: the cluster here; inline: this process.")
]
RetryRule = Annotated[Retry, typer.Option("--retry", help="Which failed units are tried again.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@app.command()
def run(
    sweep: SweepFile, address: Address = "local", sets: Sets = None, preset: Preset = None,
    retry: RetryRule = "failed", as_json: AsJson = False, store: StoreUri = "rna-store",
) -> None:
    """Plan a sweep, then do what the store lacks; safe to repeat.

    Example: rna-ray run sweeps/quickstart.yaml --set seed=1
    """
    opened = _open(store)
    _run(_plan(sweep, sets, preset), opened, address, retry, as_json)


@app.command()
def resume(
    sweep: SweepName = None, address: Address = "local", retry: RetryRule = "failed", as_json: AsJson = False,
    store: StoreUri = "rna-store",
) -> None:
    """Go on with a sweep that the store knows.

    Example: rna-ray resume quickstart
    """
    from rna_ray.sweep import plan, spec

    opened = _open(store)
    rows = opened.read_file("plans", _sweep(opened, sweep)).to_pylist()
    _run(plan.plan(spec.from_json(rows[0]["spec"])), opened, address, retry, as_json)


@app.command()
def plan(
    sweep: SweepFile, sets: Sets = None, preset: Preset = None, as_json: AsJson = False, store: StoreUri = "rna-store"
) -> None:
    """Say what would run, what the store already has, and the estimated cost; runs nothing.

    Example: rna-ray plan sweeps/quickstart.yaml
    """
    from rna_ray import show
    from rna_ray.sweep import throughput
    from rna_ray.sweep.status import standing

    opened, planned = _open(store), _plan(sweep, sets, preset)
    stands = standing(planned, opened)
    document = show.plan(planned, stands, throughput.measured(opened) if stands.to_do else ())
    _say(document, show.plan_text(document), as_json)


@app.command()
def status(sweep: SweepName = None, as_json: AsJson = False, store: StoreUri = "rna-store") -> None:
    """Say how far the store's sweeps are.

    Example: rna-ray status --json
    """
    from rna_ray import show

    opened = _existing(store)
    names = [_sweep(opened, sweep)] if sweep else opened.sweeps()
    documents = [show.status(name, opened) for name in names]
    _say(documents, show.status_text(documents, opened.uri), as_json)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One reading statement over the store's views.")],
    format: Annotated[str, typer.Option("--format", help="table, csv, json or parquet.")] = "table",
    store: StoreUri = "rna-store",
) -> None:
    """Ask the store in SQL (DuckDB); views: trials, epochs, evaluations, examples, probes, measures,
    transfers, certifications, certificates, plans, failures.

    Example: rna-ray query "SELECT norm, count(*) FROM trials GROUP BY norm" --format json
    """
    from rna_ray.analysis import query as queries
    from rna_ray.store import connect

    queries.run(connect(_existing(store)), sql, format=format)


@app.command()
def table(
    name: Annotated[str, typer.Argument(help="A table that ships, or a sweep of the store.")],
    format: Annotated[str, typer.Option("--format", help="md, latex, csv or json.")] = "md",
    answer: Annotated[str, typer.Option(help="How m draws count: expected, vote, worst or all.")] = "expected",
    against: Annotated[str | None, typer.Option(metavar="VARIANT", help="Show differences to this variant.")] = None,
    interval: Annotated[str, typer.Option(help="What the ± is over: images or seeds.")] = "images",
    certified: Annotated[bool, typer.Option("--certified", help="Certified accuracies alone.")] = False,
    radius: Annotated[
        list[str] | None, typer.Option("--radius", metavar="R", help="Certify at this radius: 0.5, or 36/255 pixels.")
    ] = None,
    store: StoreUri = "rna-store",
) -> None:
    """Print a table from the store's rows, with n, draws and 95 % intervals; bold: really better than all others.

    Example: rna-ray table quickstart --format latex
    """
    from rna_ray.analysis import tables
    from rna_ray.store import connect

    text = tables.table(
        connect(_existing(store)), name, format, answer=answer, against=against, interval=interval,
        certificates=certified, radii=radius or (),
    )  # fmt: skip
    typer.echo(text.rstrip("\n"))


@app.command()
def figure(
    name: Annotated[str, typer.Argument(help="A figure that ships, or a sweep of the store.")],
    folder: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="Where the files go.")] = Path(),
    sweep: Annotated[
        str | None, typer.Option("--sweep", help="Whose rows are drawn, if not those of the sweep of that name.")
    ] = None,
    store: StoreUri = "rna-store",
) -> None:
    """Draw a figure from the store's rows: NAME.png, NAME.svg, and NAME.parquet with the data behind them.

    Example: rna-ray figure rna-figure1 -o figures
    """
    from rna_ray.analysis import figures
    from rna_ray.store import connect

    opened = _existing(store) if figures.draws_rows(name) else _open(store)
    for path in figures.figure(connect(opened), name, folder, sweep):
        typer.echo(path)


@app.command()
def audit(
    sweep: SweepName = None,
    published: Annotated[bool, typer.Option("--published", help="Audit the papers' printed tables instead.")] = False,
    format: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    every: Annotated[bool, typer.Option("--all", help="List every check, not only those that failed.")] = False,
    store: StoreUri = "rna-store",
) -> None:
    """Check each claim of a sweep's table against the store's rows; exit status 1 where one fails.

    Example: rna-ray audit quickstart --all
    """
    from rna_ray.analysis import audit as audits
    from rna_ray.store import connect

    if published and sweep is not None:
        raise UserError(f"--published audits printed tables, {sweep!r} is a sweep: give one of them")
    if format not in audits.FORMATS:
        raise UserError(unknown("format", format, audits.FORMATS))
    if published:
        found, waiting = audits.published(), []
    else:
        opened = _existing(store)
        connection, name = connect(opened), _sweep(opened, sweep)
        found, waiting = audits.audit(connection, name), audits.waiting(connection, name)
    typer.echo(audits.show(found, format, every=every, waiting=waiting).rstrip("\n"))
    if any(finding.status == "failed" for finding in found):
        raise typer.Exit(1)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="STORE_A", help="A store.")],
    b: Annotated[str, typer.Argument(metavar="STORE_B", help="Another one.")],
) -> None:
    """Compare two stores row by row, bit for bit; exit status 1 where they differ. Clock times are left out.

    Example: rna-ray compare store-inline store-ray
    """
    from rna_ray.store import differences

    found = differences(_existing(a), _existing(b))
    for difference in found:
        typer.echo(difference)
    if found:
        raise typer.Exit(1)
    typer.echo("the stores hold the same rows")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"rna-ray {rna_ray.__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; a mistake of the user's is one sentence on stderr and exit status 2."""
    try:
        app(prog_name="rna-ray")
    except UserError as error:
        sys.exit(_sentence(error, 2))
    except RnaRayError as error:
        sys.exit(_sentence(error, 1))
    except BrokenPipeError:  # as in `rna-ray query … | head`
        sys.stderr.close()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what is left to write would not fit either
        sys.exit(_sentence(f"cannot write {error.filename or 'the answer'}: {error.strerror}", 2))


def _sentence(error: Exception | str, code: int) -> int:
    print(f"rna-ray: {error}", file=sys.stderr)
    return code


def _plan(sweep: str, sets: list[str] | None, preset: str | None) -> Plan:
    from rna_ray.sweep import bundled, plan, spec

    return plan.plan(spec.load(bundled.find(sweep), sets or (), preset))


def _open(uri: str) -> Store:
    from rna_ray.store import open_store

    return open_store(uri)


def _existing(uri: str) -> Store:
    store = _open(uri)
    if not store.exists:
        raise StoreError(f"there is no store at {uri}: give one with --store, or run a sweep first")
    return store


def _sweep(store: Store, name: str | None) -> str:
    """Return the sweep that is meant: the one named, or the only one."""
    names = store.sweeps()
    if name is not None and Path(name).suffix in (".yaml", ".yml"):
        name = Path(name).stem
    if name in names:
        return name
    if name is not None:
        raise StoreError(unknown(f"sweep of {store.uri}:", name, names))
    if not names:
        raise StoreError(f"{store.uri} knows no sweep yet: rna-ray run SWEEP.yaml")
    if len(names) != 1:
        raise StoreError(f"{store.uri} knows {len(names)} sweeps ({', '.join(names)}): name one")
    return names[0]


def _run(planned: Plan, store: Store, address: str, retry: Retry, as_json: bool) -> None:
    from rna_ray import show
    from rna_ray.running.run import run as run_plan

    console = _console()
    try:
        summary = run_plan(planned, store, address=address, retry=retry, console=console)
    except KeyboardInterrupt:
        if planned.sweep in store.sweeps():
            goes_on = f"rna-ray resume {planned.sweep} --store {store.uri}"
            typer.echo(f"stopped; what is finished is kept, and this goes on: {goes_on}", err=True)
        else:
            typer.echo("stopped before anything was started", err=True)
        raise typer.Exit(130) from None
    _conclude(show.summary(planned, summary, store), summary, as_json)


def _conclude(document: dict[str, Any], summary: Summary, as_json: bool) -> None:
    from rna_ray import show

    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        typer.echo(show.summary_text(document), err=True)
    if summary.status.failed or summary.status.blocked or summary.status.to_do:
        raise typer.Exit(1)


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _say(document: Any, text: str, as_json: bool) -> None:
    typer.echo(json.dumps(document, indent=2) if as_json else text)
