"""Where a fit begins: at a proper mode if one is near, else where it was told to."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngvi.mirror.start import Start, find_start
from tests.mirror.problems import Quadratic, logistic, quadratic

start_from = jax.jit(lambda potential, point: find_start(lambda z: potential(z), point))
"""`find_start` of a potential that is a pytree: compiled once for a class and shape."""


gradient_of = jax.jit(lambda potential, z: jax.grad(lambda z: potential(z))(z))
hessian_of = jax.jit(lambda potential, z: jax.hessian(lambda z: potential(z))(z))


def covariance(start: Start) -> np.ndarray:
    root = np.asarray(start.precision.inverse_root)
    return root @ root.T


@given(seed=st.integers(0, 2**32 - 1), distance=st.sampled_from([0.0, 1.0, 1e3]))
def test_a_quadratic_is_solved_with_one_gradient(seed: int, distance: float) -> None:
    rng = np.random.default_rng(seed)
    dim = 4
    target = quadratic(rng, dim)
    mode = np.linalg.solve(target.h, target.b)
    point = mode + distance * rng.standard_normal(dim)
    start = start_from(target, jnp.asarray(point))
    assert start.descended
    scale = 1 + np.abs(point).max()
    np.testing.assert_allclose(start.point, mode, atol=1e-9 * scale)
    exact = np.linalg.inv(target.h)
    np.testing.assert_allclose(
        covariance(start), exact, atol=1e-9 * np.abs(exact).max()
    )
    # One Hessian, one gradient where the Newton step lands, and the Hessian there.
    assert start.gradients <= 2 * (2 * dim) + 1


def test_at_a_mode_nothing_is_spent_but_its_hessian() -> None:
    target = quadratic(np.random.default_rng(0), 4)
    mode = jnp.asarray(np.linalg.solve(target.h, target.b))
    start = start_from(target, mode)
    assert start.descended
    assert start.gradients == 2 * 4
    np.testing.assert_array_equal(start.point, mode)


class Scaled(NamedTuple):
    """A potential in other units: z = units · y."""

    inside: NamedTuple
    units: np.ndarray

    def __call__(self, y: jax.Array) -> jax.Array:
        return self.inside(self.units * y)


@pytest.mark.parametrize("distance", [1.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_regression_from_afar(seed: int, distance: float) -> None:
    target = Scaled(logistic(4, seed=seed), np.ones(4))
    rng = np.random.default_rng(seed)
    point = jnp.asarray(distance * rng.standard_normal(4) / 2)
    start = start_from(target, point)
    assert start.descended
    hessian = np.asarray(hessian_of(target, start.point))
    gradient = np.asarray(gradient_of(target, start.point))
    # Arrived: Newton's method would lower ℓ by less than 0.01 D from here.
    assert gradient @ np.linalg.solve(hessian, gradient) / 2 < 0.04
    exact = np.linalg.inv(hessian)
    np.testing.assert_allclose(covariance(start), exact, atol=1e-9)
    # A budget, whatever the distance: 50 + 4 D gradients and five Hessians.
    assert start.gradients <= 50 + 4 * 4 + 5 * 2 * 4


class Funnel(NamedTuple):
    """Groups with the scale of their effects unknown, centred: as log τ → −∞ with all
    effects at their mean, the density grows without bound."""

    y: np.ndarray
    sigma: np.ndarray

    def __call__(self, z: jax.Array) -> jax.Array:
        mu, log_tau, theta = z[0], z[1], z[2:]
        tau = jnp.exp(log_tau)
        effects = ((theta - mu) ** 2).sum() / (2 * tau**2) + theta.size * log_tau
        data = (((self.y - theta) / self.sigma) ** 2).sum() / 2
        prior = jnp.log1p((tau / 5) ** 2) - log_tau + (mu / 5) ** 2 / 2
        return effects + data + prior


FUNNEL = Funnel(
    np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
)


@pytest.mark.parametrize("log_tau", [0.0, 1.6, -2.0])
def test_the_bottomless_mode_of_a_funnel_is_not_taken(log_tau: float) -> None:
    point = jnp.zeros(10).at[1].set(log_tau)
    start = start_from(FUNNEL, point)
    assert not start.descended
    np.testing.assert_array_equal(start.point, point)
    assert np.isfinite(start.precision.inverse_root).all()
    assert np.linalg.matrix_rank(covariance(start)) == 10
    assert start.gradients <= 50 + 4 * 10 + 5 * 2 * 10


def test_a_rejected_start_keeps_the_frame_of_its_own_hessian() -> None:
    # Eigenvalues of the Hessian, its diagonal scaled to one, made positive.
    point = jnp.asarray([0.0, -1.0, *[2.0, -2.0] * 4])
    hessian = np.asarray(hessian_of(FUNNEL, point))
    scale = np.sqrt(np.abs(np.diag(hessian)))
    values, vectors = np.linalg.eigh(hessian / np.outer(scale, scale))
    assert values.min() < 0, "the case is meant to be indefinite"
    expected = vectors / np.abs(values) @ vectors.T / np.outer(scale, scale)
    start = start_from(FUNNEL, point)
    assert not start.descended
    np.testing.assert_allclose(covariance(start), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("point", [np.zeros(4), np.array([3.0, -2.0, 1.0, 5.0])])
@pytest.mark.parametrize(
    "units",
    [
        # Powers of two change no digit, so decisions cannot differ by rounding.
        np.array([2.0**-13, 2.0**13, 1.0, 2.0**-7]),
        np.array([1e-4, 1e4, 1.0, 1e-2]),
    ],
    ids=["exact", "rounded"],
)
def test_units_change_nothing(units: np.ndarray, point: np.ndarray) -> None:
    target = logistic(4)
    plain = start_from(Scaled(target, np.ones(4)), jnp.asarray(point))
    scaled = start_from(Scaled(target, units), jnp.asarray(point / units))
    assert scaled.gradients == plain.gradients
    assert scaled.descended == plain.descended
    np.testing.assert_allclose(scaled.point * units, plain.point, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(
        covariance(scaled) * np.outer(units, units), covariance(plain), rtol=1e-6
    )


class Double(NamedTuple):
    """Two wells in the first coordinate and a bowl in the others: a saddle between."""

    depth: float

    def __call__(self, z: jax.Array) -> jax.Array:
        return self.depth * (z[0] ** 2 - 1) ** 2 + (z[1:] ** 2).sum()


@pytest.mark.parametrize("x", [1e-3, -0.2, 0.5])
def test_a_descent_that_begins_near_a_saddle(x: float) -> None:
    start = start_from(Double(10.0), jnp.asarray([x, 0.3, 2.0]))
    assert start.descended
    # Within 0.01 D of the bottom of a well, both as ℓ and as distances go.
    assert Double(10.0)(start.point) < 0.03
    np.testing.assert_allclose(start.point, [np.sign(x), 0, 0], atol=0.2)
    hessian = np.asarray(hessian_of(Double(10.0), start.point))
    np.testing.assert_allclose(covariance(start), np.linalg.inv(hessian), rtol=1e-8)


def test_a_saddle_is_no_mode() -> None:
    point = jnp.asarray([0.0, 0.3, 2.0])
    start = start_from(Double(10.0), point)
    assert not start.descended
    np.testing.assert_array_equal(start.point, point)


class Trough(NamedTuple):
    """Flat within `half`, (|z| − half)^1.5 beyond: Newton steps lead onto the flat."""

    half: float

    def __call__(self, z: jax.Array) -> jax.Array:
        beyond = jnp.abs(z) - self.half
        return jnp.where(beyond > 0, jnp.where(beyond > 0, beyond, 1.0) ** 1.5, 0).sum()


def test_a_descent_thrown_away_leaves_the_given_point() -> None:
    point = jnp.asarray([3.0, -4.0])
    start = start_from(Trough(2.0), point)
    assert not start.descended
    np.testing.assert_array_equal(start.point, point)
    # With the frame of the Hessian there, ¾ (|z| − half)^−½.
    variance = np.sqrt([1.0, 2.0]) / 0.75
    np.testing.assert_allclose(covariance(start), np.diag(variance), atol=1e-12)


class Walled(NamedTuple):
    """−log z₀ + z₀ + ½‖z‖², and `beyond` where z₀ < 0: Newton steps lead there."""

    beyond: float

    def __call__(self, z: jax.Array) -> jax.Array:
        inside = z[0] - jnp.log(jnp.abs(z[0])) + (z**2).sum() / 2
        return jnp.where(z[0] > 0, inside, self.beyond)


@pytest.mark.parametrize("beyond", [np.nan, np.inf, -np.inf])
def test_no_step_into_what_is_not_finite(beyond: float) -> None:
    start = start_from(Walled(beyond), jnp.asarray([8.0, 3.0]))
    assert np.isfinite(start.point).all()
    assert start.descended
    # z + z² = 1.
    np.testing.assert_allclose(start.point, [(np.sqrt(5) - 1) / 2, 0], atol=0.15)


class Straight(NamedTuple):
    """c + Σ slope · z + kink · Σ|z − 0.3|: no curvature wherever it is smooth."""

    constant: float
    slope: float
    kink: float

    def __call__(self, z: jax.Array) -> jax.Array:
        return self.constant + self.slope * z.sum() + self.kink * jnp.abs(z - 0.3).sum()


@pytest.mark.parametrize(
    "potential",
    [
        Straight(0.0, 0.0, 0.0),
        Straight(0.0, -2.0, 0.0),
        Straight(0.0, 0.5, 1.0),
        Straight(np.nan, 1.0, 0.0),
        Straight(np.nan, np.nan, 0.0),
    ],
    ids=["constant", "linear", "Laplace", "value is nan", "all is nan"],
)
def test_a_frame_is_found_where_no_curvature_is(potential: Straight) -> None:
    point = jnp.asarray([1.0, 2.0])
    start = start_from(Scaled(potential, np.ones(2)), point)
    assert np.isfinite(start.point).all()
    assert np.isfinite(start.precision.inverse_root).all()
    assert np.linalg.matrix_rank(covariance(start)) == 2
    if not start.descended:
        np.testing.assert_array_equal(start.point, point)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_units_change_nothing_where_no_curvature_is(scale: float) -> None:
    # The slope tells a scale.
    units, target = np.array([scale, 1.0]), Straight(0.0, 0.5, 1.0)
    plain, scaled = (
        start_from(Scaled(target, u), jnp.asarray([1.0, 2.0] / u))
        for u in (np.ones(2), units)
    )
    np.testing.assert_allclose(
        covariance(scaled) * np.outer(units, units), covariance(plain), rtol=1e-6
    )


def test_single_precision() -> None:
    target = logistic(4)
    units = np.array([1e-4, 1e4, 1.0, 1e-2], np.float32)
    narrow = jax.tree.map(lambda x: np.asarray(x, np.float32), target)
    start = start_from(Scaled(narrow, units), jnp.asarray(1 / units))
    wide = units.astype(float)
    assert start.point.dtype == start.precision.inverse_root.dtype == jnp.float32
    assert start.descended
    exact = start_from(Scaled(target, wide), jnp.asarray(1 / wide))
    sd = np.sqrt(np.diag(covariance(exact)))
    np.testing.assert_allclose(start.point / sd, exact.point / sd, atol=0.3)
    ratio = np.sqrt(np.diag(covariance(start))) / sd
    np.testing.assert_allclose(ratio, 1, rtol=0.1)


def test_vmap_over_points() -> None:
    target = Scaled(logistic(4), np.ones(4))
    points = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4)) * 5)
    together = jax.jit(jax.vmap(lambda p: find_start(target, p)))(points)
    for i, point in enumerate(points):
        alone = start_from(target, point)
        assert together.gradients[i] == alone.gradients
        np.testing.assert_allclose(together.point[i], alone.point, atol=1e-9)


def test_the_potential_of_a_quadratic_may_be_anything_up_to_a_constant() -> None:
    target = quadratic(np.random.default_rng(3), 4)
    far = Quadratic(target.h, target.b, 1e6)
    point = jnp.full(4, 10.0)
    one, other = start_from(target, point), start_from(far, point)
    assert one.gradients == other.gradients
    np.testing.assert_allclose(one.point, other.point, atol=1e-9)
