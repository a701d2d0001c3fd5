"""Gaussians: against NumPyro and SciPy, and where single precision is not enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from hypothesis import given
from numpyro.distributions import kl_divergence

from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal, PositiveDefinite
from tests.families.cases import DIM, DRAWS, MODERATE, positive_definite, seeds
from tests.families.checks import same, within_error
from tests.programs import compiled

structures = pytest.mark.parametrize("structure", [Dense, Diagonal])


def random_precision(rng: np.random.Generator, dim: int) -> np.ndarray:
    return positive_definite(rng, (), MODERATE, dim)


def gaussian(structure: type[PositiveDefinite]) -> Callable:
    def member(rng: np.random.Generator, dim: int) -> Gaussian:
        precision = structure.from_dense(jnp.asarray(random_precision(rng, dim)))
        return Gaussian(jnp.asarray(rng.standard_normal(dim)), precision)

    return member


@compiled
def _against_numpyro(q: Gaussian, p: Gaussian, x: jax.Array) -> tuple[list, list]:
    mine, other = (
        dist.MultivariateNormal(g.mean, g.precision.inverse_dense()) for g in (q, p)
    )
    theirs = [kl_divergence(mine, other), mine.entropy(), mine.variance]
    return (
        [q.kl(p), q.entropy(), q.variance, q.log_prob(x)],
        [*theirs, mine.log_prob(x)],
    )


@structures
@given(seed=seeds)
def test_gaussian_against_numpyro(structure: type[PositiveDefinite], seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, p = gaussian(structure)(rng, DIM), gaussian(structure)(rng, DIM)
    same(*_against_numpyro(q, p, jnp.asarray(rng.standard_normal((4, DIM)))), 1e-8)


@structures
@given(seed=seeds)
def test_conjugate_sum_is_bayes_rule_for_a_mean(
    structure: type[PositiveDefinite], seed: int
) -> None:
    # z ~ N(m₀, S₀⁻¹), yᵢ | z ~ N(z, P⁻¹): each datum's term is N(z | yᵢ, P⁻¹).
    rng = np.random.default_rng(seed)
    prior = gaussian(structure)(rng, DIM)
    noise = gaussian(structure)(rng, DIM).precision
    y = rng.standard_normal((4, DIM))
    posterior = prior.conjugate_sum(*(Gaussian(jnp.asarray(row), noise) for row in y))
    s0, p = np.asarray(prior.precision.dense()), np.asarray(noise.dense())
    precision = s0 + 4 * p
    mean = np.linalg.solve(precision, s0 @ prior.mean + p @ y.sum(0))
    same(posterior.precision.dense(), precision)
    same(posterior.mean, mean)


@structures
def test_gaussian_place_is_affine_in_the_base_draws(
    structure: type[PositiveDefinite],
) -> None:
    rng = np.random.default_rng(0)
    q = gaussian(structure)(rng, 3)
    eps = rng.standard_normal((5, 3))
    a = np.asarray(q.place(np.eye(3)) - q.mean).T
    np.testing.assert_allclose(a @ a.T, q.precision.inverse_dense(), atol=1e-12)
    np.testing.assert_allclose(q.place(eps), q.mean + eps @ a.T, atol=1e-12)


class Far(NamedTuple):
    """Two Gaussians whose variance is lost beside their squared mean in float32."""

    q: Gaussian
    p: Gaussian
    means: np.ndarray
    covariances: list[np.ndarray]

    def kl(self) -> float:
        inverse = np.linalg.inv(self.covariances[1])
        ratio = inverse @ self.covariances[0]
        shift = self.means[1] - self.means[0]
        logdet = np.linalg.slogdet(ratio)[1]
        return (np.trace(ratio) - len(shift) - logdet + shift @ inverse @ shift) / 2

    def entropy(self) -> float:
        return scipy.stats.multivariate_normal(cov=self.covariances[0]).entropy()


@pytest.fixture(params=["dense-0", "dense-1", "diagonal-0", "diagonal-1"])
def far(request: pytest.FixtureRequest) -> Far:
    """m ≈ 1e4 and sd ≈ 0.03: E[z²] holds no digit of the variance in float32."""
    name, seed = request.param.split("-")
    structure = {"dense": Dense, "diagonal": Diagonal}[name]
    rng = np.random.default_rng(int(seed))
    first = (1e4 * (1 + rng.random(3))).astype(np.float32)
    means = np.stack([first, first + np.float32(0.0625)])
    covariances = [np.linalg.inv(random_precision(rng, 3)) * 1e-3 for _ in range(2)]
    if structure is Diagonal:
        covariances = [np.diag(np.diag(c)) for c in covariances]
    members = [
        Gaussian(
            jnp.asarray(m),
            structure.from_dense(jnp.asarray(np.linalg.inv(c), jnp.float32)),
        )
        for m, c in zip(means, covariances, strict=True)
    ]
    return Far(*members, means.astype(float), covariances)


def test_far_log_prob(far: Far) -> None:
    x = np.asarray(far.q.sample(jax.random.key(0), (DRAWS,)))
    assert x.dtype == np.float32
    exact = scipy.stats.multivariate_normal(far.means[0], far.covariances[0])
    logs = exact.logpdf(x[:50].astype(float))
    np.testing.assert_allclose(far.q.log_prob(x[:50]), logs, rtol=1e-4, atol=1e-3)
    squares = (x.astype(float) - far.means[0]) ** 2
    within_error(squares, np.diag(far.covariances[0]))


def test_far_divergences(far: Far) -> None:
    np.testing.assert_allclose(far.q.entropy(), far.entropy(), atol=1e-4)
    np.testing.assert_allclose(far.q.kl(far.p), far.kl(), rtol=1e-4)


def test_far_cross_entropy(far: Far) -> None:
    expected = far.kl() + far.entropy()
    np.testing.assert_allclose(far.q.cross_entropy(far.p), expected, rtol=1e-3)


def test_far_fit(far: Far) -> None:
    x = far.q.sample(jax.random.key(0), (DRAWS,))
    exact = np.asarray(x, float)
    for weights in (None, jnp.ones(DRAWS, jnp.float32)):
        fitted = far.q.fit(x, weights)
        assert fitted.mean.dtype == jnp.float32
        np.testing.assert_allclose(fitted.mean, exact.mean(0), rtol=1e-6)
        np.testing.assert_allclose(fitted.variance, exact.var(0), rtol=0.01)
