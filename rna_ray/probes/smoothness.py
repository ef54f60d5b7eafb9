"""What a norm layer makes of the loss's gradient and curvature, and what RNA's Eq. 5 and 6 say that it does.

At a norm layer Y ↦ Z of one image, in evaluation mode, write g = ∂L/∂Z and H = ∂²L/∂Z² at its output, ĝ and Ĥ at its
input, v = γ ⊙ g, σ for the deviation that divides a group of G elements, Ŷ for the normalised input. Then, exactly,

    GN    ĝ = (v - ⟨1, v⟩/G - Ŷ ⟨v, Ŷ⟩/G) / σ              its own statistics: a projection takes two directions out
    BGN   ĝ = v / σ                                         tracked statistics: constants

for each group. Eq. 4 and 5 are this with one γ a group, which a group of several channels has not: γ belongs inside
the products. Gradients and norms are over all groups of the layer, squares added up.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from rna_ray.evaluation.batches import Batch
from rna_ray.networks.build import Network
from rna_ray.networks.norms import BatchGroupNorm, GroupNorm, Norm
from rna_ray.probes.derivatives import along, directed, quadratic
from rna_ray.probes.subject import Rows, Subject


def measure(settings: Mapping[str, Any], subjects: Sequence[Subject], batch: Batch) -> Rows:
    """Look at every norm layer along each member of the space, taken at all layers; x counts the layers from 0.

    In float64, on a copy of the network.
    """
    (subject,), rows = subjects, Rows()
    for member, path in subject.network.members.items():
        for depth, found in enumerate(smoothness(subject.double, batch.x.double(), batch.y, torch.tensor(path))):
            of = {"member": member, "layer": found.layer, "x": float(depth)}
            for name in MEASURES:
                rows.measures += batch.rows(measure=name, value=getattr(found, name), **of)
    return rows


@dataclasses.dataclass(frozen=True)
class AtLayer:
    """The gradient and the curvature of each image's loss at one norm layer; all (N,)."""

    layer: str
    gradient_norm: torch.Tensor
    """‖ĝ‖, by automatic differentiation down to the layer's input."""
    gradient_norm_eq5: torch.Tensor
    """The same by Eq. 5, from the gradient at the layer's output. Exact, eps included, so that only rounding parts the
    two."""
    gradient_norm_scaled: torch.Tensor
    """‖γ/σ ⊙ g‖: Eq. 5 without the two terms that GN subtracts; for BGN it is Eq. 5. How far gradient_norm lies below
    it is what GN's projection does, at the same γ, σ and g."""
    curvature: torch.Tensor
    """ĝ'ᵀĤĝ' with ĝ' = ĝ/‖ĝ‖, by a Hessian-vector product. It counts all that follows the layer's input through this
    layer; a shortcut around it stays as it is. 0 where the gradient is zero."""
    curvature_eq6: torch.Tensor
    """Eq. 6's right-hand side: see `_eq6`. That the curvature stays below is a claim, to be measured."""


MEASURES = tuple(field.name for field in dataclasses.fields(AtLayer) if field.name != "layer")
"""The measures of a layer."""


def smoothness(network: Network, x: torch.Tensor, y: torch.Tensor, path: torch.Tensor) -> list[AtLayer]:
    """Return what each norm layer does, in the order in which they run, along one path (L,) for all images.

    x is (N, C, H, W) with classes y (N,); the network is in evaluation mode. Give float64 images to a float64 network:
    the second derivatives of a confident prediction are small differences. Rectifiers have no curvature, so H comes
    from the softmax and from the norms that follow.
    """
    with _watched(network) as seen:
        loss = F.cross_entropy(along(network, path)(x.detach().requires_grad_()), y, reduction="sum")
    tensors = [at.y for at in seen] + [at.z for at in seen]
    gradients = torch.autograd.grad(loss, tensors, create_graph=True)
    before, after = gradients[: len(seen)], gradients[len(seen) :]
    return [_measure(*each) for each in zip(seen, before, after, strict=True)]


@dataclasses.dataclass(frozen=True)
class _Seen:
    """A norm layer as it ran: which member, its input and its output (N, C, H, W)."""

    layer: str
    member: GroupNorm
    y: torch.Tensor
    z: torch.Tensor


