"""Norm layers over (N, C, H, W), and the random layer that holds several of them.

Every member's statistics follow from the same per-(example, channel) moments by the law of total variance, and from the
range of each channel over the batch; so a layer whose examples take different members is one computation,
y = x·scale[n,c] + shift[n,c], with scale and shift selected by the path (RNA, Eq. 3). Where a whole batch shares one
member, torch's own kernel computes the same numbers, if it has one; and on a CPU, where no example's answer takes
anything from the others, those of one member are given to it together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, final

import torch
from torch import nn
from torch.nn import functional as F

from rna_ray.errors import SpaceError
from rna_ray.networks import kernels
from rna_ray.networks.spaces import TRACKS, LayerMember, Track

Pair = tuple[torch.Tensor, torch.Tensor]
Gather = Callable[[torch.Tensor], torch.Tensor]  # values (D,) of this process → rows (W, D) of all, differentiable

EPS = 1e-5
MOMENTUM = 0.1  # the weight of the new value, as in torch


class Moments(NamedTuple):
    """What a batch (N, C, H, W) says of each channel, in fp32 at least; None where no member asks for it."""

    mean: torch.Tensor
    """(N, C): of each example."""
    variance: torch.Tensor | None
    """(N, C): of each example, biased."""
    low: torch.Tensor | None
    """(C,): the least value in the batch."""
    high: torch.Tensor | None
    """(C,): the greatest value in the batch."""
    ties: torch.Tensor | None
    """(2 C,): how many pixels are the least and the greatest; None where no other process has a slice of the batch."""
    pixels: int


class Member(nn.Module):
    """A norm: what is taken from each channel and by what it is multiplied, then a weight and a bias a channel."""

    def __init__(self, channels: int, *, affine: bool, eps: float) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def normaliser(self, moments: Moments) -> Pair:
        """Return the centre and the scale, each (N, C), that normalise the batch's examples.

        In training, running statistics are updated on the way.
        """
        raise NotImplementedError

    @property
    def tracked(self) -> dict[str, torch.Tensor]:
        """The statistics (groups,) by name that inference takes from training; empty where there are none."""
        return {}


class BatchStatistics:
    """A member that takes statistics of the batch: in training, and of those that it does not track always.

    Running statistics follow PyTorch's momentum convention: 0.1 is the weight of the new value; `update` says whether
    they follow now. Where processes train on slices of a batch, `gather` is how they share its statistics; else None.
    """

    training: bool
    track: Track
    update: bool = True
    gather: Gather | None = None

    def measured(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the statistics (groups,) of a batch (N, C, H, W), by the names and definitions of the tracked ones."""
        raise NotImplementedError

    @property
    def takes_batch(self) -> bool:
        """Whether the batch's own statistics are taken, as things stand."""
        return self.training or self.track != "all"


class GroupNorm(Member):
    """Normalise each example over groups of channels: GN, and with one group LN, with one channel a group IN."""

    def __init__(self, channels: int, groups: int, *, affine: bool = True, eps: float = EPS) -> None:
        super().__init__(channels, affine=affine, eps=eps)
        self.groups = groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)

    def normaliser(self, moments: Moments) -> Pair:
        mean, variance = _pool(moments, self.groups)
        size = self.channels // self.groups
        return _spread(mean, size), torch.rsqrt(_spread(variance, size) + self.eps)

    def extra_repr(self) -> str:
        return f"{self.channels}, groups={self.groups}, affine={self.weight is not None}"


