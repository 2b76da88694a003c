"""A dynamical system to learn: equations or observed data, spans, save points, scaling, and conserved quantities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from kansciml._errors import UsageError
from kansciml._files import short_name
from kansciml.models.units import Units
from kansciml.tasks.ode.trajectory import Trajectory

RightHandSide = Callable[[float, np.ndarray], np.ndarray]
PLOT_POINTS = 201


@dataclass(frozen=True, eq=False)
class System:
    """An initial value problem du/dt = rhs(t, u), u(t0) = u0, n state components, float64.

    Either `rhs` is known, or `observed` holds the data and the truth is unknown between and beyond its rows.

    Args:
        name: short name for commands and folders, e.g. ``"lotka"``.
        u0: initial state (n,).
        train_end: end of the training span [t0, train_end].
        train_saveat: times (T,) of the training data, strictly increasing, within the training span.
        rhs: rhs(t, u) -> du/dt; u of shape (n,) or a batch (..., n), the result of the same shape.
        t0: initial time.
        test_end: end of the extrapolation span [train_end, test_end]; None: nothing beyond the training span.
        test_saveat: times covering all of [t0, test_end], dense enough for plots; None means equally spaced ones.
        title: name for figures; empty means `name`.
        citation: where the system and its constants come from.
        labels: names of the components; empty means u1, u2, ...
        time_label: axis label.
        center, scale: network input z = (u - center) / scale, which lies in [-1, 1] over the training span.
        rate: root mean square of each component of du/dt over the training span, the factor on the network's output.
            `center`, `scale` and `rate` are given together or left empty: `registry.get_system` then derives them.
        loss_scale: (n,) divisor of the error in the training loss; None: `data.with_normalisation` takes the standard
            deviation of each component over the training span, or ones if the system is `dimensionless`.
        dimensionless: states and times are of order one, and the components have one unit: tolerances are absolute, and
            relative errors pool the components. Otherwise each component and time count in multiples of their range
            over the training span, so that a change of units changes nothing.
        invariants: exactly conserved quantities, name -> function of u (..., n) with values (...).
        hidden: hidden width at which the paper's comparison "at comparable width" is run.
        phase_plane: indices of the two components for phase portraits; None: the first two, if there are two.
        observed: the data, for a system without `rhs`.

    Raises:
        UsageError: an inconsistent value; the message says which, and what was expected.
    """

    name: str
    u0: np.ndarray
    train_end: float
    train_saveat: np.ndarray
    rhs: RightHandSide | None = None
    t0: float = 0.0
    test_end: float | None = None
    test_saveat: np.ndarray = cast(np.ndarray, None)
    title: str = ""
    citation: str = ""
    labels: tuple[str, ...] = ()
    time_label: str = "t"
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    rate: tuple[float, ...] = ()
    loss_scale: np.ndarray = cast(np.ndarray, None)
    dimensionless: bool = False
    invariants: dict[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    hidden: int = 50
    phase_plane: tuple[int, int] | None = None
    observed: Trajectory | None = None

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith(".") or self.name != short_name(self.name):
            raise UsageError(f"got system name {self.name!r}: expected a short name usable as a folder, such as lotka")
        self._set("u0", self._array("u0", self.u0))
        n = len(self.u0)
        self._check_times()
        self._set("title", self.title or self.name)
        self._set("labels", tuple(self.labels) or tuple(f"u{i + 1}" for i in range(n)))
        if len(self.labels) != n:
            raise self._error(f"got {len(self.labels)} labels, expected {n}, one per state component")
        if self.loss_scale is None and self.dimensionless:
            self._set("loss_scale", np.ones(n))
        if self.loss_scale is not None:
            self._set("loss_scale", self._array("loss_scale", self.loss_scale, n))
        given = [key for key in ("center", "scale", "rate") if len(getattr(self, key))]
        if len(given) not in (0, 3):
            raise self._error(f"got only {' and '.join(given)}, expected center, scale and rate, or none of them")
        for key in given:
            self._set(key, tuple(self._array(key, getattr(self, key), n).tolist()))
        for key in ("loss_scale", "scale", "rate"):
            if getattr(self, key) is not None and np.any(np.asarray(getattr(self, key)) <= 0):
                raise self._error(f"got {key} {getattr(self, key)}, expected positive numbers")
        if self.hidden < 1:
            raise self._error(f"got hidden {self.hidden}, expected a positive width")
        if self.phase_plane is None and n >= 2:
            self._set("phase_plane", (0, 1))
        if self.phase_plane is not None and not (
            len(set(self.phase_plane)) == 2 and all(0 <= i < n for i in self.phase_plane)
        ):
            raise self._error(f"got phase_plane {self.phase_plane}, expected two different indices below {n}")
        if self.rhs is not None and self.observed is None:
            self._check_rhs(self.rhs)
        elif self.observed is None or self.rhs is not None:
            raise self._error("expected either rhs, the known equations, or observed, the data, and not both")
        elif not (self.observed.state_size == n and np.array_equal(self.observed.t, self.test_saveat)):
            raise self._error("the observed data must have one column per component and test_saveat as their times")

    @property
    def state_size(self) -> int:
        return len(self.u0)

    @property
    def end(self) -> float:
        """Last time of interest: the end of the test span, or of the training span if there is none."""
        return self.train_end if self.test_end is None else self.test_end

    @property
    def units(self) -> Units:
        """The variables that problems of this system are solved in."""
        if self.dimensionless or not self.scale:
            return Units.plain(self.state_size, self.t0)
        return Units(np.array(self.center), np.array(self.scale), self.t0, self.train_end - self.t0)

    def _set(self, key: str, value: object) -> None:
        object.__setattr__(self, key, value)  # the way to fill in a default of a frozen dataclass

    def _error(self, message: str) -> UsageError:
        return UsageError(f"system {self.name}: {message}")

    def _array(self, key: str, value: object, size: int | None = None) -> np.ndarray:
        """A read-only float64 copy of shape (size,)."""
        try:
            array = np.array(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise self._error(f"got {key} {value!r}, expected numbers") from None
        if array.ndim != 1 or len(array) == 0 or (size is not None and len(array) != size):
            raise self._error(f"got {key} of shape {array.shape}, expected ({'T' if size is None else size},)")
        if not np.isfinite(array).all():
            raise self._error(f"{key} holds a number that is not finite")
        array.setflags(write=False)
        return array

    def _check_times(self) -> None:
        times = np.array([self.t0, self.train_end, self.end], dtype=np.float64)
        too_short = self.test_end is not None and self.test_end <= self.train_end
        if not np.isfinite(times).all() or self.t0 >= self.train_end or too_short:
            raise self._error(
                f"got t0 {self.t0}, train_end {self.train_end}, test_end {self.test_end}: expected increasing times"
            )
        if self.test_saveat is None:
            self._set("test_saveat", np.unique(np.linspace(self.t0, self.end, PLOT_POINTS)))
        for key, end in (("train_saveat", self.train_end), ("test_saveat", self.end)):
            saveat = self._array(key, getattr(self, key)).copy()
            gaps = np.diff(saveat)
            if np.any(gaps <= 0):
                raise self._error(f"{key} must be strictly increasing: sort them, drop repeats")
            # np.arange(0, 3.5, 0.1) and the like miss the ends by rounding, which is far less than they are apart.
            rounding = 1e-12 * max(abs(self.t0), abs(end))
            for i, bound, gap in ((0, self.t0, gaps[:1]), (-1, end, gaps[-1:])):
                if abs(saveat[i] - bound) <= min(rounding, *(1e-3 * gap)):
                    saveat[i] = bound
            if saveat[0] < self.t0 or saveat[-1] > end:
                raise self._error(
                    f"got {key} from {saveat[0]:.17g} to {saveat[-1]:.17g}, expected times within {self.t0:.17g} to"
                    f" {end:.17g}"
                )
            self._set(key, self._array(key, saveat))
        if self.test_saveat[0] != self.t0 or self.test_saveat[-1] != self.end:
            raise self._error(f"test_saveat must start at {self.t0:.17g} and end at {self.end:.17g}")

    def _check_rhs(self, rhs: RightHandSide) -> None:
        """Evaluate once, alone and in a batch, so that a malformed right-hand side is reported where it was written."""
        n = len(self.u0)
        # No batch axis is as long as the state, so that unpacking the wrong axis cannot go unnoticed.
        for u in (self.u0, np.broadcast_to(self.u0, (n + 1, n + 2, n))):
            try:
                du = np.asarray(rhs(self.t0, u), dtype=np.float64)
            except Exception as error:
                text = " ".join(str(error).split())
                raise self._error(
                    f"rhs(t, u) with u of shape {u.shape} raised {type(error).__name__}: {text}; expected it to"
                    " accept (n,) and any batch (..., n), so use u[..., i] for component i"
                ) from error
            if du.shape != u.shape or not np.isfinite(du).all():
                raise self._error(
                    f"rhs(t, u) with u = u0 of shape {u.shape} gave shape {du.shape}, expected finite numbers of the"
                    " shape of u, so use u[..., i] for component i and stack on the last axis"
                )
