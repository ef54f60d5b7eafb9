"""Where a row comes from: the code, the versions, the machine, the settings of the run that no id counts."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rna_ray
from rna_ray.running.tasks import Code, Job

if TYPE_CHECKING:
    import torch


def code() -> Code:
    """Return the git commit of rna-ray's own code, and whether its tree differs from it; empty where there is none.

    Asked once by the driver, for all units of a run: later the tree may be another.
    """
    here = Path(rna_ray.__file__).resolve().parent
    run = functools.partial(subprocess.run, cwd=here, capture_output=True, text=True, timeout=10, check=True)
    try:
        run(["git", "ls-files", "--error-unmatch", "__init__.py"])
        head, changes = run(["git", "rev-parse", "HEAD"]).stdout, run(["git", "status", "--porcelain"]).stdout
        return Code(commit=head.strip(), dirty=bool(changes.strip()))
    except (OSError, subprocess.SubprocessError):
        return Code()


@functools.cache
def _ray_version() -> str | None:
    try:
        return importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclasses.dataclass(frozen=True)
class Started:
    """When an attempt started, by the time of day and by a steady clock; its peak of memory counts from it."""

    at: datetime
    clock: float

    @classmethod
    def now(cls) -> Started:
        """Start it now."""
        from rna_ray.running import memory  # here, as torch below

        memory.forget_peak()
        return cls(datetime.now(UTC), time.perf_counter())


def provenance(
    job: Job, started: Started, *, device: torch.device, precision: str, compiled: bool, kernel: str
) -> dict[str, Any]:
    """Return the provenance columns of a unit that has just ended in this process."""
    import torch  # here: who only asks for the commit should not wait for it

    from rna_ray.running import memory

    return {
        "commit": job.code.commit,
        "dirty": job.code.dirty,
        "rna_ray": rna_ray.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": _ray_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "devices": job.gpus if device.type == "cuda" else float(torch.get_num_threads() * job.workers),
        "precision": precision,
        "compiled": compiled,
        "kernel": kernel,
        "seconds": time.perf_counter() - started.clock,
        "peak_memory": memory.peak(device),
        "attempt": job.attempt,
        "host": platform.node(),
        "started_at": started.at,
    }
