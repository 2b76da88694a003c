"""The replayed gradient of explicit solves: that of the discrete solution, by parameters and starts, in any batches."""

import numpy as np
import pytest
from support.kernels import Kernel

from kansciml.backends._engines import replay
from kansciml.backends._engines.replay import ExplicitSolved
from kansciml.backends._engines.tableaus import TABLEAUS
from kansciml.backends._kernels import bind
from kansciml.backends.base import Piece
from kansciml.models.field_spec import FieldSpec
from kansciml.models.inputs import Inputs

PAIRS = pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)
MLP = FieldSpec("mlp", (4, 6, 2), inputs=1, time=True)
KAN = FieldSpec("kan", (2, 3, 2), scale=(2.0, 2.0))


def pieces_of(spec, rng):
    found = []
    for t0, end, kind in ((0.0, 1.5, "held"), (0.5, 1.2, "linear"), (0.2, 2.0, "held")):
        knots = np.concatenate([[t0], np.sort(rng.uniform(t0, end, 3)), [end]])
        inputs = Inputs(knots, rng.normal(size=(5, 1)), kind) if spec.inputs else None
        times = np.unique(np.concatenate([knots[1:3], rng.uniform(t0, end, 5)]))
        found.append(Piece(rng.normal(size=2), t0, times, inputs))
    return found


def central(function, h=5e-5):
    """Derivative at 0, of fourth order in h."""
    return (8 * (function(h) - function(-h)) - (function(2 * h) - function(-2 * h))) / (12 * h)


def moved(pieces, change):
    return [Piece(one.start + by, one.t0, one.saveat, one.inputs) for one, by in zip(pieces, change)]


@pytest.mark.parametrize("name, spec", [*((name, MLP) for name in TABLEAUS), ("dopri5", KAN)])
def test_gradients_equal_central_differences_in_any_batches(name, spec, monkeypatch):
    tableau = TABLEAUS[name]
    rng = np.random.default_rng(0)
    pieces = pieces_of(spec, rng)
    tolerance, near = (1e-11, 2e-6) if tableau.order > 3 else (1e-7, 1e-4)
    params = 3 * spec.initial_parameters(0)

    def solved(params, pieces):
        return ExplicitSolved(bind(spec, params), tableau, pieces, tolerance, tolerance, 20_000)

    base = solved(params, pieces)
    cotangents = [rng.normal(size=v.shape) for v in base.states]

    def value(params, pieces):
        return sum(float(np.sum(c * v)) for c, v in zip(cotangents, solved(params, pieces).states))

    by_params, by_starts = base.pull(cotangents)
    singly = [solved(params, [one]).pull([c]) for one, c in zip(pieces, cotangents)]
    monkeypatch.setattr(replay, "BLOCK", 500)
    # One by one, steps differ by rounding, which the slopes of a spline feel where its knots are crossed
    added = sum(one[0] for one in singly), np.concatenate([one[1] for one in singly])
    for other, close in ((base.pull(cotangents), 1e-11), (added, 1e-5 if spec is KAN else 1e-8)):
        for one, same in zip((by_params, by_starts), other):
            np.testing.assert_allclose(one, same, rtol=close, atol=close * np.abs(by_params).max())
    direction, change = rng.normal(size=params.shape), rng.normal(size=(3, 2))
    slope = central(lambda h: value(params + h * direction, pieces))
    assert by_params @ direction == pytest.approx(slope, rel=near)
    slope = central(lambda h: value(params, moved(pieces, h * change)))
    assert np.sum(by_starts * change) == pytest.approx(slope, rel=near)


@PAIRS
def test_gradient_is_exact_for_the_discrete_solution_however_coarse_it_is(tableau):
    """u' = p u with the steps held fixed: the discrete solution is a polynomial in p, with complex steps."""
    times = np.array([0.3, 1.1, 2.0])
    solved = ExplicitSolved(
        Kernel(lambda p, t, u, w: p[0] * u, [-1.3]), tableau, [Piece(np.ones(1), 0.0, times)], 1e-2, 1e-2, 100
    )
    steps, p = solved.steps, -1.3 + 1e-30j

    def stages(u, h):
        k = np.zeros(len(tableau.c), dtype=complex)
        for j in range(len(k)):
            k[j] = p * (u + h * tableau.a[j] @ k)
        return k

    starts = [1.0 + 0j]
    for h in steps.h:
        starts.append(starts[-1] + h * tableau.a[tableau.stages - 1] @ stages(starts[-1], h))
    values = []
    for row, t in zip(solved.row, times):
        weights = tableau.weights(np.array([(t - steps.t[row]) / steps.h[row]]))[0]
        values.append(starts[row] + steps.h[row] * weights @ stages(starts[row], steps.h[row]))
    np.testing.assert_allclose(solved.states[0][:, 0], np.real(values), rtol=1e-12)
    for i in range(3):
        by_params, by_starts = solved.pull([np.eye(3)[:, [i]]])
        assert by_params[0] == pytest.approx(np.imag(values[i]) / 1e-30, rel=1e-11)
        assert by_starts[0, 0] == pytest.approx(np.real(values[i]), rel=1e-11)  # linear in the start
