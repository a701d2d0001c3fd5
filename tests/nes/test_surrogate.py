"""A quadratic model that saves evaluations."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import ngvi
from ngvi.nes.surrogate import Frame, Model, Surrogate
from tests.nes.runs import rotated_ellipsoid

DIM = 4
MATRIX = rotated_ellipsoid(DIM, 1e4, seed=1)
SHIFT = np.array([1.0, -2.0, 0.5, 3.0])


def quadratic(x):
    return 7 + (x - SHIFT) @ MATRIX @ (x - SHIFT)


def frame(seed=0):
    root = np.random.default_rng(seed).standard_normal((DIM, DIM))
    return Frame(np.ones(DIM), np.linalg.inv(root).T, root)


def of_points(count, fun=quadratic):
    """A surrogate that has seen so many points."""
    surrogate, rng = Surrogate(DIM, 8), np.random.default_rng(0)
    y = 1 + rng.standard_normal((count, DIM))
    values = np.array([fun(x) for x in y])
    surrogate.evaluate(
        y - 1, Frame(np.ones(DIM), np.eye(DIM), np.eye(DIM)), lambda rows: values[rows]
    )
    return surrogate


def test_the_model_of_a_quadratic_is_exact_in_any_frame():
    surrogate = of_points(20)
    eps = np.random.default_rng(1).standard_normal((8, DIM))
    row = surrogate.improve(eps, frame())
    model = surrogate.model
    assert isinstance(model, Model) and row is not None
    others = np.random.default_rng(2).standard_normal((50, DIM))
    exact = [quadratic(x) for x in others]
    np.testing.assert_allclose(model(others), exact, rtol=1e-5)
    np.testing.assert_allclose(model.lowest(), SHIFT, atol=1e-4)
    # The lowest point is the new draw, drawn in to where draws lie.
    z = frame().whiten(SHIFT)
    length = min(np.linalg.norm(z), np.sqrt(DIM) + 2 * DIM / (DIM + 2))
    np.testing.assert_allclose(eps[row], z / np.linalg.norm(z) * length, atol=1e-3)


def test_few_points_give_a_diagonal_and_fewer_give_none():
    surrogate = of_points(12)
    surrogate.improve(np.zeros((8, DIM)), frame())
    hessian = surrogate.model.hessian
    np.testing.assert_array_equal(hessian, np.diag(np.diag(hessian)))
    surrogate = of_points(8)
    assert surrogate.improve(np.zeros((8, DIM)), frame()) is None


def test_one_evaluation_does_where_the_model_is_right_and_all_where_it_is_not():
    rng, known = np.random.default_rng(3), []
    for fun in (quadratic, lambda x: np.cos(300 * x.sum())):
        surrogate = of_points(30, fun)
        for _ in range(8):
            draws = rng.standard_normal((8, DIM)) / 3
            surrogate.improve(draws, frame())
            y = frame().place(draws)
            values, which = surrogate.evaluate(
                draws,
                frame(),
                lambda rows, y=y, fun=fun: np.array([fun(x) for x in y[rows]]),
            )
            exact = np.array([fun(x) for x in y])
            np.testing.assert_array_equal(values[which], exact[which])
            assert values[~which].size == 0 or values[~which].min() > exact[which].min()
            if fun is quadratic:
                np.testing.assert_allclose(values, exact, rtol=1e-4)
        known.append(which.sum())
        assert (surrogate.patience > 0) == (fun is not quadratic)
    assert known == [1, 8]


def test_failures_are_told_and_not_remembered():
    surrogate = of_points(30)
    eps = np.random.default_rng(3).standard_normal((8, DIM))
    surrogate.improve(eps, frame())
    values, known = surrogate.evaluate(
        eps, frame(), lambda rows: np.full(len(rows), np.nan)
    )
    assert (
        known.all() and np.isnan(values).all() and np.isfinite(surrogate.values).all()
    )


def test_arrays_bring_it_back():
    surrogate, copy = of_points(30), Surrogate(DIM, 8)
    surrogate.improve(np.zeros((8, DIM)), frame())
    copy.restore(surrogate.to_arrays())
    points = np.random.default_rng(1).standard_normal((5, DIM))
    np.testing.assert_array_equal(surrogate.model(points), copy.model(points))
    np.testing.assert_array_equal(surrogate.y, copy.y)
    assert (surrogate.share, surrogate.rest) == (copy.share, copy.rest)


@pytest.mark.parametrize("bounds", [None, [(-5, 5)] * DIM])
def test_minimize_needs_far_fewer_evaluations(bounds):
    options = {
        "ftarget": 7 + 1e-8,
        "sigma0": 1.0,
        "bounds": bounds,
        "vectorized": False,
    }
    with jax.enable_x64(True):
        with_model = ngvi.minimize(quadratic, np.zeros(DIM), **options)
        without = ngvi.minimize(quadratic, np.zeros(DIM), method="cma", **options)
    assert with_model.success and without.success
    assert 3 * with_model.nfev < without.nfev
    counts = with_model.history["evaluations"]
    assert counts[-1] == with_model.nfev and (np.diff(counts) >= 1).all()
    assert with_model.fun == quadratic(with_model.x)


def test_a_valley_that_ends_above_the_best_one_is_left():
    def valleys(x):
        """Ten quadratic valleys, the deepest of them in 2 of every dimension."""
        centers = np.random.default_rng(0).uniform(-4, 4, (9, DIM))
        depths = np.arange(1, 10) * 3.0
        others = depths + ((x - centers) ** 2 @ np.arange(1, DIM + 1.0))
        return min(others.min(), ((x - 2) ** 2 @ np.arange(1, DIM + 1.0)))

    found = ngvi.minimize(
        valleys, np.full(DIM, -1.0), sigma0=1.5, ftarget=1e-3, seed=1, vectorized=False
    )
    assert found.success
    assert any(reason.startswith("hopeless: ") for reason in found.stops)
