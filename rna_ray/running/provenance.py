"""Where a row comes from: the code, the versions, the machine, the settings of the run that no id counts."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import rna_ray


@functools.cache
def commit() -> tuple[str | None, bool | None]:
    """Return the git commit of rna-ray's own code and whether its tree differs from it; None where there is none."""
    here = Path(rna_ray.__file__).resolve().parent
    try:
        run = functools.partial(subprocess.run, cwd=here, capture_output=True, text=True, timeout=10, check=True)
        tracked = run(["git", "ls-files", "--error-unmatch", "__init__.py"]).stdout
        head = run(["git", "rev-parse", "HEAD"]).stdout.strip()
        return (head, bool(run(["git", "status", "--porcelain"]).stdout.strip())) if tracked else (None, None)
    except (OSError, subprocess.SubprocessError):
        return None, None


@functools.cache
def _ray_version() -> str | None:
    try:
        return importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return None


def provenance(
    *, device: torch.device, precision: str, compiled: bool, kernel: str, seconds: float, attempt: int,
    started_at: datetime,
) -> dict[str, Any]:
    """Return the provenance columns of a trial or an evaluation that has just ended in this process."""
    head, dirty = commit()
    return {
        "commit": head,
        "dirty": dirty,
        "rna_ray": rna_ray.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": _ray_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": precision,
        "compiled": compiled,
        "kernel": kernel,
        "seconds": seconds,
        "attempt": attempt,
        "host": platform.node(),
        "started_at": started_at.astimezone(UTC),
    }
