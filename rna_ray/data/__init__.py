"""Data sets as uint8 arrays, from files whose content is known; numpy only, so that a plan never imports torch."""

from rna_ray.data.digest import content_digest, digest_of
from rna_ray.data.records import DataInfo, Dataset, Split
from rna_ray.data.registry import DATASETS, info, load

__all__ = ["DATASETS", "DataInfo", "Dataset", "Split", "content_digest", "digest_of", "info", "load"]
