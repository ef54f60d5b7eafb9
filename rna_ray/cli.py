"""The door: parses, prints, decides nothing. Heavy rooms are imported by the commands that need them.

Exit status: 0 all done, 1 some units failed or the run had to stop (the rest is kept), stores differ, a file is damaged
or a claim fails its audit, 2 a mistake of the user's (nothing started or written), 130 stopped by Ctrl-C (what is
finished is kept).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

import rna_ray
from rna_ray import completion
from rna_ray.errors import DamageError, RnaRayError, RunStopped, StoreError, UserError, unknown

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console

    from rna_ray.running.run import Summary
    from rna_ray.store import Store
    from rna_ray.sweep.plan import Plan

app = typer.Typer(
    name="rna-ray", help=rna_ray.__doc__, no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Retry = Literal["failed", "all", "none"]
SweepFile = Annotated[
    str, typer.Argument(metavar="SWEEP.yaml", help="A sweep file, or the name of one that ships.",
                        autocompletion=completion.sweep_files)
]  # fmt: skip
SweepName = Annotated[
    str | None, typer.Argument(metavar="[SWEEP]", help="A sweep that the store knows.",
                               autocompletion=completion.sweeps)
]  # fmt: skip
StoreUri = Annotated[
    str, typer.Option("--store", envvar="RNA_RAY_STORE", help="Where results are: a folder, or a URI such as s3://…")
]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the file.")]
Preset = Annotated[str | None, typer.Option("--preset", help="Take a scale that the sweep file defines, as small.")]
Address = Annotated[
    str, typer.Option("--address", help="local: a Ray of its own; auto: the cluster here; inline: this process.")
]
RetryRule = Annotated[Retry, typer.Option("--retry", help="Which failed units are tried again.")]
Events = Annotated[
    str | None, typer.Option("--events", metavar="FILE", help="Write a line of JSON for each change; - is stderr.")
]
NoColor = Annotated[
    bool, typer.Option("--no-color", callback=lambda asked: _without_colours() if asked else None,
                       help="No colours, as with NO_COLOR set.")
]  # fmt: skip
MaxHours = Annotated[
    float | None, typer.Option("--max-hours", min=0, metavar="H", help="End this run after so many hours, resumable.")
]
MaxGpuHours = Annotated[
    float | None,
    typer.Option("--max-gpu-hours", min=0, metavar="G", help="End once all runs of the sweep took so many, resumable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@app.command()
def run(
    sweep: SweepFile, address: Address = "local", sets: Sets = None, preset: Preset = None,
    retry: RetryRule = "failed", max_hours: MaxHours = None, max_gpu_hours: MaxGpuHours = None,
    as_json: AsJson = False, events: Events = None, no_color: NoColor = False, store: StoreUri = "rna-store",
) -> None:
    """Plan a sweep, then do what the store lacks; safe to repeat.

    Example: rna-ray run sweeps/quickstart.yaml --set seed=1
    """
    opened = _open(store)
    _run(_plan(sweep, sets, preset, opened), opened, address, retry, as_json, max_hours, max_gpu_hours, events)


@app.command()
def resume(
    sweep: SweepName = None, address: Address = "local", retry: RetryRule = "failed", max_hours: MaxHours = None,
    max_gpu_hours: MaxGpuHours = None, as_json: AsJson = False, events: Events = None, no_color: NoColor = False,
    store: StoreUri = "rna-store",
) -> None:
    """Go on with a sweep that the store knows.

    Example: rna-ray resume quickstart
    """
    from rna_ray.sweep import plan, spec

    opened = _existing(store)
    try:
        rows = opened.read_file("plans", _sweep(opened, sweep)).to_pylist()
    except DamageError as error:
        raise StoreError(f"{error}; rna-ray run with the sweep's file writes its plan again") from error
    planned = plan.plan(spec.from_json(rows[0]["spec"]))
    _run(planned, opened, address, retry, as_json, max_hours, max_gpu_hours, events)


@app.command()
def plan(
    sweep: SweepFile, sets: Sets = None, preset: Preset = None, as_json: AsJson = False, store: StoreUri = "rna-store"
) -> None:
    """Say what would run, what the store already has, and the estimated cost; runs nothing.

    Example: rna-ray plan sweeps/quickstart.yaml
    """
    from rna_ray import show
    from rna_ray.running import lost
    from rna_ray.sweep import throughput

    opened = _open(store)
    planned = _plan(sweep, sets, preset, opened)
    stands = lost.standing(planned, opened)
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
def watch(
    sweep: SweepName = None,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON on stdout for each change.")] = False,
    no_color: NoColor = False, store: StoreUri = "rna-store",
) -> None:
    """Show how far a sweep is until nobody is at work on it, from any machine that sees its store.

    Exit status 0 once all is done, 1 where it ends otherwise.

    Example: rna-ray watch quickstart --store s3://bucket/rna-store
    """
    from rich.console import Console

    from rna_ray.running import display, follow

    opened = _existing(store)
    follower = follow.Follower(opened, _sweep(opened, sweep))
    displays = display.made(Console(), sys.stdout if as_json else None)
    try:
        last = display.follow(follower.look, displays, follow.LOOK_SECONDS)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if last.phase != "done":
        raise typer.Exit(1)


@app.command()
def failures(
    unit: Annotated[str | None, typer.Argument(metavar="[UNIT]", help="The beginning of a unit's id.")] = None,
    as_json: AsJson = False, store: StoreUri = "rna-store",
) -> None:
    """List the units that failed, what of, and what comes next; of one UNIT the traceback too.

    Example: rna-ray failures 1a2b3c
    """
    from rna_ray.running import failures as failed

    opened = _existing(store)
    documents = failed.listed(opened, unit)
    _say(documents, failed.text(documents, opened.uri, whole=unit is not None), as_json)


@app.command()
def doctor(
    folder: Annotated[Path | None, typer.Option("--data", metavar="FOLDER", help="Look for data sets here.")] = None,
    as_json: AsJson = False, store: StoreUri = "rna-store",
) -> None:
    """Look over this machine: versions, GPUs, Ray, memory, disks, images, compiler, store; changes nothing.

    Exit status 1 where something is missing that a sweep needs; each such line says the next step.

    Example: rna-ray doctor --data datasets
    """
    from rna_ray.running import doctor as doctoring

    found = []
    for check in doctoring.checks(store, folder):
        found.append(check)
        if not as_json:
            typer.echo(doctoring.text(check))
    if as_json:
        typer.echo(json.dumps([doctoring.document(check) for check in found], indent=2))
    if any(check.needed and not check.ok for check in found):
        raise typer.Exit(1)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One reading statement over the store's views.")],
    format: Annotated[str, typer.Option("--format", help="table, csv, json or parquet.")] = "table",
    store: StoreUri = "rna-store",
) -> None:
    """Ask the store in SQL (DuckDB); views: trials, epochs, evaluations, examples, probes, measures,
    transfers, certifications, certificates, plans, failures, stops.

    Example: rna-ray query "SELECT norm, count(*) FROM trials GROUP BY norm" --format json
    """
    from rna_ray.analysis import query as queries
    from rna_ray.store import connect

    queries.run(connect(_existing(store)), sql, format=format)


@app.command()
def table(
    name: Annotated[
        str, typer.Argument(help="A table that ships, or a sweep of the store.", autocompletion=completion.tables)
    ],
    format: Annotated[str, typer.Option("--format", help="md, latex, csv, json or parquet.")] = "md",
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
    from rna_ray.analysis import query, tables

    chosen: Any = {"answer": answer, "against": against, "interval": interval, "certificates": certified}
    chosen["radii"] = radius or ()
    with _rows(_existing(store)) as connection:
        if format == "parquet":
            query.write(lambda: tables.rows(connection, name, **chosen), format)
        else:
            typer.echo(tables.table(connection, name, format, **chosen).rstrip("\n"))


@app.command()
def figure(
    name: Annotated[
        str, typer.Argument(help="A figure that ships, or a sweep of the store.", autocompletion=completion.figures)
    ],
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

    with _rows(_existing(store) if figures.draws_rows(name) else _open(store)) as connection:
        for path in figures.figure(connection, name, folder, sweep):
            typer.echo(path)


@app.command()
def export(
    network: Annotated[str, typer.Argument(help="A variant's label, or a unit's id: 8 characters are enough.")],
    folder: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="Where the files go.")] = Path(),
    sweep: Annotated[str | None, typer.Option("--sweep", help="Whose variant it is, where several have it.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of which seed, where there are several.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="best or last; by default best, where there is one.")] = None,
    store: StoreUri = "rna-store",
) -> None:
    """Write a network as safetensors, and a card that says what it is, how accurate, and how to load it.

    Example: rna-ray export BN+IN --sweep norms --seed 0 -o networks
    """
    from rna_ray import export as exports
    from rna_ray.running import stored

    if checkpoint not in (None, "best", "last"):
        raise UserError(unknown("checkpoint", str(checkpoint), ("best", "last")))
    opened = _existing(store)
    with _rows(opened):
        found = stored.find(opened, network, sweep=sweep, seed=seed, checkpoint=checkpoint)
        for path in exports.export(opened, found, folder):
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

    if published and sweep is not None:
        raise UserError(f"--published audits printed tables, {sweep!r} is a sweep: give one of them")
    if format not in audits.FORMATS:
        raise UserError(unknown("format", format, audits.FORMATS))
    if published:
        found, waiting = audits.published(), []
    else:
        opened = _existing(store)
        with _rows(opened) as connection:
            name = _sweep(opened, sweep)
            found, waiting = audits.audit(connection, name), audits.waiting(connection, name)
    typer.echo(audits.show(found, format, every=every, waiting=waiting).rstrip("\n"))
    if any(finding.status == "failed" for finding in found):
        raise typer.Exit(1)


@app.command()
def report(
    sweeps: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SWEEP]…", help="Sweeps that the store knows; by default all.",
                       autocompletion=completion.sweeps),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="The page.")] = Path("report.html"),
    store: StoreUri = "rna-store",
) -> None:
    """Write one page of what a store holds, for a browser: state, cost, tables, figures, audit. It needs no network.

    Example: rna-ray report -o report.html
    """
    from rna_ray import show
    from rna_ray.analysis import report as pages

    opened = _existing(store)
    names = list(dict.fromkeys(_sweep(opened, name) for name in sweeps)) if sweeps else opened.sweeps()
    if not names:
        _sweep(opened, None)
    with _rows(opened) as connection:
        text = pages.page(connection, show.account(names, opened), show.NAMES, opened.uri, show.made())
    pages.write(out, text)
    typer.echo(f"{out}: {show.size(len(text.encode()))}")


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


@app.command()
def verify(
    sweep: SweepName = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove what is damaged, so that the next run does it again.")
    ] = False,
    as_json: AsJson = False,
    store: StoreUri = "rna-store",
) -> None:
    """Check every checksum of a store, of all its rows and weights; exit status 1 where a file is damaged.

    Example: rna-ray verify quickstart
    """
    from rna_ray import show
    from rna_ray.store import verify as checks

    opened = _existing(store)
    if remove:
        _refuse_drivers(opened)
    sweeps = _planned(opened)
    units = None
    if sweep is not None:
        units = set(opened.read_file("plans", _sweep(opened, sweep))["unit_id"].to_pylist())
    with _counted("verified", shown=not as_json) as report:
        found = checks.verify(opened, units, report)
    if remove:
        checks.remove(opened, found)
    document = show.verified(found, sweeps, remove)
    _say(document, show.verified_text(document, opened.uri), as_json)
    if found.damaged:
        raise typer.Exit(1)


@app.command()
def compact(as_json: AsJson = False, store: StoreUri = "rna-store") -> None:
    """Copy the rows of many small files into few large ones, which tables and queries read faster.

    Example: rna-ray compact --store rna-store
    """
    from rna_ray import show
    from rna_ray.store import packs

    opened = _existing(store)
    try:
        with _counted("packed", shown=not as_json) as report:
            document = show.compacted(packs.compact(opened, report))
    except DamageError as error:
        raise DamageError(f"{error}; rna-ray verify --remove --store {shlex.quote(opened.uri)} takes it out") from error
    _say(document, show.compacted_text(document, opened.uri), as_json)


@app.command()
def prune(
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="KEEP", help="Of finished networks keep last, best or none.")
    ] = None,
    unplanned: Annotated[bool, typer.Option("--unplanned", help="Drop units that no sweep here asks for.")] = False,
    versions: Annotated[
        str | None, typer.Option(metavar="RANGE", help="Set rows aside as invalid that these made: '<0.3'.")
    ] = None,
    commits: Annotated[
        list[str] | None, typer.Option("--commit", metavar="COMMIT", help="The same for the code of a git commit.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and leave it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreUri = "rna-store",
) -> None:
    """Remove what a store need not keep, and set aside rows that faulty code made: their units are to do again.

    Example: rna-ray prune --weights best --dry-run
    """
    from rna_ray import show
    from rna_ray.store import prune as pruning

    if weights not in (None, *pruning.KEEP):
        raise UserError(unknown("weights to keep:", str(weights), pruning.KEEP))
    if weights is None and not unplanned and versions is None and not commits:
        raise UserError("say what is to go: --weights, --unplanned, --versions or --commit")
    made = pruning.made_by(versions, commits or ()) if versions is not None or commits else None
    opened = _existing(store)
    if not dry_run:
        _refuse_drivers(opened)
    found = pruning.look(opened, keep=weights, unplanned=unplanned, made=made)
    typer.echo(show.pruning_text(found, opened.uri))
    if dry_run or not found:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("nothing was pruned: say --yes where nobody can be asked")
        typer.confirm("Prune?", abort=True)
        _refuse_drivers(opened)
        if pruning.look(opened, keep=weights, unplanned=unplanned, made=made) != found:
            raise StoreError(f"nothing was pruned: {store} changed meanwhile; look again")
    if (aside := pruning.do(opened, found)) is not None:
        typer.echo(f"the rows that were set aside: rna-ray query --store {shlex.quote(aside.uri)} …")


@app.command()
def merge(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The store whose units are taken.")],
    store: StoreUri = "rna-store",
) -> None:
    """Take the units, weights, failures and plans of another store into this one; exit status 1 where they disagree.

    Example: rna-ray merge other-store --store rna-store
    """
    from rna_ray import show
    from rna_ray.store import merge as merging

    taken, into = _existing(source), _open(store)
    if disagree := merging.contradictions(taken, into):
        for line in disagree:
            typer.echo(line)
        typer.echo(f"nothing was merged: {source} and {store} disagree in {len(disagree)} places", err=True)
        raise typer.Exit(1)
    typer.echo(show.merged_text(merging.merge(taken, into), source))


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"rna-ray {rna_ray.__version__}")
        raise typer.Exit


_OF_THE_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)
"""What is wrong with a path that was given, and not with what rna-ray does there."""


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
        if error.errno == errno.ENOSPC:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what is left to write would not fit either
            sys.exit(_sentence(f"cannot write {error.filename or 'the answer'}: {error.strerror}", 2))
        if error.errno not in _OF_THE_PLACE or not error.filename:
            raise
        sys.exit(_sentence(f"cannot use {error.filename}: {error.strerror}", 2))


def _sentence(error: Exception | str, code: int) -> int:
    print(f"rna-ray: {error}", file=sys.stderr)
    return code


def _plan(sweep: str, sets: list[str] | None, preset: str | None, store: Store) -> Plan:
    from rna_ray.running import rounds
    from rna_ray.sweep import bundled, plan, spec

    return plan.plan(rounds.continued(spec.load(bundled.find(sweep), sets or (), preset), store))


def _open(uri: str) -> Store:
    from rna_ray.store import open_store

    return open_store(uri)


def _existing(uri: str) -> Store:
    store = _open(uri)
    if not store.exists:
        raise StoreError(f"there is no store at {uri}: give one with --store, or run a sweep first")
    return store


@contextlib.contextmanager
def _rows(store: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection to a store's rows; what goes wrong over rows that nobody wrote so is said of their file.

    A file in the place of another one is whole, and its rows are read: only who looks at all of it can tell.
    """
    from rna_ray.store import connect

    try:
        yield connect(store)
    except (RnaRayError, OSError, typer.Exit):
        raise
    except Exception as error:
        from rna_ray.store.verify import verify  # here, as nearly every table does without

        if not (damaged := verify(store).damaged):
            raise
        first = f"the store's file {store.files.full(PurePosixPath(damaged[0].file))} {damaged[0].why}"
        raise DamageError(f"{first}; rna-ray verify --remove --store {shlex.quote(store.uri)} takes it out") from error


