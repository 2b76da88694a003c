"""CIFAR-100: 32 x 32 colour photographs in 100 (fine) classes, 500 training and 100 test images of each."""

from __future__ import annotations

from kansciml.tasks.vision._cifar_binary import CifarBinary
from kansciml.tasks.vision.dataset import Dataset

FILES = CifarBinary(
    title="CIFAR-100",
    folder="cifar-100-binary",
    archive="cifar-100-binary.tar.gz",
    urls=("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
    md5="03b5dce01913d631647c71ecec9e9cb8",
    label_bytes=2,
    files={"train": ("train.bin",), "test": ("test.bin",)},
    records={"train": 50_000, "test": 10_000},
    fingerprints={"train": "b175d8a4cf278b07", "test": "596991a8b9460db4"},
)

NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""

DATASET = Dataset(
    name="cifar100",
    title="CIFAR-100",
    citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009)",
    class_names=tuple(NAMES.split()),
    channels=3,
    size=32,
    mean=(0.50707516, 0.48654887, 0.44091784),
    std=(0.26733429, 0.25643846, 0.27615047),
    n_train=50_000,
    n_test=10_000,
    read=FILES.read,
    download_mb=168.5,
)
