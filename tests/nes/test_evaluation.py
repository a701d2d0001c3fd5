"""Objectives of every kind, and those that fail."""

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ngvi
from ngvi.executors import Workers
from ngvi.nes.evaluation import HostObjective
from ngvi.nes.layout import Layout
from ngvi.nes.tracing import try_trace

LAYOUT, X0 = Layout.of(np.zeros(3))
POINTS = np.arange(12.0).reshape(4, 3)


def sphere(x):
    return (x**2).sum()


def fails_at_some(x):
    if x[0] == 3:
        raise OSError("disk full")
    if x[0] == 6:
        return np.nan
    return sphere(x)


def traced(fun, vectorized=False):
    return try_trace(fun, LAYOUT, X0, (), 1.0, vectorized)


def test_what_can_be_traced_is():
    rng = np.random.default_rng(0)
    assert traced(sphere) is not None
    assert traced(jax.jit(lambda x: jnp.sin(x).sum())) is not None
    assert traced(lambda x: np.sum(x**2)) is not None
    assert traced(lambda x: (x**2).sum(1), vectorized=True) is not None
    for python_only in (
        lambda x: float(x.sum()),
        lambda x: sphere(x) if x[0] > 0 else 0.0,
        # Compiled, the noise would be the same in every evaluation.
        lambda x: sphere(x) + rng.normal(),
        lambda x: (sphere(x) + rng.normal(size=3)).sum(),
    ):
        assert traced(python_only) is None


def test_an_unhashable_function_can_be_traced():
    class Model:
        __hash__ = None

        def __call__(self, x):
            return (x**2).sum()

    np.testing.assert_allclose(traced(Model())(POINTS), (POINTS**2).sum(1))


@pytest.mark.parametrize(
    ("fun", "vectorized", "message"),
    [
        (lambda x: x, None, r"one number, got shape \(3,\)"),
        (lambda x: (x, 1), None, "one number, got a tuple"),
        (lambda x: 1j * x.sum(), None, "real numbers, got complex"),
        (lambda x: x, False, r"one number, got shape \(3,\)"),
        (lambda x: None, False, "got a NoneType"),
        (lambda x: "text", False, "one real number, got a str"),
        (lambda x: (x**2).sum(), True, r"shape \(2,\), got shape \(\)"),
        (lambda x: np.zeros(3) * float(x[0, 0]), True, r"\(5,\), got shape \(3,\)"),
    ],
)
def test_an_objective_that_returns_something_else_is_refused(fun, vectorized, message):
    with pytest.raises(ValueError, match=message):
        ngvi.minimize(fun, np.zeros(3), vectorized=vectorized)


def test_what_is_not_callable_is_refused():
    with pytest.raises(TypeError, match="fun must be callable, got ndarray"):
        ngvi.minimize(np.zeros(3), np.zeros(3))


@pytest.mark.parametrize("executor", [None, ThreadPoolExecutor(2)])
def test_failures_are_counted_and_the_rest_kept(executor):
    objective = HostObjective(fails_at_some, LAYOUT, -1.0, executor=executor)
    values = objective(POINTS)
    np.testing.assert_array_equal(np.isnan(values), [False, True, True, False])
    np.testing.assert_array_equal(values[[0, 3]], -(POINTS**2).sum(1)[[0, 3]])
    tally = objective.tally
    assert tally.raised == 1 and tally.first_error == "OSError: disk full"


def test_one_point_does_not_take_a_batch_along():
    def fun(points):
        return np.array([fails_at_some(x) for x in points])

    objective = HostObjective(fun, LAYOUT, vectorized=True)
    np.testing.assert_array_equal(
        np.isnan(objective(POINTS)), [False, True, True, False]
    )
    assert objective.tally.raised == 1


def test_what_the_objective_writes_moves_no_point():
    def fun(x):
        x += 100
        return float(x.sum())

    objective = HostObjective(fun, LAYOUT)
    points = POINTS.copy()
    np.testing.assert_array_equal(objective(points), POINTS.sum(1) + 300)
    np.testing.assert_array_equal(points, POINTS)


def test_workers_are_checked():
    assert Workers(-1).count == os.cpu_count()
    with pytest.raises(TypeError, match="cannot be sent to worker processes"):
        ngvi.minimize(lambda x: 0.0, np.zeros(3), workers=2)
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(ValueError, match="not both"):
            ngvi.minimize(sphere, np.zeros(3), workers=2, executor=pool)
        with pytest.raises(ValueError, match="single points"):
            ngvi.minimize(sphere, np.zeros(3), vectorized=True, executor=pool)


def test_a_search_goes_around_failures():
    def fun(x):
        if x[0] < -0.2:
            raise ValueError("outside")
        return np.inf if x[1] > 1 else sphere(x - 0.3)

    options = {"ftarget": 1e-6, "method": "cma"}
    with ThreadPoolExecutor(2) as pool:
        found = ngvi.minimize(fun, np.full(3, 0.8), executor=pool, **options)
    plain = ngvi.minimize(fun, np.full(3, 0.8), vectorized=False, **options)
    assert found.success and found.first_error == "ValueError: outside"
    assert 0 < found.nfailed < found.nfev / 2
    np.testing.assert_array_equal(found.x, plain.x)
    assert (found.nfev, found.nfailed) == (plain.nfev, plain.nfailed)


def test_a_traced_search_counts_its_failures():
    found = ngvi.minimize(
        lambda x: jnp.log(x).sum() + (1 / x).sum(), np.full(3, 0.2), ftarget=3.0001
    )
    assert found.success and found.nfailed > 0
    np.testing.assert_allclose(found.x, 1, atol=0.05)


def test_nothing_but_failures_ends_with_the_budget_and_a_warning():
    def broken(x):
        raise NameError("typo")

    with pytest.warns(RuntimeWarning, match="the first one: NameError: typo") as seen:
        found = ngvi.minimize(broken, np.ones(3), budget=50)
    assert [one.filename for one in seen] == [__file__]
    assert not found.success and found.nfailed == found.nfev == 49
    np.testing.assert_array_equal(found.x, np.ones(3))
    assert found.fun == np.inf
