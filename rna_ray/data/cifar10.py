"""CIFAR-10: ten classes, in five training batches and a test batch."""

from __future__ import annotations

from types import MappingProxyType

from rna_ray.data import cifar
from rna_ray.data.fetch import Remote

PUBLISHED = cifar.Release(
    name="cifar10",
    title="CIFAR-10",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    pickles_md5=MappingProxyType({
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    }),
    images=(10_000,) * 6,
    label_key="labels",
    label_bytes=1,
    binary_folder="cifar-10-batches-bin",
    python_folder="cifar-10-batches-py",
    archive=Remote(
        urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",), md5="c32a1d4ab5d03f1284b67883e8d87530"
    ),
)  # fmt: skip

INFO = cifar.info(PUBLISHED, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
