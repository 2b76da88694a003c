"""MNIST: 28 x 28 grey handwritten digits, 60,000 training and 10,000 test images."""

from __future__ import annotations

from kansciml.tasks.vision._idx import IdxFile, IdxImages
from kansciml.tasks.vision.dataset import Dataset

FILES = IdxImages(
    title="MNIST",
    folders=("mnist", "MNIST/raw", "MNIST"),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    files={
        "train": (
            IdxFile(
                "train-images-idx3-ubyte",
                shape=(60_000, 28, 28),
                md5_gz="f68b3c2dcbeaaa9fbdd348bbdeb94873",
                sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            IdxFile(
                "train-labels-idx1-ubyte",
                shape=(60_000,),
                md5_gz="d53e105ee54ea40749a09fcbcd1e9432",
                sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
        ),
        "test": (
            IdxFile(
                "t10k-images-idx3-ubyte",
                shape=(10_000, 28, 28),
                md5_gz="9fb629c4189551a2d022fa330f9573f3",
                sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            IdxFile(
                "t10k-labels-idx1-ubyte",
                shape=(10_000,),
                md5_gz="ec29112dd5afa0611ce80d1b7f02629c",
                sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
    },
)

DATASET = Dataset(
    name="mnist",
    title="MNIST",
    citation="LeCun, Bottou, Bengio & Haffner, Gradient-based learning applied to document recognition (1998)",
    class_names=tuple("0123456789"),
    channels=1,
    size=28,
    mean=(0.13066048,),
    std=(0.30810781,),
    n_train=60_000,
    n_test=10_000,
    read=FILES.read,
    mirrors=False,
    download_mb=11.6,
)
