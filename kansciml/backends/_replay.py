r"""Exact discrete gradient of a solve by replaying its accepted steps as one batch.

The integrator has kept every stage of every accepted step. The field is linearised at all of them at once; each step's
adjoint then is an n x n matrix, found for all steps together; only a recursion of N matrix-vector products runs in
sequence; one batched pullback gives the parameter gradient. With k_j = f(Y_j), Y_j = u + h \sum_m a_jm k_m and save
points u + h \sum_j P_j(theta) k_j, this is backpropagation through the solver with its step sizes held fixed.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int

from kansciml.backends._dopri5 import STAGES, A, B, C, Steps
from kansciml.backends._kernels import FieldKernel


def replay_gradient(
    kernel: FieldKernel,
    steps: Steps,
    step: Int[np.ndarray, " T"],
    weights: Float64[np.ndarray, "T 7"],
    cotangent: Float64[np.ndarray, "T n"],
) -> tuple[Float64[np.ndarray, " P"], Float64[np.ndarray, " n"]]:
    """Gradients of sum(cotangent * u(saveat)) by the parameters and by the initial state.

    Args:
        kernel: the field, bound to the parameters that `steps` was computed with.
        step, weights: what `steps.locate` gave for the save times. cotangent: loss gradient by the saved states.
    """
    n_steps, _, n = steps.stage_states.shape
    # The last stage of a step is the first of the next: N * 6 + 1 points in all.
    states = np.concatenate([steps.stage_states[:, :-1].reshape(-1, n), steps.stage_states[-1, -1:]])
    times = np.append(steps.t[:, None] + C[:-1] * steps.h[:, None], steps.t[-1] + steps.h[-1])
    jacobian, pullback = kernel.linearise(times, states)
    by_step = jacobian[:-1].reshape(n_steps, STAGES - 1, n, n)

    # Save points act on u and on the stages of their step.
    direct = np.zeros((n_steps, n))
    np.add.at(direct, step, cotangent)
    h = steps.h[:, None, None]
    stage_grad = np.zeros((n_steps, STAGES, n, n + 1))  # columns: by the next state's cotangent, and the constant part
    np.add.at(stage_grad[..., n], step, weights[:, :, None] * cotangent[:, None, :])
    stage_grad[..., n] *= h
    stage_grad[:, :, np.arange(n), np.arange(n)] += h * B[:, None]

    total = np.zeros((n_steps, n, n + 1))
    total[:, np.arange(n), np.arange(n)] = 1.0
    total[:, :, n] += direct
    for j in range(STAGES - 1, -1, -1):
        stage_jacobian = by_step[:, j] if j < STAGES - 1 else jacobian[STAGES - 1 :: STAGES - 1]
        state_grad = np.matmul(stage_jacobian.transpose(0, 2, 1), stage_grad[:, j])  # cotangent of Y_j
        total += state_grad
        if j:
            stage_grad[:, :j] += (h * A[j, :j, None])[..., None] * state_grad[:, None]

    # From the last step to the first: cotangents of the states between the steps.
    after = np.zeros((n_steps, n))
    running = np.zeros(n)
    matrix, constant = np.ascontiguousarray(total[:, :, :n]), np.ascontiguousarray(total[:, :, n])
    for i in range(n_steps - 1, -1, -1):
        after[i] = running
        running = matrix[i].dot(running)
        running += constant[i]

    slopes = np.matmul(stage_grad[..., :n], after[:, None, :, None])[..., 0] + stage_grad[..., n]
    field_cotangent = np.zeros((n_steps * (STAGES - 1) + 1, n))
    field_cotangent[:-1] = slopes[:, :-1].reshape(-1, n)
    field_cotangent[STAGES - 1 :: STAGES - 1] += slopes[:, -1]
    return pullback(field_cotangent), running
