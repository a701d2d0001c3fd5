"""Wishart families: SciPy, Bayes' rule, many degrees of freedom, mixed units."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from ngvi.families import (
    Gamma,
    InverseWishart,
    MatrixNormalWishart,
    NormalGamma,
    NormalInverseWishart,
    Wishart,
)
from ngvi.families.factored import factor, stein_loss
from ngvi.families.wishart_terms import bregman_remainder
from tests.families.cases import positive_definite
from tests.programs import compiled

SCIPY = {Wishart: scipy.stats.wishart, InverseWishart: scipy.stats.invwishart}
BERNOULLI = {3: 1 / 6, 5: -1 / 30, 7: 1 / 42, 9: -1 / 30, 11: 5 / 66}
wishart_families = pytest.mark.parametrize("cls", [Wishart, InverseWishart])


def scale(dim: int, batch: tuple[int, ...] = (), seed: int = 0) -> np.ndarray:
    return positive_definite(np.random.default_rng(seed), batch, 0.5, dim)


# -- against SciPy --------------------------------------------------------------------


@wishart_families
@pytest.mark.parametrize("dim", [1, 8])
def test_against_scipy(cls: Any, dim: int) -> None:
    df = dim + 3.5
    q, theirs = cls(df, scale(dim)), SCIPY[cls](df, scale(dim))

    @compiled
    def of(q: Any, x: jax.Array) -> tuple:
        return q.log_prob(x), q.mean, q.variance, q.mode, q.entropy()

    x = scale(dim, (4,), seed=1)
    log_prob, mean, variance, mode, entropy = map(np.asarray, of(q, x))
    logs = theirs.logpdf(np.moveaxis(x, 0, -1))
    np.testing.assert_allclose(log_prob, logs, rtol=1e-11)
    for mine, other in [(mean, theirs.mean()), (variance, theirs.var())]:
        np.testing.assert_allclose(mine.reshape(np.shape(other)), other, rtol=1e-11)
    np.testing.assert_allclose(mode.reshape(np.shape(theirs.mode())), theirs.mode())
    if cls is Wishart or dim == 1:
        # SciPy's entropy of the inverse family lacks a term in other dimensions.
        np.testing.assert_allclose(entropy, theirs.entropy(), rtol=1e-11)


def test_moments_that_do_not_exist() -> None:
    q = InverseWishart(np.array([1.5, 3.0, 3.5, 6.0]), np.eye(2) + 0.5)
    moments = compiled(lambda q: (q.mean, q.variance))(q)
    mean, variance = map(np.asarray, moments)
    assert np.isinf(mean[:2, 0, 0]).all() and np.isnan(mean[:2, 0, 1]).all()
    assert np.isfinite(mean[2:]).all() and np.isfinite(variance[3]).all()
    assert np.isnan(variance[:2]).all() and np.isinf(variance[2]).all()
    assert np.isnan(Wishart(2.5, np.eye(2)).mode).all()


@wishart_families
def test_outside_the_support(cls: Any) -> None:
    q = cls(4.0, np.eye(2))
    indefinite, askew = np.array([[1.0, 2], [2, 1]]), np.array([[2.0, 1], [0, 2]])
    x = np.stack([indefinite, askew, np.full((2, 2), np.nan)])
    logs = compiled(lambda q, x: q.log_prob(x))(q, x)
    assert (logs[:2] == -np.inf).all() and jnp.isnan(logs[2])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Wishart(1.0, np.eye(2)), "df must be above p - 1 = 1, got 1"),
        (lambda: Wishart(4.0, np.array([[1.0, 2], [2, 1]])), "scale must be a sym"),
        (
            lambda: InverseWishart(np.array([4.0, 0.5]), np.eye(2)),
            r"at batch index \(1,\)",
        ),
        (lambda: NormalGamma(0.0, -1.0, 1.0, 1.0), "kappa must be positive"),
        (
            lambda: NormalInverseWishart(np.zeros(3), 1.0, 4.0, np.eye(2)),
            "loc has length 3, but scale is 2 × 2",
        ),
        (
            lambda: MatrixNormalWishart(np.zeros((2, 3)), np.eye(3), 4.0, np.eye(2)),
            "loc is 2 × 3, but row_precision has 3 rows and scale 2",
        ),
    ],
)
def test_invalid_parameters_are_named(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


# -- joint families -------------------------------------------------------------------


def test_normal_gamma_is_gamma_times_normal() -> None:
    q = NormalGamma(1.5, 2.0, 3.0, 0.5)
    x, tau = np.array([0.3, 2.0, -1.0]), np.array([0.1, 5.0, 20.0])
    expected = scipy.stats.gamma(3.0, scale=2.0).logpdf(tau)
    expected += scipy.stats.norm(1.5, (2.0 * tau) ** -0.5).logpdf(x)
    log_prob = compiled(lambda q, x: q.log_prob(x))
    np.testing.assert_allclose(log_prob(q, (x, tau)), expected, rtol=1e-12)
    assert isinstance(q.precision, Gamma)
    assert log_prob(q, (x, -tau)).max() == -np.inf


def test_normal_inverse_wishart_is_inverse_wishart_times_gaussian() -> None:
    psi, loc = scale(3), np.array([1.0, -2.0, 0.5])
    q = NormalInverseWishart(loc, 0.7, 5.5, psi)
    x, sigma = np.random.default_rng(1).standard_normal((5, 3)), scale(3, (5,), seed=2)
    logs = compiled(lambda q, x: q.log_prob(x))(q, (x, sigma))
    for mean, covariance, log in zip(x, sigma, logs, strict=True):
        expected = scipy.stats.invwishart(5.5, psi).logpdf(covariance)
        gaussian = scipy.stats.multivariate_normal(loc, covariance / 0.7)
        np.testing.assert_allclose(log, expected + gaussian.logpdf(mean), rtol=1e-11)


def test_matrix_normal_wishart_is_wishart_times_matrix_normal() -> None:
    rows, columns, loc = scale(3), scale(2, seed=1), np.arange(6.0).reshape(3, 2)
    q = MatrixNormalWishart(loc, rows, 4.5, columns)
    w = np.random.default_rng(1).standard_normal((5, 3, 2))
    precision = scale(2, (5,), seed=2)
    logs, flat = compiled(lambda q, x: (q.log_prob(x), q.flatten(q.natural_params)))(
        q, (w, precision)
    )
    for weights, noise, log in zip(w, precision, logs, strict=True):
        expected = scipy.stats.wishart(4.5, columns).logpdf(noise)
        normal = scipy.stats.matrix_normal(
            loc, np.linalg.inv(rows), np.linalg.inv(noise)
        )
        expected += normal.logpdf(weights)
        np.testing.assert_allclose(log, expected, rtol=1e-11)
    assert flat.shape == (6 + 6 + 3 + 1,)


def test_linear_regression_is_a_sum_of_natural_params() -> None:
    rng = np.random.default_rng(3)
    prior = MatrixNormalWishart(np.zeros((3, 2)), np.eye(3), 4.0, np.eye(2))
    x, y = rng.standard_normal((20, 3)), rng.standard_normal((20, 2))
    data = x.T @ y, -x.T @ x / 2, -y.T @ y / 2, 10.0
    posterior = _plus(prior, data)
    precision = np.eye(3) + x.T @ x
    loc = np.linalg.solve(precision, x.T @ y)
    np.testing.assert_allclose(posterior.loc, loc, atol=1e-13)
    np.testing.assert_allclose(posterior.df, 24.0)
    residual = np.eye(2) + y.T @ y - loc.T @ precision @ loc
    np.testing.assert_allclose(
        posterior.scale, np.linalg.inv(residual), rtol=1e-11, atol=1e-14
    )


def test_gaussian_data_are_a_sum_of_natural_params() -> None:
    y = np.random.default_rng(4).standard_normal((12, 2)) + 3
    prior = NormalInverseWishart(np.zeros(2), 0.5, 3.0, np.eye(2))
    data = y.sum(0), -6.0, -y.T @ y / 2, 6.0
    posterior = _plus(prior, data)
    centred = y - y.mean(0)
    psi = np.eye(2) + centred.T @ centred
    psi += 0.5 * 12 / 12.5 * np.outer(y.mean(0), y.mean(0))
    np.testing.assert_allclose(posterior.loc, y.sum(0) / 12.5, rtol=1e-13)
    np.testing.assert_allclose(posterior.scale, psi, rtol=1e-12)
    assert (posterior.kappa, posterior.df) == (12.5, 15.0)


@compiled
def _plus(prior: Any, data: Any) -> Any:
    return prior.with_natural_params(jax.tree.map(jnp.add, prior.natural_params, data))


def test_fit_far_from_zero_keeps_kappa() -> None:
    q = NormalInverseWishart(np.zeros(2), 2.0, 6.0, np.eye(2))
    mean = np.random.default_rng(0).standard_normal((500, 2))
    covariance = scale(2, (500,))
    fit = compiled(lambda q, x: q.fit(x))
    near, far = fit(q, (mean, covariance)), fit(q, (mean + 1e7, covariance))
    np.testing.assert_allclose(far.kappa, near.kappa, rtol=1e-6)
    np.testing.assert_allclose(far.loc - 1e7, near.loc, atol=1e-6)


# -- digits ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dim", [1, 4])
def test_kl_of_neighbours_with_many_degrees_of_freedom(dim: int, dtype: Any) -> None:
    # Same mean, df and df (1 + r): the KL is ≈ p (p + 1) r² / 8, from terms of size df.
    df, r = np.array([1e2, 1e4, 1e6]), 2.0**-7
    a, b = (jnp.asarray(v, dtype) / 2 for v in (df, df * (1 + r)))
    remainder = compiled(lambda a, b: bregman_remainder(a, b, dim))(a, b)
    expected = [_kl_of_equal_means(v / 2, v / 2 * (1 + r), dim) for v in df]
    assert remainder.dtype == dtype
    np.testing.assert_allclose(remainder, expected, rtol=20 * np.finfo(dtype).eps)


def _kl_of_equal_means(a: float, b: float, p: int) -> float:
    """∫ (b − t) R_p″(t) dt from a to b by quadrature, R_p″ = Σ ψ′(t − i/2) − p/t."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    t = a + (b - a) * (nodes + 1) / 2
    curvature = np.zeros_like(t)
    for i in range(p):
        x = t - i / 2
        # ψ′(x) − 1/t, with ψ′(x) = 1/x + 1/(2x²) + Σ B₂ₖ x^(−2k−1).
        series = 1 / (2 * x**2) + sum(c * x**-k for k, c in BERNOULLI.items())
        curvature += (i / 2) / (x * t) + series
    return float((weights * (b - t) * curvature).sum() * (b - a) / 2)


