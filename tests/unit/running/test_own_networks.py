"""Networks that no one trained here, from a sweep file to rows: whatever torch module a function returns."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from running_base import learned
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from rna_ray import data
from rna_ray.errors import NetworkError
from rna_ray.running import inputs
from rna_ray.running.run import Summary
from rna_ray.running.run import run as run_plan
from rna_ray.store import Store, layout, open_store
from rna_ray.sweep.plan import plan
from rna_ray.sweep.spec import load

MODULE = """\
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import rna_ray
from own_parts import cnn


class Wide(nn.Module):
    def forward(self, x):
        return F.interpolate(x, size=40).expand(-1, 3, -1, -1)


def resnet():
    return nn.Sequential(Wide(), rna_ray.randomize(torchvision.models.resnet18(num_classes=10), "BN+IN"))


class Dropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = cnn()

    def forward(self, x):
        import own_parts  # found at every pass

        return F.dropout(self.body(x), own_parts.RATE, training=True)


class Tilted(nn.Module):  # answers a whole batch alike, by one throw of a coin
    def forward(self, x):
        return torch.rand(()).round() * torch.arange(10.0) + 0 * x.flatten(1)[:, :10]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 64, bias=False)
        self.again = nn.Linear(64, 64, bias=False)
        self.again.weight = self.first.weight

    def forward(self, x):
        return self.again(self.first(x.flatten(1)))[:, :10]


class Nothing(nn.Module):
    def forward(self, x):
        return F.one_hot((x.sum((1, 2, 3)) * 0).long(), 10).float() + 0 * x.flatten(1)[:, :10]


def Neighbourly():
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, track_running_stats=False), nn.Linear(64, 10))


class Private(nn.Module):  # its own generator: nobody else can seed it
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x):
        return torch.randn((len(x), 10), generator=self.generator) + 0 * x.flatten(1)[:, :10]


def refused():
    raise ValueError("no such file\\nas was asked for")
"""
PARTS = """\
from torch import nn

RATE = 0.5


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)
    )
"""
SWEEP = """\
name: own
data: {name: digits}
network: {import: "own_network:cnn", weights: cnn.safetensors, random: false}
evaluation:
  - {attack: natural, examples: 100, batch: 50, shard: 50}
  - {attack: fgsm, eps_255: 25.5, examples: 100, batch: 50, shard: 50}
