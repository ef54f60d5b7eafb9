"""The audit: which checks of an honest evaluation each claim of a table passed, failed, or lacks rows for."""

from rna_ray.analysis.audit.checks import Status
from rna_ray.analysis.audit.findings import (
    FAILED,
    FORMATS,
    NOT_MEASURED,
    PASSED,
    SIGNS,
    Counts,
    Finding,
    Judged,
    Judgement,
    audit,
    count,
    judge,
    judge_printed,
    of_variant,
    published,
    show,
    total,
    waiting,
)

__all__ = [
    "FAILED", "FORMATS", "NOT_MEASURED", "PASSED", "SIGNS", "Counts", "Finding", "Judged", "Judgement", "Status",
    "audit", "count", "judge", "judge_printed", "of_variant", "published", "show", "total", "waiting",
]  # fmt: skip
