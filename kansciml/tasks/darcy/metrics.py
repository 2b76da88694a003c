"""The error of operator learning, and the loss: relative L2 of each sample."""

from __future__ import annotations

from jaxtyping import Float, Num
from torch import Tensor

from kansciml._errors import UsageError, unknown_name

REDUCTIONS = ("mean", "none")


def relative_l2(
    prediction: Float[Tensor, "batch ..."], target: Num[Tensor, "batch ..."], reduction: str = "mean"
) -> Float[Tensor, ""] | Float[Tensor, " batch"]:
    """||prediction_n - target_n|| / ||target_n|| of each sample n, Euclidean norms over all of its values.

    On one uniform grid the ratio is that of the L2 norms: the cell area cancels. Half precision is summed in float32.

    Args:
        reduction: ``"mean"`` over the batch (default), or ``"none"``: one of each sample.

    Raises:
        UsageError: different shapes, an unknown reduction.
    """
    if prediction.shape != target.shape:
        raise UsageError(
            f"got a prediction of shape {tuple(prediction.shape)} for a target of shape {tuple(target.shape)}"
        )
    if reduction not in REDUCTIONS:
        raise unknown_name("reduction", reduction, REDUCTIONS)
    if prediction.element_size() < 4:
        prediction = prediction.float()
    target = target.to(prediction.dtype)
    ratio = (prediction - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)
    return ratio if reduction == "none" else ratio.mean()
