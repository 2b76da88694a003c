"""A layer of Lux, defined by a Julia file of the user's, as a vector field. NumPy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from kansciml._errors import UsageError
from kansciml._files import file_failure
from kansciml.models.units import Units

ENDING = ".jl"


@dataclass(frozen=True)
class LuxField:
    """A layer of Lux as the field of an `OdeProblem` (julia backend only).

    The last value of the file is the layer, a Lux.AbstractLuxLayer that maps columns (u, w, t), states in the unit of
    the data followed by the inputs and the time where there are any, to du/dt. Or it is a function that gives the layer
    of one argument, the NamedTuple (; center, scale, rate) of vectors by which built-in fields are normalised:
    du/dt = rate .* net((x .- center) ./ scale). For example::

        using Lux

        function field((; center, scale, rate))
            n_in, n = length(center), length(rate)
            return Chain(x -> (x .- center) ./ scale, Dense(n_in => 20, gelu), Dense(20 => n), y -> rate .* y)
        end

    The flat parameter vector is that of Julia's ComponentArrays, in float64; its initial values by a seed are those of
    ``Lux.setup(Xoshiro(seed), layer)``. States of the layer are those of seed 0, in test mode.

    Args:
        name: of the file. source: its text, which stands alone: packages can be loaded, other files cannot.
        state_size: n. inputs: number m of inputs. time: whether it is given the time.
        center, scale, rate: what a function in the file is given, (n + m + time,) twice and (n,).
        n_parameters: 0 until the Julia backend has read the file, see `JuliaBackend.read`.
        units: set by `OdeProblem.in_own_units`: the field is then dv/dtau.
    """

    name: str
    source: str = field(repr=False)
    state_size: int
    inputs: int = 0
    time: bool = False
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    rate: tuple[float, ...] = ()
    n_parameters: int = 0
    units: Units | None = field(default=None, compare=False)
    draw: Callable[[int], np.ndarray] | None = field(default=None, compare=False, repr=False)
    """Initial parameters by a seed, once the backend has read the file."""

    model = "lux"

    def initial_parameters(self, seed: int = 0) -> Float64[np.ndarray, " P"]:
        """As ``Lux.setup`` draws them. Raises UsageError before the Julia backend has read the file."""
        if self.draw is None:
            raise UsageError(f"{self.name} was not read yet: the Julia backend does, see JuliaBackend.read")
        return self.draw(seed)

    def label(self) -> str:
        """The name of the file without its ending."""
        return self.name.removesuffix(ENDING)

    def in_units(self, units: Units) -> LuxField:
        """The same layer as dv/dtau of v: see `Units`."""
        return replace(self, units=units)

    def inputs_in(self, values: Float64[np.ndarray, "L m"]) -> Float64[np.ndarray, "L m"]:
        """Inputs as the layer `in_units` is given them: as they are."""
        return values

    def described(self) -> dict[str, Any]:
        """Its arguments as JSON has them, but for `source` and `units`, and its ``kind``, ``lux``."""
        names = ("name", "state_size", "inputs", "time", "center", "scale", "rate", "n_parameters")
        return {"kind": "lux", **{name: getattr(self, name) for name in names}}


def read_source(path: Path) -> str:
    """The text of a Julia file.

    Raises:
        UsageError: it does not end in .jl, is not there, or is no text.
    """
    if path.suffix != ENDING:
        raise UsageError(f"got field {path}: expected a Julia file, whose name ends in {ENDING}")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist: expected a Julia file that ends in a layer of Lux") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not readable text: expected a Julia file (UTF-8)") from None
    except OSError as error:
        raise file_failure("read", path, error) from error
