"""Data sets as uint8 arrays, or as files that are decoded when asked for; without torch, so that a plan is light."""

from rna_ray.data.digest import content_digest, described, digest_of
from rna_ray.data.records import DataInfo, Dataset, Split
from rna_ray.data.registry import DATASETS, info, load, record

__all__ = [
    "DATASETS", "DataInfo", "Dataset", "Split", "content_digest", "described", "digest_of", "info", "load", "record"
]  # fmt: skip
