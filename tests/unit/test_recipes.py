"""The recipes for clusters fit their schemas, and what they say of this project is so."""

from __future__ import annotations

import copy
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rna_ray.running import slots
from rna_ray.sweep import bundled, plan, spec
from rna_ray.sweep.sections import Share

ROOT = Path(__file__).parents[2]
LAUNCHED = ["cluster.yaml", "docs/clusters/onprem.yaml"]
SLURM = ROOT / "docs/clusters/slurm.sh"
PAGES = {
    "aws": "cluster.yaml", "onprem": "docs/clusters/onprem.yaml", "kubernetes": "docs/clusters/rayjob.yaml",
    "slurm": "docs/clusters/slurm.sh",
}  # fmt: skip


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def launcher_takes(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration as Ray's launcher completes it; raises where it would refuse it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_launcher_takes_a_recipe(name: str) -> None:
    prepared = launcher_takes(read(name))
    assert prepared["max_workers"] == {"cluster.yaml": 8}.get(name, 2)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda config: config.update(idle_timeout="10"),
        lambda config: config["provider"].update(type="awz"),
        lambda config: config["auth"].update(ssh_usr="ubuntu"),
        lambda config: config["available_node_types"]["gpu_worker"].update(min_workers=9),
        lambda config: config.update(head_node_type="heads"),
        lambda config: config["available_node_types"]["gpu_worker"]["resources"].update(GPU="one"),
    ],
)
def test_the_launcher_refuses_what_it_does_not_know(spoil: Callable[[dict[str, Any]], None]) -> None:
    config = read("cluster.yaml")
    spoil(config)
    with pytest.raises((jsonschema.ValidationError, ValueError, NotImplementedError)):
        launcher_takes(config)


def test_the_cluster_grows_from_zero_by_what_the_driver_reads_of_it() -> None:
    prepared = launcher_takes(read("cluster.yaml"))
    may = slots.growth(prepared)
    assert may.text() == "up to 8 gpu_worker (8 CPU, 1 GPU)"
    assert prepared["available_node_types"]["gpu_worker"]["min_workers"] == 0
    assert slots.count(slots.grown([("head", {"CPU": 0})], may), Share(cpu=8, gpu=1)) == 8


@pytest.mark.parametrize("name", LAUNCHED)
def test_every_node_says_how_it_is_authenticated_and_the_dashboard_stays_on_loopback(name: str) -> None:
    config = read(name)
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        starting = [command for command in commands if "ray start" in command]
        assert starting and all("RAY_AUTH_MODE=token" in command for command in starting)
    assert "--dashboard-host=127.0.0.1" in " ".join(config["head_start_ray_commands"])
    assert "0.0.0.0" not in json.dumps(config)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@pytest.fixture(scope="module")
def rayjob_fits() -> Callable[[Any], None]:
    schema = json.loads((Path(__file__).parent / "rayjob_schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return lambda manifest: jsonschema.validate(manifest, schema, jsonschema.Draft202012Validator)


def test_the_rayjob_fits_its_schema_and_the_release_of_ray(rayjob_fits: Callable[[Any], None]) -> None:
    job = read("docs/clusters/rayjob.yaml")
    rayjob_fits(job)
    cluster = job["spec"]["rayClusterSpec"]
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned and cluster["rayVersion"] == pinned[1]
    assert cluster["authOptions"]["mode"] == "token"
    (group,) = cluster["workerGroupSpecs"]
    assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]
    for template in (cluster["headGroupSpec"]["template"], group["template"]):
        mounted = {mount["name"] for one in template["spec"]["containers"] for mount in one.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in template["spec"].get("volumes", [])}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(shutdownAfterJobFinished=True),
        lambda spec: spec.update(backoffLimit="5"),
        lambda spec: spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
        lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][0].pop("groupName"),
        lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][0].update(groupName="GPU workers"),
        lambda spec: spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0].pop("image"),
    ],
)
def test_the_schema_refuses_what_kuberay_would(
    spoil: Callable[[dict[str, Any]], None], rayjob_fits: Callable[[Any], None]
) -> None:
    job = read("docs/clusters/rayjob.yaml")
    spoil(job["spec"])
    with pytest.raises(jsonschema.ValidationError):
        rayjob_fits(job)


def test_a_unit_of_the_rayjob_fits_on_one_of_its_workers() -> None:
    job = read("docs/clusters/rayjob.yaml")["spec"]
    words = shlex.split(job["entrypoint"])
    assert words[:2] == ["rna-ray", "run"] and words[3:5] == ["--address", "auto"]
    sets = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    where = plan.plan(spec.load(bundled.find(words[2]), sets), digest=lambda data: data.name).where
    (worker,) = job["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    limits = worker["resources"]["limits"]
    node = {"CPU": float(limits["cpu"]), "GPU": float(limits["nvidia.com/gpu"])}
    assert slots.count([node], where.train) == slots.count([node], where.evaluate) == 1


def test_the_script_for_slurm_is_sound() -> None:
    subprocess.run(["bash", "-n", SLURM], check=True)
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")
    assert shellcheck, "shellcheck comes with the development dependencies"
    checked = subprocess.run([shellcheck, SLURM], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(("page", "recipe"), PAGES.items())
def test_each_recipe_has_a_page_that_names_it_and_ends_with_a_table(page: str, recipe: str) -> None:
    text = (ROOT / f"docs/clusters/{page}.md").read_text(encoding="utf-8")
    assert f"{Path(recipe).name}" in text
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    assert "rna-ray table" in commands and "RAY_AUTH_MODE" in text
    assert f"clusters/{page}.md" in (ROOT / "docs/clusters.md").read_text(encoding="utf-8")


def test_no_recipe_is_shipped_in_the_wheel() -> None:
    shipped = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"docs' not in shipped and "cluster.yaml" not in shipped
