"""A probe's rows and its record, from a sweep file to the store, and how it ends where a network is missing."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import save_file

from rna_ray import data
from rna_ray.networks import source
from rna_ray.running import inputs, work
from rna_ray.running.run import Summary, run
from rna_ray.running.tasks import Done, Job
from rna_ray.running.work import perform
from rna_ray.store import Store, connect, layout
from rna_ray.store.files import Files
from rna_ray.store.records import SCHEMAS
from rna_ray.sweep import units
from rna_ray.sweep.plan import Plan, plan
from rna_ray.sweep.spec import load
from rna_ray.sweep.status import PLACES
from rna_ray.sweep.units import Unit

SWEEP = """\
name: probed
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4}
training: {objective: natural, epochs: 1, batch: 32, attack: {eps_255: 25.5, step_255: 12.8}}
variants:
  one: {network.norm: BN}
  two: {network.norm: BN+IN, training.objective: whitebox, training.attack.steps: 1}
probes:
  - {probe: transfer, steps: 2, examples: 25, batch: 10, shard: 10}
  - {probe: path-transfer, steps: 2, examples: 10, batch: 10, pairs: 2, differences: [1, 9], only: [two]}
  - {probe: similarity, examples: 10, batch: 10}
  - {probe: similarity, between: members, examples: 10, batch: 10, only: [two]}