class BatchGroupNorm(BatchStatistics, GroupNorm):
    """Normalise groups of channels over the whole batch: BGN (Zhou et al. 2020), and with one channel a group BN.

    In training the batch's statistics are used, in evaluation the running ones, but without tracking the test batch's
    (RobustNorm, Section 3.3). The running variance is unbiased, and one sample does not divide by zero.
    """

    running_mean: torch.Tensor | None
    running_var: torch.Tensor | None

    def __init__(
        self, channels: int, groups: int, *, track: Track = "all", affine: bool = True, eps: float = EPS
    ) -> None:
        super().__init__(channels, groups, affine=affine, eps=eps)
        self.track = track
        self.register_buffer("running_mean", torch.zeros(groups) if track == "all" else None)
        self.register_buffer("running_var", torch.ones(groups) if track == "all" else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size, batch = self.channels // self.groups, self.takes_batch
        mean, variance = (self.running_mean, self.running_var) if self.update or not batch else (None, None)
        if batch and x.shape[0] * x.shape[2] * x.shape[3] * size == 1:
            return self._single(x)
        if mean is not None and variance is not None and not batch:  # a group's are those of each of its channels
            mean, variance = _spread(mean, size), _spread(variance, size)
        if size == 1 or not batch:
            return F.batch_norm(x, mean, variance, self.weight, self.bias, batch, MOMENTUM, self.eps)
        grouped = x.reshape(x.shape[0], self.groups, size * x.shape[2], x.shape[3])
        y = F.batch_norm(grouped, mean, variance, None, None, batch, MOMENTUM, self.eps).view_as(x)
        if self.weight is None or self.bias is None:
            return y
        scale, shift = self.weight[:, None, None], self.bias[:, None, None]
        return torch.addcmul(shift.to(y.dtype), y, scale.to(y.dtype))

    def normaliser(self, moments: Moments) -> Pair:
        mean, variance = self._batch(moments) if self.takes_batch else (self.running_mean, self.running_var)
        assert mean is not None and variance is not None
        n, size = len(moments.mean), self.channels // self.groups
        return _spread(mean, size).expand(n, -1), torch.rsqrt(_spread(variance, size).expand(n, -1) + self.eps)

    def _batch(self, moments: Moments) -> Pair:
        """Return the mean and the biased variance (G,) of the batch; in training, update the running ones."""
        groups_mean, groups_variance = _pool(moments, self.groups)
        mean = groups_mean.mean(0)
        variance = groups_variance.mean(0) + (groups_mean - mean).square().mean(0)
        samples: float | torch.Tensor = len(moments.mean) * (self.channels // self.groups) * moments.pixels
        if self.gather is not None:
            mean, variance, samples = _together(self.gather, mean, variance, samples)
        if self.update:
            self._track(mean.detach(), variance.detach(), samples)
        return mean, variance

    @property
    def tracked(self) -> dict[str, torch.Tensor]:
        return _there({"mean": self.running_mean, "variance": self.running_var})

    def measured(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        variance, mean = torch.var_mean(x.reshape(x.shape[0], self.groups, -1), (0, 2))
        return {"mean": mean, "variance": variance}  # the variance unbiased, as the running one is

    def _track(self, mean: torch.Tensor, variance: torch.Tensor, samples: float | torch.Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        more = (samples - 1).clamp_min(1) if isinstance(samples, torch.Tensor) else max(samples - 1, 1)
        unbiased = variance * (samples / more)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), MOMENTUM)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), MOMENTUM)

    def _single(self, x: torch.Tensor) -> torch.Tensor:
        if self.update:
            self._track(x.detach().view(-1), x.new_zeros(self.groups), 1)
        y = x - x  # zero, but still a function of the input: its gradient exists, and is zero
        if self.weight is None or self.bias is None:
            return y
        return torch.addcmul(self.bias[:, None, None].to(y.dtype), y, self.weight[:, None, None].to(y.dtype))


