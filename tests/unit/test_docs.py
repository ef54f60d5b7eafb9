"""What the documents show is true: their sweep file plans, their commands exist, their links lead somewhere."""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from commands import rna
from safetensors.torch import save
from typer.testing import CliRunner

from rna_ray.attacks.catalog import ATTACKS
from rna_ray.cli import app
from rna_ray.networks.describe import NETWORKS
from rna_ray.probes.catalog import PROBES
from rna_ray.running.state import Active, Count, Failure, Phase, State, event
from rna_ray.store import open_store
from rna_ray.sweep import plan, spec

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md",
    "docs/audit.md", "docs/benchmarks.md", "docs/certification.md", "docs/clusters.md", "docs/clusters/aws.md",
    "docs/clusters/kubernetes.md", "docs/clusters/onprem.md", "docs/clusters/slurm.md", "docs/evaluation.md",
    "docs/extending.md", "docs/gallery.md", "docs/keeping.md", "docs/notebook.md", "docs/reference.md",
    "docs/report.md", "docs/rna.md", "docs/robustnorm.md", "docs/search.md", "docs/stn.md", "docs/storage.md",
    "docs/theory.md", "docs/tutorial.md", "docs/watching.md", "docs/weights.md",
]  # fmt: skip


def blocks(document: str, language: str) -> list[str]:
    """Return the code blocks of a language in a document."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)


def test_the_sweep_file_of_the_readme_plans(tmp_path: Path) -> None:
    shown, _ = blocks("README.md", "yaml")
    (tmp_path / "norms.yaml").write_text(shown, encoding="utf-8")
    found = plan.plan(spec.load(tmp_path / "norms.yaml"), digest=lambda data: data.name)
    assert len(found.trials) == 8  # four norms, two seeds
    assert {cell.knowledge for cell in found.cells} == {"none", "transfer", "fixed", "resample", "eot-10"}


def test_the_network_of_ones_own_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, shown = blocks("README.md", "yaml")
    (code,) = [block for block in blocks("README.md", "python") if "# mynet.py" in block]
    Path("mynet.py").write_text(code, encoding="utf-8")
    Path("own.yaml").write_text(shown, encoding="utf-8")
    ended = CliRunner().invoke(app, ["run", "own.yaml", "--address", "inline"])
    assert ended.exit_code == 0, ended.output
    assert open_store("rna-store").read("trials")["log2_paths"].to_pylist() == [1.0]
    assert open_store("rna-store").read("examples").num_rows == 200


def test_the_sweeps_of_the_page_on_weights_plan(tmp_path: Path) -> None:
    kinds, weights = [], save({"w": torch.zeros(1)})
    for name, shown in zip(("resnet_c10.pth", "resnet50.safetensors"), blocks("docs/weights.md", "yaml"), strict=True):
        (tmp_path / name).write_bytes(weights)
        text = shown.replace("SHA256", hashlib.sha256(weights).hexdigest())
        (tmp_path / "shown.yaml").write_text(f"folder: {tmp_path}\n{text}", encoding="utf-8")
        found = plan.plan(spec.load(tmp_path / "shown.yaml"), digest=lambda data: data.name)
        kinds += [trial.kind for trial in found.trials]
        assert found.cells and "weights_sha256" in found.units[0].settings["network"]
    assert kinds == ["import", "train"]


def test_the_sweep_of_the_page_on_keeping_is_done_in_the_order_that_it_says(tmp_path: Path) -> None:
    (shown,) = blocks("docs/keeping.md", "yaml")
    (tmp_path / "shown.yaml").write_text(shown, encoding="utf-8")
    found = plan.plan(spec.load(tmp_path / "shown.yaml"), digest=lambda data: data.name)
    urgent = [found.priorities[unit.id] for unit in found.units]
    assert urgent[0] == 11 and urgent == sorted(urgent, reverse=True)
    assert [unit.settings["attack"]["name"] for unit in found.units[-2:]] == ["autoattack"] * 2
    assert found.units[0].id == found.trials[0].network


def test_the_sweep_of_the_page_on_searching_draws_what_it_says(tmp_path: Path) -> None:
    shown, *others = blocks("docs/search.md", "yaml")
    (tmp_path / "rates.yaml").write_text(shown, encoding="utf-8")
    found = plan.plan(spec.load(tmp_path / "rates.yaml"), digest=lambda data: data.name)
    rates = [trial.row["training.lr"] for trial in found.trials]
    assert rates[:6] == rates[6:] and len(set(rates)) == 6
    assert {trial.row["training.batch"] for trial in found.trials} <= {32, 64, 128}
    counts = []
    for other in others:
        (tmp_path / "other.yaml").write_text(shown[: shown.index("search:")] + other, encoding="utf-8")
        counts.append(len(plan.plan(spec.load(tmp_path / "other.yaml"), digest=lambda data: data.name).trials))
    assert counts == [2 * 27, 2 * 4]  # all points, and those of a first round


@pytest.mark.slow
def test_the_page_on_notebooks_runs(quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rna-store").symlink_to(quickstart)
    (export,) = [block for block in blocks("docs/notebook.md", "sh") if block.startswith("rna-ray export")]
    assert rna(*shlex.split(export)[1:]).code == 0
    here: dict[str, Any] = {}
    shown = blocks("docs/notebook.md", "python")
    for code in shown:
        exec(code, here)
    assert len(shown) == 7 and here["table"]["accuracy"].notna().all() and Path("quickstart.pdf").stat().st_size
    expected = here["store"].network("BN+IN black-box", seed=0)
    with torch.no_grad():
        assert torch.equal(here["network"](here["images"]), expected(here["images"]))


def test_the_settings_of_the_page_on_notebooks_plan(tmp_path: Path) -> None:
    (shown,) = blocks("docs/notebook.md", "yaml")
    given, _ = blocks("README.md", "yaml")
    (tmp_path / "norms.yaml").write_text(given + shown, encoding="utf-8")
    logging = spec.load(tmp_path / "norms.yaml").logging
    assert logging.tensorboard and logging.mlflow and logging.wandb and logging.wandb.project == "robustness"


def test_the_readme_names_commands_networks_attacks_and_probes_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^rna-ray (\w+)", text, re.MULTILINE))
    commands = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert listed == commands
    for name in NETWORKS:
        assert f"`{name}`" in text, f"the README does not name the network {name}"
    for name in ATTACKS:
        assert f"`{name}`" in text, f"the README does not name the attack {name}"
    for name in PROBES:
        assert f"{{probe: {name}}}" in text, f"the README does not name the probe {name}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / document).read_text(encoding="utf-8"))
    assert links or document != "README.md"
    assert [link for link in links if "://" not in link and not ((ROOT / document).parent / link).exists()] == []


@pytest.mark.parametrize("document", ["README.md", "docs/tutorial.md"])
def test_the_make_targets_of_a_document_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = set(re.findall(r"^make (\w+)", "\n".join(blocks(document, "sh")), re.MULTILINE))
    assert asked and asked <= targets


def test_the_page_on_the_rna_paper_names_every_sweep_and_printed_table_of_it() -> None:
    text = (ROOT / "docs/rna.md").read_text(encoding="utf-8")
    ours = {path.stem for folder in ("sweeps", "analysis/published") for path in (ROOT / folder).glob("rna-*.*")}
    assert {"rna-table1", "rna-table5", "rna-figure5"} <= ours
    assert [name for name in sorted(ours) if not re.search(rf"\b{name}\b(?!-)", text)] == []
    named = set(re.findall(r"sweeps/(rna-\w+)\.yaml", text))
    assert named and [name for name in named if not (ROOT / f"sweeps/{name}.yaml").exists()] == []


def test_every_command_has_help() -> None:
    for command in app.registered_commands:
        assert command.callback
        shown = CliRunner().invoke(app, [command.callback.__name__, "--help"])
        assert shown.exit_code == 0 and "Example" in shown.output


def test_the_page_on_watching_tells_every_field_of_an_event() -> None:
    text = (ROOT / "docs/watching.md").read_text(encoding="utf-8")
    shown = event(State(sweep="s", counts={"train": Count()}, active=(Active(unit="u", seconds=0.0),),
                        failures=(Failure(unit="u", kind="train", name="n", error="e"),)))  # fmt: skip
    table = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE))
    assert set(table) == {"time", *shown}
    for group in (shown["units"]["train"], *shown["active"], *shown["failures"]):
        assert [name for name in group if f"`{name}`" not in " ".join(table.values())] == []
    assert set(re.findall(r"`(\w+)`", table["phase"])) == set(get_args(Phase))
