"""Processes that train one network together, each on its slice of every batch, as one process would alone.

What one process does to a batch, several do to its slices: paths, augmentation and starts of attacks are functions of
the example's index; gradients are sums over the slices; and batch statistics are those of the whole batch, because
each norm layer gathers the moments of all slices, through which gradients flow back. So the number of workers changes
nothing beyond the rounding of sums, and does not count towards a unit's id.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, final

import torch
import torch.distributed as dist

PATIENCE = timedelta(hours=1)
"""How long a worker waits for the others: the first one writes checkpoints meanwhile."""


@final
@dataclasses.dataclass(frozen=True)
class Workers:
    """The place of a process among those that train a network; alone, all of this costs nothing."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes checkpoints and reports epochs."""
        return self.rank == 0

    def device(self, kind: str) -> torch.device:
        """Return this worker's own device of a kind, `cpu` or `cuda`."""
        return torch.device(kind) if self.count == 1 or kind == "cpu" else torch.device(kind, self.rank)

    def part(self, batch: torch.Tensor) -> torch.Tensor:
        """Return this worker's slice of a batch (N, ...): as many of it as of any other worker, or one more or less."""
        return batch if self.count == 1 else batch.tensor_split(self.count)[self.rank]

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values (D,) of each worker as rows (count, D), differentiably."""
        return _Gather.apply(values, self.rank, self.count)

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Put the sums over all workers in the place of tensors of one dtype."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(total.view_as(tensor))

    def agree(self, decision: int, device: torch.device) -> int:
        """Return the first worker's decision, to every worker; it waits until all have called this."""
        return decision if self.count == 1 else self.total(decision if self.first else 0, device)

    def total(self, number: int, device: torch.device) -> int:
        """Return the sum of a number over all workers, exactly."""
        numbers = torch.tensor([number], dtype=torch.int64, device=device)
        self.sum([numbers])
        return int(numbers)

    @contextlib.contextmanager
    def together(self, kind: type[Exception], device: torch.device) -> Iterator[None]:
        """Let an error of this kind that any worker meets inside the block be raised by every worker after it."""
        if self.count == 1:
            yield
            return
        met: Exception | None = None
        try:
            yield
        except kind as error:
            met = error
        errors = torch.tensor([met is not None], dtype=torch.float32, device=device)
        self.sum([errors])
        if met is not None:
            raise met
        if errors.item():
            raise kind("another worker met this error on its slice of the batch")


ALONE = Workers()


def join(rank: int, count: int, *, meeting: str, kind: str) -> Workers:
    """Meet the other processes, each of which calls this, at a file; NCCL between GPUs, gloo between CPUs."""
    workers = Workers(rank, count)
    if kind == "cuda":
        torch.cuda.set_device(workers.device(kind))
    dist.init_process_group(
        "nccl" if kind == "cuda" else "gloo", store=dist.FileStore(meeting, count), rank=rank, world_size=count,
        timeout=PATIENCE,
    )
    return workers


def leave() -> None:
    """Part from the other processes."""
    dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """Rows of all workers, by a sum in which every other row is zero: the one collective that compiles everywhere."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, rank: int, count: int) -> torch.Tensor:
        ctx.rank = rank
        rows = values.new_zeros(count, len(values))
        rows[rank] = values
        dist.all_reduce(rows)
        return rows

    @staticmethod
    def backward(ctx: Any, gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        gradients = gradients.clone()
        dist.all_reduce(gradients)  # every worker's loss depends on these values
        return gradients[ctx.rank], None, None