def test_stein_loss_at_all_distances() -> None:
    sizes = np.array([1e-6, 1e-2, 0.3, 1e3, 1e9])
    y, z = scale(4), scale(4, seed=1)
    x = y + sizes[:, None, None] * z
    root = np.linalg.inv(np.linalg.cholesky(y))
    values = sizes[:, None] * np.linalg.eigvalsh(root @ z @ root.T)
    # Against the eigenvalues, from the series where they are small.
    small = values**2 / 2 - values**3 / 3 + values**4 / 4
    exact = np.where(values < 1e-4, small, values - np.log1p(values)).sum(-1)
    loss = compiled(lambda x, y: stein_loss(factor(x), factor(y)))(x, y)
    error = np.abs(np.asarray(loss) / exact - 1)
    np.testing.assert_array_less(error, 3e-14 / np.minimum(sizes, 1) + 1e-12)


def test_derivatives_of_the_stein_loss() -> None:
    x, y = jnp.asarray(scale(4)), jnp.asarray(scale(4, seed=1))

    def plain(x: jax.Array, y: jax.Array, g: jax.Array) -> jax.Array:
        ratio = (1 + g) * jnp.linalg.inv(y) @ x
        return jnp.trace(ratio) - 4 - jnp.linalg.slogdet(ratio)[1]

    @compiled
    def both(x: jax.Array, y: jax.Array, g: jax.Array) -> list:
        def loss(x: jax.Array, y: jax.Array, g: jax.Array) -> jax.Array:
            return stein_loss(factor(x), factor(y), g)

        return [jax.grad(f, (0, 1, 2))(x, y, g) for f in (loss, plain)]

    for mine, expected in zip(*both(x, y, jnp.asarray(0.3)), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-10)


