"""Figures from a store's rows: each as PNG, as SVG, and the very data behind it as Parquet."""

from rna_ray.analysis.figures.catalog import FIGURES, draws_rows, figure, names

__all__ = ["FIGURES", "draws_rows", "figure", "names"]
