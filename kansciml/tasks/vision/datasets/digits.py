"""Digits: 8 x 8 grey handwritten digits that come with scikit-learn, 1437 training and 360 test images.

The test images are the last ones in the file's order, in which the writers follow one another: they are largely by
other people than the training images, as in MNIST. Their values 0 to 16 are spread over 0 to 255.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kansciml.tasks.data_folder import Progress
from kansciml.tasks.vision.dataset import Dataset, Images

N_TRAIN, N_TEST = 1437, 360


def read(data_dir: Path | None, split: str, progress: Progress | None) -> Images:
    """The images of a split. They are part of scikit-learn, so that `data_dir` is not looked at."""
    from sklearn.datasets import load_digits  # 0.6 s to import

    digits = load_digits()
    part = slice(0, N_TRAIN) if split == "train" else slice(N_TRAIN, None)
    images = np.rint(digits.images[part] * (255 / 16)).astype(np.uint8)
    return Images(images[:, None], digits.target[part].astype(np.int64))  # (N, 1, 8, 8)


DATASET = Dataset(
    name="digits",
    title="Digits",
    citation="Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998)",
    class_names=tuple("0123456789"),
    channels=1,
    size=8,
    mean=(0.30543467,),
    std=(0.37534217,),
    n_train=N_TRAIN,
    n_test=N_TEST,
    read=read,
    mirrors=False,
)
