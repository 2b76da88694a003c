"""A dynamical system to learn: equations or observed data, spans, save points, scaling, and conserved quantities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from kansciml._errors import UsageError
from kansciml._files import short_name
from kansciml.models.hybrid_spec import Physics
from kansciml.models.units import Units
from kansciml.tasks.ode.trajectory import Trajectory

_LATER = (
    "trajectories train_ends validation unseen starts box time_dependent stiff log_time physics field_settings"
    " training_settings"
).split()
"""Attributes that the first version had not."""
RightHandSide = Callable[[float, np.ndarray], np.ndarray]
PLOT_POINTS = 201


@dataclass(frozen=True, eq=False)
class System:
    """An initial value problem du/dt = rhs(t, u), u(t0) = u0, n state components, float64.

    `rhs` is known, or `trajectories` hold the data and the truth is unknown between and beyond their rows, or both:
    then `rhs` tells the truth behind data that may be noisy. Of several trajectories some are trained on, some may
    validate, some are unseen: `u0`, `t0` and the spans below are those of the first that is trained on.

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
        trajectories: the data, K of them, all of the same components and inputs; none: those of `rhs` from `u0`.
        train_ends: end of the training span of each of them; empty: `train_end`.
        validation: indices of those that neither train nor test.
        unseen: indices of those that are held out to test from initial states that were never trained on.
        starts: true initial states (K, n), for `rhs` with `trajectories`; None: their first rows.
        box: lowest and highest initial state, (n,) each, between which further ones are drawn; None: none are.
        time_dependent: whether du/dt depends on t itself, which a field is then given; None: what `rhs` shows,
            evaluated at one state and several times; without `rhs` it does not.
        physics: the terms of du/dt that are known to a model, which then learns the rest; None: it learns all.
        stiff: whether explicit integrators need far more steps than the solution has features.
        log_time: whether figures show times on a logarithmic axis.
        field_settings, training_settings: settings of `FieldConfig` and of `FlatTraining` that suit the system better
            than their defaults, which they replace.

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
    trajectories: tuple[Trajectory, ...] = ()
    train_ends: tuple[float, ...] = ()
    validation: tuple[int, ...] = ()
    unseen: tuple[int, ...] = ()
    starts: np.ndarray | None = None
    box: tuple[np.ndarray, np.ndarray] | None = None
    time_dependent: bool = cast(bool, None)
    stiff: bool = False
    log_time: bool = False
    physics: Physics | None = None
    field_settings: dict[str, Any] = field(default_factory=dict)
    training_settings: dict[str, Any] = field(default_factory=dict)

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
        if self.rhs is None and not self.trajectories:
            raise self._error("expected either rhs, the known equations, or trajectories, the data")
        if self.rhs is not None:
            self._check_rhs(self.rhs)
        if self.time_dependent is None:
            self._set("time_dependent", self.rhs is not None and self._varies_with_time(self.rhs))
        if self.box is not None:
            low, high = (self._array("box", bound, n) for bound in self.box)
            if np.any(low > high):
                raise self._error(f"got box {low.tolist()} to {high.tolist()}: expected lowest, then highest values")
            self._set("box", (low, high))
        self._check_trajectories()
        if self.physics is not None:
            try:
                self.physics.equations(n, self.input_size)
            except UsageError as error:
                raise self._error(str(error)) from error

    def __getstate__(self) -> dict[str, object]:
        """Attributes, for copies and fingerprints: those of later versions where they are set, so that a system that
        earlier versions knew keeps its fingerprint."""
        values = {key: getattr(self, key) for key in _LATER}
        later = {key: value for key, value in values.items() if isinstance(value, np.ndarray) or value}
        return {key: value for key, value in vars(self).items() if key not in _LATER} | {"observed": None} | later

    @property
    def state_size(self) -> int:
        return len(self.u0)

    @property
    def training(self) -> tuple[int, ...]:
        """Indices of the trajectories that are trained on."""
        return tuple(k for k in range(len(self.trajectories)) if k not in (*self.validation, *self.unseen))

    @property
    def input_size(self) -> int:
        """Number m of known inputs that drive the system."""
        return len(self.trajectories[0].input_labels) if self.trajectories else 0

    @property
    def span(self) -> float:
        """Length of the training span, of the longest where there are several."""
        lengths = (self.end_of(k) - float(self.trajectories[k].t[0]) for k in self.training)
        return max(lengths, default=self.train_end - self.t0)

    def end_of(self, k: int) -> float:
        """Last time of trajectory k that is trained on."""
        return self.train_ends[k] if self.train_ends else self.train_end

    @property
    def end(self) -> float:
        """Last time of interest: the end of the test span, or of the training span if there is none."""
        return self.train_end if self.test_end is None else self.test_end

    @property
    def units(self) -> Units:
        """The variables that problems of this system are solved in."""
        if self.dimensionless or not self.scale:
            return Units.plain(self.state_size, self.t0)
        first = min((float(self.trajectories[k].t[0]) for k in self.training), default=self.t0)
        return Units(np.array(self.center), np.array(self.scale), first, self.span)

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

    def _varies_with_time(self, rhs: RightHandSide) -> bool:
        """Whether the slopes at the initial state differ between times of the span, of no common period."""
        times = self.t0 + (self.end - self.t0) * np.array([0.0, 0.1234, 0.3137, 0.6180, 0.8611])
        try:
            first, *others = (np.asarray(rhs(float(t), self.u0), dtype=np.float64) for t in times)
        except Exception as error:
            text = " ".join(str(error).split())
            raise self._error(
                f"rhs(t, u) raised {type(error).__name__} at a time between {self.t0:g} and {self.end:g}: {text}"
            ) from error
        return any(not np.array_equal(first, other) for other in others)

    def _check_trajectories(self) -> None:
        n, count = len(self.u0), len(self.trajectories)
        self._set("trajectories", tuple(self.trajectories))
        for key in ("validation", "unseen"):
            self._set(key, tuple(getattr(self, key)))
        held = (*self.validation, *self.unseen)
        if len(set(held)) != len(held) or not set(held) <= set(range(count)):
            raise self._error(f"got validation {self.validation} and unseen {self.unseen}: expected each below {count}")
        if count and not self.training:
            raise self._error("no trajectory is left to train on: hold out fewer")
        if self.train_ends and len(self.train_ends) != count:
            raise self._error(f"got {len(self.train_ends)} train_ends, expected {count}, one per trajectory")
        for one in self.trajectories:
            first = self.trajectories[0]
            if one.state_size != n:
                raise self._error(f"{one.name or 'the data'}: got {one.state_size} components, expected {n}")
            if one.labels != first.labels:
                raise self._error(
                    f"trajectories {first.name} and {one.name} have components {', '.join(first.labels)} and"
                    f" {', '.join(one.labels)}: expected the same, in one order"
                )
            if (one.input_labels, one.input_kind) != (first.input_labels, first.input_kind):
                raise self._error(f"trajectories {first.name} and {one.name} have different inputs: expected the same")
            if one.clock.since != first.clock.since:
                raise self._error(
                    f"times of trajectories {first.name} and {one.name} count from {first.clock.since or 'zero'} and"
                    f" {one.clock.since or 'zero'}: read them from one table, or the later ones with the clock of the"
                    " first"
                )
        if self.starts is not None:
            starts = np.array(self.starts, dtype=np.float64)
            if starts.shape != (count, n) or not np.isfinite(starts).all():
                raise self._error(f"got starts of shape {starts.shape}, expected ({count}, {n}), finite")
            starts.setflags(write=False)
            self._set("starts", starts)
        if self.rhs is None and not np.array_equal(self.trajectories[self.training[0]].t, self.test_saveat):
            raise self._error("test_saveat must be the times of the first trajectory that is trained on")
