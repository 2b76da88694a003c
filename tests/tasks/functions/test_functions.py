"""The functions to learn: values against closed forms, data that can be drawn again, and what is refused."""

from itertools import product

import numpy as np
import pytest

from kansciml import UsageError
from kansciml.tasks.functions.registry import TARGETS, get_target
from kansciml.tasks.functions.target import KINDS, samples

X = np.linspace(1.0, 3.9, 7)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("jv", (0.5, X), np.sqrt(2 / (np.pi * X)) * np.sin(X)),
        ("yv", (0.5, X), -np.sqrt(2 / (np.pi * X)) * np.cos(X)),
        ("kv", (0.5, X), np.sqrt(np.pi / (2 * X)) * np.exp(-X)),
        ("ellipkinc", (X / 4, 0.0), X / 4),
        ("ellipeinc", (X / 4, 1.0), np.sin(X / 4)),
        ("lpmv", (2.0, X / 5), -3 * X / 5 * np.sqrt(1 - (X / 5) ** 2)),
        ("I.6.20", (X, 1.0), np.exp(-(X**2) / 2) / np.sqrt(2 * np.pi)),
        ("I.6.20b", (X, X, 2.0), np.full(7, 1 / np.sqrt(8 * np.pi))),
        ("I.15.3x", (0.0, X / 5), 1 / np.sqrt(1 - (X / 5) ** 2)),
        ("I.16.6", (np.tanh(X), np.tanh(1.0)), np.tanh(X + 1)),
        ("I.29.16", (1.0, X, 0.0), 2 * np.sin(X / 2)),
        ("I.30.3", (2.0, X), 4 * np.cos(X / 2) ** 2),
        ("III.9.52", (2.0, X, X), np.full(7, 2.0)),
        ("II.35.18", (1.0, 0.0 * X), np.full(7, 0.5)),
        ("kink", (X, -2 * X), np.zeros(7)),
    ],
)
def test_values_are_those_of_closed_forms(name, arguments, expected):
    np.testing.assert_allclose(get_target(name).values(*arguments), expected, rtol=1e-12, atol=1e-14)


def test_the_spherical_harmonic_is_normalised():
    edges = (np.arange(400) + 0.5) / 400
    theta, phi = np.meshgrid(np.pi * edges, 2 * np.pi * edges)
    weight = np.sin(theta) * 2 * np.pi**2 / 400**2
    assert np.sum(get_target("sph_harm").values(theta, phi) ** 2 * weight) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_every_function_is_finite_up_to_the_corners_of_its_box_and_varies(target):
    corners = np.array(list(product((-1.0, 0.0, 1.0), repeat=target.inputs)))
    assert target.kind in KINDS and np.isfinite(target.at(corners)).all()
    mean, deviation = target.spread
    assert np.isfinite(mean) and deviation > 0


def test_the_kinds_are_as_many_as_are_to_be_compared():
    counts = [sum(target.kind == kind for target in TARGETS.values()) for kind in ("feynman", "special", "rough")]
    assert np.all(np.array(counts) >= (10, 5, 3))


def test_samples_are_standardised_repeatable_and_share_their_points_between_noises():
    target = get_target("jv")
    plain, fresh = samples(target, 4000, 500, 0.0, 3)
    again, _ = samples(target, 4000, 500, 0.0, 3)
    noisy, same = samples(target, 4000, 500, 0.2, 3)
    np.testing.assert_array_equal(plain.y, again.y)
    np.testing.assert_array_equal(plain.x, noisy.x)
    np.testing.assert_array_equal(fresh.y, same.y)
    assert (noisy.y - plain.y).std() == pytest.approx(0.2, rel=0.05)
    assert abs(plain.y.mean()) < 0.06 and plain.y.std() == pytest.approx(1, rel=0.06)
    assert not np.isin(fresh.x, plain.x).any() and np.abs(plain.x).max() <= 1
    assert not np.array_equal(samples(target, 10, 10, 0.0, 4)[0].x, plain.x[:10])


@pytest.mark.parametrize(
    ("change", "words"),
    [({"n_train": 1}, "expected at least 2"), ({"noise": -0.1}, "noise -0.1"), ({"seed": -1}, "seed -1")],
)
def test_what_makes_no_data_is_refused(change, words):
    with pytest.raises(UsageError, match=words):
        samples(get_target("jv"), **{"n_train": 10, "n_test": 10, "noise": 0.0, "seed": 0, **change})


def test_an_unknown_function_lists_those_there_are():
    with pytest.raises(UsageError, match="unknown function 'sin'.*I.6.20, .*weierstrass"):
        get_target("sin")