def _refuse_drivers(store: Store) -> None:
    """Refuse to remove files from under those who are at work."""
    from rna_ray.running import drivers

    if others := drivers.at_work(store):
        raise StoreError(f"at work on {store.uri}: {others[0].text()}; wait until it has ended, or end it by Ctrl-C")


def _sweep(store: Store, name: str | None) -> str:
    """Return the sweep that is meant: the one named, or the only one."""
    names = store.sweeps()
    if name is not None and Path(name).suffix in (".yaml", ".yml"):
        name = Path(name).stem
    if name in names:
        return name
    if not names:
        raise StoreError(f"{store.uri} knows no sweep yet: rna-ray run SWEEP.yaml")
    if name is not None:
        raise StoreError(unknown(f"sweep of {store.uri}:", name, names))
    if len(names) != 1:
        raise StoreError(f"{store.uri} knows {len(names)} sweeps ({', '.join(names)}): name one")
    return names[0]


def _planned(store: Store) -> dict[str, set[str]]:
    """Return the sweeps that planned each unit, as far as their plans can be read."""
    found: dict[str, set[str]] = {}
    for name in store.sweeps():
        with contextlib.suppress(DamageError):  # named by who looks at all files
            for unit_id in store.read_file("plans", name)["unit_id"].unique().to_pylist():
                found.setdefault(unit_id, set()).add(name)
    return found