@wishart_families
@pytest.mark.parametrize(("dtype", "condition"), [("float32", 1e5), ("float64", 1e12)])
def test_ill_conditioned_scales(cls: Any, dtype: str, condition: float) -> None:
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.standard_normal((20, 3, 3)))[0]
    spread = np.geomspace(1, condition, 3)
    matrix = (vectors * spread) @ np.swapaxes(vectors, -1, -2)
    matrix = jnp.asarray((matrix + np.swapaxes(matrix, -1, -2)) / 2, dtype)
    q = cls(jnp.asarray(7.0, dtype), matrix)

    def everything(q: Any) -> Any:
        there = type(q).from_natural(q.natural_params)
        back = type(q).from_mean(q.mean_params)
        return there.df, back.df, q.entropy(), q._log_density(q.mode), q.kl(there)

    def total(q: Any) -> jax.Array:
        return q.entropy().sum() + q.kl(q).sum()

    results, gradient, plain = compiled(
        lambda q, one: (everything(q), jax.grad(total)(q), one.entropy())
    )(q, cls(7.0, np.eye(3)))
    for value in results:
        assert value.dtype == dtype and np.isfinite(value).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    # The degrees of freedom and the volume have nothing to do with the condition.
    logdet = np.log(spread).sum()
    plain = plain + (3 + 1) / 2 * logdet
    error = np.finfo(dtype).eps * condition
    np.testing.assert_allclose(results[2], plain, atol=10 * error + 1e-5)


