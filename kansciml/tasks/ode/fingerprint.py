"""Fingerprints of values: 64 hexadecimal digits, the same in every process; code counts as much as numbers.

A function is told by its bytecode, constants, defaults and what it refers to: closures, and those globals and functions
of the user's own that it names, followed as far as they go. An object is told by its class, whose methods are followed
in the same way, and its attributes. What Python, this package and its numerical libraries define counts by its name,
what other installed packages define by the files that define it. Not seen: what code reads only while it runs.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

_INSTALLED = frozenset(("site-packages", "dist-packages"))
_BY_NAME = frozenset((__name__.partition(".")[0], "torch", "numpy", "scipy", "pandas"))
_OF_EVERY_CLASS = frozenset(
    ("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__",
     "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__abstractmethods__",
     "_abc_impl", "__dataclass_fields__", "__dataclass_params__", "__parameters__", "__orig_bases__")
)  # fmt: skip
_HANDLES = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called", "_compiled_call_impl")
"""Ends of the names of those attributes of torch modules that are told otherwise, or say nothing."""
_PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes, type(...)))
_DEPTH = 120
"""Objects within objects; deeper ones are told by their class."""


def fingerprint(*values: Any, without: Iterable[Any] = ()) -> str:
    """SHA-256 of values: numbers, text, arrays, tensors, containers, functions, classes, modules, any other objects.

    Args:
        without: objects that do not count wherever they are met, such as parameters that are told separately.
    """
    return _Digest(without).of(values).hex()


class _Digest:
    def __init__(self, without: Iterable[Any] = ()) -> None:
        self.kept = list(without)  # alive, so that no other object gets the same id
        self.found: dict[int, bytes] = {id(value): _hash("left out") for value in self.kept}
        self.open: dict[int, int] = {}
        """Depth of the objects that are being told."""

    def of(self, value: Any) -> bytes:
        """Digest of one value. Whether equal values are one object makes no difference."""
        if type(value) in _PLAIN:
            return _hash(type(value).__name__, value if isinstance(value, bytes) else repr(value))
        if id(value) in self.found:
            return self.found[id(value)]
        if id(value) in self.open or len(self.open) > _DEPTH:
            return _hash("within", str(len(self.open) - self.open.get(id(value), 0)), type(value).__name__)
        self.open[id(value)] = len(self.open)
        digest = _hash(*self.parts(value))
        del self.open[id(value)]
        self.kept.append(value)
        self.found[id(value)] = digest
        return digest

    def parts(self, value: Any) -> Iterable[bytes | str]:
        torch = sys.modules.get("torch")
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return "array", str(value.dtype), str(value.shape), value.tobytes()
        if isinstance(value, np.generic):
            return "number", str(value.dtype), value.tobytes()
        if torch is not None and isinstance(value, torch.Tensor):
            return self.tensor(value)
        if type(value) in (list, tuple):
            return type(value).__name__, *map(self.of, value)
        if isinstance(value, (set, frozenset)):  # in no order of their own
            return "set", *sorted(map(self.of, value))
        if isinstance(value, Mapping) and not hasattr(value, "__dict__"):
            return "mapping", *(self.of(part) for item in value.items() for part in item)
        if isinstance(value, CodeType):
            names = value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars
            return "code", value.co_code, repr(names), self.of(value.co_consts)
        if isinstance(value, FunctionType):
            return self.function(value)
        if isinstance(value, MethodType):
            return "method", self.of(value.__func__), self.of(value.__self__)
        if isinstance(value, type):
            return self.type(value)
        if isinstance(value, ModuleType):
            return "module", value.__name__, _file(value.__name__) if _of_library(value.__name__) else ""
        if isinstance(value, BuiltinFunctionType):
            own = value.__self__
            return "builtin", value.__qualname__, b"" if isinstance(own, (ModuleType, type(None))) else self.of(own)
        return "object", self.of(type(value)), self.of(_state(value))

    def tensor(self, value: Any) -> Iterable[bytes | str]:
        value = value.detach()
        value = value if value.layout == sys.modules["torch"].strided else value.to_dense()
        if value.device.type == "meta":
            return "tensor", str(value.dtype), str(tuple(value.shape))
        flat = value.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
        numbers = flat.view(sys.modules["torch"].uint8).numpy().tobytes()
        return "tensor", str(value.dtype), str(tuple(value.shape)), numbers

    def function(self, value: FunctionType) -> Iterable[bytes | str]:
        if _of_library(value.__module__):
            return (
                "function",
                value.__module__,
                value.__qualname__,
                _file(value.__module__),
                *map(self.of, _cells(value)),
            )
        about = [value.__code__, value.__defaults__, value.__kwdefaults__, _cells(value), vars(value)]
        return "function", *map(self.of, [*about, *_used(value)])

    def type(self, value: type) -> Iterable[bytes | str]:
        name = f"{value.__module__}.{value.__qualname__}"
        if _of_library(value.__module__):
            return "type", name, _file(value.__module__)
        own = [(key, part) for key, part in sorted(vars(value).items()) if key not in _OF_EVERY_CLASS]
        return "type", value.__qualname__, self.of(value.__bases__), self.of(own)


def _state(value: Any) -> Any:
    """What makes an object of its class: attributes, content, or what it would be copied from."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.nn.Module):
        return _module_state(value)
    if isinstance(value, property):
        return [value.fget, value.fset]
    if isinstance(value, (staticmethod, classmethod)):
        return value.__func__
    if torch is not None and isinstance(value, torch.jit.ScriptFunction):
        return value.code
    try:
        wrapped = getattr(value, "__wrapped__", getattr(value, "py_func", None))  # functools.lru_cache, Numba
        reduced = value.__reduce_ex__(2)
    except Exception:  # a file, a lock, a generator: told by its class and plain attributes
        return sorted(getattr(value, "__dict__", {}).items())
    if isinstance(reduced, str):
        return [wrapped, reduced]
    return [wrapped, *reduced[1:3], *(list(part) for part in reduced[3:5] if part is not None)]


