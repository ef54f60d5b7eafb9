"""Norm layers over (N, C, H, W), and the random layer that holds several of them.

Every member's mean and variance follow from the same per-(example, channel) moments by the law of total variance, so a
layer whose examples take different members is one computation, y = x·scale[n,c] + shift[n,c], with scale and shift
selected by the path (RNA, Eq. 3). Where a whole batch shares one member, torch's own kernel computes the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import nn
from torch.nn import functional as F

from rna_ray.errors import SpaceError
from rna_ray.networks.spaces import LayerMember

Moments = tuple[torch.Tensor, torch.Tensor]  # mean and biased variance, both (N, C) or (N, G), fp32
Gather = Callable[[torch.Tensor], torch.Tensor]  # values (D,) of this process → rows (W, D) of all, differentiable

EPS = 1e-5
MOMENTUM = 0.1  # the weight of the new value, as in torch


class GroupNorm(nn.Module):
    """Normalise each example over groups of channels: GN, and with one group LN, with one channel a group IN."""

    def __init__(self, channels: int, groups: int, *, affine: bool = True, eps: float = EPS) -> None:
        super().__init__()
        self.channels, self.groups, self.eps = channels, groups, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)

    def statistics(self, moments: Moments, *, batch: bool, update: bool, pixels: int) -> Moments:
        """Return the mean and variance (N, C) that normalise each example."""
        mean, variance = _pool(moments, self.groups)
        size = self.channels // self.groups
        return _spread(mean, size), _spread(variance, size)

    @property
    def tracked(self) -> dict[str, torch.Tensor]:
        """The statistics (groups,) by name that inference takes from training; none here, an example's are its own."""
        return {}

    def extra_repr(self) -> str:
        return f"{self.channels}, groups={self.groups}, affine={self.weight is not None}"


class BatchGroupNorm(GroupNorm):
    """Normalise groups of channels over the whole batch: BGN (Zhou et al. 2020), and with one channel a group BN.

    In training the batch's statistics are used, in evaluation the running ones (PyTorch's momentum convention: 0.1 is
    the weight of the new value; the running variance is unbiased, and one sample does not divide by zero). Where
    processes train on slices of a batch, `gather` is how they share its statistics; else None.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor
    gather: Gather | None

    def __init__(self, channels: int, groups: int, *, affine: bool = True, eps: float = EPS) -> None:
        super().__init__(channels, groups, affine=affine, eps=eps)
        self.update, self.gather = True, None
        self.register_buffer("running_mean", torch.zeros(groups))
        self.register_buffer("running_var", torch.ones(groups))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = self.channels // self.groups
        mean, variance = (self.running_mean, self.running_var) if self.update or not self.training else (None, None)
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] * size == 1:
            return self._single(x)
        if size == 1:
            return F.batch_norm(x, mean, variance, self.weight, self.bias, self.training, MOMENTUM, self.eps)
        grouped = x.reshape(x.shape[0], self.groups, size * x.shape[2], x.shape[3])
        y = F.batch_norm(grouped, mean, variance, None, None, self.training, MOMENTUM, self.eps).view_as(x)
        if self.weight is None or self.bias is None:
            return y
        scale, shift = self.weight[:, None, None], self.bias[:, None, None]
        return torch.addcmul(shift.to(y.dtype), y, scale.to(y.dtype))

    def statistics(self, moments: Moments, *, batch: bool, update: bool, pixels: int) -> Moments:
        """Return the mean and variance (N, C) that normalise each example; in training, update the running ones."""
        n, size = moments[0].shape[0], self.channels // self.groups
        mean, variance = self.running_mean, self.running_var
        if batch:
            groups_mean, groups_variance = _pool(moments, self.groups)
            mean = groups_mean.mean(0)
            variance = groups_variance.mean(0) + (groups_mean - mean).square().mean(0)
            samples: float | torch.Tensor = n * size * pixels
            if self.gather is not None:
                mean, variance, samples = _together(self.gather, mean, variance, samples)
            if update:
                self._track(mean.detach(), variance.detach(), samples)
        return _spread(mean, size).expand(n, -1), _spread(variance, size).expand(n, -1)

    @property
    def tracked(self) -> dict[str, torch.Tensor]:
        """The statistics (groups,) by name that inference takes from training."""
        return {"mean": self.running_mean, "variance": self.running_var}

    def measured(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return a batch's own (N, C, H, W), by the names of the tracked; the variance unbiased, as that one is."""
        variance, mean = torch.var_mean(x.reshape(x.shape[0], self.groups, -1), (0, 2))
        return {"mean": mean, "variance": variance}

    def _track(self, mean: torch.Tensor, variance: torch.Tensor, samples: float | torch.Tensor) -> None:
        more = (samples - 1).clamp_min(1) if isinstance(samples, torch.Tensor) else max(samples - 1, 1)
        unbiased = variance * (samples / more)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), MOMENTUM)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), MOMENTUM)

    def _single(self, x: torch.Tensor) -> torch.Tensor:
        if self.update:
            self._track(x.detach().view(-1), torch.zeros_like(self.running_var), 1)
        y = x - x  # zero, but still a function of the input: its gradient exists, and is zero
        if self.weight is None or self.bias is None:
            return y
        return torch.addcmul(self.bias[:, None, None].to(y.dtype), y, self.weight[:, None, None].to(y.dtype))


