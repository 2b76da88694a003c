"""Modules as fields: what trains is trained by the right gradient, what cannot is told in one line before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kansciml import UsageError, ode
from kansciml.backends.base import OdeProblem
from kansciml.backends.torch import GRADIENTS, ModuleField, TorchOdeSolver

QUICK = ode.FlatTraining(adam_steps=3, lbfgs_steps=2)


class Net(nn.Module):
    """A small network, and whatever `extra` is put into `change`."""

    def __init__(self, change=lambda net, t, u: net.net(u), prepare=lambda net: None):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))
        self.change = change
        prepare(self)

    def forward(self, t, u):
        return self.change(self, t, u)


def add(**modules):
    return lambda net: [net.add_module(name, module) for name, module in modules.items()]


def problem(module):
    t = np.linspace(0.0, 1.0, 6)
    return OdeProblem.single(
        ModuleField(module, 2), np.array([1.0, 0.5]), t, np.stack([np.cos(t), t], 1), rtol=1e-8, atol=1e-8
    )


def check_gradient(solver, params, h=1e-4):
    """Against central differences along two directions, at least one of which the loss changes along."""
    loss, gradient = solver.value_and_grad(params)
    for direction in np.random.default_rng(0).standard_normal((2, len(params))):
        up, down = (solver.value_and_grad(params + s * h * direction)[0] for s in (1, -1))
        assert gradient @ direction == pytest.approx((up - down) / (2 * h), rel=1e-4, abs=1e-6)
    assert np.abs(gradient).max() > 1e-3 and loss > 0


def hamiltonian(net, t, u):
    """du/dt = (dH/dp, -dH/dq), with a gradient taken inside the field."""
    with torch.enable_grad():
        at = u if u.requires_grad else u.clone().requires_grad_()
        dq, dp = torch.autograd.grad((net.net(at) ** 2).sum(), at, create_graph=True)[0].unbind(-1)
    return torch.stack([dp, -dq], -1)


TRAINABLE = {
    "hamiltonian": (Net(hamiltonian), 22),
    "frozen part": (Net(prepare=lambda net: net.net[0].requires_grad_(False)), 10),
    "no state": (Net(lambda net, t, u: net.net(torch.cat([t, t], -1) if t.ndim else torch.stack([t, t]))), 22),
    "no state, no time": (Net(lambda net, t, u: net.net[2].bias.expand_as(u)), 22),
    "parts not used": (Net(prepare=add(spare=nn.Linear(3, 3))), 34),
    "buffers": (
        Net(lambda net, t, u: net.net(u) * net.norm(u), add(norm=nn.LayerNorm(2, elementwise_affine=False))),
        22,
    ),
    "compiled": (torch.compile(Net()), 22),
    "compiled inside": (Net(prepare=lambda net: setattr(net, "net", torch.compile(net.net, fullgraph=True))), 22),
    "evaluating": (Net(lambda net, t, u: net.drop(net.net(u)), add(drop=nn.Dropout(0.5))).eval(), 22),
    "half precision": (Net().half(), 22),
}


@pytest.mark.parametrize(
    "case, gradient",
    [(c, g) for c in TRAINABLE for g in GRADIENTS if g != "adjoint" or c in ("frozen part", "no state")],
)
def test_gradient_is_that_of_the_parameters_that_require_it(case, gradient):
    module, count = TRAINABLE[case]
    before = {name: p.detach().double().clone() for name, p in module.named_parameters() if not p.requires_grad}
    solver = TorchOdeSolver(problem(module), gradient)
    params = solver.problem.field.initial_parameters()
    assert params.shape == (count,)
    check_gradient(solver, params)
    for name, p in module.named_parameters():
        assert name not in before or torch.equal(p, before[name])


def test_batch_norm_in_evaluation_mode_is_replayed():
    module = Net(lambda net, t, u: net.norm(net.net(u)), add(norm=nn.BatchNorm1d(2))).eval()
    solver = TorchOdeSolver(problem(module))
    check_gradient(solver, solver.problem.field.initial_parameters())


NOT_TRAINABLE = {
    "gradients inside": (
        Net(lambda net, t, u: torch.autograd.grad(net.net(u).sum(), u, create_graph=True)[0]),
        r"RuntimeError.*torch\.enable_grad\(\)",
    ),
    "all frozen": (Net(prepare=lambda net: net.requires_grad_(False)), "at least one that requires gradients"),
    "no parameters": (nn.Identity(), "takes 2 positional arguments"),
    "detached": (Net(lambda net, t, u: net.net(u).detach()), "does not depend on any parameter"),
    "dropout": (Net(lambda net, t, u: net.drop(net.net(u)), add(drop=nn.Dropout(0.1))), r"is random.*module\.eval"),
    "batch norm": (Net(lambda net, t, u: net.norm(net.net(u)), add(norm=nn.BatchNorm1d(2))), r"training mode.*eval"),
    "arguments": (nn.Linear(2, 2), "takes 2 positional arguments but 3 were given"),
    "float32": (Net(lambda net, t, u: net.net(u).float()), r"returns torch\.float32 of shape \(2,\)"),
    "float32 inside": (Net(lambda net, t, u: net.net(u) @ torch.eye(2)), "same dtype.*expected module"),
    "one component": (Net(lambda net, t, u: net.net(u)[..., :1]), r"of shape \(1,\) at u of shape \(2,\)"),
    "a number": (Net(lambda net, t, u: net.net(u).sum()), r"of shape \(\) at u"),
    "nothing": (Net(lambda net, t, u: None), "returns a NoneType"),
    "nan": (Net(lambda net, t, u: net.net(u) * float("nan")), "not finite at the initial state"),
    "state changed": (Net(lambda net, t, u: net.net(u.mul_(2.0))), "in-place"),
    "another device": (Net().to("meta"), "on meta: expected real ones on the CPU"),
    "an error": (Net(lambda net, t, u: 1 / 0), "ZeroDivisionError"),
}


@pytest.mark.parametrize("gradient", GRADIENTS[:2])
@pytest.mark.parametrize("case", NOT_TRAINABLE)
def test_what_cannot_be_trained_is_one_line_before_training(case, gradient):
    module, message = NOT_TRAINABLE[case]
    steps = []
    with pytest.raises(UsageError, match=message) as caught:
        ode.train(
            "lotka",
            module,
            training=QUICK,
            backend=ode.open_backend("torch", gradient=gradient),
            progress=lambda *row: steps.append(row),
        )
    assert "\n" not in str(caught.value) and not steps


@pytest.mark.parametrize(
    "change",
    [
        lambda net, t, u: net.net(u[:2]) + u[0],
        lambda net, t, u: net.net(u) - u.mean(0),
        lambda net, t, u: net.net(u) + (t[0] if t.ndim else t),
    ],
    ids=["one state", "rows mixed", "one time"],
)
def test_wrong_on_a_batch_is_told_with_the_remedy(change):
    with pytest.raises(UsageError, match='cannot be replayed.*gradient="backprop"'):
        TorchOdeSolver(problem(Net(change)))
    TorchOdeSolver(problem(Net(change)), "backprop")


def test_a_frozen_module_can_still_be_solved():
    solver = TorchOdeSolver(problem(Net(prepare=lambda net: net.requires_grad_(False))))
    loss, gradient = solver.value_and_grad(np.zeros(0))
    u = solver.trajectory(np.zeros(0))
    assert loss == pytest.approx(np.mean((u - solver.problem.data) ** 2)) and gradient.shape == (0,)


def test_the_module_is_left_with_the_best_parameters():
    module = Net(prepare=lambda net: net.net[0].requires_grad_(False))
    run = ode.train("lotka", module, training=QUICK)
    np.testing.assert_array_equal(nn.utils.parameters_to_vector(module.net[2].parameters()).detach(), run.params)
    u = np.array([[1.0, 2.0], [3.0, 1.0]])
    np.testing.assert_allclose(run(u), module(None, torch.from_numpy(u)).detach(), rtol=1e-14)
