"""Checks the shapes in annotations of the package (jaxtyping) while tests run: a function's first calls in a test."""

import inspect
import sys
from collections import Counter
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import FunctionType
from typing import Any, get_args

import torch
from beartype import beartype
from jaxtyping import AbstractArray, TypeCheckError, jaxtyped
from torch import fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode

FIRST = 50
"""Calls of a function that a test checks: a training makes thousands alike, and would take half as long again."""
calls: Counter = Counter()
"""Of this test, by function."""
ROOMS = ("kansciml.layers", "kansciml.models", "kansciml.analysis", "kansciml.backends", "kansciml.tasks")


def _shaped(hint: Any) -> bool:
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_shaped, get_args(hint)))


def _traced(arguments: tuple) -> bool:
    """Whether a graph is recorded of what runs now: its sizes may be open, and a check would be recorded too."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return True
    return get_proxy_mode() is not None or any(isinstance(value, fx.Proxy) for value in arguments)


def checked(function):
    """The function with its annotated shapes checked, or itself where it has none.

    What it refuses itself, it refuses with its own words: only what it would take is a violation.
    """
    own = inspect.unwrap(function).__globals__

    def hint(annotation: Any) -> Any:
        try:
            found = eval(annotation, own) if isinstance(annotation, str) else annotation
        except (NameError, AttributeError):  # of a name that is imported for the type checker alone
            return Any
        return found if _shaped(found) else Any

    signature = inspect.signature(function)
    parameters = [one.replace(annotation=hint(one.annotation)) for one in signature.parameters.values()]
    returned = hint(signature.return_annotation)
    if all(one is Any for one in (returned, *(one.annotation for one in parameters))):
        return function

    @wraps(function)
    def relay(*args, **kwargs):
        return function(*args, **kwargs)

    relay.__signature__ = signature.replace(parameters=parameters, return_annotation=returned)
    strict = jaxtyped(relay, typechecker=beartype)

    @wraps(function)
    def call(*args, **kwargs):
        # compiling is asked first: a program that has read the count would be made anew when that changes
        if torch.compiler.is_compiling() or calls[function] >= FIRST or _traced(args):
            return function(*args, **kwargs)
        calls[function] += 1
        try:
            return strict(*args, **kwargs)
        except TypeCheckError:
            function(*args, **kwargs)
            raise

    return call


def check_all(owner: Any, module: str) -> None:
    """Check all functions and methods that a module, or a class of it, defines."""
    for name, value in list(vars(owner).items()):
        if isinstance(value, FunctionType) and value.__module__ == module:
            setattr(owner, name, checked(value))
        elif isinstance(value, (classmethod, staticmethod)):
            setattr(owner, name, type(value)(checked(value.__func__)))
        elif isinstance(value, property) and isinstance(value.fget, FunctionType):
            setattr(owner, name, property(checked(value.fget), value.fset, value.fdel, value.__doc__))
        elif isinstance(value, type) and value.__module__ == module and value is not owner:
            check_all(value, module)


class _Loader(SourceFileLoader):
    def exec_module(self, module):
        super().exec_module(module)
        check_all(module, module.__name__)


class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None) -> ModuleSpec | None:
        if not any(name == room or name.startswith(f"{room}.") for room in ROOMS):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Check what is imported from now on."""
    assert not any(room in sys.modules for room in ROOMS), "the package was imported before its shapes are checked"
    sys.meta_path.insert(0, _Finder)
