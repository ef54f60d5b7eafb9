"""CIFAR-100: a hundred (fine) classes, in a training and a test file. The twenty coarse ones are passed over."""

from __future__ import annotations

from types import MappingProxyType

from rna_ray.data import cifar
from rna_ray.data.fetch import Remote

_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""

PUBLISHED = cifar.Release(
    name="cifar100",
    title="CIFAR-100",
    classes=tuple(_CLASSES.split()),
    pickles_md5=MappingProxyType({
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    }),
    images=(50_000, 10_000),
    label_key="fine_labels",
    label_bytes=2,  # the coarse label, then the fine one
    binary_folder="cifar-100-binary",
    python_folder="cifar-100-python",
    archive=Remote(
        urls=("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",), md5="03b5dce01913d631647c71ecec9e9cb8"
    ),
)  # fmt: skip

INFO = cifar.info(PUBLISHED, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))