"""


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    def made(*sets: str, text: str = SWEEP) -> Plan:
        (tmp_path / "probed.yaml").write_text(text, encoding="utf-8")
        return plan(load(tmp_path / "probed.yaml", sets))

    return made


def ran(asked: Plan, store: Store) -> Summary:
    return run(asked, store, address="inline", console=Console(file=io.StringIO()))


def test_a_sweep_with_probes_runs_inline_from_file_to_rows(planned: Callable[..., Plan], store: Store) -> None:
    asked = planned()
    ended = ran(asked, store)
    assert (ended.failures, ended.ran) == ((), 2 + 4 * 3 + 2 + 1 + 1)
    assert ended.status.counts()["probe"] == dict.fromkeys(PLACES, 0) | {"done": 16}
    for view, count in {"trials": 2, "probes": 16, "measures": 20, "transfers": 4 * 25 + 40, "examples": 0}.items():
        table = store.read(view)
        assert (table.schema, table.num_rows) == (SCHEMAS[view], count)

    sql = connect(store)
    said = "SELECT attack, source, variant, knowledge FROM plans WHERE kind = 'probe'"
    said += " GROUP BY ALL ORDER BY min(position)"
    assert sql.execute(said).fetchall() == [
        ("transfer-2", "one", "one", None), ("transfer-2", "one", "two", None), ("transfer-2", "two", "one", None),
        ("transfer-2", "two", "two", None), ("path-transfer-2", None, "two", None),
        ("similarity-networks", "one", "two", None), ("similarity-members", None, "two", None),
    ]  # fmt: skip
    one, two = (trial.network for trial in asked.trials)
    pairs = "SELECT source_id, network_id, count(DISTINCT example) FROM transfers WHERE pair IS NULL GROUP BY ALL"
    assert set(sql.execute(pairs).fetchall()) == {(a, b, 25) for a in (one, two) for b in (one, two)}
    paths = "SELECT path_difference, pair, count(*) FROM transfers WHERE pair >= 0 GROUP BY ALL"
    assert sorted(sql.execute(paths).fetchall()) == [(d, pair, 10) for d in (1, 9) for pair in (0, 1)]
    found = "SELECT source_id, network_id, member, other, count(*) FROM measures WHERE measure = 'cosine' GROUP BY ALL"
    assert set(sql.execute(found).fetchall()) == {(one, two, None, None, 10), (None, two, "BN", "IN", 10)}
    labels = data.load("digits").test.labels
    assert all(row["label"] == labels[row["example"]] for row in store.read("transfers").to_pylist())
    joined = "SELECT count(*) FROM plans JOIN transfers USING (unit_id, evaluation) WHERE kind = 'probe'"
    assert sql.execute(joined).fetchone() == (140,)

    again = ran(asked, store)
    assert (again.ran, again.failures) == (0, ())


RN_PROBES = """\
probes=[{probe: landscape, points: 3, examples: 4, batch: 2, shard: 2}, {probe: statistics, examples: 20, batch: 10},
        {probe: statistics, images: attacked, steps: 1, examples: 20, batch: 10, only: [one]}]"""


def test_units_of_one_landscape_share_its_plane_and_statistics_are_a_batchs(
    planned: Callable[..., Plan], store: Store
) -> None:
    ended = ran(planned(RN_PROBES), store)
    assert (ended.failures, ended.ran) == ((), 2 + 2 * 2 + 2 + 1)
    sql = connect(store)
    cut = "SELECT count(DISTINCT unit_id), count(DISTINCT evaluation), count(DISTINCT example), count(*) FROM measures"
    cut += " WHERE probe = 'landscape' GROUP BY network_id, measure"
    assert sql.execute(cut).fetchall() == [(2, 1, 4, 4 * 9)] * 4
    kept = "SELECT count(*), count(example), count(DISTINCT y), count(DISTINCT layer) FROM measures"
    kept += " WHERE probe = 'statistics' AND measure = 'batch_mean' GROUP BY unit_id"
    channels = 3 * 4 + 3 * 8 + 3 * 16
    assert sql.execute(kept).fetchall() == [(2 * channels, 0, 2, 9)] * 3  # one unit each, of two batches
    made = "SELECT probe, eps_255, count(*) FROM probes GROUP BY ALL ORDER BY ALL"
    assert sql.execute(made).fetchall() == [("landscape", None, 4), ("statistics", 25.5, 1), ("statistics", None, 2)]


def test_the_record_says_what_was_measured(planned: Callable[..., Plan], store: Store) -> None:
    asked = planned("probes.0.checkpoint=last")
    ran(asked, store)
    records = {row["unit_id"]: row for row in store.read("probes").to_pylist()}
    one, two = (trial.network for trial in asked.trials)
    unit = next(unit for unit in asked.units if unit.needs == (two, one) and unit.settings["examples"] == [20, 25])
    record = records[unit.id]
    shown = ("probe", "source_id", "network_id", "checkpoint", "data", "classes", "eps_255", "threat", "start", "stop")
    assert [record[name] for name in shown] == ["transfer", two, one, "last", "digits", 10, 25.5, "linf", 20, 25]
    assert json.loads(record["settings"]) == unit.settings
    assert json.loads(record["attack_settings"]) == unit.settings["attack"]
    assert (record["kernel"], record["precision"], record["compiled"]) == ("mixture", "fp32", False)
    members = next(row for row in records.values() if row["probe"] == "similarity" and row["source_id"] is None)
    assert (members["kernel"], members["attack_settings"], members["eps_255"]) == ("native", None, None)


@pytest.fixture
def do(store: Store) -> Callable[[Unit], Done]:
    def done(unit: Unit) -> Done:
        return perform(Job(unit=unit, store=store.uri, root=None, download=False, threads=1, device="cpu", attempt=1))

    return done


@pytest.fixture
def trained(planned: Callable[..., Plan], do: Callable[[Unit], Done]) -> Plan:
    """The plan of a sweep whose networks are in the store."""
    asked = planned()
    assert all(do(unit).state == "done" for unit in asked.units if unit.kind == "train")
    return asked


def test_the_record_comes_last(
    trained: Plan, do: Callable[[Unit], Done], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = next(unit for unit in trained.units if unit.kind == "probe")
    written: list[str] = []
    plain = Files.create_all

    def create_all(self: Files, files: Any) -> list[bool]:
        written.extend(path.parts[0] for path, _ in files)
        if written[-1] == "probes":
            assert not store.read("transfers").num_rows  # without their record the rows do not count
        return plain(self, files)

    monkeypatch.setattr(Files, "create_all", create_all)
    assert do(unit).state == "done" and written == ["transfers", "probes"]
    assert store.read("transfers").num_rows == 10


def test_a_probe_without_one_of_its_networks_fails_and_says_so(
    planned: Callable[..., Plan], do: Callable[[Unit], Done], store: Store
) -> None:
    asked = planned()
    one, two = (trial.network for trial in asked.trials)
    assert do(asked.units[0]).state == "done"
    alone, pair = (next(unit for unit in asked.units if unit.needs == needs) for needs in ((one,), (one, two)))
    assert do(alone).state == "done"
    failed = do(pair)
    assert failed.state == "failed" and failed.kind == "probe" and two in failed.error
    assert store.done("probes") == {alone.id} and set(store.failures()) == {pair.id}


@pytest.mark.slow
def test_weights_of_either_network_are_looked_at_before_anything_starts(trained: Plan, store: Store) -> None:
    _, two = (trial.network for trial in trained.trials)
    trial = store.read_file("trials", two).to_pylist()[0]
    weights = Path(store.uri) / layout.weights_file(two, "best", trial["best_sha256"])
    whole = weights.read_bytes()
    weights.unlink()
    ended = ran(trained, store)  # that network is trained again before the probes
    assert not ended.failures and ended.status.counts()["train"]["done"] == 2
    assert weights.read_bytes() == whole
    best = {row["unit_id"]: row["best_sha256"] for row in store.read("trials").to_pylist()} | {None: None}
    probes = store.read("probes").to_pylist()
    assert probes and all(row["weights_sha256"] == best[row["network_id"]] for row in probes)
    assert all(row["source_sha256"] == best[row["source_id"]] for row in probes)


@pytest.mark.slow
def test_a_network_that_diverged_is_probed_as_it_is(planned: Callable[..., Plan], store: Store) -> None:
    asked = planned("training.lr=1e30", "training.weight_decay=0.1")
    ended = ran(asked, store)
    assert set(store.read("trials")["state"].to_pylist()) == {"diverged"}
    assert ended.failures == () and ended.status.counts()["probe"]["done"] == 16


def test_a_probe_of_a_network_that_failed_is_left_for_later(
    planned: Callable[..., Plan], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = planned()
    plain = work._DO["train"]

    def train(job: Job, *given: Any) -> None:
        if job.unit.id == asked.trials[1].network:
            raise RuntimeError("no")
        plain(job, *given)

    monkeypatch.setattr(work, "_DO", {**work._DO, "train": train})
    ended = ran(asked, store)
    counts = ended.status.counts()["probe"]
    assert (counts["done"], counts["failed"], counts["blocked"]) == (3, 0, 13)


MODULE = """\
from torch import nn

