"""CIFAR-10: 32 x 32 colour photographs in 10 classes, 5000 training and 1000 test images of each."""

from __future__ import annotations

from kansciml.tasks.vision._cifar_binary import CifarBinary
from kansciml.tasks.vision.dataset import Dataset

FILES = CifarBinary(
    title="CIFAR-10",
    folder="cifar-10-batches-bin",
    archive="cifar-10-binary.tar.gz",
    urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    label_bytes=1,
    files={"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
    records={"train": 10_000, "test": 10_000},
    fingerprints={"train": "bf1de72a36ad759f", "test": "8e1a404777dcc423"},
)

DATASET = Dataset(
    name="cifar10",
    title="CIFAR-10",
    citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009)",
    class_names=tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
    channels=3,
    size=32,
    mean=(0.49139968, 0.48215841, 0.44653091),
    std=(0.24703223, 0.24348513, 0.26158784),
    n_train=50_000,
    n_test=10_000,
    read=FILES.read,
    download_mb=170.1,
)