@contextlib.contextmanager
def _watched(network: Network) -> Iterator[list[_Seen]]:
    """Collect the norm layers that run inside the block.

    They are given a copy of their input, and pass on a copy of their output: so a gradient at the one runs through the
    layer only, not through a shortcut that starts there, and what follows may write over the other.
    """
    seen: list[_Seen] = []

    def after(layer: Norm, arguments: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        assert layer.path is None or isinstance(layer.path, int), "one path for all images"
        seen.append(_Seen(layer.name, layer.members[layer.path or 0], arguments[0], output))
        return output.clone()

    layers = [module for module in network.modules() if isinstance(module, Norm)]
    hooks = [layer.register_forward_pre_hook(lambda _, arguments: (arguments[0].clone(),)) for layer in layers]
    hooks += [layer.register_forward_hook(after) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _measure(at: _Seen, before: torch.Tensor, after: torch.Tensor) -> AtLayer:
    groups = _Groups.of(at, after.detach())
    return AtLayer(
        layer=at.layer,
        gradient_norm=before.detach().flatten(1).norm(dim=1),
        gradient_norm_eq5=groups.gradient_norm(),
        gradient_norm_scaled=groups.scaled.flatten(1).norm(dim=1),
        curvature=quadratic(before, at.y, directed(before)),
        curvature_eq6=_eq6(at, after, groups),
    )


def _eq6(at: _Seen, after: torch.Tensor, groups: _Groups) -> torch.Tensor:
    """Return the right-hand side (N,) of Eq. 6, for a layer of several groups with a γ for each channel.

    Exactly (but for eps), with J = ∂Z/∂Y and the sum over the groups of the layer,

        ĝ'ᵀĤĝ' = (Jĝ')ᵀH(Jĝ') - Σ ‖ĝ'ⱼ‖² ⟨vⱼ, Ŷⱼ⟩ / (G σⱼ²)          the sum is there for GN only.

    Eq. 6 leaves GN's projection out: instead of ĝ' it takes w = (γ/σ ⊙ g) / ‖γ/σ ⊙ g‖, and instead of J the factors
    γ/σ. For one group with one γ that is γ²/σ² [g'ᵀHg' - ⟨g, Ŷ⟩/(Gγ)], as printed. For BGN nothing was left out, and it
    is an equality. For GN it bounds the curvature only if H is no smaller along g than along what is left of g after
    the projection, of which nothing assures us.
    """
    direction = directed(groups.scaled)
    curved = quadratic(after, at.z, (groups.factor * direction.view_as(groups.v)).view_as(at.z))
    return curved - groups.pull(direction)


@dataclasses.dataclass(frozen=True)
class _Groups:
    """A norm layer's tensors by group: (N, groups, G), or (N or 1, groups, 1) for what a group has one of."""

    own: bool
    """Whether the statistics are the example's own (GN) and not tracked (BGN)."""
    v: torch.Tensor
    """γ ⊙ g"""
    gamma: torch.Tensor
    sigma: torch.Tensor
    normalised: torch.Tensor

    @classmethod
    def of(cls, at: _Seen, gradient: torch.Tensor) -> _Groups:
        member, shape = at.member, (len(at.y), at.member.groups, -1)
        y, own = at.y.detach().reshape(shape), not isinstance(member, BatchGroupNorm)
        mean, variance = (
            (y.mean(2, keepdim=True), y.var(2, keepdim=True, correction=0)) if own
            else (member.running_mean.view(1, -1, 1), member.running_var.view(1, -1, 1))
        )
        channel = y.new_ones(member.channels) if member.weight is None else member.weight.detach()
        gamma = channel.view(1, -1, 1, 1).expand_as(at.y).reshape(shape)
        sigma = (variance + member.eps).sqrt()
        return cls(own, gamma * gradient.reshape(shape), gamma, sigma, (y - mean) / sigma)

    @property
    def factor(self) -> torch.Tensor:
        """Return γ/σ (N, groups, G)."""
        return self.gamma / self.sigma

    @property
    def scaled(self) -> torch.Tensor:
        """Return γ/σ ⊙ g (N, groups, G)."""
        return self.v / self.sigma

    def gradient_norm(self) -> torch.Tensor:
        """Return the norm (N,) of the gradient at the layer's input, by Eq. 5."""
        squares = self.v.square().sum(2)
        if self.own:
            size = self.v.shape[2]
            # Eq. 5 takes ‖Ŷ‖² for G. It is a little less, for the eps under the root; with it the second factor is 1.
            short = 2 - self.normalised.square().sum(2) / size
            squares = squares - self.v.sum(2).square() / size - self._along().square() / size * short
        return (squares / self.sigma[..., 0].square()).clamp_min(0).sum(1).sqrt()

    def pull(self, direction: torch.Tensor) -> torch.Tensor:
        """Return Σ ‖wⱼ‖² ⟨vⱼ, Ŷⱼ⟩ / (G σⱼ²) (N,) for a direction w (N, groups, G); 0 for BGN."""
        if not self.own:
            return self.v.new_zeros(len(self.v))
        weights = direction.view_as(self.v).square().sum(2)
        return (weights * self._along() / (self.v.shape[2] * self.sigma[..., 0].square())).sum(1)

    def _along(self) -> torch.Tensor:
        return (self.v * self.normalised).sum(2)
