"""What is to do and how it ended, as both executors take it: units in order, each with the job that does it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from rna_ray.networks.source import Source
from rna_ray.sweep.plan import Where
from rna_ray.sweep.sections import Share
from rna_ray.sweep.status import Status
from rna_ray.sweep.units import Kind, Unit

TOGETHER_SECONDS, TOGETHER = 0.25, 64
"""Units that take less than this, all told, are done together, so many at most."""


@dataclasses.dataclass(frozen=True)
class Code:
    """Which code ran: a git commit, and whether the tree differed from it."""

    commit: str | None = None
    dirty: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A unit to do, and what it needs to run that does not count towards its id."""

    unit: Unit
    store: str
    root: str | None
    download: bool
    threads: int
    device: str
    attempt: int
    code: Code = Code()
    macs: int = 0
    """How many multiply-adds it was estimated at."""
    workers: int = 1
    """How many processes train the network together."""
    gpus: float = 0.0
    """How many GPUs they have, a part of one where several units share it."""
    sources: Mapping[str, Source] = dataclasses.field(default_factory=dict)
    """Where its networks come from that were imported or have given weights, by the ids of their units."""
    driver: str | None = None
    """The id of the driver that wants it done, if anyone looks."""
    checkpoint_seconds: float = 600.0
    """How often a training writes its state within an epoch."""
    limit: float | None = None
    """The seconds that it may take."""
    smaller_batches: bool = False
    """Whether it may be done with a smaller batch, where it runs out of memory."""
    batch: int | None = None
    """That smaller batch, once it is known."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Done:
    """How a unit ended."""

    unit_id: str
    kind: str
    state: Literal["done", "failed", "stopped", "early"]
    """Stopped is no result and no failed attempt: the unit is to do still, a training from where it was. Early is a
    training that this sweep goes on with no further."""
    seconds: float
    error: str = ""
    """Why it failed or stopped."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tasks:
    """The units of a run, networks before what needs them, and where they run."""

    units: tuple[Unit, ...]
    costs: Mapping[str, int]
    store: str
    where: Where
    attempts: Mapping[str, int]
    """Failed attempts so far, by unit id."""
    code: Code = Code()
    priorities: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """How urgent each unit is, by id."""
    driver: str | None = None
    """The id of the driver that does them."""

    @classmethod
    def of(
        cls, status: Status, *, store: str, where: Where, attempts: Mapping[str, int], code: Code,
        driver: str | None = None,
    ) -> Tasks:
        """Return what a status leaves to do."""
        return cls(
            units=status.to_do, costs=status.costs, store=store, where=where, attempts=attempts, code=code,
            priorities=status.priorities, driver=driver,
        )

    @property
    def kinds(self) -> set[Kind]:
        """The kinds of units that there are to do."""
        return {unit.kind for unit in self.units}

    def of_kind(self, kind: Kind) -> list[Unit]:
        """Return the units of a kind, in order."""
        return [unit for unit in self.units if unit.kind == kind]

    def cost(self, kind: Kind) -> int:
        """Return the estimated multiply-adds of the units of a kind."""
        return sum(self.costs[unit.id] for unit in self.of_kind(kind))

    def share(self, kind: Kind) -> Share:
        """Return what a unit of a kind takes of the machine."""
        return self.where.share(kind)

    def job(self, unit: Unit) -> Job:
        """Return the job that does a unit; threads and device follow from its share by rule, not from the machine."""
        share = self.share(unit.kind)
        workers = self.where.train.processes if unit.kind == "train" else 1
        return Job(
            unit=unit,
            store=self.store,
            root=self.where.roots[unit.settings["data"]["name"]],
            download=self.where.download,
            threads=max(1, int(share.cpu) // workers),
            device="cuda" if share.gpu else "cpu",
            attempt=self.attempts.get(unit.id, 0) + 1,
            code=self.code,
            macs=self.costs[unit.id],
            workers=workers,
            gpus=share.gpu,
            sources={one: self.where.sources[one] for one in (*unit.needs, unit.id) if one in self.where.sources},
            driver=self.driver,
            checkpoint_seconds=self.where.train.checkpoint,
            limit=share.limit,
            smaller_batches=share.smaller_batches,
        )
