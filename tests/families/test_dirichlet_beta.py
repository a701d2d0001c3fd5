"""Dirichlet and beta families where digits are easily lost."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from ngvi.families import Beta, Dirichlet
from tests.families.cases import double
from tests.programs import compiled

WIDE = 1_000


def random_concentrations(dim: int, log_sd: float) -> np.ndarray:
    rng = np.random.default_rng(dim)
    return np.exp(log_sd * rng.standard_normal((WIDE, dim)))


def lopsided(dtype: type) -> Dirichlet:
    """Sums of 10⁶, entries of 10⁻³."""
    alpha = [[1e6, 1e-3, 2.0], [1e-3, 1e-3, 1e-3], [3e5, 5e5, 2e5], [1e6, 1e-3, 1e-3]]
    return Dirichlet(jnp.asarray(alpha, dtype))


def test_mean_log_of_lopsided_concentrations():
    alpha = np.asarray(lopsided(np.float64).concentration)
    # ψ(α) − ψ(α + d) = −d ψ'(α) to first order, where subtracting leaves nothing.
    expected = -2e-3 * scipy.special.polygamma(1, 1e6)
    actual = compiled(lambda q: q.mean_params)(lopsided(np.float64))
    np.testing.assert_allclose(actual[3, 0], expected, rtol=1e-8)
    digamma = scipy.special.digamma
    plain = digamma(alpha) - digamma(alpha.sum(-1, keepdims=True))
    np.testing.assert_allclose(actual, plain, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_mean_has_its_member(dtype):
    alpha = jnp.asarray(random_concentrations(3, 3.0), dtype)

    @compiled
    def there_and_back(alpha: jax.Array) -> tuple[jax.Array, Dirichlet, jax.Array]:
        mean = Dirichlet(alpha).mean_params
        fitted = Dirichlet.from_mean(mean)
        return mean, fitted, fitted.mean_params

    mean, fitted, again = there_and_back(alpha)
    assert fitted.concentration.dtype == dtype
    # In these coordinates: the map back is as ill-conditioned as the family.
    epsilon = float(jnp.finfo(dtype).eps)
    scale = jnp.maximum(1, jnp.abs(mean))
    assert (jnp.abs(again - mean) <= 50 * epsilon * scale).all()
    if dtype == np.float64:
        np.testing.assert_allclose(fitted.concentration, alpha, rtol=1e-8)


def test_single_precision_keeps_its_digits():
    @compiled
    def of(q: Dirichlet) -> tuple[jax.Array, ...]:
        return q.mean_params, q.entropy(), q.fisher.logdet()

    single = lopsided(np.float32)
    for actual, expected in zip(of(single), of(double(single)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=2e-5)


def test_divergence_between_near_and_large_members_in_single_precision():
    first, divergence = lopsided(np.float32), compiled(Dirichlet.kl)
    for factor in (1.001, 1.2, 30.0):
        second = Dirichlet(first.concentration * jnp.asarray([factor, 1.0, 1.1]))
        second = Dirichlet(second.concentration.astype(jnp.float32))
        expected = divergence(double(first), double(second))
        actual = divergence(first, second)
        np.testing.assert_allclose(actual, expected, rtol=2e-3, atol=1e-6)
        assert actual.dtype == jnp.float32


def test_divergence_at_the_same_mean_is_what_stirling_leaves():
    q = Dirichlet(jnp.asarray([3e7, 5e7, 2e7], jnp.float32))
    doubled = Dirichlet(2 * q.concentration)
    # Gaussians of two dimensions, one of half the variance: ½ (K − 1) (c − 1 − log c).
    np.testing.assert_allclose(
        compiled(Dirichlet.kl)(q, doubled), 1 - np.log(2), rtol=1e-5
    )


def test_fisher_of_a_large_sum_is_positive_definite_in_single_precision():
    q = lopsided(np.float32)
    right = jnp.asarray([1.0, -2.0, 0.5], jnp.float32)
    solve = compiled(lambda q, right: q.fisher.solve(right))
    exact = solve(double(q), double(right))
    np.testing.assert_allclose(solve(q, right), exact, rtol=1e-4)


def test_derivatives_at_ties():
    q = Dirichlet(jnp.asarray([2.0, 2.0, 2.0]))
    eye = jnp.eye(3)

    @compiled
    def of(q: Dirichlet) -> tuple[jax.Array, ...]:
        hessian = jax.hessian(q.log_partition)(q.natural_params)
        slope = jax.grad(lambda q: q.fisher.logdet())(q).concentration
        return hessian, q.fisher.mv(eye), slope, q.fisher.solve(eye)

    hessian, fisher, slope, inverse = map(np.asarray, of(q))
    np.testing.assert_allclose(hessian, fisher, rtol=1e-12)
    # tr F⁻¹ dF, with F = diag ψ'(α) − ψ'(α₀) 1 1ᵀ.
    own, shared = scipy.special.polygamma(2, [2.0, 6.0])
    expected = own * np.diagonal(inverse) - shared * inverse.sum()
    np.testing.assert_allclose(slope, expected, rtol=1e-12)


def test_beta_is_the_dirichlet_of_two():
    a, b = np.exp(np.random.default_rng(0).standard_normal((2, 50)))
    q = Beta(jnp.asarray(a), jnp.asarray(b))
    pairs = Dirichlet(jnp.stack([q.concentration1, q.concentration0], -1))
    x = np.random.default_rng(1).uniform(size=50)
    same, log_prob, cdf = compiled(
        lambda q, p, x: (q.entropy() - p.entropy(), q.log_prob(x), q.cdf(x))
    )(q, pairs, x)
    np.testing.assert_allclose(same, 0, atol=1e-12)
    np.testing.assert_allclose(log_prob, scipy.stats.beta(a, b).logpdf(x))
    np.testing.assert_allclose(cdf, scipy.stats.beta(a, b).cdf(x))


def test_draws_of_tiny_concentrations_stay_inside():
    @compiled
    def log_density_of_draws(q: Dirichlet | Beta) -> jax.Array:
        return q.log_prob(q.sample(jax.random.key(0), (1000,)))

    for q in (
        Dirichlet(jnp.full(3, 1e-3, jnp.float32)),
        Beta(jnp.float32(1e-3), jnp.float32(1e-3)),
    ):
        assert jnp.isfinite(log_density_of_draws(q)).all()


def test_one_entry_is_no_distribution():
    with pytest.raises(ValueError, match="two entries"):
        Dirichlet(jnp.ones(1))
