"""The error of operator learning: relative L2 of each sample, as a loss in torch and as a measure in NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kansciml._errors import UsageError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

REDUCTIONS = ("mean", "sum", "none")


def relative_l2(prediction: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """||prediction_n - target_n|| / ||target_n|| of each sample n, Euclidean norms over all of its values.

    On one uniform grid the ratio is that of the L2 norms: the cell area cancels. Half precision is summed in float32.

    Args:
        prediction, target: (B, ...).
        reduction: ``"mean"`` (default) or ``"sum"`` over the batch, or ``"none"``: (B,).

    Raises:
        UsageError: different shapes, an unknown reduction.
    """
    if prediction.shape != target.shape:
        raise _shapes(prediction.shape, target.shape)
    if reduction not in REDUCTIONS:
        raise unknown_name("reduction", reduction, REDUCTIONS)
    if prediction.element_size() < 4:
        prediction = prediction.float()
    target = target.to(prediction.dtype)
    ratio = (prediction - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)
    return ratio if reduction == "none" else ratio.mean() if reduction == "mean" else ratio.sum()


def relative_l2_errors(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`relative_l2` of each sample in NumPy, (N,) float64, summed in float64.

    Raises:
        UsageError: different shapes.
    """
    if prediction.shape != target.shape:
        raise _shapes(prediction.shape, target.shape)
    flat = [np.asarray(x, np.float64).reshape(len(x), -1) for x in (prediction, target)]
    return np.linalg.norm(flat[0] - flat[1], axis=1) / np.linalg.norm(flat[1], axis=1)


def _shapes(prediction: object, target: object) -> UsageError:
    return UsageError(f"got a prediction of shape {tuple(prediction)} for a target of shape {tuple(target)}")