import rna_ray


def build():
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    return rna_ray.randomize(nn.Sequential(*layers), {space!r})
"""
IMPORTING = """\
name: probed
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4, norm: BN}
training: {objective: natural, epochs: 1, batch: 32, attack: {eps_255: 25.5, step_255: 12.8}}
variants:
  ours: {}
  theirs: {network.import: "same_name:build", network.root: a}
  others: {network.import: "same_name:build", network.root: b}
probes:
  - {probe: transfer, steps: 2, examples: 20, batch: 10}
  - {probe: similarity, examples: 20, batch: 10}
"""


def test_imported_networks_of_one_module_name_meet_in_a_pair(
    planned: Callable[..., Plan], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, space in (("a", "BN+IN"), ("b", "IN+LN")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same_name.py").write_text(MODULE.format(space=space), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    ended = ran(planned(text=IMPORTING), store)
    assert ended.failures == () and ended.status.counts()["probe"]["done"] == 9 + 3
    assert store.read("transfers").num_rows == 9 * 20 and store.read("measures").num_rows == 3 * 20
    assert set(store.read("probes")["checkpoint"].to_pylist()) == {"best", "last"}


@pytest.mark.slow
def test_networks_whose_weights_are_given_are_probed_without_a_folder_of_code(
    planned: Callable[..., Plan], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = inputs.built(planned().units[0].settings, "unit")
    save_file({key: value.contiguous() for key, value in made.state_dict().items()}, tmp_path / "w.safetensors")
    named = f"network.name: resnet8, network.width: 4, network.norm: BN, network.weights: {tmp_path / 'w.safetensors'}"
    text = SWEEP.replace("{network.norm: BN}", f"{{{named}}}")
    asked = planned(text=text)
    monkeypatch.setattr(source, "importing", lambda root: pytest.fail(f"looks for modules in {root}"))
    ended = ran(asked, store)
    assert ended.failures == () and ended.status.counts()["probe"]["done"] == 16
    assert set(store.read("trials")["state"].to_pylist()) == {"finished"}


def test_a_probe_unit_is_a_unit_of_its_own_kind(planned: Callable[..., Plan]) -> None:
    found = [unit for unit in planned().units if unit.kind == "probe"]
    assert {unit.version for unit in found} == {units.VERSIONS["probe"]} == {1}
    as_evaluation = dataclasses.replace(found[0], kind="evaluate")
    assert as_evaluation.id != found[0].id
