"""The command line: one sentence and exit status 2 for a mistake, nothing written; one document for --json."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file, save_file

import rna_ray
from rna_ray import cli, show
from rna_ray.running import inputs
from rna_ray.store import open_store
from rna_ray.store.records import SCHEMA_VERSION, from_rows

SWEEP = """\
name: one
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4, norm: BN+IN}
training: {objective: natural, epochs: 1, batch: 32, schedule: {name: cosine}}
evaluation:
  - {attack: natural, examples: 20, checkpoint: last}
"""
COMMANDS = typer.main.get_group(cli.app).commands


@dataclasses.dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Rna = Callable[..., Ended]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RNA_RAY_STORE", raising=False)
    Path("one.yaml").write_text(SWEEP, encoding="utf-8")
    return tmp_path


@pytest.fixture
def rna(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rna:
    """Run a command line in this process, as the `rna-ray` script would."""

    def run(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["rna-ray", *map(str, words)])
        before = torch.get_num_threads()
        try:
            cli.main()
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        finally:
            torch.set_num_threads(before)
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def done(rna: Rna) -> Path:
    """A store in which the sweep is done."""
    assert rna("run", "one.yaml", "--address", "inline", "--store", "done").code == 0
    return Path("done")


def is_one_sentence(ended: Ended, *words: str) -> None:
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("rna-ray: ") and ended.err.count("\n") == 1 and ended.err.endswith("\n"), ended.err
    assert "Traceback" not in ended.err
    for word in words:
        assert word in ended.err


# -- bad input ---------------------------------------------------------------------------------------------------------

BAD = {
    "an unknown key": (["--set", "training.epohcs=2"], ["unknown key 'epohcs'; did you mean 'epochs'?"]),
    "an unknown section": (["--set", "trainnig.epochs=2"], ["unknown key 'trainnig'; did you mean 'training'?"]),
    "a wrong type": (["--set", "seed=1.5"], ["seed: 1.5 is not a whole number"]),
    "a number that is a text": (["--set", "training.lr='1e-3'"], ["the text '1e-3' is not a number"]),
    "a number with an exponent": (["--set", "training.epochs=1e-3"], ["training.epochs: 0.001 is not a whole number"]),
    "a truth value": (["--set", "training.lr=off"], ["the text 'off' is not a number"]),
    "a norm grammar error": (["--set", "network.norm=BN+XX"], ["character 4: unknown norm 'XX'. Known: BGN, BN"]),
    "a range that is none": (["--set", "network.norm=GN[1-3]"], ["character 3", "such as [1-64]"]),
    "a count that does not divide": (["--set", "network.norm=GN3"], ["3 groups do not divide the 4 channels"]),
    "IN on one element": (
        ["--set", "network.norm=IN", "--set", "network.name=resnet18"],
        ["layer stages.3.0.norm1 has 1x1 pixels"],
    ),
    "no folder of images": (["--set", "data.name=cifar10"], ["set data.root"]),
    "missing images": (
        ["--set", "data.name=cifar10", "--set", "data.root=/nowhere"],
        ["/nowhere/cifar-10-batches-bin", "data.download=true"],
    ),
    "more images than there are": (["--set", "data.train_examples=5000"], ["1,437 training images"]),
    "an unknown attack": (
        ["--set", "evaluation.0.attack=pdg"],
        ["unknown attack 'pdg'; did you mean 'pgd'?", "Known: arc, autoattack, bim, boundary, cascade, cw"],
    ),
    "an option of another attack": (["--set", "evaluation.0.steps=3"], ["unknown key 'steps'"]),
    "an unknown knowledge": (["--set", "evaluation.0.knowledge=eot10"], ["unknown knowledge 'eot10'"]),
    "a preset where there are none": (["--preset", "small"], ["defines no presets"]),
    "a --set without a value": (["--set", "seed"], ["write key=value"]),
    "GPUs that are not there": (
        ["--set", "resources.train.gpu=9", "--address", "inline"],
        ["ask for 9 GPU a unit"],
    ),
    "an address that is none": (["--address", "somewhere"], ["--address somewhere: give inline, local, auto"]),
    "an address where nothing is": (["--address", "127.0.0.1:9"], ["--address 127.0.0.1:9: no Ray cluster answers"]),
    "a home that nobody has": (["--set", "data.name=mnist", "--set", "data.root=~no-one/x"], ["~no-one/x (no such"]),
    "a store that cannot be": (["--store", "one.yaml"], ["one.yaml is a file, not a store"]),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_one_sentence_and_nothing_is_written(bad: str, rna: Rna, folder: Path) -> None:
    given, words = BAD[bad]
    is_one_sentence(rna("run", "one.yaml", *(["--store", "store"] if "--store" not in given else []), *given), *words)
    assert [path.name for path in folder.iterdir()] == ["one.yaml"]


def test_a_file_that_is_no_sweep_is_one_sentence(rna: Rna) -> None:
    is_one_sentence(rna("run", "nowhere.yaml"), "nowhere.yaml: there is no such file", "quickstart")
    is_one_sentence(rna("plan", "quikstart"), "quikstart: there is no such file; did you mean quickstart? Give")
    is_one_sentence(rna("plan", "."), ".: this is no file. Give a sweep file")
    is_one_sentence(rna("plan", "a" * 300), "it cannot be read: File name too long. Give a sweep file")
    Path("two.yaml").write_text(SWEEP + "name: two\n", encoding="utf-8")
    is_one_sentence(rna("plan", "two.yaml"), "two.yaml:7:1: duplicate key 'name', first given in line 1")
    Path("bad.yaml").write_text("a: [\n", encoding="utf-8")
    is_one_sentence(rna("plan", "bad.yaml"), "bad.yaml", "not valid YAML")


def test_a_folder_that_is_no_store_is_left_alone(rna: Rna) -> None:
    Path("thesis").mkdir()
    Path("thesis/chapter.tex").touch()
    is_one_sentence(rna("run", "one.yaml", "--store", "thesis"), "thesis is no store, it holds 'chapter.tex'")
    assert len(list(Path("thesis").iterdir())) == 1


@pytest.mark.parametrize("command", [["run", "one.yaml"], ["plan", "one.yaml"], ["status"], ["query", "SELECT 1"]])
def test_a_store_of_a_newer_schema_is_refused(command: list[str], rna: Rna) -> None:
    Path("newer").mkdir()
    Path("newer/store.json").write_text(json.dumps({"schema": SCHEMA_VERSION + 1}), encoding="utf-8")
    is_one_sentence(rna(*command, "--store", "newer"), f"schema {SCHEMA_VERSION + 1}", "upgrade rna-ray")


def test_commands_that_read_say_when_there_is_no_store(rna: Rna, folder: Path) -> None:
    for command in (["query", "SELECT 1"], ["table", "one"], ["resume"], ["resume", "one"]):
        is_one_sentence(rna(*command), "there is no store at rna-store")
    is_one_sentence(rna("compare", "a", "b"), "there is no store at a")
    assert [path.name for path in folder.iterdir()] == ["one.yaml"]


def test_the_script_itself_says_one_sentence(folder: Path) -> None:
    def run(*words: str) -> Ended:
        command = [sys.executable, "-c", "from rna_ray.cli import main; main()", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return Ended(done.returncode, done.stdout, done.stderr)

    is_one_sentence(run("run", "one.yaml", "--set", "seed=x"), "seed: the text 'x' is not a whole number")
    is_one_sentence(run("plan", "one.yaml", "--set", "network.norm=QN"), "character 1: unknown norm 'QN'")
    assert [path.name for path in folder.iterdir()] == ["one.yaml"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
def test_a_full_disk_is_one_sentence(folder: Path) -> None:
    command = [sys.executable, "-c", "from rna_ray.cli import main; main()", "plan", "one.yaml"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, "rna-ray: cannot write the answer: No space left on device\n")


@pytest.mark.parametrize("words", [["frobnicate"], ["run", "--frob"], ["run"], ["run", "one.yaml", "--retry", "maybe"]])
def test_a_command_that_does_not_exist_is_a_mistake(words: list[str], rna: Rna) -> None:
    ended = rna(*words)
    assert ended.code == 2 and not ended.out and "Usage: rna-ray" in ended.err and "Traceback" not in ended.err


# -- good input --------------------------------------------------------------------------------------------------------


def test_version_and_help(rna: Rna) -> None:
    assert rna("--version") == Ended(0, f"rna-ray {rna_ray.__version__}\n", "")
    shown = rna("--help")
    assert shown.code == 0 and all(command in shown.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_shows_an_example(command: str, rna: Rna) -> None:
    shown = rna(command, "--help")
    assert shown.code == 0
    (example,) = re.findall(f"Example: rna-ray {command} (.*)", str(COMMANDS[command].help))
    assert f"Example: rna-ray {command}" in shown.out
    COMMANDS[command].make_context(command, shlex.split(example))  # exits where the example does not parse


def test_planning_writes_nothing_and_is_one_document(rna: Rna, folder: Path) -> None:
    planned = rna("plan", "one.yaml", "--json")
    document = json.loads(planned.out)
    assert (planned.code, planned.err) == (0, "")
    assert document["units"]["train"]["ready"] == document["units"]["evaluate"]["waiting"] == 1
    assert document["trials"][0]["variant"] and not document["trials"][0]["done"]
    assert all(0 < document["estimate"][kind]["device_seconds"] < 60 for kind in ("train", "evaluate"))
    told = rna("plan", "one.yaml", "--store", "elsewhere")
    assert told.out.startswith("sweep one\n  to do  ") and "estimated cost" in told.out
    assert [path.name for path in folder.iterdir()] == ["one.yaml"]


@pytest.mark.slow
def test_planning_and_asking_import_neither_torch_nor_ray(done: Path) -> None:
    for words in (["plan", "one.yaml"], ["status"], ["query", "SELECT count(*) FROM trials"], ["table", "one"]):
        heavy = {"torch", "ray", "torchattacks", "sklearn"}
        if words[0] != "plan":
            heavy |= {"rna_ray.sweep.plan", "rna_ray.sweep.sections"}
        code = (
            "import sys\n"
            f"sys.argv = ['rna-ray', *{words!r}, '--store', 'done']\n"
            "from rna_ray.cli import main\n"
            "try: main()\n"
            "except SystemExit as left: assert not left.code\n"
            f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)\n"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert (ended.returncode, ended.stderr) == (0, "[]\n"), words


def test_a_run_is_one_document_and_the_next_one_does_nothing(rna: Rna) -> None:
    command = ("run", "one.yaml", "--address", "inline", "--store", "done")
    ended = rna(*command, "--json")
    document = json.loads(ended.out)
    assert (ended.code, document["ran"], document["failures"], document["store"]) == (0, 2, [], "done")
    assert document["units"]["train"]["done"] == document["units"]["evaluate"]["done"] == 1
    before = {path: path.stat().st_mtime_ns for path in Path("done").rglob("*") if path.parent.name != "plans"}
    again = rna(*command)
    assert again == Ended(0, "", "one: nothing to do, nothing was trained or attacked again\n"
                                 "trials: 1 done; evaluations: 1 done\n")  # fmt: skip
    before[Path("done/plans")] = Path("done/plans").stat().st_mtime_ns  # the plan itself is written anew
    assert {path: path.stat().st_mtime_ns for path in Path("done").rglob("*") if path.parent.name != "plans"} == before
    planned = rna("plan", "one.yaml", "--store", "done").out
    assert "  done   " in planned and planned.endswith("nothing to do\n")


def test_a_run_with_other_settings_says_that_it_replaces_those_of_before(rna: Rna, done: Path) -> None:
    command = ("run", "one.yaml", "--address", "inline", "--store", done)
    ended = rna(*command, "--set", "training.epochs=2")
    assert "one: the store knows it with other settings, which ask for 2 units that these do not" in ended.err
    assert "ask for 2 units that these do not" in rna(*command).err
    assert rna(*command).err.startswith("one: nothing to do")


def test_resume_and_status_find_the_sweep_of_the_store(rna: Rna, done: Path) -> None:
    for words in (["resume"], ["resume", "one"], ["resume", "sweeps/one.yaml"]):
        assert "nothing to do" in rna(*words, "--address", "inline", "--store", done).err
    is_one_sentence(rna("resume", "two", "--store", done), "unknown sweep of done: 'two'", "Known: one")
    assert rna("status", "--store", done).out == "one: trials 1/1 done; evaluations 1/1 done\n"
    (document,) = json.loads(rna("status", "one", "--json", "--store", done).out)
    assert document["units"]["evaluate"] == {"done": 1, "early": 0, "failed": 0, "total": 1}
    is_one_sentence(rna("status", "--store", "none"), "there is no store at none")


def test_the_store_is_taken_from_the_environment(rna: Rna, done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNA_RAY_STORE", str(done))
    assert rna("status").out.startswith("one: ")


def test_an_answer_takes_the_form_that_is_asked_for(rna: Rna, done: Path) -> None:
    def asked(form: str) -> str:
        return rna("query", sql, "--format", form, "--store", done).out

    sql = "SELECT norm, count(*) AS n FROM trials GROUP BY norm"
    assert json.loads(asked("json")) == [{"norm": "BN+IN", "n": 1}]
    assert asked("csv").splitlines() == ["norm,n", "BN+IN,1"]
    assert "BN+IN" in asked("table")
    is_one_sentence(rna("query", "SELECT 1", "--format", "xml", "--store", done), "unknown format 'xml'", "parquet")
    is_one_sentence(rna("query", "DROP VIEW trials", "--store", done), "only reads")
    is_one_sentence(rna("query", "SELECT nope FROM trials", "--store", done), "nope")


def test_a_figure_is_three_files_where_it_is_asked_for(rna: Rna, done: Path) -> None:
    drawn = rna("figure", "one", "-o", "out", "--store", done)
    assert (drawn.code, drawn.out.split()) == (0, [f"out/one.{kind}" for kind in ("png", "svg", "parquet")])
    assert sorted(path.name for path in Path("out").iterdir()) == ["one.parquet", "one.png", "one.svg"]
    is_one_sentence(rna("figure", "two", "--store", done), "unknown figure 'two'", "one, rna-figure1, rna-figure2")
    is_one_sentence(rna("figure", "rna-figure1", "--store", done), "no rows", "rna-ray run sweeps/rna-figure1.yaml")
    is_one_sentence(rna("figure", "one", "-o", "one.yaml", "--store", done), "cannot write figure one to one.yaml")


@pytest.mark.slow
def test_a_report_is_one_file_where_it_is_asked_for(rna: Rna, done: Path) -> None:
    made = rna("report", "-o", "out/page.html", "--store", done)
    assert made.code == 0 and made.out.startswith("out/page.html: ") and made.out.endswith("kB\n")
    text = Path("out/page.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and f"rna-ray table one --store {done}" in text
    assert '<td data-text="" data-number="1">1 of 1</td>' in text
    assert [*Path("out").iterdir()] == [Path("out/page.html")]
    store, (account,) = open_store(done), show.account(["one"], open_store(done))
    assert account["gpu_hours"] == 0.0
    assert 3600 * account["hours"]["train"] == pytest.approx(store.read("trials")["seconds"][0].as_py())
    assert 3600 * account["hours"]["evaluate"] == pytest.approx(store.read("evaluations")["seconds"][0].as_py())
    is_one_sentence(rna("report", "two", "--store", done), "unknown sweep", "'two'", "one")
    is_one_sentence(rna("report", "-o", "one.yaml/page.html", "--store", done), "cannot write the report to one.yaml/")
    is_one_sentence(rna("report", "--store", "nowhere"), "there is no store at nowhere")
    assert not Path("report.html").exists() and not Path("nowhere").exists()


def test_a_table_takes_the_form_that_is_asked_for(rna: Rna, done: Path) -> None:
    forms = {form: rna("table", "one", "--format", form, "--store", done) for form in ("md", "latex", "csv", "json")}
    assert all(ended.code == 0 and "BN+IN" in ended.out for ended in forms.values())
    assert forms["md"].out.startswith("| variant |") and "tabular" in forms["latex"].out
    json.loads(forms["json"].out)
    assert "| worst  " in rna("table", "one", "--answer", "all", "--store", done).out
    is_one_sentence(rna("table", "one", "--answer", "best", "--store", done), "unknown answer 'best'", "expected")
    is_one_sentence(rna("table", "one", "--against", "BN", "--store", done), "unknown variant", "'BN'", "BN+IN")
    unknown = rna("table", "two", "--store", done)
    is_one_sentence(unknown, "unknown table 'two'", "Known: bound, distortion, one, smoothness")
    is_one_sentence(rna("table", "one", "--format", "pdf", "--store", done), "pdf")


def test_stores_are_compared(rna: Rna, done: Path) -> None:
    assert rna("run", "one.yaml", "--address", "inline", "--store", "other").code == 0
    assert rna("compare", done, "other") == Ended(0, "the stores hold the same rows\n", "")
    next(Path("other/examples").iterdir()).unlink()
    differing = rna("compare", done, "other")
    assert differing.code == 1 and differing.out.startswith("examples ") and not differing.err


# -- weights that cannot be used ------------------------------------------------------------------------------------


def truncate(weights: Path) -> None:
    os.truncate(weights, weights.stat().st_size // 2)


def cut_every_tensor(weights: Path) -> None:
    """Put whole weights of another, narrower network there."""
    tensors = load_file(weights)
    save_file({key: tensor[:1].clone() if tensor.ndim else tensor for key, tensor in tensors.items()}, weights)


@pytest.fixture
def weights(done: Path) -> Path:
    """The weights that an evaluation reads which is still to do."""
    next((done / "evaluations").iterdir()).unlink()
    inputs.trained.cache_clear()
    return next(done.glob("checkpoints/*/last*.safetensors"))


@pytest.mark.parametrize("damage", [truncate, cut_every_tensor, Path.unlink])
def test_weights_that_are_not_whole_or_do_not_fit_are_named_and_made_again(
    damage: Callable[[Path], None], rna: Rna, weights: Path
) -> None:
    whole = weights.read_bytes()
    damage(weights)
    ended = rna("run", "one.yaml", "--address", "inline", "--store", "done", "--json")
    assert (ended.code, json.loads(ended.out)["ran"]) == (0, 2) and weights.read_bytes() == whole
    assert str(weights.resolve()) in ended.err and ": its unit is done again\n" in ended.err
    assert not list(Path("done").glob("failures/*"))


def test_weights_that_are_not_those_of_the_training_fail_their_units_once(rna: Rna, weights: Path) -> None:
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    ended = rna("run", "one.yaml", "--address", "inline", "--store", "done")
    assert (ended.code, ended.out) == (1, "")
    assert f"CheckpointError: {weights.resolve()} " in ended.err
    assert "trials: 1 to do; evaluations: 1 failed" in ended.err
    assert rna("status", "--store", "done").out == "one: trials 0/1 done; evaluations 0/1 done, 1 failed\n"
    again = rna("run", "one.yaml", "--address", "inline", "--store", "done", "--json")
    assert (again.code, json.loads(again.out)["ran"]) == (0, 2) and weights.read_bytes() == whole


@pytest.mark.parametrize("command", ["plan one.yaml", "status"])
def test_who_only_plans_or_asks_waits_for_no_heavy_library(done: Path, command: str) -> None:
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(sorted({'torch', 'ray', 'pandas', 'duckdb'} & set(sys.modules))))\n"
        "from rna_ray.cli import main; main()"
    )
    words = [sys.executable, "-c", code, *command.split(), "--store", done]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


# -- files that are damaged --------------------------------------------------------------------------------------------


def test_a_whole_store_verifies(rna: Rna, done: Path) -> None:
    for words in ((), ("one",)):
        ended = rna("verify", *words, "--store", done)
        assert ended.code == 0 and ended.out.endswith("every checksum fits\n") and not ended.err
    document = json.loads(rna("verify", "--json", "--store", done).out)
    assert document["files"] == 7 and not (document["damaged"] or document["leftovers"] or document["absent"])
    is_one_sentence(rna("verify", "two", "--store", done), "unknown sweep of done: 'two'")
    is_one_sentence(rna("verify", "--store", "none"), "there is no store at none")


def test_a_store_is_packed_and_a_damaged_pack_is_taken_out(
    rna: Rna, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = "done: nothing to pack, as no view has 100 files that are in no pack\n"
    assert rna("compact", "--store", done).out == nothing
    is_one_sentence(rna("compact", "--store", "none"), "there is no store at none")
    table = rna("table", "one", "--store", done).out
    monkeypatch.setattr("rna_ray.store.packs.LOOSE", 1)
    packed = json.loads(rna("compact", "--store", done, "--json").out)["packs"]
    assert {"view": "examples", "files": 1, "bytes": packed[-2]["bytes"]} in packed
    assert rna("table", "one", "--store", done).out == table
    (path,) = (done / "packs").glob("examples.*.parquet")
    truncate(path)
    said = "is damaged: rna-ray verify --remove takes it out, and resume does again what is missing then\n"
    is_one_sentence(rna("table", "one", "--store", done), f"{path.resolve()} {said}")
    lines = rna("verify", "--remove", "--store", done).out.splitlines()
    assert lines[0].startswith(f"damaged  packs/{path.name} is damaged")
    assert lines[-1] == "removed; rna-ray compact --store done does them again"
    assert rna("table", "one", "--store", done).out == table


def test_rows_that_are_truncated_are_said_and_done_again(rna: Rna, done: Path) -> None:
    (path,) = (done / "examples").iterdir()
    truncate(path)
    said = f"{path.resolve()} is truncated, or no Parquet file"
    assert f"damaged, to do again: {said}" in rna("plan", "one.yaml", "--store", done).out
    assert f"evaluations 0/1 done\n  damaged, to do again: {said}" in rna("status", "--store", done).out
    assert path.exists()  # who only looks removes nothing
    ended = rna("run", "one.yaml", "--address", "inline", "--store", done, "--json")
    assert (ended.code, json.loads(ended.out)["ran"]) == (0, 1) and f"{said}: its unit is done again" in ended.err
    assert rna("verify", "--store", done).code == 0


def test_a_damaged_plan_is_written_again_by_a_run(rna: Rna, done: Path) -> None:
    (path,) = (done / "plans").iterdir()
    table, again = rna("table", "one", "--store", done).out, "rna-ray run with the sweep's file writes its plan again\n"
    path.write_bytes(b"")
    is_one_sentence(rna("table", "one", "--store", done), "plans/one.parquet", again)
    is_one_sentence(rna("resume", "one", "--store", done), "plans/one.parquet is damaged", again)
    assert rna("verify", "--remove", "--store", done).out.splitlines()[-1] == (
        "removed; rna-ray run with a sweep's file writes its plan again"
    )
    is_one_sentence(rna("resume", "one", "--store", done), "done knows no sweep yet: rna-ray run SWEEP.yaml")
    assert "nothing to do" in rna("run", "one.yaml", "--address", "inline", "--store", done).err
    assert rna("table", "one", "--store", done).out == table


def test_a_plan_counts_a_training_whose_weights_are_gone_and_still_needed(rna: Rna, done: Path) -> None:
    for path in done.glob("checkpoints/*/*.safetensors"):
        path.unlink()
    assert "nothing to do" in rna("plan", "one.yaml", "--store", done).out  # nobody needs them
    said = rna("plan", "one.yaml", "--set", "evaluation.0.examples=30", "--store", done).out
    assert "trials: 1 to do; evaluations: 1 to do after their networks" in said and "are missing" in said


def test_rows_that_are_altered_are_found_removed_and_done_again(rna: Rna, done: Path) -> None:
    (path,) = (done / "evaluations").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    found = rna("verify", "one", "--store", done)
    line, _, remedy = found.out.splitlines()
    assert found.code == 1 and line.startswith(f"damaged  evaluations/{path.name} is damaged: ")
    assert line.endswith(f"; unit {path.name[:12]} of one")
    assert remedy.startswith("rna-ray verify --remove --store done takes them out; rna-ray resume one --store done ")
    assert rna("verify", "--remove", "--store", done, "--json").code == 1
    assert not path.exists() and not list((done / "examples").iterdir())
    ended = rna("resume", "--address", "inline", "--store", done, "--json")
    assert (ended.code, json.loads(ended.out)["ran"]) == (0, 1)
    assert rna("verify", "--store", done).code == 0


# -- housekeeping ------------------------------------------------------------------------------------------------------


def kept(store: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in store.glob("checkpoints/*/*"))


def test_pruning_says_what_goes_and_asks(rna: Rna, done: Path) -> None:
    said = rna("prune", "--weights", "last", "--dry-run", "--store", done)
    assert said.code == 0 and said.out.startswith("files to remove: 1, ")
    assert said.out.endswith("\nunits of done that lose something: 1\n")
    asked = rna("prune", "--weights", "last", "--store", done)
    assert asked.out == said.out
    is_one_sentence(dataclasses.replace(asked, out=""), "nothing was pruned: say --yes where nobody can be asked")
    assert kept(done) == ["best", "last"]
    assert rna("prune", "--weights", "last", "--yes", "--store", done) == said
    assert kept(done) == ["last"]
    assert rna("prune", "--weights", "last", "--yes", "--store", done).out == "nothing to prune\n"
    assert "nothing to do" in rna("run", "one.yaml", "--address", "inline", "--store", done).err


def test_rows_of_faulty_code_are_set_aside_done_again_and_readable(rna: Rna, done: Path, folder: Path) -> None:
    ended = rna("prune", "--versions", f"=={rna_ray.__version__}", "--yes", "--store", done)
    assert ended.code == 0 and ": 1 evaluations and 1 trials\n" in ended.out
    (aside,) = (done / "invalid").iterdir()
    assert f"rna-ray query --store done/invalid/{aside.name} " in ended.out
    count = "SELECT count(*) AS n FROM examples"
    assert json.loads(rna("query", count, "--format", "json", "--store", done).out) == [{"n": 0}]
    assert json.loads(rna("query", count, "--format", "json", "--store", aside).out) == [{"n": 20}]
    assert json.loads(rna("status", "--json", "--store", done).out)[0]["units"]["train"]["done"] == 0
    again = rna("run", "one.yaml", "--address", "inline", "--store", done, "--json")
    assert (again.code, json.loads(again.out)["ran"]) == (0, 2)
    merged = rna("merge", aside, "--store", done)  # the same came out
    assert merged.code == 0 and merged.out.endswith("units that were there already: 2\n")


def test_a_merge_that_would_contradict_lists_where_and_takes_nothing(rna: Rna, done: Path) -> None:
    assert rna("run", "one.yaml", "--address", "inline", "--store", "other").code == 0
    assert rna("merge", "other", "--store", done).code == 0
    other = open_store("other")
    (unit_id,) = other.done("evaluations")
    record, rows = other.read("evaluations"), other.read("examples").to_pylist()
    other.discard(unit_id, "evaluations")
    changed = from_rows("examples", [row | {"linf": 9.0} for row in rows])
    other.commit(unit_id, {"examples": changed, "evaluations": record}, record="evaluations")
    ended = rna("merge", "other", "--store", done)
    assert ended.code == 1 and "linf: 9.0 != 0.0 (and 19 more rows)" in ended.out
    assert ended.err == "nothing was merged: other and done disagree in 1 places\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "say what is to go: --weights, --unplanned, --versions or --commit"),
        (["--weights", "worst"], "unknown weights to keep: 'worst'. Known: best, last, none"),
        (["--versions", "0.3"], "--versions '0.3' is no range of versions"),
        (["--commit", "xyz"], "--commit 'xyz' is no commit"),
        (["--unplanned", "--store", "nowhere"], "there is no store at nowhere"),
    ],
)
def test_a_mistaken_prune_is_one_sentence(words: list[str], sentence: str, rna: Rna) -> None:
    is_one_sentence(rna("prune", *words), sentence)


def test_nothing_is_removed_from_a_store_with_a_driver_at_work(rna: Rna, done: Path) -> None:
    (done / "drivers").mkdir(exist_ok=True)
    now = datetime.now(UTC).isoformat()
    driver = {"sweep": "one", "host": "there", "pid": 7, "started_at": now, "seen_at": now}
    (done / "drivers/d.json").write_text(json.dumps(driver), encoding="utf-8")
    is_one_sentence(rna("prune", "--weights", "none", "--yes", "--store", done), "at work on done: one, on there,")
    is_one_sentence(rna("verify", "--remove", "--store", done), "at work on done: one, on there,")
    assert rna("verify", "--store", done).code == 0
    assert kept(done) == ["best", "last"]


def test_a_run_that_reaches_its_hours_says_so_and_how_to_go_on(rna: Rna) -> None:
    ended = rna("run", "one.yaml", "--address", "inline", "--max-hours", "0")
    assert ended.code == 1 and ended.out == ""
    assert ended.err == (
        "rna-ray: the run has taken its 0 h (--max-hours, budget.hours); what is finished is kept, and this goes on: "
        "rna-ray resume one --store rna-store --address inline\n"
    )
    resumed = rna("resume", "one", "--address", "inline", "--json")
    assert (resumed.code, json.loads(resumed.out)["ran"]) == (0, 2)
