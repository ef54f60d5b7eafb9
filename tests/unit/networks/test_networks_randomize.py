"""rna_ray.randomize on models of torchvision and of one's own."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

import rna_ray
from rna_ray.errors import SpaceError
from rna_ray.networks.norms import BatchGroupNorm, Norm
from rna_ray.networks.paths import following, random_layers
from rna_ray.networks.randomize import randomize
from rna_ray.randomness import Randomness


class Tiny(nn.Module):
    """A model with each layer that is swapped, one of them in two places, and scaling of its input."""

    class Normalize(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x - 0.5) / 0.25

    def __init__(self) -> None:
        super().__init__()
        self.scale = self.Normalize()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.features.append(nn.GroupNorm(2, 8)).append(nn.ReLU()).append(nn.InstanceNorm2d(8))
        self.again = self.features[1]
        self.head = nn.Linear(8, 10)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for tensor in [*self.parameters(), *(b for b in self.buffers() if b.is_floating_point())]:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.again(self.features(self.scale(x))).mean((2, 3)))


def images(size: int = 8, channels: int = 1, rows: int = 4) -> torch.Tensor:
    return torch.rand(rows, channels, size, size, generator=torch.Generator().manual_seed(1))


def tiny(space: str = "BN+IN", **options: object) -> nn.Module:
    return randomize(Tiny(), space, **options).eval()


@pytest.mark.parametrize(
    ("name", "space", "layers"),
    [("resnet18", "BN+IN", 20), ("mobilenet_v2", "BN+LN", 52), ("vgg11_bn", "BN+IN", 8), ("densenet121", "BN+LN", 121)],
)
def test_torchvision_models_start_from_their_own_batch_norms(name: str, space: str, layers: int) -> None:
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    model = getattr(models, name)(num_classes=10).eval() if name != "vgg11_bn" else vgg(models)
    x = images(64, 3, 2)
    expected = model(x)
    assert randomize(model, space) is model
    assert len(model.paths.sizes) == layers == len(random_layers(model))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    with following(model, torch.zeros(layers, dtype=torch.int64), shared=True):
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    drawn = model(x)
    assert drawn.shape == expected.shape and drawn.isfinite().all()
    assert not torch.equal(model(x), drawn)


def vgg(models: object) -> nn.Module:
    """Its own head has a hundred million weights, which take seconds to draw."""
    with torch.device("meta"):
        model = models.vgg11_bn()  # type: ignore[attr-defined]
        model.classifier = nn.Linear(512 * 49, 10)
    model.to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.reset_parameters()
    return model.eval()


def test_members_start_from_the_replaced_layers_parameters_and_statistics() -> None:
    original, model = Tiny().eval(), tiny("BN+BGN[4]+LN+IN(affine=false)")
    for place, old in ((1, original.features[1]), (4, original.features[4])):
        norm = model.features[place]
        assert isinstance(norm, Norm) and norm.name == f"features.{place}"
        for member in norm.members:
            if member.weight is not None:
                assert torch.equal(member.weight, old.weight) and torch.equal(member.bias, old.bias)
    batch, grouped = (member for member in model.features[1].members if isinstance(member, BatchGroupNorm))
    old = original.features[1]
    assert torch.equal(batch.running_mean, old.running_mean) and torch.equal(batch.running_var, old.running_var)
    # 10,000 values of each channel, with the running moments exactly: their groups' moments are the pooled ones.
    values = torch.randn(8, 10_000, dtype=torch.float64)
    values = (values - values.mean(1, keepdim=True)) / values.std(1, correction=0, keepdim=True)
    values = (values * old.running_var.double().sqrt()[:, None] + old.running_mean.double()[:, None]).view(2, -1)
    torch.testing.assert_close(grouped.running_mean.double(), values.mean(1))
    torch.testing.assert_close(grouped.running_var.double(), values.var(1, correction=0))
    assert model.features[6].members[0].weight.eq(1).all()  # InstanceNorm2d has no parameters by default


def test_a_layer_used_in_two_places_stays_one() -> None:
    model = tiny()
    assert model.again is model.features[1]
    assert model.paths.sizes == (2, 2, 2)


def test_dtype_frozen_parameters_and_mode_are_kept() -> None:
    model = Tiny().double()
    model.features[1].requires_grad_(False).eval()
    randomize(model, "BN+IN")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float64}
    assert not any(parameter.requires_grad for parameter in model.features[1].parameters())
    assert not model.features[1].training and model.features[4].training
    assert model(images().double()).dtype is torch.float64


def test_each_call_draws_fresh_paths_from_a_generator_of_its_own() -> None:
    model, x = tiny(), images(rows=1).expand(64, -1, -1, -1)
    before = torch.get_rng_state()
    torch.manual_seed(0)
    first = model(x)
    assert len(torch.unique(model.path_source.last, dim=0)) == 8  # every example its own: all of 2^3 paths
    torch.manual_seed(0)  # attack libraries do this in every attack
    assert not torch.equal(model(x), first)
    torch.set_rng_state(before)
    model(x)
    assert torch.equal(before, torch.get_rng_state())
    assert model.path_source.call == 3


def test_calls_replay_and_a_path_overrides_them() -> None:
    model, x = tiny(seed=3), images()
    first, path = model(x), model.path_source.last
    with following(model, path):
        assert torch.equal(model(x), first)
    assert model.path_source.call == 1  # a followed path draws nothing
    model(x)
    model.path_source.call = 0
    assert torch.equal(model(x), first)
    assert torch.equal(tiny(seed=3)(x), first)
    assert not torch.equal(tiny(seed=4)(x), first)
    assert torch.equal(model.paths.draw(Randomness("randomize/3"), "path", torch.arange(4)), path)


def test_a_call_that_fails_leaves_no_path_behind() -> None:
    model = tiny()
    with pytest.raises(RuntimeError):
        model(images(channels=3))
    assert {layer.path for layer in random_layers(model)} == {None}
    with pytest.raises(ValueError, match="without one"):
        model("not a tensor")
    assert model(x=images()).shape == (4, 10)


def test_layer_based_takes_one_norm_for_the_whole_network() -> None:
    model = tiny("BN+IN+LN", layer_based=True)
    model(images(rows=1).expand(100, -1, -1, -1))
    assert torch.unique(model.path_source.last, dim=0).tolist() == [[0] * 3, [1] * 3, [2] * 3]


def test_state_round_trips_and_models_copy_and_pickle() -> None:
    model, x = tiny(), images()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = tiny(seed=0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(torch.load(file))
    copied, pickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    expected = model(x)
    for twin in (other, copied, pickled):
        assert torch.equal(twin(x), expected)
        assert twin.path_source is not model.path_source
    assert model.path_source.call == copied.path_source.call == 1


def test_it_trains() -> None:
    model, x = randomize(Tiny(), "BN+IN"), images(rows=32)
    before = copy.deepcopy(model.state_dict())
    model(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not torch.equal(model.features[1].members[0].running_mean, before["features.1.members.0.running_mean"])


def test_a_space_of_one_norm_needs_no_path() -> None:
    original, model, x = Tiny().eval(), tiny("BN"), images()
    assert model.paths.sizes == ()
    assert torch.equal(model(x), model(x))
    torch.testing.assert_close(
        model.features[1](x.expand(-1, 8, -1, -1)), original.features[1](x.expand(-1, 8, -1, -1))
    )


class BatchNormAct2d(nn.BatchNorm2d):
    """A subclass that does more than normalise."""


class GlobalResponseNorm(nn.Module):
    """A third party's norm."""


