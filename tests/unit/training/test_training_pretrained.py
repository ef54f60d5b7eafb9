"""Weights of others' networks, in the layouts they are published in: the same logits on the same path, or refused.

The networks here stand in for the published ones: written for this test, after what is known of their modules' names.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from rna_ray.errors import CheckpointError
from rna_ray.networks.build import Network, build
from rna_ray.networks.norms import Norm
from rna_ray.networks.paths import following
from rna_ray.networks.spaces import parse
from rna_ray.training import pretrained

WIDTH, LAYERS = 8, 20
WIDE = 32
MEAN, STD = pretrained.PUBLISHED
NAMES = {
    "bn": "BN", "gbnr_1": "BN", "gnr_1": "IN", "gn_1": "LN", "in": "IN(affine=false)", "gnr_2": "GN[2]",
    "gbnr_2": "BGN[2]", "gnr_4": "GN[4]", "gbnr_4": "BGN[4]", "gn_2": "GN2", "gbn_2": "BGN2", "gn_4": "GN4",
    "gbn_4": "BGN4",
}  # fmt: skip
LISTS = [
    ("BN+IN", ["bn", "gnr_1"]),
    ("BN+IN", ["gnr_1", "gbnr_1"]),
    ("BN+LN", ["bn", "gn_1"]),
    ("BGN+GN[1-4]", ["gnr_1", "gbnr_1", "gnr_2", "gbnr_2", "gnr_4", "gbnr_4"]),
    ("GN2+BGN2+GN4+BGN4", ["gn_2", "gbn_2", "gn_4", "gbn_4"]),
    ("BN+GN4+BGN[2-4]", ["bn", "gn_4", "gbnr_2", "gbnr_4"]),
    ("BN+IN(affine=false)+GN[2]", ["bn", "in", "gnr_2"]),
    ("BN+IN(affine=false)", ["bn", "in"]),
]


class BatchGroups(nn.Module):
    """Groups of channels normalised over the batch, with weights as wide as the images are deep."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer("running_mean", torch.zeros(groups))
        self.register_buffer("running_var", torch.ones(groups))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[1] // len(self.running_mean)
        mean, variance = (stat.repeat_interleave(size)[:, None, None] for stat in (self.running_mean, self.running_var))
        return (x - mean) / (variance + 1e-5).sqrt() * self.weight + self.bias


def norm_of(kind: str, channels: int) -> nn.Module:
    if kind in ("bn", "in"):
        return nn.BatchNorm2d(channels) if kind == "bn" else nn.InstanceNorm2d(channels)
    family, number = kind.split("_")
    groups = channels // int(number) if family.endswith("r") else int(number)
    return BatchGroups(channels, groups) if family.startswith("gbn") else nn.GroupNorm(groups, channels)


class Picked(nn.Module):
    """A list of norms, one of which is picked by its index."""

    def __init__(self, kinds: Sequence[str], channels: int) -> None:
        super().__init__()
        self.norm = nn.ModuleList(norm_of(kind, channels) for kind in kinds)
        self.index = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm[self.index](x)


