"""Data sets as uint8 arrays, or as files that are decoded when asked for; without torch, so that a plan is light."""

from rna_ray.data.digest import content_digest, digest_of
from rna_ray.data.records import DataInfo, Dataset, Split
from rna_ray.data.registry import DATASETS, info, load

__all__ = ["DATASETS", "DataInfo", "Dataset", "Split", "content_digest", "digest_of", "info", "load"]
