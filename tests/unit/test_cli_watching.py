"""Commands that look at a sweep, its failures and the machine; what a run tells scripts; what a shell completes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from commands import Ended, rna

from rna_ray import cli, completion
from rna_ray.analysis import tables
from rna_ray.analysis.figures import FIGURES
from rna_ray.running import doctor, work
from rna_ray.store import open_store

SWEEP = """\
name: one
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4, norm: BN+IN}
training: {objective: natural, epochs: 2, batch: 32, schedule: {name: cosine}}
evaluation:
  - {attack: natural, examples: 20, checkpoint: last}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("RNA_RAY_STORE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    Path("one.yaml").write_text(SWEEP, encoding="utf-8")
    return tmp_path


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Evaluations fail, until the function that this gives is called."""

    def fails(*arguments: object, **options: object) -> None:
        raise RuntimeError("no [bold]luck[/bold]\nat all")

    whole = work.evaluate
    monkeypatch.setattr(work, "evaluate", fails)
    return lambda: monkeypatch.setattr(work, "evaluate", whole)


def run(*words: object) -> Ended:
    return rna("run", "one.yaml", "--address", "inline", *words)


def test_a_run_tells_scripts_what_happens_and_its_answer_stays_one_document() -> None:
    ended = run("--json", "--events", "events.jsonl")
    assert ended.code == 0 and json.loads(ended.out)["ran"] == 2 and "trials 1/1 · evaluations 1/1" in ended.err
    events = [json.loads(line) for line in Path("events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert events[-1]["phase"] == "done" and events[-1]["units"]["evaluate"]["done"] == 1
    assert [event["seconds_passed"] for event in events] == sorted(event["seconds_passed"] for event in events)
    told = run("--set", "seed=1", "--events", "-")
    first, *rest = told.err.splitlines()
    assert json.loads(first)["sweep"] == "one" and rest[-1].startswith("trials: 1 done")
    refused = run("--set", "seed=2", "--events", "nowhere/events")
    assert refused.one_sentence and "--events nowhere/events: cannot be written" in refused.err


def test_watching_ends_as_the_sweep_has(broken: Callable[[], None]) -> None:
    assert run().code == 1
    watched = rna("watch", "--json")
    (event,) = map(json.loads, watched.out.splitlines())
    assert (watched.code, event["phase"], event["units"]["evaluate"]["failed"]) == (1, "failed", 1)
    broken()
    assert run().code == 0
    ended = rna("watch", "one")
    assert (ended.code, ended.out) == (0, "one: trials 1/1 · evaluations 1/1 · all done\n")
    assert rna("watch", "two").one_sentence and rna("watch", "--store", "nowhere").one_sentence


def test_a_failure_says_what_failed_where_it_came_from_and_what_comes_next(broken: Callable[[], None]) -> None:
    assert "comes next: rna-ray failures --store rna-store" in run().err
    listed = rna("failures").out
    unit = listed[:12]
    assert listed.startswith(f"{unit}  evaluate  natural of BN+IN")
    assert "(1 attempt)\n  RuntimeError: no [bold]" in listed
    assert f"where it came from: rna-ray failures {unit} --store rna-store\n" in listed
    assert "rna-ray resume one --store rna-store" in listed
    told = rna("failures", unit[:6]).out
    assert "Traceback (most recent call last)" in told and "  at all" in told and 'raise RuntimeError("no' in told
    (document,) = json.loads(rna("failures", "--json").out)
    assert document["unit"].startswith(unit) and document["sweeps"] == ["one"] and not document["done"]
    assert [attempt["error"] for attempt in document["attempts"]] == ["RuntimeError"]
    broken()
    assert run().code == 0
    assert rna("failures").out == "nothing failed in rna-store that was not done since\n"
    assert "(1 attempt, done since)" in rna("failures", unit).out
    assert rna("failures", "xyz").one_sentence


def test_colours_are_off_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    assert run("--no-color").code == 0
    assert os.environ["NO_COLOR"] == "1"


# -- doctor ------------------------------------------------------------------------------------------------------------


def well() -> str:
    return "fine"


def ill() -> str:
    raise LookupError("not there\nat all")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def put(*given: tuple[str, Callable[[], str], str, bool]) -> None:
        monkeypatch.setattr(doctor, "_LOOKS", given)

    put(("Ray", well, "", True))
    return put


def test_the_doctor_says_what_is_missing_and_the_next_step(looks: Callable[..., None], folder: Path) -> None:
    looks(("Ray", well, "", True), ("GPU", ill, "get one", False))
    seen = rna("doctor")
    assert seen.code == 0 and "ok       Ray: fine\n" in seen.out
    assert "missing  GPU: not there; get one\n" in seen.out
    assert "ok       store: rna-store can be begun\n" in seen.out and "data digits: found, inside" in seen.out
    assert [path.name for path in folder.iterdir()] == ["one.yaml"]
    looks(("Ray", ill, "start it", True))
    needed = rna("doctor", "--json")
    assert needed.code == 1
    (check,) = [one for one in json.loads(needed.out) if one["name"] == "Ray"]
    assert check == {"name": "Ray", "ok": False, "found": "not there", "next": "start it", "needed": True}


def test_a_machine_without_room_for_temporary_files_is_told_so(
    looks: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(doctor, "DISK_BYTES", 0.0)
    found = {one.name: one for one in doctor.checks("rna-store")}["temporary files"]
    assert found.ok and "GB free on the disk of" in found.found
    monkeypatch.setattr(doctor, "DISK_BYTES", 1e18)
    found = {one.name: one for one in doctor.checks("rna-store")}["temporary files"]
    assert not found.ok and found.needed and found.found.startswith("only ") and "TMPDIR" in found.next
    monkeypatch.setattr(doctor.tempfile, "gettempdir", nowhere)
    found = {one.name: one for one in doctor.checks("rna-store")}["temporary files"]
    assert not found.ok and "No usable temporary directory" in found.found


def test_a_store_that_cannot_be_written_is_missing(looks: Callable[..., None]) -> None:
    Path("thesis").mkdir()
    Path("thesis/chapter.tex").touch()
    seen = rna("doctor", "--store", "thesis")
    assert seen.code == 1 and "missing  store: thesis is no store" in seen.out
    assert run().code == 0
    before = sorted(Path("rna-store").rglob("*"))
    assert "ok       store: rna-store can be written\n" in rna("doctor").out
    assert sorted(Path("rna-store").rglob("*")) == before


def test_images_are_looked_for_where_sweeps_and_the_user_say(looks: Callable[..., None], monkeypatch: object) -> None:
    assert run().code == 0
    spec = open_store("rna-store").read_file("plans", "one")["spec"][0].as_py()
    elsewhere = json.dumps({**json.loads(spec), "data": {"name": "mnist", "root": "images"}})
    rows = open_store("rna-store").read_file("plans", "one").to_pylist()
    from rna_ray.store.records import from_rows

    open_store("rna-store").put_plan("one", from_rows("plans", [{**row, "spec": elsewhere} for row in rows]))
    seen = rna("doctor")
    missing = f"missing  data mnist: not found; no complete MNIST under {Path('images').absolute()}"
    assert seen.code == 1 and missing in seen.out
    assert "data cifar10" not in seen.out and "missing  data cifar10: not found" in rna("doctor", "--data", ".").out


def test_credentials_are_named_and_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in doctor._S3_PLACES:
        monkeypatch.delenv(name, raising=False)
    assert not doctor._credentials().ok
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASECRET")
    found = doctor._credentials()
    assert found.ok and found.found == "in AWS_ACCESS_KEY_ID" and "SECRET" not in doctor.text(found).replace(
        "AWS_SECRET_ACCESS_KEY", ""
    )


@pytest.mark.slow
def test_the_doctor_finds_this_machine_fit_for_a_sweep() -> None:
    command = [sys.executable, "-c", "from rna_ray.cli import main; main()", "doctor", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
    found = {one["name"]: one for one in json.loads(ended.stdout)}
    assert ended.returncode == 0, ended.stdout
    assert found["Ray"]["found"].startswith("starts on this machine") and found["compiler"]["ok"]


# -- completion --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Typed:
    """What a shell knows of the line so far."""

    params: dict[str, str]


def test_the_shell_completes_sweeps_tables_and_figures() -> None:
    assert run().code == 0
    typed = Typed({"store": "rna-store"})
    assert completion.sweep_files("") [:1] == ["one.yaml"] and "quickstart" in completion.sweep_files("qu")
    assert completion.sweeps(typed, "o") == ["one"] and completion.sweeps(typed, "x") == []  # type: ignore[arg-type]
    assert completion.tables(typed, "") == ["one", *tables.names()]  # type: ignore[arg-type]
    figures = completion.figures(typed, "rna-")  # type: ignore[arg-type]
    assert figures and set(figures) <= set(FIGURES)
    assert completion.sweeps(Typed({"store": "one.yaml"}), "") == []  # type: ignore[arg-type]


def test_completing_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from rna_ray import completion\n"
        "from types import SimpleNamespace\n"
        "typed = SimpleNamespace(params={})\n"
        "completion.tables(typed, ''), completion.figures(typed, ''), completion.sweep_files('')\n"
        "print(sorted({'torch', 'ray', 'pandas', 'scipy', 'duckdb', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


def test_every_argument_that_names_something_is_completed() -> None:
    commands = typer.main.get_group(cli.app).commands
    completed = {
        name for name, command in commands.items() for one in command.params if one._custom_shell_complete is not None
    }
    named = {"run", "resume", "plan", "status", "watch", "table", "figure", "audit", "verify", "report"}
    assert completed == named
