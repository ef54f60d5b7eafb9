"""Two workers train what one trains: the same losses, weights and running statistics, up to the rounding of sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import workers_base
from training_base import fitted, network, settings
from workers_base import CASES, HELD_OUT, IMAGES, SPACES, asked, layer_images, norm_layer

from rna_ray.running import spawn
from rna_ray.running.tasks import Job
from rna_ray.sweep.units import train
from rna_ray.training.workers import ALONE

pytestmark = pytest.mark.slow  # starts processes
Said = list[dict[str, Any]]


def job(store: Path) -> Job:
    unit = train(settings())
    return Job(
        unit=unit, store=str(store), root=None, download=False, threads=1, device="cpu", attempt=1, workers=2
    )


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def said(stores: Path) -> Said:
    """What two workers say of everything that they are asked to do."""
    found: Said = []
    spawn.together(workers_base.everything, job(stores), found.append)
    return found


@pytest.mark.parametrize("case", CASES)
def test_two_workers_train_what_one_trains(case: str, said: Said, tmp_path: Path) -> None:
    (two,) = (one for one in said if one.get("case") == case)
    alone, made = fitted(tmp_path, asked(case), images=IMAGES, held_out=HELD_OUT)
    assert len(two["epochs"]) == len(alone.epochs) > 0
    for mine, theirs in zip(alone.epochs, two["epochs"], strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], abs=1e-5)
        attacked = [] if asked(case)["training"]["attack"] is None else ["adversarial"]
        for name in ("natural_correct", "train_correct", *(f"{kind}_correct" for kind in attacked)):
            assert abs(theirs[name] - mine[name]) <= 1 and theirs["held_out"] == HELD_OUT
        for name in ("natural_loss", *(f"{kind}_loss" for kind in attacked)):
            assert theirs[name] == pytest.approx(mine[name], abs=1e-4)
        assert theirs["train_examples"] == mine["train_examples"] and theirs["train_correct"] > 0
    moved = 0.0
    for name, tensor in made.state_dict().items():
        np.testing.assert_allclose(two["state"][name], tensor.numpy(), atol=2e-5, rtol=1e-4, err_msg=name)
        moved += float((tensor - network(asked(case)).state_dict()[name]).abs().sum())
    assert moved > 1


@pytest.mark.parametrize("case", ["BN", "BN+IN"])
def test_what_two_workers_began_one_goes_on_with(case: str, said: Said, stores: Path, tmp_path: Path) -> None:
    assert said
    longer = asked(case)
    longer["training"]["epochs"] = 3
    longer["training"]["schedule"] = {"name": "step", "milestones": [], "gamma": 0.1}
    resumed: list[int] = []
    found, _ = fitted(
        stores / case, longer, images=IMAGES, held_out=HELD_OUT, report=lambda row: resumed.append(row["epoch"])
    )
    assert resumed == [3]  # the two workers' checkpoint holds the first two epochs
    (two,) = (one for one in said if one.get("case") == case)
    assert [row["loss"] for row in found.epochs[:2]] == [row["loss"] for row in two["epochs"]]


@pytest.mark.parametrize("case", workers_base.IN_PARTS)
def test_two_workers_that_are_stopped_within_an_epoch_end_the_same(case: str, said: Said) -> None:
    (whole,) = (one for one in said if one.get("case") == case)
    (parts,) = (one for one in said if one.get("case") == f"{case} in parts")
    assert parts["stops"] >= 1
    for mine, theirs in zip(whole["epochs"], parts["epochs"], strict=True):
        assert {name: mine[name] for name in theirs} == theirs  # the sums over both workers too
    for name, tensor in whole["state"].items():
        assert np.array_equal(tensor, parts["state"][name]), name


@pytest.mark.parametrize("space", SPACES)
def test_a_norm_layer_normalises_by_the_statistics_of_the_whole_batch(space: str, said: Said) -> None:
    halves = sorted((one for one in said if one.get("space") == space), key=lambda one: one["rank"])
    layer, x = norm_layer(space).train(), layer_images().double().requires_grad_()
    layer.path = torch.arange(7) % len(layer.members)
    y = layer(x)
    (gradient,) = torch.autograd.grad((y.square() * torch.arange(9.0).view(3, 3)).sum(), x)
    assert [len(half["y"]) for half in halves] == [4, 3]
    np.testing.assert_allclose(np.concatenate([half["y"] for half in halves]), y.detach(), atol=1e-9)
    np.testing.assert_allclose(np.concatenate([half["gradient"] for half in halves]), gradient, atol=1e-9)
    running = torch.cat([t for name, t in layer.named_buffers() if "running" in name])
    for half in halves:
        np.testing.assert_allclose(half["running"], running, atol=1e-12)


def test_a_process_alone_keeps_whole_batches() -> None:
    batch = torch.arange(5)
    assert ALONE.part(batch) is batch and ALONE.first and ALONE.device("cuda") == torch.device("cuda")
    ALONE.sum([batch])
    assert batch.tolist() == [0, 1, 2, 3, 4]
