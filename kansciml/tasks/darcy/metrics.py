"""The error of operator learning: relative L2 of each sample, as a loss in torch and as a measure in NumPy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Num
from torch import Tensor

from kansciml._errors import UsageError, unknown_name

REDUCTIONS = ("mean", "sum", "none")


def relative_l2(
    prediction: Float[Tensor, "batch ..."], target: Num[Tensor, "batch ..."], reduction: str = "mean"
) -> Float[Tensor, ""] | Float[Tensor, " batch"]:
    """||prediction_n - target_n|| / ||target_n|| of each sample n, Euclidean norms over all of its values.

    On one uniform grid the ratio is that of the L2 norms: the cell area cancels. Half precision is summed in float32.

    Args:
        reduction: ``"mean"`` (default) or ``"sum"`` over the batch, or ``"none"``: one of each sample.

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


def relative_l2_errors(
    prediction: Num[np.ndarray, "n ..."], target: Num[np.ndarray, "n ..."]
) -> Float64[np.ndarray, " n"]:
    """`relative_l2` of each sample in NumPy, summed in float64.

    Raises:
        UsageError: different shapes.
    """
    if prediction.shape != target.shape:
        raise _shapes(prediction.shape, target.shape)
    flat = [np.asarray(x, np.float64).reshape(len(x), -1) for x in (prediction, target)]
    return np.linalg.norm(flat[0] - flat[1], axis=1) / np.linalg.norm(flat[1], axis=1)


def _shapes(prediction: tuple[int, ...], target: tuple[int, ...]) -> UsageError:
    return UsageError(f"got a prediction of shape {tuple(prediction)} for a target of shape {tuple(target)}")
