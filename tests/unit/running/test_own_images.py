"""A sweep over a reader's own images, from the folder to the table, the report and the doctor."""

from __future__ import annotations

import json
import os
from pathlib import Path

import image_folders
import pytest
from commands import rna

from rna_ray.running import doctor
from rna_ray.store import open_store

SWEEP = """\
name: own
data: {name: folder, root: images, side: 16, held_out: 8}
network: {name: resnet8, width: 4, norm: BN+IN}
training: {objective: blackbox, epochs: 6, batch: 8, lr: 0.05, augment: crop-flip, attack: {steps: 1}}
evaluation:
  - {attack: natural}
  - {attack: pgd, steps: 2, knowledge: [transfer, eot-2]}
probes: [{probe: smoothness, examples: 4}]
certification: [{noise_255: 12, draws: 20, selection: 10, examples: 4}]
logging: {tensorboard: false}
"""


@pytest.mark.slow
def test_a_sweep_over_ones_own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image_folders.write_own(Path("images"), train=20, test=5, side=18)
    Path("own.yaml").write_text(SWEEP, encoding="utf-8")
    planned = rna("plan", "own.yaml")
    assert "\n  images: 40 to train, 10 to test, of 16×16 pixels, in 2 classes: cat, dog\n" in planned.out, planned.err
    ran = rna("run", "own.yaml", "--address", "inline")
    assert ran.code == 0, ran.err

    (trial,) = open_store("rna-store").read("trials").to_pylist()
    assert (trial["data"], trial["train_examples"], trial["held_out"]) == ("folder", 32, 8)
    assert json.loads(trial["settings"])["data"]["found"]["classes"] == ["cat", "dog"]
    classes = rna("query", "SELECT classes FROM probes UNION ALL SELECT classes FROM certifications", "--format", "csv")
    assert classes.out.split() == ["classes", "2", "2"]
    cells = {cell["attack"]: cell for cell in json.loads(rna("table", "own", "--format", "json").out)}
    assert cells["natural"]["accuracy"] > 0.8 and cells["natural"]["data"] == "folder"  # red against green

    assert rna("report", "own").code == 0 and "folder" in Path("report.html").read_text(encoding="utf-8")
    looked = {check.name: check for check in doctor._data("rna-store", None)}
    assert looked["data folder"].found == f"found in {tmp_path}/images"

    first = Path("images/test/cat/0.png")
    os.utime(first, ns=(1, 1))
    assert rna("plan", "own.yaml").out.endswith("nothing to do\n")
    first.rename(first.with_stem("tom"))
    assert "trials: 1 to do" in rna("plan", "own.yaml").out
    first.with_stem("tom").write_text("no image")
    refused = rna("plan", "own.yaml")
    assert refused.one_sentence and f"cannot read the image {tmp_path}/images/test/cat/tom.png: " in refused.err
