"""Laplace's approximation: exact where the posterior is Gaussian, and its evidence."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ngvi.fisher import laplace
from ngvi.fisher.likelihoods import Gaussian

RNG = np.random.default_rng(0)
N, P, NOISE = 20, 3, 0.5
X = RNG.standard_normal((N, P))
Y = X @ [1.0, -2.0, 0.5] + NOISE * RNG.standard_normal(N)


def linear(params: Any, x: jax.Array) -> jax.Array:
    return x @ params["w"]


def mode(tau: float) -> np.ndarray:
    return np.linalg.solve(X.T @ X / NOISE**2 + tau * np.eye(P), X.T @ Y / NOISE**2)


def exact_evidence(tau: float) -> float:
    covariance = NOISE**2 * np.eye(N) + X @ X.T / tau
    return float(stats.multivariate_normal(np.zeros(N), covariance).logpdf(Y))


def fitted(tau: Any, **options: Any) -> Any:
    params = {"w": jnp.asarray(mode(tau))}
    likelihood = Gaussian(NOISE)
    return laplace(
        linear, params, (X, Y), likelihood=likelihood, prior_precision=tau, **options
    )


def test_linear_regression_is_exact() -> None:
    # (N F + τ)⁻¹ is the posterior covariance.
    tau = 2.0
    posterior = fitted(tau)
    covariance = np.linalg.inv(X.T @ X / NOISE**2 + tau * np.eye(P))
    np.testing.assert_allclose(posterior.precision.inverse_dense(), covariance)
    np.testing.assert_allclose(posterior.log_evidence(), exact_evidence(tau))
    f, variances = posterior.outputs(X[:7], batch_size=3)
    np.testing.assert_allclose(f, X[:7] @ mode(tau))
    expected = np.einsum("ni,ij,nj->n", X[:7], covariance, X[:7])
    np.testing.assert_allclose(variances[:, 0, 0], expected)


def test_a_prior_precision_for_each_parameter() -> None:
    tau = np.array([0.5, 2.0, 8.0])
    covariance = NOISE**2 * np.eye(N) + (X / tau) @ X.T
    w = np.linalg.solve(X.T @ X / NOISE**2 + np.diag(tau), X.T @ Y / NOISE**2)
    posterior = laplace(
        linear,
        {"w": jnp.asarray(w)},
        (X, Y),
        likelihood=Gaussian(NOISE),
        prior_precision={"w": jnp.asarray(tau)},
    )
    exact = stats.multivariate_normal(np.zeros(N), covariance).logpdf(Y)
    np.testing.assert_allclose(posterior.log_evidence(), exact)


@pytest.mark.parametrize("structure", ["dense", "kronecker"])
def test_the_best_prior_precision_has_the_largest_evidence(structure: Any) -> None:
    best = fitted(2.0, structure=structure).with_best_prior_precision()
    top, tau = best.log_evidence(), best.prior_precision
    for factor in (0.9, 1.1):
        assert best.with_prior_precision(factor * tau).log_evidence() < top


def net(params: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["hidden"]) @ params["out"]["w"] + params["out"]["b"]


NET = {
    "hidden": jnp.asarray(RNG.standard_normal((P, 4))),
    "out": {"w": jnp.asarray(RNG.standard_normal((4, 2))), "b": jnp.zeros(2)},
}
CLASSES = RNG.integers(0, 2, N)


def test_the_last_layer_alone_is_the_model_of_its_features() -> None:
    posterior = laplace(
        net, NET, (X, CLASSES), likelihood="categorical", layers="last", kind="true"
    )
    features = jnp.tanh(X @ NET["hidden"])
    alone = laplace(
        lambda p, h: h @ p[1] + p[0],
        (NET["out"]["b"], NET["out"]["w"]),
        (features, CLASSES),
        likelihood="categorical",
    )
    assert posterior.precision.layout.dim == 10
    ours, theirs = (p.outputs(x)[1] for p, x in [(posterior, X), (alone, features)])
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_predictions_by_linearisation_and_by_draws() -> None:
    posterior = laplace(
        net, NET, (X, CLASSES), likelihood="categorical", prior_precision=400.0
    )
    f, covariance = posterior.outputs(X)
    linear_mean = posterior.predict(X, key=1, samples=4_000)
    drawn = posterior.predict(X, key=2, samples=4_000, linearized=False)
    assert linear_mean.shape == (N, 2)
    np.testing.assert_allclose(linear_mean.sum(1), 1)
    # Nearly linear within so narrow a posterior.
    np.testing.assert_allclose(linear_mean, drawn, atol=0.02)
    # One logit difference is Gaussian: the mean probability by quadrature.
    gap = f[:, 1] - f[:, 0]
    sd = np.sqrt(covariance[:, 0, 0] + covariance[:, 1, 1] - 2 * covariance[:, 0, 1])
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    z = 1 / (1 + np.exp(-(np.asarray(gap)[:, None] + sd[:, None] * nodes)))
    expected = z @ weights / weights.sum()
    np.testing.assert_allclose(linear_mean[:, 1], expected, atol=5 * 0.5 / 4_000**0.5)


def test_draws_scatter_as_the_posterior_says() -> None:
    posterior = fitted(2.0)
    draws = np.asarray(posterior.sample(jax.random.key(0), (4_000,))["w"])
    covariance = np.asarray(posterior.precision.inverse_dense())
    z = np.linalg.solve(np.linalg.cholesky(covariance), (draws - mode(2.0)).T)
    np.testing.assert_allclose(z.mean(1), 0, atol=5 / 4_000**0.5)
    np.testing.assert_allclose(z @ z.T / 4_000, np.eye(P), atol=5 * (2 / 4_000) ** 0.5)


def unlike_a_layer(params: Any, x: jax.Array) -> jax.Array:
    return x[:, 0] * params**2


def test_bad_input() -> None:
    one, options = jnp.ones(()), {"likelihood": "gaussian"}
    with pytest.raises(ValueError, match="must be positive, got -1"):
        laplace(unlike_a_layer, one, (X, Y), prior_precision=-1.0, **options)
    with pytest.raises(ValueError, match="'all' or 'last'"):
        fitted(1.0, layers="first")
    with pytest.raises(ValueError, match="no layer was found"):
        laplace(unlike_a_layer, one, (X, Y), layers="last", **options)
