"""What commands print of plans, stores and runs, as a document and in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from rna_ray import show
from rna_ray.running.run import Summary
from rna_ray.running.tasks import Done
from rna_ray.store import open_store
from rna_ray.sweep.cost import clock
from rna_ray.sweep.plan import Plan, plan
from rna_ray.sweep.spec import load
from rna_ray.sweep.status import Status, subtract
from rna_ray.sweep.throughput import Measured

SWEEP = """\
name: two
data: {name: digits, held_out: 32}
network: {name: resnet8, width: 4}
training: {objective: blackbox, epochs: 2}
grid: {network.norm: [BN, BN+IN]}
evaluation:
  - {attack: natural, examples: 40, batch: 20, shard: 20}
resources: {evaluate: {gpu: 0.5}}
"""


@pytest.fixture
def planned(tmp_path: Path) -> Plan:
    path = tmp_path / "two.yaml"
    path.write_text(SWEEP, encoding="utf-8")
    return plan(load(path), digest=lambda data: "content")


def trains(planned: Plan) -> list[str]:
    return [unit.id for unit in planned.units if unit.kind == "train"]


def standing(planned: Plan, done: list[str] = (), failed: dict[str, int] | None = None) -> Status:  # type: ignore[assignment]
    return subtract(planned, set(done), failed or {}, "none")


def test_a_plan_says_what_is_done_and_what_it_would_cost(planned: Plan) -> None:
    first, second = trains(planned)
    document = show.plan(planned, standing(planned, [first]))
    assert document["sweep"] == "two"
    assert document["units"]["train"] == {"done": 1, "ready": 1, "waiting": 0, "failed": 0, "blocked": 0, "early": 0}
    assert document["units"]["evaluate"] == {"done": 0, "ready": 2, "waiting": 2, "failed": 0, "blocked": 0, "early": 0}
    assert [(one["unit"], one["done"], one["axes"]) for one in document["trials"]] == [
        (first, True, {"network.norm": "BN"}), (second, False, {"network.norm": "BN+IN"}),
    ]  # fmt: skip
    estimate = document["estimate"]
    assert (estimate["train"]["device"], estimate["evaluate"]["device"]) == ("CPU core", "GPU")
    whole = show.plan(planned, standing(planned))["estimate"]
    assert whole["train"]["device_seconds"] == pytest.approx(2 * estimate["train"]["device_seconds"])
    words = show.plan_text(document)
    assert f"  done   {first[:12]}  " in words and f"  to do  {second[:12]}  " in words
    assert "trials: 1 done, 1 to do; evaluations: 2 to do, 2 to do after their networks" in words


def test_a_plan_says_what_its_estimate_rests_on(planned: Plan) -> None:
    macs = sum(planned.costs[unit.id] for unit in planned.units if unit.kind == "evaluate")
    gpu = Measured(kind="evaluate", of="vgg", device="NVIDIA H100", units=12, macs_per_second=macs / 7200)
    document = show.plan(planned, standing(planned), [gpu])
    assert document["gpu_hours"] == pytest.approx(2.0)
    words = show.plan_text(document)
    assert "2 h 0 min of one GPU for evaluations; 2 GPU hours in all\n" in words
    assert "\n  trials: an assumption: 2e10 multiply-adds a second and CPU core, nothing measured in" in words
    assert words.endswith("\n  evaluations: measured in this store on 12 evaluations of vgg on NVIDIA H100")
    cpu = Measured(kind="train", of="vgg", device="cpu", units=1, macs_per_second=1e9)
    assumed = show.plan_text(show.plan(planned, standing(planned), [cpu]))
    assert "\n  trials: measured in this store on 1 trial of vgg on CPU cores\n  evaluations: an assumption" in assumed


def test_gpu_hours_are_those_of_all_kinds_on_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / "gpus.yaml"
    path.write_text(SWEEP.replace("{evaluate: {gpu: 0.5}}", "{evaluate: {gpu: 1}, train: {gpu: 1}}"), encoding="utf-8")
    both = plan(load(path), digest=lambda data: "content")
    speed = sum(both.costs.values()) / 360_000
    rate = Measured(kind="train", of="vgg", device="NVIDIA H100", units=3, macs_per_second=speed)
    document = show.plan(both, standing(both), [rate])
    assert document["gpu_hours"] == pytest.approx(100.0)
    words = show.plan_text(document)
    basis = "measured in this store on 3 trials of vgg on NVIDIA H100"
    assert f"; 100 GPU hours in all\n  trials and evaluations: {basis}" in words


def test_variants_that_are_one_network_stand_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "same.yaml"
    path.write_text(SWEEP + "variants: {one: {seed: 0}, two: {training.objective: whitebox}}\n", encoding="utf-8")
    same = plan(load(path), digest=lambda data: "content")
    document = show.plan(same, standing(same))
    named = [(trial["variant"], trial["also"]) for trial in document["trials"]]
    assert named == [("one, BN", ["two, BN"]), ("one, BN+IN", []), ("two, BN+IN", [])]
    assert "  one, BN = two, BN, seed=0  (" in show.plan_text(document)


def test_a_plan_of_which_all_is_done_says_so(planned: Plan) -> None:
    document = show.plan(planned, standing(planned, [unit.id for unit in planned.units]))
    assert show.plan_text(document).endswith("trials: 2 done; evaluations: 4 done\nnothing to do")


def test_a_summary_names_each_failure_and_what_it_blocks(planned: Plan, tmp_path: Path) -> None:
    first, second = trains(planned)
    error = "RuntimeError: no [bold]markup[/bold] is read into this"
    failure = Done(unit_id=second, kind="train", state="failed", seconds=1.0, error=error)
    summary = Summary(
        status=standing(planned, [first], {second: 1}), ran=2, failures=(failure,), seconds=200.4, seconds_computed=3.0
    )
    document = show.summary(planned, summary, open_store(tmp_path / "store"))
    assert document["failures"] == [{"unit": second, "kind": "train", "error": error}]
    assert show.summary_text(document).splitlines() == [
        f"failed  train {second[:12]}  {error}",
        "two: 2 units in 3 min 20 s, 3 s of computing",
        "trials: 1 done, 1 failed; evaluations: 2 to do, 2 blocked",
        f"where it came from, and what comes next: rna-ray failures --store {tmp_path}/store",
    ]


def test_a_plan_says_what_it_takes_an_imported_network_to_cost(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "what imported networks cost is not known before they run: each is counted as a resnet18"
    assert said not in show.plan_text(show.plan(planned, standing(planned)))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text("", encoding="utf-8")
    text = SWEEP.replace("name: resnet8, width: 4", "import: own:build").replace("grid:", "about: |\n ")
    (tmp_path / "own.yaml").write_text(text.replace("training:", "# training:"), encoding="utf-8")
    own = plan(load(tmp_path / "own.yaml"), digest=lambda data: "content")
    document = show.plan(own, standing(own))
    assert document["assumed"] == "resnet18" and document["units"]["import"]["ready"] == 1
    assert document["estimate"]["import"]["device"] == "GPU"  # imports take what an evaluation takes
    words = show.plan_text(document)
    assert "imports: 1 to do; evaluations: 2 to do after their networks\n" in words and words.endswith(said)
    done = show.plan_text(show.plan(own, standing(own, [unit.id for unit in own.units])))
    assert done.endswith("nothing to do") and "trials:" not in done


def test_a_summary_of_nothing_says_that_nothing_was_done_again(planned: Plan, tmp_path: Path) -> None:
    status = standing(planned, [unit.id for unit in planned.units])
    summary = Summary(status=status, ran=0, failures=(), seconds=0.0, seconds_computed=0.0)
    words = show.summary_text(show.summary(planned, summary, open_store(tmp_path / "store")))
    assert words.startswith("two: nothing to do, nothing was trained or attacked again\n")


def test_the_sweeps_of_a_store_in_words() -> None:
    counts = {"train": {"done": 1, "early": 1, "failed": 0, "total": 2}}
    counts["evaluate"] = {"done": 3, "early": 4, "failed": 1, "total": 8}
    said = "two: trials 1/2 done, 1 stopped early; evaluations 3/8 done, 4 left out, 1 failed"
    assert show.status_text([{"sweep": "two", "units": counts}], "here") == said
    assert show.status_text([], "here") == "here knows no sweep yet"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (18600, "5 h 10 min"),
     (273600, "3 d 4 h")],
)  # fmt: skip
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert clock(seconds) == words


def test_a_plan_says_what_is_certified(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    entry = "certification:\n  - {draws: [50, 100], noise_255: 12.5, examples: 40, shard: 20}\nresources:"
    path.write_text(SWEEP.replace("resources:", entry), encoding="utf-8")
    planned = plan(load(path), digest=lambda data: "content")
    document = show.plan(planned, standing(planned, trains(planned)))
    shown = [(one["noise_255"], one["draws"], len(one["units"]), one["to_do"]) for one in document["certifications"]]
    assert shown == [(12.5, 50, 4, 4), (12.5, 100, 4, 4)]
    assert [one["certifications"] for one in document["trials"]] == [4, 4]
    assert document["estimate"]["certify"]["device"] == "GPU"
    words = show.plan_text(document)
    assert "(2 evaluation units, 4 certification units)" in words
    assert "  certification, noise 12.5/255, 100 draws: 4 units, 4 to do" in words
    assert "; certifications: 8 to do" in words


def test_a_plan_lists_networks_by_priority_and_says_it(tmp_path: Path) -> None:
    path = tmp_path / "urgent.yaml"
    variants = "variants: {A: {network.norm: BN}, B: {network.norm: IN}}"
    text = SWEEP.replace("grid: {network.norm: [BN, BN+IN]}", variants)
    path.write_text(text, encoding="utf-8")
    urgent = plan(load(path, ["variants.B.priority=2", "evaluation.0.priority=1"]), digest=lambda data: "content")
    document = show.plan(urgent, standing(urgent))
    assert [(one["variant"], one["priority"]) for one in document["trials"]] == [("B", 3), ("A", 1)]
    assert [column["priorities"] for column in document["evaluations"]] == [[3, 1]]
    words = show.plan_text(document).splitlines()
    assert words[1].endswith("  B  (2 evaluation units), priority 3")
    assert words[3] == "  natural: 4 units, 4 to do, priority 3 and 1"
