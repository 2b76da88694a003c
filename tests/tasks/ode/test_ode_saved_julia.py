"""Models that Python saved, read by Julia; marked `julia`."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from kansciml import BackendUnavailable, ode
from kansciml.backends._julia_install import package_path
from kansciml.backends.base import Series
from kansciml.backends.julia import find_julia
from kansciml.models.hybrid_spec import HybridSpec, NetworkSpec
from kansciml.models.units import Units
from kansciml.tasks.ode.evaluation import Metrics

READ = """
push!(LOAD_PATH, ARGS[2])
using KanSciML
model = KanSciML.load(ARGS[1])
println(join(model([0.3, 0.4], 0.5; inputs = [0.2]), ' '))
println(join(trajectory(model; saveat = [0.5, 1.5, 2.0]), ' '))
println(join(last.(sort!(collect(KanSciML.estimates(model)))), ' '))
println(join(trajectory(model; series = 2, u0 = [0.5, 0.1], t0 = 0.2, saveat = [1.0, 1.9]), ' '))
"""


def known(t, u, w, network, p):
    x, y = u[..., 0], u[..., 1]
    return np.stack([p["rate"] * x * (1 - x) - w[..., 0] * np.sin(t), network(u)[..., 0] * y ** p["power"]], axis=-1)


PHYSICS = ode.Physics(known, parameters={"rate": 1.3, "power": 2.0}, bounds={"rate": (0.0, np.inf)})
KNOWN = HybridSpec(NetworkSpec("mlp", (2, 3, 1), rate=(0.2,)), PHYSICS.equations(2, 1), PHYSICS.sought(), 1)
KAN = ode.FieldSpec(
    "kan", (4, 3, 2), inputs=1, time=True, center=(1.0, 0.5, 0.3, 1.0), scale=(2.0, 1.0, 0.8, 2.0), rate=(0.3, 0.1)
)


@pytest.mark.julia
@pytest.mark.parametrize("spec", [KAN, KNOWN], ids=["kan", "known"])
def test_julia_reads_the_same_field_and_trajectories(tmp_path, spec):
    try:
        julia = find_julia()
    except BackendUnavailable as error:
        pytest.skip(str(error).partition(":")[0])
    if not julia.ready or julia.executable is None:
        pytest.skip(julia.describe())
    t, knots, values = np.linspace(0.0, 2.0, 5), [0.0, 0.7, 2.0], [[0.1], [-0.4], [0.9]]
    series = [
        Series([0.3, 0.2], t, np.ones((5, 2)), inputs=ode.Inputs(knots, values, kind), learned=kind == "held")
        for kind in ("held", "linear")
    ]
    units = Units(np.array([0.1, 0.2]), np.array([1.3, 0.7]), 0.0, 1.7)
    problem = ode.OdeProblem(spec, series, units=units, rtol=1e-10, atol=1e-10)
    params = problem.initial_parameters(3) + 0.01
    solver = ode.open_backend("torch").solver(problem)
    recorded = {"backend": "torch", "method": "replay"}
    model = ode.OdeModel(problem, params, Metrics(), ("x", "y"), ("force",), recorded, solver)
    folder = model.save(tmp_path / "model")
    command = [julia.executable, "--startup-file=no", *([f"--project={julia.project}"] if julia.project else [])]
    done = subprocess.run(
        [*command, "-e", READ, str(folder), str(package_path())], capture_output=True, text=True, check=True
    )
    slopes, states, estimates, other = (np.array(line.split(), dtype=float) for line in done.stdout.splitlines())
    np.testing.assert_allclose(slopes, model([0.3, 0.4], 0.5, [0.2]), rtol=1e-9)  # its units are rounded
    np.testing.assert_allclose(states, model.trajectory([0.5, 1.5, 2.0]).ravel(), rtol=0, atol=1e-8)
    np.testing.assert_allclose(estimates, [value for _, value in sorted(model.estimates.items())], rtol=1e-14)
    expected = model.trajectory([1.0, 1.9], series=1, u0=[0.5, 0.1], t0=0.2)
    np.testing.assert_allclose(other, expected.ravel(), rtol=0, atol=1e-8)
