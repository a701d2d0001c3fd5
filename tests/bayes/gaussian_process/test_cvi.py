"""Conjugate-computation VI against its published form, written out naively."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from ngvi.bayes.gaussian_process import RBF, cvi, model, prior
from ngvi.bayes.gaussian_process.expectations import (
    NODES,
    expected_log_prob,
    log_predictive,
    predicted_moments,
)
from ngvi.bayes.gaussian_process.prior import Marginals
from ngvi.families import Gaussian as Family
from ngvi.fisher.likelihoods import Bernoulli, Gaussian, Poisson, StudentT

N = 14
RNG = np.random.default_rng(3)
X = np.sort(RNG.uniform(-3, 3, (N, 1)), 0)
F = 2 * np.sin(2 * X[:, 0])
KERNEL = RBF(2.0, 0.8)
Z = np.linspace(-3, 3, 5)[:, None]
OUTLIERS = F + np.where(np.arange(N) == 4, 6.0, 0.0)
DATA: dict[str, tuple[Any, np.ndarray]] = {
    "bernoulli": (Bernoulli(), (F > 0.3).astype(float)),
    "poisson": (Poisson(), RNG.poisson(np.exp(F)).astype(float)),
    "student_t": (StudentT(0.3, 3.0), OUTLIERS),
    "gaussian": (Gaussian(0.4), F + 0.4 * RNG.normal(size=N)),
}
fit = jax.jit(cvi.fit)
natural_step = jax.jit(cvi.natural_step)
look_at = jax.jit(cvi.look_at)


def exact_rows() -> prior.Rows:
    return prior.exact_rows(prior.root(KERNEL, jnp.asarray(X)))


def sparse_rows() -> prior.Rows:
    z = jnp.asarray(Z)
    return prior.rows(KERNEL, prior.root(KERNEL, z), z, jnp.asarray(X))


# -- the naive iteration ---------------------------------------------------------------


def derivatives(name: str, f: np.ndarray, y: np.ndarray) -> np.ndarray:
    """∂ log p(y | f)/∂f."""
    if name == "bernoulli":
        return y - 1 / (1 + np.exp(-f))
    if name == "poisson":
        return y - np.exp(f)
    if name == "gaussian":
        return (y - f) / 0.4**2
    error = y - f
    return 4.0 * error / (3.0 * 0.3**2 + error**2)


class Naive(NamedTuple):
    """f ~ N(0, K), a site exp(b f − ½ s f²) for each datum."""

    linear: np.ndarray
    precision: np.ndarray

    def posterior(self, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # (K⁻¹ + S)⁻¹, K having eigenvalues next to zero.
        system = np.eye(N) + covariance * self.precision
        sigma = np.linalg.solve(system, covariance)
        return sigma @ self.linear, sigma

    def step(self, name: str, y: np.ndarray, k: np.ndarray, rho: float) -> Naive:
        mean, sigma = self.posterior(k)
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        weights = weights / weights.sum()
        sd = np.sqrt(np.diag(sigma))
        slopes = derivatives(name, mean + sd * nodes[:, None], y)
        first = weights @ slopes
        # Stein's lemma: E[∂²] = E[∂ ε]/sd.
        second = (weights * nodes) @ slopes / sd
        return Naive(
            (1 - rho) * self.linear + rho * (first - mean * second),
            (1 - rho) * self.precision - rho * second,
        )


@pytest.mark.parametrize("name", DATA)
def test_naive_iteration(name: str) -> None:
    likelihood, y = DATA[name]
    rows = exact_rows()
    lower = np.asarray(rows.weights)
    covariance = lower @ lower.T
    naive = Naive(np.zeros(N), np.zeros(N))
    q = prior.standard(N, float)
    for _ in range(6):
        naive = naive.step(name, y, covariance, 0.25)
        q = natural_step(look_at(q, rows, likelihood, y), rows, 0.25)
        mean, sigma = naive.posterior(covariance)
        found = prior.marginals(q, rows)
        np.testing.assert_allclose(found.mean, mean, atol=1e-9)
        np.testing.assert_allclose(found.variance, np.diag(sigma), atol=1e-9)
    for _ in range(400):
        naive = naive.step(name, y, covariance, 0.25)
    mean, sigma = naive.posterior(covariance)
    done = fit(prior.standard(N, float), rows, likelihood, y, 1e-10, 200)
    assert done.iterations < 200 and done.change <= 1e-10
    np.testing.assert_allclose(done.look.f.mean, mean, atol=1e-8)
    np.testing.assert_allclose(done.look.f.variance, np.diag(sigma), atol=1e-8)
    if name == "student_t":
        # A site of negative precision, which the whole of S outweighs.
        assert naive.precision.min() < 0


def test_the_bound_does_not_fall() -> None:
    likelihood, y = StudentT(0.05, 2.0), OUTLIERS
    rows, q = exact_rows(), prior.standard(N, float)
    runs = [fit(q, rows, likelihood, y, 1e-8, most) for most in range(0, 40, 4)]
    bounds = [float(run.elbo) for run in runs]
    assert (np.diff(bounds) > -1e-10).all() and bounds[-1] > bounds[0] + 10
    # Plain steps of length one leave no precision at once, or lower the bound.
    assert runs[-1].rejected > 0


# -- Gaussian noise --------------------------------------------------------------------


def random_start(size: int) -> Any:
    rng = np.random.default_rng(1)
    root = rng.normal(size=(size, size)) / 3 + np.eye(size)
    return Family.from_covariance(rng.normal(size=size), root @ root.T)


def evidence() -> float:
    noisy = np.asarray(KERNEL(X, X)) + 0.16 * np.eye(N)
    normal = scipy.stats.multivariate_normal(np.zeros(N), noisy)
    return normal.logpdf(DATA["gaussian"][1])


def test_one_step_is_exact() -> None:
    likelihood, y = DATA["gaussian"]
    rows = exact_rows()
    start = look_at(random_start(N), rows, likelihood, y)
    done = look_at(natural_step(start, rows, 1.0), rows, likelihood, y)
    np.testing.assert_allclose(done.elbo, evidence(), rtol=1e-10)
    covariance = np.asarray(KERNEL(X, X))
    gain = covariance @ np.linalg.inv(covariance + 0.16 * np.eye(N))
    np.testing.assert_allclose(done.f.mean, gain @ y, atol=1e-10)


def test_one_step_is_the_optimum_of_the_collapsed_bound() -> None:
    likelihood, y = DATA["gaussian"]
    rows = sparse_rows()
    start = look_at(random_start(len(Z)), rows, likelihood, y)
    done = look_at(natural_step(start, rows, 1.0), rows, likelihood, y)
    # Titsias (2009), equation 9: with Q = K_xz K_zz⁻¹ K_zx.
    k_zz, k_xz = (np.asarray(KERNEL(a, Z)) for a in (Z, X))
    low_rank = k_xz @ np.linalg.solve(k_zz, k_xz.T)
    trace = np.trace(np.asarray(KERNEL(X, X)) - low_rank)
    noisy = low_rank + 0.16 * np.eye(N)
    normal = scipy.stats.multivariate_normal(np.zeros(N), noisy)
    collapsed = normal.logpdf(y) - trace / (2 * 0.16)
    np.testing.assert_allclose(done.elbo, collapsed, rtol=1e-9)
    for inducing, bound in ((Z, collapsed), (None, evidence())):
        found = model.collapsed(model.Model(KERNEL, likelihood, inducing), X, y)
        np.testing.assert_allclose(found, bound, rtol=1e-9)


def test_minibatches_are_the_whole_on_average() -> None:
    likelihood, y = DATA["poisson"]
    rows, q = sparse_rows(), random_start(len(Z))
    whole = natural_step(look_at(q, rows, likelihood, y), rows, 0.3).natural_params
    halves = []
    for part in (slice(0, N, 2), slice(1, N, 2)):
        some = jax.tree.map(lambda leaf, part=part: leaf[part], rows)
        look = look_at(q, some, likelihood, y[part], 2.0)
        halves.append(natural_step(look, some, 0.3, 2.0).natural_params)
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 2, *halves)
    for mine, other in zip(mean, whole, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-10)


# -- expectations ----------------------------------------------------------------------


@pytest.mark.parametrize("name", DATA)
def test_expectations(name: str) -> None:
    likelihood, labels = DATA[name]
    f = Marginals(jnp.array([0.3]), jnp.array([0.2]))
    y = jnp.asarray(labels[:1])
    z = jnp.linspace(-4.2, 4.8, 20_001)
    normal = scipy.stats.norm(0.3, np.sqrt(0.2)).pdf(z)

    def integral(values: Any) -> float:
        return float(scipy.integrate.trapezoid(normal * np.asarray(values), z))

    loose = 1e-4 if name == "student_t" else 1e-7
    each = likelihood.log_prob_each(jnp.broadcast_to(y, z.shape), z)
    logs = integral(each)
    np.testing.assert_allclose(expected_log_prob(likelihood, y, f)[0], logs, rtol=loose)
    density = integral(jnp.exp(each))
    found = np.exp(log_predictive(likelihood, y, f)[0])
    np.testing.assert_allclose(found, density, rtol=1e-3)
    mean, sd = predicted_moments(likelihood, f)
    level = integral(likelihood.mean_each(z))
    np.testing.assert_allclose(mean[0], level, rtol=1e-6)
    variances = {
        "bernoulli": level * (1 - level),
        "poisson": level + integral(jnp.exp(2 * z)) - level**2,
        "student_t": 0.2 + 0.09 * 3.0,
        "gaussian": 0.2 + 0.16,
    }
    np.testing.assert_allclose(sd[0] ** 2, variances[name], rtol=1e-6)
