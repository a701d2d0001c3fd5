"""The map onto a box, and searches whose optimum lies on its boundary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import Bounds

import ngvi
from ngvi.nes.bounds import as_limits, make_box

LOWER = np.array([-1.0, 0.0, -np.inf, -np.inf])
UPPER = np.array([1.0, np.inf, 2.0, np.inf])


def box_of(dtype=np.float64):
    start, sigma = jnp.zeros(4, dtype), jnp.full(4, 0.3, dtype)
    return make_box(LOWER, UPPER, start, sigma)


def test_every_point_lands_inside_and_most_stay():
    y = np.random.default_rng(0).normal(size=(2000, 4)) * [5, 5, 5, 1e6]
    x = box_of().place(y)
    assert ((x >= LOWER) & (x <= UPPER)).all()
    inside = (y > LOWER + 0.1) & (y < UPPER - 0.1)
    np.testing.assert_array_equal(x[inside], y[inside])
    np.testing.assert_array_equal(x[:, 3], y[:, 3])


def test_the_map_is_smooth_and_flat_on_the_bound():
    box = box_of()
    slope = jax.jit(jax.vmap(jax.grad(lambda y: box.place(jnp.full(4, y))[0])))

    y = jnp.linspace(-1.2, 1.2, 4801)
    slopes = np.asarray(slope(y))
    assert np.abs(np.diff(slopes)).max() < 0.003
    assert slopes.min() > -0.6 and slopes[2400] == 1
    at_fold = box.place(box.lower - box.margin)
    np.testing.assert_array_equal(at_fold[:2], LOWER[:2])


def test_inverse():
    box = box_of()
    rng = np.random.default_rng(1)
    low, high = np.maximum(LOWER, -3), np.minimum(UPPER, 3)
    x = rng.uniform(low, high, (1000, 4))
    x[0], x[1] = low, high
    np.testing.assert_allclose(box.place(box.invert(x)), x, atol=1e-15)


def test_bounds_that_are_no_single_precision_numbers_hold():
    lower, upper = np.array([0.1, -0.7]), np.array([0.3, -0.1])
    start = jnp.asarray([0.2, -0.2], jnp.float32)
    box = make_box(lower, upper, start, 0.1 * jnp.ones(2, jnp.float32))
    x = np.asarray(box.place(jnp.asarray(np.linspace(-3, 3, 5000)[:, None], "f")))
    assert x.dtype == np.float32
    assert ((x.astype(float) >= lower) & (x.astype(float) <= upper)).all()


def test_optima_on_the_bounds_are_found_exactly():
    seen = []

    def fun(x):
        seen.append(x)
        # Steep at the first bound, flat (quadratic) at the second, free in the third.
        return 1e3 * x[0] + (x[1] - 2.0) ** 2 + 10 * (x[2] - 0.3) ** 2

    bounds = Bounds([-1.0, -5.0, -np.inf], [4.0, 2.0, np.inf])
    found = ngvi.minimize(fun, np.zeros(3), bounds=bounds, restarts=0, vectorized=False)
    assert found.success
    np.testing.assert_allclose(found.x[0], -1.0, rtol=0, atol=1e-13)
    np.testing.assert_allclose(found.x[1:], [2.0, 0.3], rtol=0, atol=1e-5)
    points = np.stack(seen)
    assert (points >= bounds.lb).all() and (points <= bounds.ub).all()


def test_a_start_on_the_bound_can_leave_it():
    found = ngvi.minimize(
        lambda x: ((x - 0.5) ** 2).sum(),
        np.array([1.0, 0.0, 0.0]),
        bounds=[(-1, 1), (0, None), (None, 2)],
        ftarget=1e-8,
        vectorized=False,
    )
    np.testing.assert_allclose(found.x, 0.5, atol=1e-3)


def test_the_forms_of_bounds():
    pairs = [(-1, 1), (0, None), (None, 2), (None, None)]
    for bounds in (pairs, Bounds(LOWER, UPPER), np.stack([LOWER, UPPER], 1)):
        lower, upper = as_limits(bounds, 4)
        np.testing.assert_array_equal(lower, LOWER)
        np.testing.assert_array_equal(upper, UPPER)
    assert as_limits(Bounds(0, 1), 3)[1].tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="must have length 3"):
        as_limits(Bounds([0, 0], [1, 1]), 3)
    free = np.full(2, np.inf)
    assert make_box(-free, free, jnp.zeros(2), jnp.ones(2)) is None
