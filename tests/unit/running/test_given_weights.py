"""Weights for a network of ours, from a sweep file to rows: evaluated as they are, or trained on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.nn import functional as F

from rna_ray import data
from rna_ray.networks.build import build
from rna_ray.running.run import Summary
from rna_ray.running.run import run as run_plan
from rna_ray.store import Store, layout, open_store
from rna_ray.sweep.plan import plan
from rna_ray.sweep.spec import load
from rna_ray.training import checkpoint

TRAIN = "training: {objective: natural, epochs: 1, batch: 64, lr: 1.0e-6, augment: none}\n"
SWEEP = """\
name: given
data: {name: digits, train_examples: 128, held_out: 32}
network: {name: resnet8, width: 8, norm: BN, weights: w.pth, weights_sha256: DIGEST}
evaluation:
  - {attack: natural, examples: 200}
  - {attack: fgsm, eps_255: 25.5, examples: 50, knowledge: transfer}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """A ResNet-8 of plain BN that has learned some digits."""
    info = data.record("digits")
    settings = {"name": "resnet8", "width": 8, "norm": "BN", "layer_based": False}
    made = build(settings, shape=info.shape, classes=10, mean=info.mean, std=info.std, seed=0)
    train, threads = data.load("digits").train, torch.get_num_threads()
    x, y = torch.from_numpy(train.images[:256]).float() / 255, torch.from_numpy(train.labels[:256])
    optimizer = torch.optim.Adam(made.parameters(), lr=0.02)
    torch.set_num_threads(1)  # many small operations
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(made(x), y).backward()
        optimizer.step()
    torch.set_num_threads(threads)
    return made.eval()


def run(store: Store, network: torch.nn.Module, *sets: str, text: str = SWEEP) -> Summary:
    state = {f"module.{key}": value for key, value in in_torchvisions_names(network).items()}
    torch.save({"state_dict": state, "epoch": 40}, "w.pth")
    text = text.replace("DIGEST", hashlib.sha256(Path("w.pth").read_bytes()).hexdigest())
    Path("given.yaml").write_text(text, encoding="utf-8")
    return run_plan(plan(load("given.yaml", sets)), store, address="inline", console=Console(quiet=True))


def in_torchvisions_names(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    named = {}
    for key, value in network.body.state_dict().items():
        name = key.replace(".members.0", "").replace("shortcut_norm", "downsample.1").replace("norm", "bn")
        name = name.replace("shortcut", "downsample.0").replace("head", "fc")
        name = name.replace("bn.", "bn1.", 1) if name.startswith("bn.") else name
        name = "conv1.weight" if name == "conv.weight" else name
        for stage in range(3):
            name = name.replace(f"stages.{stage}.", f"layer{stage + 1}.")
        named[name] = value
    return named


def natural(store: Store) -> dict[int, tuple[int, list[int]]]:
    """Return the label and the predictions of each example as it is."""
    rows = [row for row in store.read("examples").to_pylist() if row["attack"] == "natural"]
    return {row["example"]: (row["label"], row["natural_predictions"]) for row in rows}


def accuracy(network: torch.nn.Module, images: int) -> int:
    test = data.load("digits").test
    with torch.no_grad():
        logits = network(torch.from_numpy(test.images[:images]).float() / 255)
    return int((logits.argmax(1) == torch.from_numpy(test.labels[:images])).sum())


def test_weights_without_training_are_evaluated_as_they_are(store: Store, network: torch.nn.Module) -> None:
    assert run(store, network).failures == ()
    (trial,) = store.read("trials").to_pylist()
    said = {name: trial[name] for name in ("state", "network", "width", "norm", "log2_paths", "layer_based", "epochs")}
    assert said == {
        "state": "imported", "network": "resnet8", "width": 8, "norm": "BN", "log2_paths": 0.0, "layer_based": False,
        "epochs": 0,
    }  # fmt: skip
    assert trial["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    correct = sum(predicted[0] == label for label, predicted in natural(store).values())
    assert correct == accuracy(network, 200) > 100


def test_training_starts_from_them_on_every_member(store: Store, network: torch.nn.Module) -> None:
    """One epoch at a tiny rate: the network is still the given one, on every norm of the space."""
    assert run(store, network, "network.norm=BN+LN", text=SWEEP + TRAIN).failures == ()
    (trial,) = store.read("trials").to_pylist()
    assert (trial["state"], trial["norm"], trial["log2_paths"]) == ("finished", "BN+LN", 9.0)
    path = store.local_path(layout.weights_file(trial["unit_id"], "last", trial["last_sha256"]))
    tensors, _ = checkpoint.load(path)
    given = network.body.state_dict()
    for member in (0, 1):
        found = tensors[f"body.stages.0.0.norm1.members.{member}.weight"]
        torch.testing.assert_close(found, given["stages.0.0.norm1.members.0.weight"], atol=1e-3, rtol=0)
    assert json.loads(trial["settings"])["network"]["weights_sha256"]


def test_a_misfit_is_a_failure_that_names_the_keys(store: Store, network: torch.nn.Module) -> None:
    assert run(store, network, "network.width=16").failures
    (failure,) = [row for row in store.read("failures").to_pylist() if row["kind"] == "import"]
    assert failure["error"] == "CheckpointError" and store.read("trials").num_rows == 0
    assert "of another shape (conv1.weight has shape (8, 1, 3, 3), not (16, 1, 3, 3), " in failure["message"]


def test_what_a_store_holds_can_be_given_again(store: Store, network: torch.nn.Module, folder: Path) -> None:
    assert run(store, network).failures == ()
    (trial,) = store.read("trials").to_pylist()
    kept = store.local_path(layout.weights_file(trial["unit_id"], "last", trial["last_sha256"]))
    Path("again.safetensors").write_bytes(kept.read_bytes())
    text = SWEEP.replace("weights: w.pth, weights_sha256: DIGEST", "weights: again.safetensors")
    other = open_store(folder / "other")
    assert run(other, network, text=text).failures == ()
    first, second = (natural(one) for one in (store, other))
    assert len(first) == 200 and second == first