class RobustNorm(BatchStatistics, Member):
    """Divide each channel by a power of its range over the batch, x - mean over (max - min)^p (RobustNorm, Eq. 14).

    With the least value for a centre and p = 1 it is the pure min-max form (Eq. 11). eps is added outside the power.
    The mean, the ends of the range and so the gradient are those of the batch, nothing is held constant: the pixels
    that tie for an end share its gradient, and a channel that is constant becomes its bias, with a gradient of zero.
    What is tracked (the centre, the range to its power, or the centre alone) is taken from the running values at
    inference, the rest from the test batch.
    """

    running_centre: torch.Tensor | None
    running_range: torch.Tensor | None

    def __init__(
        self, channels: int, *, power: float, from_mean: bool = True, track: Track = "none", affine: bool = True,
        eps: float = EPS,
    ) -> None:
        super().__init__(channels, affine=affine, eps=eps)
        self.power, self.from_mean, self.track = power, from_mean, track
        self.register_buffer("running_centre", None if track == "none" else torch.zeros(channels))
        self.register_buffer("running_range", torch.ones(channels) if track == "all" else None)

    def normaliser(self, moments: Moments) -> Pair:
        centre, powered = self._batch(moments) if self.takes_batch else (self.running_centre, self.running_range)
        if not self.training and self.track == "mean":
            centre = self.running_centre
        assert centre is not None and powered is not None
        scale = torch.where(powered > 0, 1 / (powered + self.eps), 0)
        return centre.expand_as(moments.mean), scale.expand_as(moments.mean)

    def _batch(self, moments: Moments) -> Pair:
        """Return the centre (C,) and the range to its power (C,) of the batch; in training, update the running ones."""
        mean, low, high = moments.mean.mean(0), moments.low, moments.high
        assert low is not None and high is not None
        if self.gather is not None:
            assert moments.ties is not None
            rows = self.gather(torch.cat([mean, low, high, moments.ties, mean.new_full((1,), len(moments.mean))]))
            means, lows, highs, least, most, counts = rows.split([self.channels] * 5 + [1], 1)
            mean = (counts * means).sum(0) / counts.sum()
            low, high = _end(lows, lows.amin(0), least), _end(highs, highs.amax(0), most)
        centre, constant = mean if self.from_mean else low, high <= low
        # The derivative of a power at 0 is infinite, and where() would multiply it by 0: so no power of 0 is taken.
        powered = torch.where(constant, 0, torch.where(constant, 1, high - low).pow(self.power))
        if self.training and self.update:
            for running, value in ((self.running_centre, centre), (self.running_range, powered)):
                if running is not None:
                    running.lerp_(value.detach().to(running.dtype), MOMENTUM)
        return centre, powered

    @property
    def tracked(self) -> dict[str, torch.Tensor]:
        return _there({self._centre: self.running_centre, "range": self.running_range})

    def measured(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        mean, low, high = x.mean((0, 2, 3)), x.amin((0, 2, 3)), x.amax((0, 2, 3))
        return {self._centre: mean if self.from_mean else low, "range": (high - low).pow(self.power)}

    @property
    def _centre(self) -> str:
        return "mean" if self.from_mean else "minimum"

    def extra_repr(self) -> str:
        of = f"from={self._centre}, power={self.power:g}, track={self.track}, affine={self.weight is not None}"
        return f"{self.channels}, {of}"


class NoNorm(Member):
    """No norm: the output is the input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def normaliser(self, moments: Moments) -> Pair:
        return torch.zeros_like(moments.mean), torch.ones_like(moments.mean)


def _learns(member: Member) -> bool:
    return torch.is_grad_enabled() and any(parameter.requires_grad for parameter in member.parameters())


def _there(values: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor]:
    """Return the values that are there."""
    return {name: value for name, value in values.items() if value is not None}


def _member(of: LayerMember, channels: int, eps: float) -> Member:
    match of.statistics:
        case "example":
            return GroupNorm(channels, of.groups, affine=of.affine, eps=eps)
        case "batch":
            return BatchGroupNorm(channels, of.groups, track=of.track, affine=of.affine, eps=eps)
        case "none":
            return NoNorm(channels, affine=of.affine, eps=eps)
    mean = of.statistics == "range"
    return RobustNorm(channels, power=of.power, from_mean=mean, track=of.track, affine=of.affine, eps=eps)


@final
class Norm(nn.Module):
    """One norm layer: the members of a space at this layer, of which the path selects one for each example.

    `path` is None where there is one member, an int where the whole batch takes that member (torch's kernels), or an
    int64 tensor (N,) with each example's member. `rna_ray.networks.paths` sets it.
    """

    def __init__(self, channels: int, members: Sequence[LayerMember], *, name: str = "norm", eps: float = EPS) -> None:
        super().__init__()
        self.channels, self.name, self.eps = channels, name, eps
        self.members = nn.ModuleList(_member(member, channels, eps) for member in members)
        self.path: torch.Tensor | int | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(x)
        if len(self.members) == 1:
            return self._whole(x, self.members[0])
        if self.path is None:
            raise RuntimeError(f"layer {self.name} holds {len(self.members)} norms and no path says which to take")
        if isinstance(self.path, int):
            return self._whole(x, self.members[self.path])
        members = list(self.members)
        if kernels.suit(x) and not any(isinstance(one, BatchStatistics) and one.takes_batch for one in members):
            return self._apart(x, members, self.path)
        return self._mixture(x, members, self.path)

    def _apart(self, x: torch.Tensor, members: list[Member], path_N: torch.Tensor) -> torch.Tensor:
        """Return a batch whose examples answer each for itself: those of one member together.

        A member that no example takes answers none of them, so that its parameters have a gradient, of zeros, as they
        have in `_mixture`: an optimizer then does the same everywhere, and so do workers with other slices of a batch.
        """
        order = path_N.argsort(stable=True)
        back = order.argsort()
        parts = kernels.permuted(x, order, back).split(path_N.bincount(minlength=len(members)).tolist())
        answers = [
            self._whole(part, member) for part, member in zip(parts, members, strict=True)
            if len(part) or _learns(member)
        ]
        return kernels.permuted(torch.cat(answers), back, order)

    def _whole(self, x: torch.Tensor, member: Member) -> torch.Tensor:
        """Return a batch that takes one member: by torch's kernel, which knows of no other process's images."""
        split = isinstance(member, BatchStatistics) and member.takes_batch and member.gather is not None
        return self._mixture(x, [member], None) if split or isinstance(member, RobustNorm) else member(x)

    def _mixture(self, x: torch.Tensor, members: list[Member], path_N: torch.Tensor | None) -> torch.Tensor:
        if kernels.suit(x):
            own, variance = kernels.moments(x)
            moments = _asked(x, own, variance, kernels.ends(x) if _ranged(members) else None, members)
            return kernels.rescaled(x, own, variance, *self._affine(own, moments, members, path_N))
        wide = x if x.dtype is torch.float64 else x.float()
        # Less a constant near the mean, that of the middle row, both moments are one pass, as is all that goes back
        # through them; and nothing cancels: a row of H is at most sqrt(H) deviations from the mean.
        near = wide.detach()[:, :, x.shape[2] // 2].mean(2)
        centred = wide - near[:, :, None, None]
        scale, shift = self._affine(near, _moments(wide, near, centred, members), members, path_N)
        return torch.addcmul(shift[:, :, None, None], centred, scale[:, :, None, None]).to(x.dtype)

    def _affine(
        self, near: torch.Tensor, moments: Moments, members: list[Member], path_N: torch.Tensor | None
    ) -> Pair:
        """Return by what the channels less what is near their means are multiplied, and what is added, each (N, C)."""
        normalisers = [member.normaliser(moments) for member in members]
        # Selected, neither indexed (its backward adds in no fixed order on a GPU) nor one-hot times the rows (a matrix
        # product, which autocast rounds to bfloat16).
        centre = _select([taken[0] for taken in normalisers], path_N)
        scale = _select([taken[1] for taken in normalisers], path_N)
        scale = scale * _select(self._rows(members, "weight", 1.0, near), path_N)
        return scale, _select(self._rows(members, "bias", 0.0, near), path_N) + (near - centre) * scale

    def _rows(
        self, members: list[Member], parameter: str, neutral: float, like: torch.Tensor
    ) -> list[torch.Tensor]:
        """Return each member's weight or bias (C,), `neutral` for members without; dtype and device as `like`."""
        rows = [getattr(member, parameter) for member in members]
        plain = like.new_full((self.channels,), neutral)
        return [plain if row is None else row.to(like.dtype) for row in rows]

    def _check(self, x: torch.Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise SpaceError(
                f"layer {self.name} normalises (N, {self.channels}, H, W), but was given {tuple(x.shape)}"
            )
        pixels = x.shape[2] * x.shape[3]
        for member in self.members:
            if type(member) is GroupNorm and pixels * (self.channels // member.groups) == 1:
                raise SpaceError(
                    f"layer {self.name} sees 1x1 pixels, so IN's output would not depend on its input; "
                    "choose a norm with larger groups"
                )


def gather_statistics(network: nn.Module, gather: Gather) -> None:
    """Let a network's batch statistics be those of the batches of all processes that call this, each its slice."""
    for module in network.modules():
        if isinstance(module, BatchStatistics):
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


def _moments(wide: torch.Tensor, near: torch.Tensor, centred: torch.Tensor, members: Sequence[Member]) -> Moments:
    """Return what the members ask of a batch (N, C, H, W), given what is near its means, and it less that."""
    left = centred.mean((2, 3))
    grouped = any(isinstance(member, GroupNorm) for member in members)
    variance = centred.square().mean((2, 3)) - left.square() if grouped else None
    ends = (wide.amin((0, 2, 3)), wide.amax((0, 2, 3))) if _ranged(members) else None
    return _asked(wide, near + left, variance, ends, members)


def _ranged(members: Sequence[Member]) -> list[RobustNorm]:
    """Return the members that ask for the ends of each channel's range."""
    return [member for member in members if isinstance(member, RobustNorm) and member.takes_batch]


def _asked(
    x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor | None, ends: Pair | None, members: Sequence[Member]
) -> Moments:
    """Return what was measured of a batch, with how many pixels tie, where members share that with other processes."""
    ties = None
    if ends is not None and any(member.gather is not None for member in _ranged(members)):
        ties = torch.cat([(x == end[:, None, None]).sum((0, 2, 3)).to(mean.dtype) for end in ends])
    low, high = ends or (None, None)
    return Moments(mean=mean, variance=variance, low=low, high=high, ties=ties, pixels=x[0, 0].numel())


def _end(ends: torch.Tensor, end: torch.Tensor, ties: torch.Tensor) -> torch.Tensor:
    """Return the end (C,) of all processes' ranges, from each one's (W, C); all pixels that tie share its gradient."""
    shares = ties.detach() * (ends == end)
    through = (shares / shares.sum(0) * ends).sum(0)
    return end.detach() + (through - through.detach())


def _pool(moments: Moments, groups: int) -> Pair:
    """Pool per-channel moments (N, C) into the mean and variance of groups (N, G) by the law of total variance."""
    assert moments.variance is not None
    if groups == moments.mean.shape[1]:  # groups of one channel: many small operations saved
        return moments.mean, moments.variance
    mean, variance = (moment.view(len(moment), groups, -1) for moment in (moments.mean, moments.variance))
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


def start_member(member: Member, norm: nn.Module) -> None:
    """Let a member start from the parameters and running statistics of the norm it replaces; call without gradients.

    Raises SpaceError for a RobustNorm that tracks: no other norm has the statistics that it would answer with.
    """
    if isinstance(member, RobustNorm) and member.track != "none":
        raise SpaceError(
            f"RN and MinMax with track={TRACKS[member.track]} answer with statistics of their own, and a "
            f"{type(norm).__name__} has none of these; leave track out, or train from the start"
        )
    for own, old in ((member.weight, norm.weight), (member.bias, norm.bias)):
        if own is not None and old is not None:
            own.copy_(old)
            own.requires_grad_(old.requires_grad)
    mean, variance = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
    if not isinstance(member, BatchGroupNorm) or member.running_mean is None or member.running_var is None:
        return
    if mean is not None and variance is not None:
        means, variances = mean.view(member.groups, -1), variance.view(member.groups, -1)
        member.running_mean.copy_(means.mean(1))
        member.running_var.copy_(variances.mean(1) + means.var(1, correction=0))
