"""Whether a loss is a function of the parameters and the data alone; if not, who is to blame."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from kansciml._errors import KansciError, UsageError

from ._batches import Batches, part_of
from ._loss import Loss, evaluate

_DROPOUTS = (nn.modules.dropout._DropoutNd,)


def culprits(module: nn.Module, buffers: list[str]) -> list[str]:
    """Submodules that draw random numbers or change their buffers in the mode they are in, with their names."""
    owners = {name.rpartition(".")[0] for name in buffers}
    found = []
    for name, part in module.named_modules():
        if _draws(part) or name in owners:
            found.append(f"{name or 'the module'} ({type(part).__name__}, {'train' if part.training else 'eval'} mode)")
    return found


def _draws(part: nn.Module) -> bool:
    if not part.training:
        return False
    if isinstance(part, _DROPOUTS):
        return part.p > 0
    if isinstance(part, (nn.MultiheadAttention, nn.RNNBase)):
        return part.dropout > 0
    return isinstance(part, nn.RReLU) or (isinstance(part, _NormBase) and part.track_running_stats)


def refuse(module: nn.Module, buffers: list[str], difference: float) -> None:
    """Raises:
    KansciError: always: what changed between two evaluations, where, and the remedy.
    """
    what = []
    if difference != 0:
        what.append(f"its gradient changed by {difference:.1e} (relative)")
    if buffers:
        what.append(f"it changed {_some(buffers)}")
    found = culprits(module, buffers)
    if found:
        blame = f"because of {_some(found)}; call module.eval() on it"
    else:
        blame = (
            "and no module draws random numbers: look for a random operation in the loss or the data set (dropout as a"
            " function, augmentation, a shuffled loader with drop_last), and fix its seed"
        )
    raise KansciError(
        f"the loss is not a function of the parameters alone: evaluated twice, {' and '.join(what)}, {blame}."
        " check=False skips this check"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def require_mean(loss: Loss, module: nn.Module, batches: Batches) -> None:
    """A batch may be cut only if its loss is the mean of its samples' losses: tried on two micro-batches at most.

    Raises:
        UsageError: it is not, as for a sum, or statistics over the batch.
    """
    if batches.micro_batch is None:
        return
    for batch, size in batches.whole():
        if size <= batches.micro_batch:
            continue
        end = min(size, 2 * batches.micro_batch)
        parts = [batches.moved(part_of(batch, *ends)) for ends in ((0, end), (0, end // 2), (end // 2, end))]
        # with gradients on: the loss itself may take some, as those of differential equations do
        whole, first, second = (float(evaluate(loss, module, part).detach()) for part in parts)
        middle = end // 2
        mean = (first * middle + second * (end - middle)) / end
        precision = _precision(module)
        if abs(whole - mean) > precision * max(abs(whole), abs(first), abs(second)):
            norms = [name for name, part in module.named_modules() if isinstance(part, _BatchNorm)]
            hint = f" ({_some(norms)} may use the batch's statistics)" if norms else ""
            raise UsageError(
                f"got micro_batch {batches.micro_batch}, but the loss of {end} samples is {whole:.6g} and the mean over"
                f" its two halves {mean:.6g}{hint}: expected a mean over samples, as with reduction='mean'; or leave"
                " micro_batch out"
            )
        return


def _precision(module: nn.Module) -> float:
    """Half the digits of the narrowest parameter: far above rounding, far below what randomness does."""
    kinds = {p.dtype for p in module.parameters() if p.is_floating_point() or p.is_complex()}
    return max(torch.finfo(kind).eps for kind in kinds) ** 0.5


def compare(module: nn.Module, first: Tensor, second: Tensor, scale: float, changed: list[str]) -> None:
    """Two evaluations of the gradient must agree to rounding, and no buffer may have changed. Overwrites `second`.

    Args:
        scale: mean of the batches' gradient norms: what rounding is relative to, at a minimum too.

    Raises:
        KansciError: they do not agree.
    """
    difference = float(torch.linalg.vector_norm(second.sub_(first))) / max(scale, 1e-300)
    agrees = difference <= _precision(module)  # NaN does not
    if changed or not agrees:
        refuse(module, changed, 0.0 if agrees else difference)


def require_finite(gradient: dict[str, Tensor]) -> None:
    """Raises:
    KansciError: NaN or infinite entries, with the names of the parameters.
    """
    bad = [name for name, part in gradient.items() if not bool(torch.isfinite(part).all())]
    if bad:
        raise KansciError(
            f"the gradient is not finite in {_some(bad)}: a Hessian needs a twice differentiable loss (sqrt or norm at"
            " zero, or overflow?)"
        )