@contextlib.contextmanager
def _counted(what: str, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows, on a terminal, how many of all files are done."""
    from rich.progress import Progress

    with Progress(console=_console(), transient=True, disable=not (shown and sys.stderr.isatty())) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _run(
    planned: Plan, store: Store, address: str, retry: Retry, as_json: bool, max_hours: float | None,
    max_gpu_hours: float | None, events: str | None,
) -> None:
    from rna_ray import show
    from rna_ray.running.run import run as run_plan

    console, given = _console(), {"hours": max_hours, "gpu_hours": max_gpu_hours}
    budget = planned.spec.budget.model_copy(update={name: most for name, most in given.items() if most is not None})
    try:
        with _events_file(events) as file:
            summary = run_plan(
                planned, store, address=address, retry=retry, console=console, budget=budget, events=file
            )
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):  # it is leaving: one more changes nothing
            signal.signal(number, signal.SIG_IGN)
        if planned.sweep in store.sweeps():
            goes_on = _goes_on(planned, store, address)
            typer.echo(f"stopped; what is finished is kept, and this goes on: {goes_on}", err=True)
        else:
            typer.echo("stopped before anything was started", err=True)
        raise typer.Exit(130) from None
    except RunStopped as stopped:
        goes_on = _goes_on(planned, store, address)
        raise RunStopped(f"{stopped}; what is finished is kept, and this goes on: {goes_on}") from None
    _conclude(show.summary(planned, summary, store), summary, as_json)


@contextlib.contextmanager
def _events_file(events: str | None) -> Iterator[TextIO | None]:
    """Give the file that events go to, if they go anywhere."""
    if events in (None, "-"):
        yield sys.stderr if events else None
        return
    try:
        file = open(events, "a", encoding="utf-8")  # noqa: SIM115 - only its opening is the user's mistake
    except OSError as error:
        raise UserError(f"--events {events}: cannot be written: {error.strerror}") from error
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # a full disk, a reader that left: the display said so
            file.close()


def _goes_on(planned: Plan, store: Store, address: str) -> str:
    where = "" if address == "local" else f" --address {shlex.quote(address)}"
    return f"rna-ray resume {planned.sweep} --store {shlex.quote(store.uri)}{where}"


def _conclude(document: dict[str, Any], summary: Summary, as_json: bool) -> None:
    from rna_ray import show

    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        typer.echo(show.summary_text(document), err=True)
    if summary.status.failed or summary.status.blocked or summary.status.to_do:
        raise typer.Exit(1)


def _without_colours() -> None:
    os.environ["NO_COLOR"] = "1"  # which every console heeds, ours and that of the help


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _say(document: Any, text: str, as_json: bool) -> None:
    typer.echo(json.dumps(document, indent=2) if as_json else text)
