"""Directional families at zero, and next to certainty in single precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ngvi.families import VonMises, VonMisesFisher, special
from ngvi.families.polar_angle import sample_polar_angle
from tests.families.cases import double
from tests.programs import compiled

LARGE = np.array([1e-3, 1.0, 30.0, 1e3, 1e5, 1e6])
DIMS = [3, 500]


def directions(dim: int) -> np.ndarray:
    vectors = np.random.default_rng(dim).standard_normal((len(LARGE), dim))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def member(dim: int, dtype: type = np.float64) -> VonMisesFisher:
    loc = jnp.asarray(directions(dim), dtype)
    return VonMisesFisher(loc, jnp.asarray(LARGE, dtype))


@compiled
def quantities(q: VonMisesFisher, others: VonMisesFisher, x: jax.Array) -> tuple:
    return q.entropy(), q.kl(others), q.log_prob(x)


@pytest.mark.parametrize("dim", DIMS)
def test_single_precision_keeps_its_digits(dim):
    q = member(dim, np.float32)
    locs = jnp.stack([jnp.roll(q.loc, 1, 0), q.loc, q.loc])
    factors = jnp.asarray([1.3, 1.003, 10.0], jnp.float32)[:, None]
    others = VonMisesFisher(locs, factors * q.concentration)
    x = compiled(lambda q: q.sample(jax.random.key(0), (5,)))(q)
    single = quantities(q, others, x)
    exact = quantities(*double((q, others, x)))
    tolerances = (1e-5, 0), (1e-4, 0), (1e-4, 1e-4)
    for ours, precise, (rtol, atol) in zip(single, exact, tolerances, strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, precise, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dim", [3, 50])
def test_log_density_against_scipy(dim):
    q = member(dim)
    x = np.asarray(compiled(lambda q: q.sample(jax.random.key(1), (20,)))(q))
    log_prob, entropy = compiled(lambda q: (q.log_prob(x), q.entropy()))(q)
    for i in range(3):
        theirs = scipy.stats.vonmises_fisher(directions(dim)[i], LARGE[i])
        np.testing.assert_allclose(log_prob[:, i], theirs.logpdf(x[:, i]))
        np.testing.assert_allclose(entropy[i], theirs.entropy())


@pytest.mark.parametrize("dim", DIMS)
def test_fit_to_concentrated_draws_in_single_precision(dim):
    q = member(dim, np.float32)
    draws = compiled(lambda q: q.sample(jax.random.key(2), (1000,)))(q)
    fit = compiled(lambda q, x: q.fit(x).concentration)
    fitted = fit(q, draws)
    # The standard error of log κ is 1/√(½ (d − 1) n) where the draws are concentrated.
    error = 5 / np.sqrt(0.5 * (dim - 1) * 1000)
    np.testing.assert_allclose(fitted[3:], LARGE[3:], rtol=error)
    precise = fit(*double((q, draws)))
    np.testing.assert_allclose(fitted, precise, rtol=1e-4)


@pytest.mark.parametrize("dim", DIMS)
def test_mean_parameters_close_to_the_sphere(dim):
    there_and_back = compiled(lambda q: q.with_mean_params(q.mean_params).concentration)
    np.testing.assert_allclose(there_and_back(member(dim)), LARGE, rtol=1e-9)
    single = there_and_back(member(dim, np.float32))
    # All that float32 can hold: one rounding of μ is this much of 1 − ‖μ‖.
    rounding = 1e-6 + 3e-7 * LARGE / (dim - 1)
    np.testing.assert_array_less(abs(single / LARGE - 1), rounding)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_member_has_derivatives_in_natural_coordinates(dtype):
    other = VonMisesFisher.from_natural(jnp.asarray([0.5, -1.0, 2.0], dtype))

    @compiled
    def at(natural: jax.Array) -> tuple[jax.Array, ...]:
        def mean_and_divergence(p: jax.Array) -> tuple[jax.Array, jax.Array]:
            q = VonMisesFisher.from_natural(p)
            return q.mean_params, q.kl(other)

        q = VonMisesFisher.from_natural(natural)
        fisher, slope = jax.jacfwd(mean_and_divergence)(natural)
        draws = q.sample(jax.random.key(0), (5,))
        return q.mean_params, q.entropy(), fisher, slope, draws

    mean, entropy, fisher, slope, draws = at(jnp.zeros(3, dtype))
    np.testing.assert_allclose(mean, np.zeros(3), atol=1e-15)
    np.testing.assert_allclose(entropy, np.log(4 * np.pi), rtol=1e-6)
    np.testing.assert_allclose(fisher, np.eye(3) / 3, atol=1e-6)
    # −F (λ′ − λ), F = I/3.
    np.testing.assert_allclose(slope, -other.natural_params / 3, rtol=1e-5)
    assert jnp.isfinite(draws).all()


def test_uniform_angles():
    uniform = VonMises.from_natural((jnp.zeros(()), jnp.zeros(())))
    density = compiled(lambda x: uniform.log_prob(x))(1.0)
    np.testing.assert_allclose(density, -np.log(2 * np.pi), rtol=1e-12)


@pytest.mark.parametrize("dim", [2, 3, 20])
def test_angles_follow_the_concentration(dim):
    """d E[cos θ]/dκ = A'(κ), by the draws' own derivatives."""
    kappa = jnp.asarray([0.3, 5.0, 1e4])
    shape = (4000, 3)

    def cosines(k: jax.Array) -> jax.Array:
        return jnp.cos(sample_polar_angle(jax.random.key(0), k, dim, shape))

    moving = compiled(lambda k: jax.jvp(cosines, (k,), (jnp.ones(3),)))
    value, slope = moving(kappa)
    order = dim / 2 - 1
    for draws, expected in (
        (1 - value, special.one_minus_bessel_ratio(order, kappa)),
        (slope, special.bessel_ratio_slope(order, kappa)),
    ):
        error = draws.std(0) / np.sqrt(shape[0])
        np.testing.assert_array_less(abs(draws.mean(0) - expected), 5 * error)


def test_von_mises_cdf_starts_at_minus_pi_whatever_the_mean():
    loc = np.array([-9.0, -3.0, 0.0, 2.5, 3.1])
    q = VonMises(jnp.asarray(loc), jnp.full(5, 2.0))
    x = jnp.asarray([-3.0, -1.0, 0.5, 3.0, 3.1])
    cdf = scipy.stats.vonmises(2.0).cdf
    mean = (loc + np.pi) % (2 * np.pi) - np.pi
    expected = cdf(x - mean) - cdf(-np.pi - mean)
    value, slope = compiled(lambda x: jax.jvp(q.cdf, (x,), (jnp.ones(5),)))(x)
    np.testing.assert_allclose(value, expected, atol=1e-12)
    np.testing.assert_allclose(slope, jnp.exp(q.log_prob(x)), rtol=1e-12)


def test_circular_moments_are_those_of_numpyro():
    q = VonMises(np.array([-3.0, 0.5, 9.0]), np.array([0.1, 3.0, 50.0]))
    other = q.to_numpyro()
    np.testing.assert_allclose(q.mean, other.mean, atol=1e-14)
    # NumPyro's 1 − I₁/I₀ is a difference.
    np.testing.assert_allclose(q.variance, other.variance, rtol=1e-5)


def test_draws_cross_the_cut():
    q = VonMises(jnp.asarray(3.1), 10.0)
    draw = compiled(lambda q: q.sample(jax.random.key(0), (1000,)))
    draws = draw(q)
    assert (draws > 2).any() and (draws < -2).any()
    assert (abs(draws) <= np.pi).all()
