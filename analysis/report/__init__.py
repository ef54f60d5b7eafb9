"""One page of a store, in one file: what its sweeps found, how far each number is to be believed, what it cost."""

from rna_ray.analysis.report.page import page, write

__all__ = ["page", "write"]