_MODULES: dict[str, type[GroupNorm]] = {"example": GroupNorm, "batch": BatchGroupNorm}


@final
class Norm(nn.Module):
    """One norm layer: the members of a space at this layer, of which the path selects one for each example.

    `path` is None where there is one member, an int where the whole batch takes that member (torch's kernels), or an
    int64 tensor (N,) with each example's member (one computation for every mixture). `rna_ray.networks.paths` sets it.
    """

    def __init__(self, channels: int, members: Sequence[LayerMember], *, name: str = "norm", eps: float = EPS) -> None:
        super().__init__()
        self.channels, self.name, self.eps = channels, name, eps
        self.members = nn.ModuleList(
            _MODULES[member.statistics](channels, member.groups, affine=member.affine, eps=eps) for member in members
        )
        self.path: torch.Tensor | int | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(x)
        if len(self.members) == 1:
            return self._whole(x, self.members[0])
        if self.path is None:
            raise RuntimeError(f"layer {self.name} holds {len(self.members)} norms and no path says which to take")
        if isinstance(self.path, int):
            return self._whole(x, self.members[self.path])
        return self._mixture(x, list(self.members), self.path)

    def _whole(self, x: torch.Tensor, member: nn.Module) -> torch.Tensor:
        """Return a batch that takes one member: by torch's kernel, which knows of no other process's images."""
        alone = not self.training or getattr(member, "gather", None) is None
        return member(x) if alone else self._mixture(x, [member], None)

    def _mixture(self, x: torch.Tensor, members: list[nn.Module], path_N: torch.Tensor | None) -> torch.Tensor:
        wide = x if x.dtype is torch.float64 else x.float()
        own = wide.mean((2, 3))
        # Centred by the channel's own mean once, for the variance and the output: nothing cancels where the mean is
        # large, and on a CPU it is ten times as fast as torch.var_mean.
        centred = wide - own[:, :, None, None]
        left = centred.detach().mean((2, 3))  # what rounding left of the mean; its gradient is zero
        moments = own + left, (centred - left[:, :, None, None]).square().mean((2, 3))
        statistics = [
            member.statistics(moments, batch=self.training, update=self._updates, pixels=x[0, 0].numel())
            for member in members
        ]
        mean = _select([taken[0] for taken in statistics], path_N)
        variance = _select([taken[1] for taken in statistics], path_N)
        # Selected, neither indexed (its backward adds in no fixed order on a GPU) nor one-hot times the rows (a matrix
        # product, which autocast rounds to bfloat16).
        scale = torch.rsqrt(variance + self.eps) * _select(self._rows(members, "weight", 1.0, wide), path_N)
        shift = _select(self._rows(members, "bias", 0.0, wide), path_N) + (own - mean) * scale
        return torch.addcmul(shift[:, :, None, None], centred, scale[:, :, None, None]).to(x.dtype)

    def _rows(
        self, members: list[nn.Module], parameter: str, neutral: float, like: torch.Tensor
    ) -> list[torch.Tensor]:
        """Return each member's weight or bias (C,), `neutral` for members without; dtype and device as `like`."""
        rows = [getattr(member, parameter) for member in members]
        plain = like.new_full((self.channels,), neutral)
        return [plain if row is None else row.to(like.dtype) for row in rows]

    @property
    def _updates(self) -> bool:
        return all(getattr(member, "update", True) for member in self.members)

    def _check(self, x: torch.Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise SpaceError(
                f"layer {self.name} normalises (N, {self.channels}, H, W), but was given {tuple(x.shape)}"
            )
        pixels = x.shape[2] * x.shape[3]
        for member in self.members:
            if pixels * (self.channels // member.groups) == 1 and not isinstance(member, BatchGroupNorm):
                raise SpaceError(
                    f"layer {self.name} sees 1x1 pixels, so IN's output would not depend on its input; "
                    "choose a norm with larger groups"
                )


def gather_statistics(network: nn.Module, gather: Gather) -> None:
    """Let a network's batch statistics be those of the batches of all processes that call this, each its slice."""
    for module in network.modules():
        if isinstance(module, BatchGroupNorm):
            module.gather = gather


def _together(
    gather: Gather, mean: torch.Tensor, variance: torch.Tensor, samples: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the mean and variance (G,) of all processes' samples, by the law of total variance, and their number."""
    rows = gather(torch.cat([mean, variance, mean.new_full((1,), samples)]))
    means, variances, counts = rows.split([len(mean), len(mean), 1], 1)
    total = counts.detach().sum()
    shares = counts.detach() / total
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean).square())).sum(0), total