"""
Own = Callable[..., Summary]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("own_network.py").write_text(MODULE, encoding="utf-8")
    Path("own_parts.py").write_text(PARTS, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def cnn() -> nn.Module:
    """A plain network, trained on the digits for a moment by its owner."""
    space: dict[str, Callable[[], nn.Module]] = {}
    exec(PARTS, space)
    return learned(space["cnn"])


@pytest.fixture
def own(cnn: nn.Module, store: Store) -> Iterator[Own]:
    """Run the sweep, with `--set`s, in this process; nothing of it stays in the process."""
    save_file(cnn.state_dict(), "cnn.safetensors")
    before, path = set(sys.modules), list(sys.path)

    def run(*sets: str, text: str = SWEEP) -> Summary:
        Path("own.yaml").write_text(text, encoding="utf-8")
        return run_plan(plan(load("own.yaml", sets)), store, address="inline", console=Console(quiet=True))

    yield run
    assert sys.path == path and not {name for name in set(sys.modules) - before if name.startswith("own_")}


def rows(store: Store, view: str, **where: object) -> list[dict]:
    return [row for row in store.read(view).to_pylist() if all(row[key] == value for key, value in where.items())]


def test_a_plain_network_is_judged_with_its_owners_weights(own: Own, cnn: nn.Module, store: Store) -> None:
    assert own().status.counts()["evaluate"]["done"] == 4
    images = data.load("digits").test
    x, y = torch.from_numpy(images.images[:100]).float() / 255, torch.from_numpy(images.labels[:100])
    natural = cnn(x).argmax(1)
    gradient = torch.autograd.grad(F.cross_entropy(cnn(x.requires_grad_()), y, reduction="sum"), x)[0]
    attacked = cnn((x + 0.1 * gradient.sign()).clamp(0, 1)).argmax(1)
    answered = {attack: rows(store, "examples", attack=attack) for attack in ("natural", "fgsm")}
    for name, key, expected in (
        ("natural", "natural_predictions", natural), ("fgsm", "adversarial_predictions", attacked)
    ):  # fmt: skip
        found = {row["example"]: row[key] for row in answered[name]}
        assert [found[example] for example in range(100)] == [[label] for label in expected.tolist()]
    assert (natural == y).sum() > 90 > 60 > (attacked == y).sum()


def test_its_record_says_that_it_was_imported(own: Own, store: Store) -> None:
    own()
    (trial,) = store.read("trials").to_pylist()
    said = {key: trial[key] for key in ("state", "network", "objective", "epochs", "norm", "log2_paths", "best_sha256")}
    assert said == {
        "state": "imported", "network": "own_network:cnn", "objective": "imported", "epochs": 0, "norm": "own",
        "log2_paths": 0.0, "best_sha256": None,
    }  # fmt: skip
    assert trial["parameters"] == 8 * 9 + 8 + 16 + 1290
    path = Path(store.uri) / layout.weights_file(trial["unit_id"], "last", trial["last_sha256"])
    kept, given = load_file(path), load_file("cnn.safetensors")
    assert {key.removeprefix("body."): value.tolist() for key, value in kept.items()} == {
        key: value.tolist() for key, value in given.items()
    }
    assert store.read("epochs").num_rows == 0


def test_a_second_run_does_nothing_and_needs_no_weights_file(own: Own, store: Store) -> None:
    own()
    again = own("evaluation.0.examples=150")  # one shard more
    assert again.ran == 1 and not again.failures
    assert own("evaluation.0.examples=150").ran == 0


@pytest.mark.slow
def test_a_randomised_resnet18_of_torchvision_is_judged_under_every_knowledge(own: Own, store: Store) -> None:
    text = SWEEP.replace('own_network:cnn", weights: cnn.safetensors, random: false', 'own_network:resnet"')
    text = text[: text.index("  - ")] + "  - {attack: fgsm, eps_255: 25.5, knowledge: [transfer, fixed, eot-2], "
    ended = own(text=text + "draws: 2, examples: 2, batch: 2}\n")
    assert ended.ran == 4 and not ended.failures, ended.failures
    (trial,) = store.read("trials").to_pylist()
    assert trial["log2_paths"] == 20.0 and trial["kernel"] == "mixture"  # two norms at each of 20 layers
    assert {row["knowledge"]: (row["draws"], row["path_sharing"]) for row in store.read("evaluations").to_pylist()} == {
        "transfer": (2, "example"), "fixed": (2, "example"), "eot-2": (2, "example"),
    }  # fmt: skip
    margins = {row["knowledge"]: row["margin"] for row in rows(store, "examples", example=0)}
    assert len(set(margins.values())) == 3
    first = {(row["unit_id"], row["example"]): row for row in store.read("examples").to_pylist()}
    other = open_store(Path(store.uri).parent / "other")
    inputs.trained.cache_clear()
    run_plan(plan(load("own.yaml")), other, address="inline", console=Console(quiet=True))
    assert {(row["unit_id"], row["example"]): row for row in other.read("examples").to_pylist()} == first


def test_dropout_that_stays_on_counts_as_random(own: Own, store: Store) -> None:
    sets = ("network.import='own_network:Dropout'", "network.weights=", "evaluation.*.draws=4")
    assert not own(*sets, "network.random=true").failures
    assert set(store.read("evaluations")["global_generator"].to_pylist()) == {True}
    predictions = [row["natural_predictions"] for row in rows(store, "examples", attack="natural")]
    assert {len(one) for one in predictions} == {4} and any(len(set(one)) > 1 for one in predictions)
    ended = own(*sets, "network.random=false")
    assert ended.ran == 1 and ended.status.counts()["evaluate"]["blocked"] == 4
    (failure,) = ended.failures
    assert failure.kind == "import" and failure.error.startswith(
        "NetworkError: network.random: false was said of own_network:Dropout, but two passes"
    )


def test_what_is_drawn_once_a_batch_is_drawn_anew_for_each_answer(own: Own, store: Store) -> None:
    sets = ("network.import='own_network:Tilted'", "network.weights=", "evaluation.*.draws=64")
    assert not own(*sets, "network.random=true", "evaluation.*.examples=50").failures
    answers = {tuple(row["natural_predictions"]) for row in rows(store, "examples", attack="natural")}
    (answer,) = answers  # every image of a batch alike, and yet each of the 64 draws a throw of its own
    assert set(answer) == {0, 9} and 16 <= answer.count(9) <= 48
    assert set(store.read("evaluations")["path_sharing"].to_pylist()) == {"batch"}  # so intervals count batches


def test_parameters_that_share_their_memory_and_none_at_all_are_stored(own: Own, store: Store) -> None:
    for name in ("Tied", "Nothing"):
        inputs.trained.cache_clear()
        ended = own(f"network.import='own_network:{name}'", "network.weights=", "evaluation.*.examples=50")
        assert ended.ran == 3 and not ended.failures, ended.failures
    trials = {row["network"]: row for row in store.read("trials").to_pylist()}
    assert (trials["own_network:Tied"]["parameters"], trials["own_network:Nothing"]["parameters"]) == (64 * 64, 0)
    constant = rows(store, "examples", network_id=trials["own_network:Nothing"]["unit_id"], attack="natural")
    assert {tuple(row["natural_predictions"]) for row in constant} == {(0,)}
    more = own("network.import='own_network:Nothing'", "network.weights=", "evaluation.*.examples=60")
    assert not more.failures and more.ran  # the look at the stored weights lets a file of no tensors through


def test_a_generator_of_the_networks_own_is_told_of_in_its_rows(own: Own, store: Store) -> None:
    sets = ("network.import='own_network:Private'", "network.weights=", "evaluation.*.examples=50")
    (failure,) = own(*sets, "network.random=false").failures
    assert "network.random: false was said" in failure.error
    assert not own(*sets, "network.random=true").failures
    told = store.read("evaluations").select(["repeats", "random_output", "path_sharing"]).to_pylist()
    assert told == [{"repeats": False, "random_output": True, "path_sharing": "batch"}] * len(told) != []


def test_a_network_whose_answers_depend_on_an_images_neighbours_is_refused(own: Own) -> None:
    ended = own("network.import='own_network:Neighbourly'", "network.weights=", "evaluation.*.examples=50")
    (failure,) = ended.failures
    assert failure.kind == "import" and "answers an image otherwise when its neighbours are others" in failure.error


def test_weights_that_do_not_fit_are_told_by_their_keys(own: Own, cnn: nn.Module) -> None:
    tensors = cnn.state_dict()
    tensors["head.weight"] = tensors.pop("5.weight")
    save_file(tensors, "misfit.safetensors")
    (failure,) = own("network.weights=misfit.safetensors").failures
    assert failure.error.startswith("CheckpointError: the weights in ") and "misfit.safetensors" in failure.error
    assert 'Missing key(s) in state_dict: "5.weight"' in failure.error
    Path("damaged.safetensors").write_bytes(Path("cnn.safetensors").read_bytes()[:-1])
    with pytest.raises(NetworkError, match=r"damaged\.safetensors have .* bytes, their header says"):
        own("network.weights=damaged.safetensors")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("own_network:missing", "own_network.py has no function missing"),
        ("own_network:refused", "ValueError: no such file"),
        ("own_network:MODULE", "has no function MODULE"),
        ("own_parts:cnn", ""),
    ],
)
def test_a_function_that_gives_no_network_is_a_recorded_failure(
    function: str, said: str, own: Own, store: Store
) -> None:
    ended = own(f"network.import='{function}'")
    if not said:
        assert not ended.failures
        return
    (failure,) = ended.failures
    assert said in failure.error and failure.error.startswith("NetworkError: network.import: ")
    (recorded,) = store.failures().values()
    assert [(row["kind"], row["error"]) for row in recorded] == [("import", "NetworkError")]
    assert not store.done("trials") and ended.status.counts()["evaluate"]["blocked"] == 4


def test_a_module_that_changed_between_import_and_evaluation_is_refused(
    own: Own, store: Store, folder: Path
) -> None:
    own("evaluation=[{attack: natural, examples: 50}]")
    planned = plan(load("own.yaml"))
    (folder / "own_network.py").write_text(MODULE + "# changed\n", encoding="utf-8")
    inputs.trained.cache_clear()
    ended = run_plan(planned, store, address="inline", console=Console(quiet=True))
    assert {failure.kind for failure in ended.failures} == {"evaluate"}
    assert all("own_network.py on " in failure.error and "not the file that was planned" in failure.error
               for failure in ended.failures)  # fmt: skip


def test_stored_weights_that_were_altered_are_refused(own: Own, store: Store) -> None:
    own("evaluation=[{attack: natural, examples: 50}]")
    (trial,) = store.read("trials").to_pylist()
    path = Path(store.uri) / layout.weights_file(trial["unit_id"], "last", trial["last_sha256"])
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    inputs.trained.cache_clear()
    failures = own().failures
    assert "is damaged: its SHA-256" in failures[0].error and len(failures) == 3
    assert not store.done("trials")  # so that it is imported again
    path.write_bytes(content[:-1])
    assert own().failures == () and path.read_bytes() == content
    path.write_bytes(content[:-1])
    assert own("evaluation.0.examples=150").failures == () and path.read_bytes() == content


def test_the_stored_settings_hold_digests_and_no_folder(own: Own, store: Store, folder: Path) -> None:
    own()
    (trial,) = store.read("trials").to_pylist()
    assert str(folder) not in trial["settings"]
    network = json.loads(trial["settings"])["network"]
    assert network["weights_sha256"] == hashlib.sha256(Path("cnn.safetensors").read_bytes()).hexdigest()
