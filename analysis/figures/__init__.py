"""Figures from a store's rows: each as PNG, as SVG, and the very data behind it as Parquet."""

from rna_ray.analysis.figures.catalog import FIGURES, Drawing, drawings, draws_rows, figure, names, picture
from rna_ray.analysis.figures.files import pictures

__all__ = ["FIGURES", "Drawing", "drawings", "draws_rows", "figure", "names", "picture", "pictures"]
