"""A sweep over image folders, from the file to the table's rows, and what was decoded for it."""

from __future__ import annotations

from pathlib import Path

import image_folders
import pytest
from rich.console import Console

from rna_ray.data import image_files, registry
from rna_ray.errors import RunStopped
from rna_ray.running.run import run
from rna_ray.store import Store
from rna_ray.sweep.plan import Plan, plan
from rna_ray.sweep.spec import load

SWEEP = """\
name: folders
data: {{name: imagenet, root: {root}, held_out: 6}}
network: {{name: resnet8, width: 4, norm: BN+IN}}
training: {{objective: blackbox, epochs: 2, batch: 6, attack: {{steps: 1}}}}
evaluation:
  - {{attack: pgd, steps: 2, draws: 2, examples: 6, batch: 3, shard: 3, knowledge: [transfer, eot-2]}}
"""


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(registry, "DATASETS", {"imagenet": image_folders.info()})
    (tmp_path / "folders.yaml").write_text(SWEEP.format(root=image_folders.write(tmp_path / "images")))
    with monkeypatch.context() as planning:
        planning.setattr(image_files, "_open", None)  # to plan decodes nothing
        return plan(load(tmp_path / "folders.yaml"))


def test_a_sweep_over_image_folders(planned: Plan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    decode = image_files._open
    monkeypatch.setattr(image_files, "_open", lambda path: (opened.append(path.parts[-3]), decode(path))[1])
    summary = run(planned, store, address="inline", console=Console(quiet=True))
    assert not summary.failures and store.read("failures").num_rows == 0
    (trial,) = store.read("trials").to_pylist()
    assert (trial["state"], trial["train_examples"], trial["held_out"]) == ("finished", 18, 6)
    examples = {row["example"]: row["label"] for row in store.read("examples").to_pylist()}
    assert examples == dict(enumerate([0, 1, 2, 2, 0, 1]))
    # Two epochs of 18 training images and 6 held-out ones; two evaluations of 6 images.
    assert (opened.count("train"), opened.count("val")) == (2 * (18 + 6), 2 * 6)


def test_images_that_changed_since_the_plan_are_refused(planned: Plan, store: Store) -> None:
    root = Path(planned.where.roots["imagenet"] or "")
    path = next((root / "train").rglob("*.JPEG"))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(RunStopped, match="this unit was planned on"):
        run(planned, store, address="inline", console=Console(quiet=True))
    assert not store.failures()  # the fault is not the unit's
