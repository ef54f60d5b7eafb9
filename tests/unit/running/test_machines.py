"""What is known of a cluster's machines without a cluster: who sees the store, and what an autoscaler may add."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest

from rna_ray.running import machines
from rna_ray.store import layout, open_store

HEAD = "10.0.0.1:6379"


def test_a_machine_sees_a_store_where_it_finds_what_another_one_wrote(tmp_path: Path) -> None:
    path = layout.sight_file("0123abcd")
    assert path == PurePosixPath(".sight-0123abcd")
    store = str(tmp_path / "store")
    there = tmp_path / "store/.sight-0123abcd"
    assert machines.finds(store, path, "0123abcd") == f"it has no file {there}, which was just written"
    open_store(store).files.write(path, b"0123abcd")
    assert machines.finds(store, path, "0123abcd") is None
    there.write_text("another store's")
    assert machines.finds(store, path, "0123abcd") == f"its {there} is another file"


def test_a_machine_says_why_its_store_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    said = machines.finds(str(tmp_path / "store"), layout.sight_file("0123abcd"), "0123abcd")
    assert said == f"there {tmp_path / 'store'} is a file, not a store: give a folder"


def test_the_configuration_is_that_of_the_autoscaler_of_this_very_cluster(tmp_path: Path) -> None:
    processes, config = tmp_path / "proc", tmp_path / "config.json"
    config.write_text(json.dumps({"max_workers": 3}), encoding="utf-8")
    for pid, words in {
        "7": ["python", "monitor.py", "--gcs-address=10.0.0.9:6379", f"--autoscaling-config={tmp_path / 'other.json'}"],
        "8": ["raylet", f"--gcs-address={HEAD}"],
        "self": ["python", f"--gcs-address={HEAD}", f"--autoscaling-config={tmp_path / 'other.json'}"],
    }.items():
        (processes / pid).mkdir(parents=True)
        (processes / pid / "cmdline").write_text("\0".join(words))
    assert machines.autoscaler_config(HEAD, processes) is None
    (processes / "9").mkdir()  # a process that has ended leaves a folder without its command for a moment
    (processes / "10").mkdir()
    words = ["python", "monitor.py", f"--gcs-address={HEAD}", f"--autoscaling-config={config}"]
    (processes / "10" / "cmdline").write_text("\0".join(words))
    assert machines.autoscaler_config(HEAD, processes) == {"max_workers": 3}


@pytest.mark.parametrize(
    ("types", "scales"),
    [
        ({}, False),
        ({"ab": "node_ab", "cd": "node_cd"}, False),  # what Ray's monitor calls nodes that someone started by hand
        ({"ab": "headgroup"}, True),
        ({"ab": "headgroup", "cd": "gpu"}, True),
    ],
)
def test_an_autoscaler_is_told_from_a_mere_list_of_nodes(types: dict[str, str], scales: bool) -> None:
    report = json.dumps({"autoscaler_report": {"node_type_mapping": types}}).encode()
    assert machines._scales(report) is scales
    assert machines._scales(None) is False and machines._scales(b"{}") is False
