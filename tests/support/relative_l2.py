"""The error of operator learning in NumPy, by another way than the package's."""

import numpy as np


def relative_l2_errors(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """||prediction_n - target_n|| / ||target_n|| of each sample n."""
    flat = [np.asarray(x, np.float64).reshape(len(x), -1) for x in (prediction, target)]
    return np.linalg.norm(flat[0] - flat[1], axis=1) / np.linalg.norm(flat[1], axis=1)