def _module_state(module: Any) -> Any:
    """Attributes, parameters, buffers, parts and hooks of a torch module; those of what torch.compile wraps."""
    attributes = dict(vars(module))
    if "_orig_mod" in attributes.get("_modules", ()):
        return module._orig_mod
    code = getattr(module, "code", None)  # of a scripted or traced one
    hooks = [(name, [*part.values()]) for name, part in sorted(attributes.items()) if name.endswith("_hooks") and part]
    plain = [item for item in sorted(attributes.items()) if not item[0].endswith(_HANDLES)]
    return [code if isinstance(code, str) else None, plain, hooks]


def _used(function: FunctionType) -> Iterable[Any]:
    """What a function of the user's own refers to by name: globals, and what lies in modules of the user's own."""
    names = sorted(_names(function.__code__))
    found = [function.__globals__[name] for name in names if name in function.__globals__]
    imported = [sys.modules[name] for name in names if name in sys.modules and not _of_library(name)]
    modules = [part for part in found if isinstance(part, ModuleType) and not _of_library(part.__name__)] + imported
    for module in modules:  # grows: packages hold modules
        inside = [vars(module)[name] for name in names if name in vars(module)]
        found += inside
        modules += [
            part
            for part in inside
            if isinstance(part, ModuleType) and not _of_library(part.__name__) and part not in modules
        ]
    return found


def _cells(function: FunctionType) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not filled yet
            found.append(None)
    return found


def _names(code: CodeType) -> set[str]:
    """Names that a function and those within it refer to."""
    return set(code.co_names).union(*(_names(part) for part in code.co_consts if isinstance(part, CodeType)))


def _of_library(module: str | None) -> bool:
    """Whether a module is Python's, this package's or an installed library's rather than the user's own."""
    top = (module or "").partition(".")[0]
    if top == "__main__":  # whatever was started
        return False
    if top in sys.builtin_module_names or top in sys.stdlib_module_names or top in _BY_NAME:
        return True
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    return file is not None and not _INSTALLED.isdisjoint(Path(file).parts)


@functools.lru_cache(maxsize=256)
def _file(module: str) -> str:
    """Digest of the file of an installed package's module; empty for those that count by name."""
    top, file = module.partition(".")[0], getattr(sys.modules.get(module), "__file__", None)
    if file is None or top in _BY_NAME or top in sys.stdlib_module_names or not Path(file).is_file():
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _hash(*parts: bytes | str) -> bytes:
    """Digest of parts, each with its length: none runs into the next."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()