@pytest.mark.parametrize(
    "other",
    [
        nn.LayerNorm(8),
        nn.BatchNorm1d(8),
        nn.BatchNorm3d(8),
        nn.SyncBatchNorm(8),
        nn.LocalResponseNorm(2),
        nn.RMSNorm(8),
        nn.InstanceNorm1d(8),
        nn.LazyBatchNorm2d(),
        nn.CrossMapLRN2d(2),
        BatchNormAct2d(8),
        GlobalResponseNorm(),
        Norm(
            8,
            rna_ray.networks.spaces.parse("BN").at(  # type: ignore[attr-defined]
                rna_ray.networks.spaces.NormLayer(name="n", channels=8, height=2, width=2)
            ),
        ),  # type: ignore[attr-defined]
    ],
    ids=lambda other: type(other).__name__,
)
def test_any_other_norm_is_refused_by_name_before_anything_is_swapped(other: nn.Module) -> None:
    model = Tiny()
    model.features.append(nn.Sequential(other))
    kept = list(model.modules())
    with pytest.raises(SpaceError, match=rf"this Tiny also normalises in features\.7\.0 \({type(other).__name__}\)$"):
        randomize(model, "BN+IN")
    assert all(one is two for one, two in zip(kept, model.modules(), strict=True))


def test_all_that_is_refused_is_named() -> None:
    model = nn.Sequential(nn.LayerNorm(4), nn.BatchNorm2d(4), nn.Sequential(nn.RMSNorm(4)))
    with pytest.raises(SpaceError, match=r"in 0 \(LayerNorm\), 2\.0 \(RMSNorm\)$"):
        randomize(model, "BN")


@pytest.mark.parametrize("model", [nn.Sequential(nn.Conv2d(1, 8, 3)), nn.BatchNorm2d(8)])
def test_a_model_without_norms_inside_is_refused(model: nn.Module) -> None:
    with pytest.raises(SpaceError, match=rf"there are none in this {type(model).__name__}"):
        randomize(model, "BN+IN")


def test_a_space_that_does_not_fit_is_refused_before_anything_is_swapped() -> None:
    model = Tiny()
    with pytest.raises(SpaceError, match=r"GN3: 3 groups do not divide the 8 channels of layer features\.1"):
        randomize(model, "BN+GN3")
    assert isinstance(model.features[1], nn.BatchNorm2d) and not hasattr(model, "paths")
    model.paths = "taken"
    with pytest.raises(SpaceError, match="attribute 'paths', which this Tiny already has"):
        randomize(model, "BN+IN")


def test_one_pixel_is_refused_when_it_is_met() -> None:
    with pytest.raises(SpaceError, match=r"layer features\.4 sees 1x1 pixels"):
        tiny()(images(5))


def test_the_package_gives_randomize_and_imports_nothing_heavy() -> None:
    code = "import sys, rna_ray; print(rna_ray.__version__, {'torch', 'ray', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0.1.0 set()"
    assert rna_ray.randomize is randomize
    assert {"randomize", "open_store"} <= set(dir(rna_ray))
    with pytest.raises(AttributeError, match="no attribute 'randomise'"):
        _ = rna_ray.randomise


def test_members_keep_the_replaced_layers_eps() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, eps=1e-1)).eval()
    x = torch.randn(4, 3, 8, 8)
    expected = model(x)
    randomize(model, "BN+IN")
    with following(model, torch.zeros(4, 1, dtype=torch.int64)):  # BN comes first in canonical order
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("space", ["BN+RN(track=true)", "MinMax(track=true)", "RN(track=mean)"])
def test_statistics_that_no_other_norm_has_are_refused_before_anything_is_swapped(space: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    with pytest.raises(SpaceError, match=r"with track=(true|mean) answer .* and a BatchNorm2d has none of these"):
        randomize(model, space)
    assert type(model[1]) is nn.BatchNorm2d
