"""Keeps a trained neural ODE in a folder that needs neither the data nor the code it was trained with.

``model.safetensors`` holds float64 arrays: ``params`` (F,), the field's flat parameter vector; ``starts`` (K, n), the
initial states of the series it was trained on, learned ones as learned, in the variables v of ``units``; where there
are inputs, ``inputs.<k>.t`` (L,) and ``inputs.<k>.values`` (L, m) of series k (from 0), in the user's units; for a
torch module of the user's own its state, ``module.<name>``. ``model.json`` holds the rest, for example::

    {"schema": 1, "kansciml": "0.1.0",
     "field": {"kind": "spec", "model": "kan", "widths": [2, 6, 2], "activation": "tanh", "grid": 5, "spline_order": 3,
               "grid_range": [-1.0, 1.0], "center": [3.9, 2.4], "scale": [3.3, 2.4], "rate": [4.6, 3.5],
               "squash": false, "input_power": 1, "inputs": 0, "time": false},
     "units": {"origin": [0.0, 0.0], "state": [1.0, 1.0], "t0": 0.0, "time": 1.0}, "loss_scale": [1.0, 1.0],
     "solver": {"name": "5", "rtol": 1e-07, "atol": 1e-07, "max_steps": 20000},
     "labels": ["prey x", "predator y"], "input_labels": [],
     "series": [{"name": "", "t0": 0.0, "t_end": 3.4, "u0": [1.0, 1.0], "inputs": null, "learned": false,
                 "follows": null}],
     "metrics": {"train_mse": 8.3e-07, "test_mse": null}, "missing": {"test_mse": "all data are trained on"},
     "about": {"system": "lotka", "title": "Lotka-Volterra", "source": "...", "data": "<SHA-256>", "seed": 0,
               "backend": "torch", "method": "replay", "status": "finished", "loss": 8.1e-07, "train_end": 3.5,
               "time_label": "t", "clock": {"column": "t", "since": ""}},
     "files": {"model.safetensors": "<SHA-256>"}}

``field``, in the user's units: of kind ``spec`` the arguments of `FieldSpec`, so that du/dt = rate * net((x - center) /
scale); of kind ``hybrid`` those of `HybridSpec`: ``network`` those of a `FieldSpec` of any ends, ``equations`` its
operations, ``parameters`` with null for no bound; of kind ``lux`` those of `LuxField`, whose file is ``field.jl``; of
kind ``module`` names and shapes of its parameters. ``units``: of solver tolerances, see `Units`; null: the states as
they are. ``inputs`` of a series: null, ``"linear"``, ``"held"``.
``clock``: what times of the table that was trained on were, see `Clock`. ``files`` are all others of the folder.
``system.py``, where it is there, is the file that defined the system: for the reader, nothing runs it. ``field.jl``
runs where the model of a layer of Lux is loaded on the Julia backend: ask for that of models that you trust.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from kansciml import __version__
from kansciml._errors import KansciError, UsageError
from kansciml._files import file_failure, list_folder, write_bytes, write_json
from kansciml.backends.base import OdeProblem, Series
from kansciml.backends.select import OdeBackend, open_for, solver_on
from kansciml.models.equations import Equations
from kansciml.models.field_spec import FieldSpec
from kansciml.models.hybrid_spec import Bounds, HybridSpec, NetworkSpec, Spec, described
from kansciml.models.inputs import Inputs
from kansciml.models.lux_field import LuxField
from kansciml.models.units import Units
from kansciml.tasks.ode.evaluation import Metrics
from kansciml.tasks.ode.trained.model import OdeModel

if TYPE_CHECKING:
    from torch import nn

    from kansciml.backends.module_field import ModuleField

SCHEMA = 1
DESCRIPTION, ARRAYS, SOURCE, LAYER = "model.json", "model.safetensors", "system.py", "field.jl"


def save_model(model: OdeModel, folder: Path, source: Path | None = None) -> Path:
    """Write a trained model into `folder`, which is made, or holds a model already; each file in one step.

    Args:
        source: the user's file that defined the system, to be kept beside it.

    Raises:
        UsageError: the folder holds something else, or is a file. KansciError: it cannot be written.
    """
    if (found := list_folder(folder)) and folder / DESCRIPTION not in found:
        raise UsageError(f"{folder} holds {found[0].name} and no {DESCRIPTION}: choose a new folder for the model")
    problem = model.problem
    params, starts = problem.split(model.params)
    arrays = {"params": params, "starts": starts}
    for k, one in enumerate(problem.series):
        if one.inputs is not None:
            arrays |= {f"inputs.{k}.t": one.inputs.t, f"inputs.{k}.values": one.inputs.values}
    described, state = _field_told(problem.field)
    data = {ARRAYS: save({name: np.ascontiguousarray(array) for name, array in {**arrays, **state}.items()})}
    if source is not None:
        data[SOURCE] = _bytes(source)
    if isinstance(problem.field, LuxField):
        data[LAYER] = problem.field.source.encode()
    units = problem.units
    content = {
        "schema": SCHEMA,
        "kansciml": __version__,
        "field": described,
        "units": None if units is None else {one.name: getattr(units, one.name) for one in fields(Units)},
        "loss_scale": problem.loss_scale,
        "solver": {"name": problem.solver, **{name: getattr(problem, name) for name in ("rtol", "atol", "max_steps")}},
        "labels": model.labels,
        "input_labels": model.input_labels,
        "series": [_series_told(one) for one in problem.series],
        "metrics": dict(model.metrics),
        "missing": model.metrics.missing,
        "about": model.about,
        "files": {name: hashlib.sha256(part).hexdigest() for name, part in data.items()},
    }
    for name, part in data.items():
        write_bytes(folder / name, part)
    write_json(folder / DESCRIPTION, content)  # last: it tells whether the others are whole
    return folder


def load_model(
    folder: Path,
    module: nn.Module | None = None,
    backend: str | OdeBackend = "torch",
    log: Callable[[str], None] = lambda line: None,
) -> OdeModel:
    """The trained model in a folder; on the backend and machine that it was trained on, it gives the same numbers.
    Another backend that lacks its solver takes its own of the same kind.

    Args:
        module: for a model that is a torch module of the user's own, one of the same class; its state is set.
        backend: ``"torch"`` (default), ``"julia"``, ``"auto"``, or one that `open_backend` gave. log: see there.

    Raises:
        UsageError: there is no model, it needs another module or none, or it is a layer of Lux and the backend torch.
        KansciError: damaged files, another schema.
        BackendUnavailable: Julia was asked for and does not start.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UsageError(f"{folder} holds no model: expected a folder with {DESCRIPTION} and {ARRAYS}")
    try:
        content = json.loads(_bytes(path))
        schema = content["schema"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from error
    if schema != SCHEMA:
        raise KansciError(f"{path} has schema {schema!r}, this version reads {SCHEMA}: save the model again with it")
    arrays = _read_arrays(folder, content)
    try:
        layer = _kept(folder, content, LAYER).decode() if content["field"]["kind"] == "lux" else ""
        field = _field_of(content["field"], arrays, module, layer)
        problem, params = _problem_of(content, arrays, field)
        metrics = Metrics()
        metrics.update(content["metrics"])
        metrics.missing.update(content["missing"])
        about = dict(content["about"])
        labels, input_labels = tuple(map(str, content["labels"])), tuple(map(str, content["input_labels"]))
        if (len(labels), len(input_labels)) != (problem.field.state_size, problem.field.inputs):
            raise ValueError(f"{len(labels)} labels and {len(input_labels)} input labels")
        gradient = about["method"] if about["backend"] == "torch" else None
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, _WrongModule):
            raise
        raise _damaged(path, error) from error
    if isinstance(field, LuxField) and "torch" in (backend, getattr(backend, "name", "")):
        what = f"a layer of Lux, {field.name}: take backend julia (backend='julia', --backend julia)"
        raise UsageError(f"the model in {folder} is {what}, which runs {folder / LAYER}")
    opened = open_for(field, backend, gradient, log)
    problem = replace(problem, solver=solver_on(opened, problem.solver))
    return OdeModel(problem, params, metrics, labels, input_labels, about, opened.solver(problem))