@wishart_families
def test_units_cost_no_digits(cls: Any) -> None:
    units = np.array([1e-9, 1.0, 1e7], np.float32)
    plain = cls(np.float32(6), scale(3).astype(np.float32))
    scaled = cls(np.float32(6), plain.scale * np.outer(units, units))
    mixed = cls(np.float32(8), scaled.scale * 2)
    same = cls(np.float32(8), plain.scale * 2)
    of = compiled(lambda q, other: (q.kl(other), q.entropy()))
    (kl, entropy), (plain_kl, plain_entropy) = of(scaled, mixed), of(plain, same)
    np.testing.assert_allclose(kl, plain_kl, rtol=1e-5)
    shift = (3 + 1) * np.log(units.astype(float)).sum()
    np.testing.assert_allclose(entropy, plain_entropy + shift, rtol=1e-5)


@wishart_families
def test_gradients_in_the_scale_are_symmetric(cls: Any) -> None:
    q, p, x = cls(5.0, scale(3)), cls(6.5, scale(3, seed=1)), scale(3, seed=2)

    def value(q: Any, p: Any, x: jax.Array) -> jax.Array:
        return q.kl(p) + q.entropy() + q.log_prob(x)

    member, point = compiled(jax.grad(value, (0, 2)))(q, p, x)
    for matrix in (member.scale, point):
        np.testing.assert_allclose(matrix, matrix.T, rtol=1e-10)


def test_few_degrees_of_freedom_are_sampled_as_finite_numbers() -> None:
    q = Wishart(jnp.asarray([1e-3], jnp.float32), jnp.ones((1, 1), jnp.float32))
    x = compiled(lambda q: q.sample(jax.random.key(0), (1000,)))(q)
    assert (x > 0).all() and np.isfinite(scipy.special.xlogy(1, x)).all()
