"""Sums over coordinates: recognised, and minimised axis by axis."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import ngvi
from ngvi.nes.axes import AxisSearch

INFINITE = np.full(4, np.inf)


def searched(fun, x0=(0.5, 0.5, 0.5, 0.5), lower=-INFINITE, upper=INFINITE):
    """The search of a function to its end, and its evaluations."""
    x0, calls = np.array(x0), 0
    axes = AxisSearch(x0, np.full(4, 2.0), lower, upper, 1e-11, seed=0)
    while not axes.ended:
        points = axes.ask()
        assert points.shape[0] <= axes.most
        assert (points >= lower).all() and (points <= upper).all()
        axes.tell(np.array([fun(x) for x in points]))
        calls += len(points)
    return axes, calls


SHIFT = np.array([1.3, -2.1, 0.4, 3.3])


def ellipsoid(x):
    return (np.logspace(0, 6, 4) * (x - SHIFT) ** 2).sum()


def rastrigin(x):
    z = x - SHIFT
    return 40 + (z**2 - 10 * np.cos(2 * np.pi * z)).sum()


def kinked(x):
    return np.abs(x - SHIFT).sum()


def lopsided(x):
    """A valley ten times narrower on one of its sides."""
    z = np.where(x > SHIFT, 10, 1) * (x - SHIFT)
    return 40 + (z**2 - 10 * np.cos(2 * np.pi * z)).sum()


@pytest.mark.parametrize(
    ("fun", "most"),
    [(ellipsoid, 300), (rastrigin, 1600), (kinked, 900), (lopsided, 3e3)],
)
def test_finds_the_best_valley_of_a_sum(fun, most):
    axes, calls = searched(fun)
    assert axes.solved and calls < most
    np.testing.assert_allclose(axes.x0, SHIFT, atol=1e-6)
    assert axes.base < 1e-9


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: ((x - SHIFT) ** 2).sum() + 1e-6 * x[0] * x[3],
        lambda x: rastrigin(x) ** 1.01,
        lambda x: np.linalg.norm(x - SHIFT),
        lambda x: np.random.default_rng(int(1e6 * abs(x.sum()))).random(),
    ],
)
def test_anything_else_costs_d_plus_two_evaluations(fun):
    axes, calls = searched(fun)
    assert not axes.solved and calls == 4 + 2


def test_a_failed_evaluation_ends_it():
    axes, calls = searched(lambda x: np.nan if x[2] > 1.5 else ellipsoid(x))
    assert not axes.solved and calls < 100


def test_lines_grow_as_far_as_they_must_and_end_at_the_bounds():
    axes, _ = searched(lambda x: ((x - 1e4) ** 2).sum())
    np.testing.assert_allclose(axes.x0, 1e4, rtol=1e-6)
    lower, upper = np.full(4, -1.0), np.array([0.75, 1.0, 2.0, 8.0])
    axes, _ = searched(lambda x: -x.sum(), lower=lower, upper=upper)
    assert axes.solved
    np.testing.assert_array_equal(axes.x0, upper)


def test_a_flat_function_ends_it_soon():
    axes, calls = searched(lambda x: 3.0)
    assert axes.solved and calls < 200


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_minimize_uses_it_and_says_so(dtype):
    shift = SHIFT.astype(dtype)

    def fun(x):
        z = x - shift
        return 40 + (z**2 - 10 * jnp.cos(2 * jnp.pi * z)).sum()

    x0 = np.zeros(4, dtype)
    traced = ngvi.minimize(fun, x0)
    called = ngvi.minimize(lambda x: float(fun(x)), x0, vectorized=False)
    for found in (traced, called):
        assert found.success and found.message.startswith("axes: ")
        np.testing.assert_allclose(found.x, SHIFT, atol=1e-3)
        assert set(found.history["run"]) == {-1}
        assert found.history["evaluations"][-1] == found.nfev < 2500
    largest = ngvi.minimize(
        lambda x: -fun(x), x0, maximize=True, ftarget=-1.0, restarts=0
    )
    assert largest.success and largest.message.startswith("ftarget: ")
    plain = ngvi.minimize(fun, x0, method="cma", budget=200)
    assert -1 not in plain.history["run"]


def test_the_budget_holds():
    for budget in (130, 150, 171):
        found = ngvi.minimize(rastrigin, np.zeros(4), budget=budget, vectorized=False)
        assert budget - 8 < found.nfev <= budget
    stopping = ngvi.nes.Stopping(maxiter=3)
    found = ngvi.minimize(rastrigin, np.zeros(4), stopping=stopping, vectorized=False)
    assert found.nit == 3 and found.message.startswith("maxiter: 3 ")
    assert not found.success