class _WrongModule(UsageError):
    """A module that is missing, or not the one that was saved."""


def _series_told(one: Series) -> dict[str, Any]:
    own = {name: getattr(one, name) for name in ("name", "t0", "u0", "learned", "follows")}
    return {**own, "t_end": one.saveat[-1], "inputs": None if one.inputs is None else one.inputs.kind}


def _series_of(k: int, told: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Series:
    own = {name: told[name] for name in ("name", "t0", "learned", "follows")}
    kind, u0 = told["inputs"], np.array(told["u0"], dtype=np.float64)
    inputs = None if kind is None else Inputs(arrays[f"inputs.{k}.t"], arrays[f"inputs.{k}.values"], kind)
    # a problem has data: the initial state stands for them
    return Series(u0, np.array([told["t_end"]]), u0[None], inputs=inputs, **own)


def _problem_of(
    content: Mapping[str, Any], arrays: Mapping[str, np.ndarray], field: Spec | LuxField | ModuleField
) -> tuple[OdeProblem, np.ndarray]:
    series = tuple(_series_of(k, told, arrays) for k, told in enumerate(content["series"]))
    told, solver = content["units"], dict(content["solver"])
    units = None if told is None else Units(np.array(told["origin"]), np.array(told["state"]), told["t0"], told["time"])
    solver_name, scale = solver.pop("name"), np.array(content["loss_scale"])
    problem = OdeProblem(field, series, scale, units=units, solver=solver_name, **solver)
    starts = arrays["starts"]
    params = np.concatenate([arrays["params"], starts[problem.learned].ravel()])
    if params.shape != (problem.n_parameters,) or not np.isfinite(params).all():
        raise ValueError(f"its parameters are {params.shape[0]} numbers, not {problem.n_parameters} finite ones")
    return problem, params


def _field_told(field: Spec | LuxField | ModuleField) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What ``field`` of the description says, and further arrays."""
    if isinstance(field, (FieldSpec, HybridSpec)):
        return described(field), {}
    if isinstance(field, LuxField):
        return field.described(), {}
    module = _unwrapped(field.module)
    state = {f"module.{name}": value.detach().numpy() for name, value in module.state_dict().items()}
    sizes = {"state_size": field.state_size, "inputs": field.inputs}
    told = {"class": field.label(), "parameters": _shapes(module), **sizes}
    return {"kind": "module", **told}, state


def _field_of(
    told: Mapping[str, Any], arrays: Mapping[str, np.ndarray], module: nn.Module | None, layer: str
) -> Spec | LuxField | ModuleField:
    values: dict[str, Any] = _tuples(told)
    kind = values.pop("kind")
    if kind != "module" and module is not None:
        what = "a layer of Lux" if kind == "lux" else f"a built-in field ({kind})"
        raise _WrongModule(f"got a module for a model that is {what}: leave it out")
    if kind == "spec":
        return FieldSpec(**values)
    if kind == "hybrid":
        bounds = (tuple(one[key] for key in ("name", "guess", "low", "high")) for one in values["parameters"])
        sought = tuple(
            Bounds(name, guess, -math.inf if low is None else low, math.inf if high is None else high)
            for name, guess, low, high in bounds
        )
        network, equations = NetworkSpec(**values["network"]), Equations(**values["equations"])
        return HybridSpec(network, equations, sought, values["inputs"])
    if kind == "lux":
        return LuxField(source=layer, **values)
    if kind == "module":
        return _module_of(told, arrays, module)
    raise ValueError(f"unknown kind of field {kind!r}")


def _tuples(value: Any) -> Any:
    """JSON's lists, within its objects, as tuples."""
    if isinstance(value, dict):
        return {name: _tuples(own) for name, own in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _module_of(told: Mapping[str, Any], arrays: Mapping[str, np.ndarray], module: nn.Module | None) -> ModuleField:
    if module is None:
        raise _WrongModule(f"the model is a torch module, {told['class']}: load it with module={told['class']}(...)")
    import torch

    from kansciml.backends.module_field import ModuleField

    module = _unwrapped(module)
    if (shapes := _shapes(module)) != told["parameters"]:
        own, saved = (
            ", ".join(f"{name} {tuple(shape)}" for name, shape in ones) for ones in (shapes, told["parameters"])
        )
        raise _WrongModule(f"got a module with the parameters {own or '(none)'}: expected those saved, {saved}")
    state = {
        name.removeprefix("module."): torch.from_numpy(np.array(array))
        for name, array in arrays.items()
        if name.startswith("module.")
    }
    module.to(torch.float64)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise _WrongModule(f"the module is not the one saved: {' '.join(str(error).split())[:200]}") from error
    return ModuleField(module, told["state_size"], told["inputs"])


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module that torch.compile wraps."""
    return getattr(module, "_orig_mod", module)


def _shapes(module: nn.Module) -> list[list[Any]]:
    return [[name, list(p.shape)] for name, p in module.named_parameters() if p.requires_grad]


def _read_arrays(folder: Path, content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    data = _kept(folder, content, ARRAYS)
    try:
        return load(data)
    except (TypeError, ValueError, SafetensorError) as error:
        raise _damaged(folder / ARRAYS, error) from error


def _kept(folder: Path, content: Mapping[str, Any], name: str) -> bytes:
    """What a file of the folder holds."""
    data = _bytes(folder / name)
    try:
        if hashlib.sha256(data).hexdigest() != content["files"][name]:
            raise ValueError(f"it is not the file that {DESCRIPTION} was written with")
    except (LookupError, TypeError, ValueError) as error:
        raise _damaged(folder / name, error) from error
    return data


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise file_failure("read", path, error) from error


def _damaged(path: Path, error: Exception) -> KansciError:
    why = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
    return KansciError(f"{path} is damaged ({why}): restore the folder, or save the model again")