class Block(nn.Module):
    def __init__(self, inputs: int, channels: int, make: Callable[[int], nn.Module], projection: str) -> None:
        super().__init__()
        self.projection = projection
        self.conv1 = nn.Conv2d(inputs, channels, 3, channels // inputs, 1, bias=False)
        self.bn1 = make(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = make(channels)
        if inputs != channels:
            project = nn.Conv2d(inputs, channels, 1, 2, bias=False)
            setattr(self, projection, nn.Sequential(project, make(channels)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + getattr(self, self.projection, nn.Identity())(x))


class Published(nn.Module):
    """A ResNet-18 of small width, its modules named as published."""

    def __init__(self, make: Callable[[int], nn.Module], *, projection: str = "shortcut", head: str = "linear") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 3, 1, 1, bias=False)
        self.bn1 = make(WIDTH)
        widths = [WIDTH, WIDTH, 2 * WIDTH, 4 * WIDTH, 8 * WIDTH]
        for stage, (inputs, channels) in enumerate(itertools.pairwise(widths), start=1):
            blocks = [Block(inputs, channels, make, projection), Block(channels, channels, make, projection)]
            setattr(self, f"layer{stage}", nn.ModuleList(blocks))
        self.head = head
        setattr(self, head, nn.Linear(8 * WIDTH, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1((x - constant(MEAN)) / constant(STD))))
        for block in [*self.layer1, *self.layer2, *self.layer3, *self.layer4]:
            x = block(x)
        return getattr(self, self.head)(F.avg_pool2d(x, 4).flatten(1))


class WideBlock(nn.Module):
    def __init__(self, inputs: int, channels: int, stride: int, make: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.bn1, self.bn2 = make(inputs), make(channels)
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.convShortcut = nn.Conv2d(inputs, channels, 1, stride, bias=False) if inputs != channels else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(x))
        return self.conv2(F.relu(self.bn2(self.conv1(y)))) + (self.convShortcut(y) if self.convShortcut else x)


class Wide(nn.Module):
    """A WideResNet of small width, its modules named as published, its last norm a plain BN."""

    def __init__(self, make: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        for stage, inputs in enumerate([16, WIDE, 2 * WIDE]):
            channels, stride = WIDE << stage, 2 if stage else 1
            rest = [WideBlock(channels, channels, 1, make) for _ in range(4)]
            block = nn.Module()
            block.layer = nn.Sequential(WideBlock(inputs, channels, stride, make), *rest)
            setattr(self, f"block{stage + 1}", block)
        self.bn1 = nn.BatchNorm2d(4 * WIDE)
        self.fc = nn.Linear(4 * WIDE, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1((x - constant(MEAN)) / constant(STD))
        for block in (self.block1, self.block2, self.block3):
            x = block.layer(x)
        return self.fc(F.avg_pool2d(F.relu(self.bn1(x)), 8).flatten(1))


def constant(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(values)[:, None, None]


def trained(network: nn.Module) -> nn.Module:
    """Return a network whose every weight and statistic is its own, as after a training."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.dim() != 2 and ("conv" not in name or tensor.dim() == 1):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5)
    return network.eval()


def authors(kinds: Sequence[str] | str) -> nn.Module:
    if isinstance(kinds, str):
        return trained(Published(lambda channels: norm_of(kinds, channels)))
    return trained(Published(lambda channels: Picked(kinds, channels)))


def settings(norm: str, **stated: Any) -> dict[str, Any]:
    named = {"name": "resnet18", "width": WIDTH, "norm": norm, "layer_based": False, "mean": MEAN, "std": STD}
    return {"data": {"name": "cifar10"}, "network": _without_none({**named, **stated})}


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def ours(given: dict[str, Any]) -> Network:
    network = given["network"]
    return build(network, shape=(3, 32, 32), classes=10, mean=(0.5,) * 3, std=(0.25,) * 3, seed=0).eval()


def started(tensors: dict[str, torch.Tensor], norm: str, *, to_train: bool = False, **stated: Any) -> Network:
    given = settings(norm, **stated)
    network = ours(given)
    single = (lambda: ours(settings("BN", **stated))) if to_train else None
    pretrained.start(network, tensors, given, where="w.pth (network.weights)", single=single)
    return network


def images(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("norm", "kinds"), LISTS, ids=lambda part: part if isinstance(part, str) else "")
@torch.no_grad()
def test_the_authors_networks_give_the_same_logits_on_the_same_path(norm: str, kinds: list[str]) -> None:
    theirs = authors(kinds)
    network = started(dict(theirs.state_dict()), norm)
    spelled = [str(member) for member in parse(norm).members]
    generator, seen = torch.Generator().manual_seed(2), []
    for _ in range(2):
        picks = torch.randint(len(kinds), (LAYERS,), generator=generator).tolist()
        for layer, index in zip([one for one in theirs.modules() if isinstance(one, Picked)], picks, strict=True):
            layer.index = index
        path = torch.tensor([spelled.index(NAMES[kinds[index]]) for index in picks])
        with following(network, path.expand(3, -1)):
            found = network(images())
        torch.testing.assert_close(found, theirs(images()), atol=1e-4, rtol=1e-4)
        seen.append(found)
    assert (seen[0] - seen[1]).abs().max() > 1e-2  # other paths are other networks


@torch.no_grad()
def test_the_authors_wide_network_ends_in_a_plain_bn() -> None:
    theirs = trained(Wide(lambda channels: Picked(["bn", "gnr_1"], channels)))
    tensors = dict(theirs.state_dict())
    network = started(tensors, "BN+IN", name="wide-resnet-34", width=WIDE, last_norm="BN")
    assert network.paths.sizes == (2,) * 30
    picks = torch.randint(2, (30,), generator=torch.Generator().manual_seed(3)).tolist()
    for layer, index in zip([one for one in theirs.modules() if isinstance(one, Picked)], picks, strict=True):
        layer.index = index
    order = [[str(member) for member in parse("BN+IN").members].index(NAMES[kind]) for kind in ("bn", "gnr_1")]
    with following(network, torch.tensor([order[index] for index in picks]).expand(3, -1)):
        torch.testing.assert_close(network(images()), theirs(images()), atol=1e-4, rtol=1e-4)
    with pytest.raises(CheckpointError, match=r"holds 1 norm \(bn\) at bn1, the network's BN\+IN is 2 norms"):
        started(tensors, "BN+IN", name="wide-resnet-34", width=WIDE)


@pytest.mark.parametrize("kind", ["bn", "gn_4", "gbn_4", "in"])
@torch.no_grad()
def test_their_networks_of_one_norm_give_the_same_logits(kind: str) -> None:
    theirs = authors(kind)
    network = started(dict(theirs.state_dict()), NAMES[kind])
    torch.testing.assert_close(network(images()), theirs(images()), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_torchvisions_layout_and_our_own_are_told_apart_by_their_names() -> None:
    theirs = trained(Published(nn.BatchNorm2d, projection="downsample", head="fc"))
    network = started(dict(theirs.state_dict()), "BN", mean=None, std=None)
    assert network.mean.flatten().tolist() == [0.5] * 3  # torchvision's files say nothing of it, nor need the sweep
    again = started(network.body.state_dict(), "BN")
    torch.testing.assert_close(again(images()), theirs(images()), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_torchvisions_resnet18_misfits_by_its_stem_alone() -> None:
    import torchvision

    tensors = torchvision.models.resnet18(num_classes=10).state_dict()
    with pytest.raises(CheckpointError) as refused:
        started(tensors, "BN", width=64, mean=None, std=None)
    assert str(refused.value) == (
        "w.pth (network.weights), read in torchvision's layout, does not fit the network: "
        "1 of another shape (conv1.weight has shape (64, 3, 7, 7), not (64, 3, 3, 3))"
    )
    tensors["conv1.weight"] = tensors["conv1.weight"][:, :, 2:5, 2:5]
    assert started(tensors, "BN", width=64, mean=None, std=None).body.stages[3][1].conv2.weight.shape[0] == 512


@torch.no_grad()
def test_torchvisions_resnet50_gives_the_same_logits() -> None:
    import torchvision

    theirs = trained(torchvision.models.resnet50(num_classes=10))
    network = started(dict(theirs.state_dict()), "BN", name="resnet50", width=64)
    torch.testing.assert_close(
        network(images()), theirs((images() - constant(MEAN)) / constant(STD)), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_before_training_the_pretrained_bn_starts_every_member() -> None:
    theirs = trained(Published(nn.BatchNorm2d, projection="downsample", head="fc"))
    tensors = dict(theirs.state_dict())
    network = started(tensors, "BGN+GN[1-2]", to_train=True)
    layer: Norm = network.body.stages[1][0].shortcut_norm
    old = theirs.layer2[0].downsample[1]
    for member in layer.members:
        torch.testing.assert_close(member.weight, old.weight)
        torch.testing.assert_close(member.bias, old.bias)
    spelled = [str(member) for member in parse("BGN+GN[1-2]").members]
    torch.testing.assert_close(layer.members[spelled.index("BN")].running_var, old.running_var)
    pairs = old.running_mean.view(-1, 2)
    torch.testing.assert_close(layer.members[spelled.index("BGN[2]")].running_mean, pairs.mean(1))
    with following(network, torch.full((3, LAYERS), spelled.index("BN"))):
        torch.testing.assert_close(network(images()), theirs(images()), atol=1e-4, rtol=1e-4)
    with pytest.raises(CheckpointError, match=r"holds 1 norm \(bn\) at bn1, the network's BN\+IN is 2 norms"):
        started(tensors, "BN+IN")  # as it is, that would be a network that no one trained


MISFITS: list[tuple[str, list[str] | str, str]] = [
    ("BN+IN", ["bn", "gnr_1", "gnr_2"], r"3 norms \(bn, gn, gn\) at bn1, .* BN\+IN is 2 norms \(bn, gnr_1\)"),
    ("BN+IN+GN[2]", ["bn", "gnr_1"], r"2 norms \(bn, gn\) at bn1, .* is 3 norms \(bn, gnr_1, gnr_2\)"),
    ("IN+GN[2]", ["bn", "gnr_1"], r"2 norms \(bn, gn\) at bn1, .* is 2 norms \(gnr_1, gnr_2\)"),
    ("BN+IN(affine=false)", ["bn", "gnr_1"], r"2 norms \(bn, gn\) at bn1, .* is 2 norms \(bn, in\)"),
    ("BN+IN(affine=false)", "bn", r"1 norm \(bn\) at bn1, .* is 2 norms \(bn, in\)"),
    ("GN8+GN[2]", ["gn_8", "gnr_2"], "some groups by their number and some by their size"),
    ("BN+LN(affine=false)", ["bn", "gn_1"], r"LN\(affine=false\) is none of the RNA authors'"),
    ("BN+BGN8", ["bn", "gbn_8"], r"2 norms \(bn, gbn\) at bn1, .* of which 8 channels leave 1 apart"),
    ("GN2+BGN2", ["gn_2", "gbn_4"], r"40 of another shape \(bn1.norm.1.running_mean has shape \(4,\), not \(2,\), "),
    ("BN", "gn_4", r"1 norm \(gn\) at bn1"),
]


@pytest.mark.parametrize(("norm", "kinds", "told"), MISFITS)
def test_other_norms_than_the_sweep_says_are_refused(norm: str, kinds: list[str] | str, told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        started(dict(authors(kinds).state_dict()), norm)


def test_keys_that_do_not_fit_are_counted_and_the_first_are_named() -> None:
    tensors = dict(authors(["bn", "gnr_1"]).state_dict())
    tensors["linear.weight"] = torch.zeros(100, 8 * WIDTH)
    del tensors["layer1.0.conv1.weight"]
    tensors |= {f"layer5.{index}.conv1.weight": torch.zeros(1) for index in range(12)}
    with pytest.raises(CheckpointError) as refused:
        started(tensors, "BN+IN")
    assert str(refused.value) == (
        "w.pth (network.weights), read in the RNA authors' layout, does not fit the network: "
        "1 missing (layer1.0.conv1.weight); "
        f"12 unexpected ({', '.join(f'layer5.{index}.conv1.weight' for index in (0, 1, 10, 11, *range(2, 8)))}, ...); "
        "1 of another shape (linear.weight has shape (100, 64), not (10, 64))"
    )


def test_weights_of_quite_another_network_are_all_missing() -> None:
    with pytest.raises(CheckpointError, match=r"in our own layout, .* 142 missing .*; 1 unexpected \(0.weight\)"):
        started({"0.weight": torch.zeros(1)}, "BN+IN")


def test_a_file_that_does_not_say_how_its_images_were_normalised_needs_a_sweep_that_does() -> None:
    tensors = dict(authors(["bn", "gnr_1"]).state_dict())
    with pytest.raises(CheckpointError, match=r"state network.mean and network.std .*\[0.2471, 0.2435, 0.2616\]"):
        started(tensors, "BN+IN", mean=None, std=None)
    said = {**tensors, "normalize.mean": torch.tensor(MEAN), "normalize.std": torch.tensor(STD)}
    started(said, "BN+IN")
    with pytest.raises(CheckpointError, match=r"normalize.mean \[0.4914, 0.4822, 0.4465\], the network by \[0.5, "):
        started(said, "BN+IN", mean=None, std=None)
    with pytest.raises(CheckpointError, match=r"normalize.std \[\], the network by"):
        started({key: value for key, value in said.items() if key != "normalize.std"}, "BN+IN")


# -- files -------------------------------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def test_wrapped_and_pickled_with_all_that_a_training_leaves_it_reads_the_same(tmp_path: Path) -> None:
    network = authors(["bn", "gnr_1"])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [100, 150])
    wrapped = nn.DataParallel(network).state_dict()
    assert all(key.startswith("module.") for key in wrapped)
    whole = {"state_dict": wrapped, "opt": optimizer.state_dict(), "scheduler": schedule.state_dict(), "epoch": 7}
    assert isinstance(whole["scheduler"]["milestones"], collections.Counter)
    plain = {key: value.clone() for key, value in network.state_dict().items()}
    save_file(plain, tmp_path / "w.safetensors")
    files = [
        saved(whole, tmp_path / "model.pth"), saved(wrapped, tmp_path / "weight.pth"),
        saved({"net": wrapped}, tmp_path / "net.pt"), saved({"model": plain}, tmp_path / "plain.pt"),
        tmp_path / "w.safetensors",
    ]  # fmt: skip
    for path in files:
        found = pretrained.read(path, sha256(path))
        assert found.keys() == plain.keys() and all(torch.equal(found[key], plain[key]) for key in plain), path


class Run:
    """What a pickle may do to who opens it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def test_a_pickle_that_would_run_something_is_refused_and_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved({"state_dict": {"w": torch.zeros(1)}, "extra": Run()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"more than tensors and plain values \(\w+.mkdir\)"):
        pretrained.read(path, sha256(path))
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"epoch": 1, "weights": {}}, "holds no state dict: epoch, weights; it must be one, or hold one under"),
        ({"state_dict": {"w": 1}}, "holds no state dict: state_dict"),
        ({"state_dict": {"w": torch.ones(1)}, "net": {"w": torch.zeros(1)}}, "holds no state dict: state_dict, net"),
        ({}, "holds no state dict"),
        ([torch.zeros(1)], "holds no state dict: list"),
    ],
)
def test_a_file_without_one_state_dict_is_refused(content: Any, told: str, tmp_path: Path) -> None:
    path = saved(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=told):
        pretrained.read(path, sha256(path))


def test_a_damaged_or_changed_file_is_refused(tmp_path: Path) -> None:
    path = saved({"w": torch.zeros(100)}, tmp_path / "w.pth")
    planned = sha256(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="is not the file that was planned"):
        pretrained.read(path, planned)
    with pytest.raises(CheckpointError, match="or is damaged"):
        pretrained.read(path, sha256(path))
