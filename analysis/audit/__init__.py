"""The audit: which checks of an honest evaluation each claim of a table passed, failed, or lacks rows for."""

from rna_ray.analysis.audit.findings import (
    FAILED,
    FORMATS,
    NOT_MEASURED,
    PASSED,
    Counts,
    Finding,
    Marks,
    audit,
    marks,
    printed_marks,
    published,
    show,
    summed,
    total,
    waiting,
)

__all__ = [
    "FAILED", "FORMATS", "NOT_MEASURED", "PASSED", "Counts", "Finding", "Marks", "audit", "marks", "printed_marks",
    "published", "show", "summed", "total", "waiting",
]  # fmt: skip