def _pool(moments: Moments, groups: int) -> Moments:
    """Pool per-channel moments (N, C) into groups (N, G) by the law of total variance."""
    if groups == moments[0].shape[1]:  # groups of one channel: many small operations saved
        return moments
    mean, variance = (moment.view(moment.shape[0], groups, -1) for moment in moments)
    pooled = mean.mean(2)
    # Squared differences, not E[m²] - E[m]²: the latter cancels where the mean is large against the spread.
    return pooled, variance.mean(2) + (mean - pooled[:, :, None]).square().mean(2)


def _spread(values: torch.Tensor, size: int) -> torch.Tensor:
    """Return each group's value for each of its channels, in the last dimension."""
    return values if size == 1 else values.repeat_interleave(size, -1)


def _select(rows: list[torch.Tensor], path_N: torch.Tensor | None) -> torch.Tensor:
    """Return (N, C): for each example the row, (N, C) or (C,), of its member; the only row needs no path."""
    chosen = rows[0]
    for index, row in enumerate(rows[1:], start=1):
        chosen = torch.where((path_N == index)[:, None], row, chosen)
    return chosen


def start_member(member: GroupNorm, norm: nn.Module) -> None:
    """Let a member start from the parameters and running statistics of the norm it replaces; call without gradients."""
    for own, old in ((member.weight, norm.weight), (member.bias, norm.bias)):
        if own is not None and old is not None:
            own.copy_(old)
            own.requires_grad_(old.requires_grad)
    mean, variance = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
    if isinstance(member, BatchGroupNorm) and mean is not None and variance is not None:
        means, variances = mean.view(member.groups, -1), variance.view(member.groups, -1)
        member.running_mean.copy_(means.mean(1))
        member.running_var.copy_(variances.mean(1) + means.var(1, correction=0))
