"""Linearised nets: exact where the net is linear, and what their predictions are."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from ngvi.fisher import MLP
from ngvi.fisher.likelihoods import as_likelihood
from ngvi.nets import (
    GammaPrior,
    Mixture,
    ObservationNoise,
    Predictive,
    Prior,
    WeightPosterior,
)
from ngvi.nets.linearized_fit import Linearized, Settings, fit_linearized
from ngvi.nets.net import Net

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = (X @ [1.0, -2.0, 0.0] + 0.5 + 0.3 * RNG.normal(size=40))[:, None]
LINE, BENT = MLP((3, 1)), MLP((3, 5, 1))
NOISE = ObservationNoise.begin(2.0, 0.1)
KEY = jax.random.key(0)
WITH_ONE = np.c_[X, np.ones(40)]


def fitted(
    mlp: MLP,
    likelihood,
    y=Y,
    *,
    kl_weight=1.0,
    iterations=60,
    complexity=0.5,
    **prior,
):
    params = mlp.init(KEY)
    net = Net.of(mlp, params, X)
    of_net = Prior.of(layout=net.layout, dtype=net.dtype, **prior)
    settings = Settings(kl_weight, iterations, 3, complexity, patience=40, tol=0.0)
    mean = net.layout.vector(params)
    return fit_linearized(settings, net, mean, of_net, likelihood, X, y)


@pytest.mark.parametrize("kl_weight", [1.0, 0.5])
def test_a_linear_model_with_known_noise_is_exact(kl_weight: float) -> None:
    likelihood = NOISE.likelihood
    found = fitted(LINE, likelihood, precision=2.0, kl_weight=kl_weight)
    precision = 20.0 / kl_weight * WITH_ONE.T @ WITH_ONE + 2 * np.eye(4)
    mean = np.linalg.solve(precision, 20.0 / kl_weight * WITH_ONE.T @ Y[:, 0])
    np.testing.assert_allclose(found.posterior.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(found.posterior.precision.dense(), precision, rtol=1e-9)


def test_the_bound_is_the_evidence_of_a_linear_model() -> None:
    found = fitted(LINE, NOISE.likelihood, precision=2.0)
    covariance = WITH_ONE @ WITH_ONE.T / 2 + np.eye(40) / 20
    logdet = np.linalg.slogdet(2 * np.pi * covariance)[1]
    evidence = -(logdet + Y[:, 0] @ np.linalg.solve(covariance, Y[:, 0])) / 2
    np.testing.assert_allclose(found.elbo, evidence, rtol=1e-9)


def test_noise_and_groups_are_those_of_coordinate_ascent() -> None:
    groups = [{"w": np.array([[0], [0], [1]]), "b": np.array([2])}]
    hyperprior = GammaPrior(0.5, 0.1)
    found = fitted(
        LINE, NOISE, precision=1.0, hyperprior=hyperprior, groups=groups, iterations=400
    )
    delta, gamma = np.ones(4), 1.0
    for _ in range(2000):
        precision = gamma * WITH_ONE.T @ WITH_ONE + np.diag(delta)
        covariance = np.linalg.inv(precision)
        mean = gamma * covariance @ WITH_ONE.T @ Y[:, 0]
        squares = mean**2 + np.diag(covariance)
        for members in ([0, 1], [2], [3]):
            shape, rate = 0.5 + len(members) / 2, 0.1 + squares[members].sum() / 2
            delta[members] = shape / rate
        residuals = ((Y[:, 0] - WITH_ONE @ mean) ** 2).sum()
        spread = np.trace(WITH_ONE @ covariance @ WITH_ONE.T)
        gamma = (2.0 + 20) / (0.1 + (residuals + spread) / 2)
    np.testing.assert_allclose(found.posterior.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(found.posterior.prior.vector, delta, rtol=1e-6)
    np.testing.assert_allclose(found.posterior.noise.q.mean, gamma, rtol=1e-6)
    # The input that does not matter.
    assert delta[2] > 2 * delta[0]


@pytest.fixture(scope="module")
def bent() -> Linearized:
    # The highest fit is that of the last iterations.
    return fitted(BENT, NOISE, precision=1.0, iterations=200, complexity=0.0)


def test_the_mean_is_a_mode_and_the_curvature_that_of_the_engine(
    bent: Linearized,
) -> None:
    posterior = bent.posterior
    layout = posterior.prior.layout

    def minus_log_joint(w):
        f = BENT(layout.tree(w), X)
        squares = ((Y - f) ** 2).sum() * posterior.noise.q.mean
        return (squares + w @ w) / 2

    # Noise is learned at every iteration, and the mean follows.
    gradient = jax.grad(minus_log_joint)(posterior.mean)
    shift = posterior.precision.solve(gradient)
    assert shift @ gradient < 0.05
    jacobian = jax.jacobian(lambda w: BENT(layout.tree(w), X)[:, 0])(posterior.mean)
    precision = posterior.noise.q.mean * jacobian.T @ jacobian + np.eye(26)
    np.testing.assert_allclose(posterior.precision.dense(), precision, rtol=1e-8)


def test_classes_and_a_stop_of_its_own() -> None:
    labels = (Y[:, 0] > 0).astype(int)
    net = MLP((3, 2))
    params = net.init(KEY)
    found = Net.of(net, params, X)
    prior = Prior.of(1.0, found.layout, dtype=found.dtype)
    mean = found.layout.vector(params)
    result = fit_linearized(
        Settings(), found, mean, prior, as_likelihood("categorical"), X, labels
    )
    needed = int(np.isfinite(result.history).sum())
    assert needed < Settings().max_iterations
    assert (net(result.posterior.params, X).argmax(1) == labels).mean() > 0.9


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("kl_weight", 0.0, "kl_weight must be positive"),
        ("max_iterations", 0, "max_iterations must be positive"),
        ("warm_up", -1, "warm_up must not be negative"),
        ("complexity", 2.0, "complexity must be from 0 to 1"),
    ],
)
def test_settings_out_of_range(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**{name: value})


# -- predictions -----------------------------------------------------------------------


def jacobian_at(posterior: WeightPosterior, x: np.ndarray) -> np.ndarray:
    layout = posterior.prior.layout
    return np.asarray(
        jax.jacobian(lambda w: BENT(layout.tree(w), x)[:, 0])(posterior.mean)
    )


def test_marginal_moments_are_exact(bent: Linearized) -> None:
    posterior = bent.posterior
    predictive = Predictive(BENT, posterior, 64, linearized=True)
    found = predictive.moments(X[:7], KEY)
    jacobian = jacobian_at(posterior, X[:7])
    variance = np.diag(jacobian @ posterior.precision.inverse_dense() @ jacobian.T)
    np.testing.assert_allclose(found.mean[:, 0], BENT(posterior.params, X[:7])[:, 0])
    np.testing.assert_allclose(found.sd_of_mean[:, 0] ** 2, variance, rtol=1e-10)


def test_densities_are_those_of_a_normal(bent: Linearized) -> None:
    posterior = bent.posterior
    predictive = Predictive(BENT, posterior, 256, linearized=True)
    _, sd, of_mean = predictive.moments(X, KEY)
    mean = BENT(posterior.params, X)
    exact = jax.scipy.stats.norm.logpdf(Y, mean, sd)[:, 0]
    found = predictive.log_density(X, Y, KEY)
    # q(γ) of 42 degrees of freedom has nearly normal tails.
    np.testing.assert_allclose(found, exact, atol=0.1)
    assert (of_mean < sd).all()


def test_joint_draws_have_the_covariance_of_the_rows(bent: Linearized) -> None:
    posterior = bent.posterior
    draws = Predictive(BENT, posterior, 4000, linearized=True).outputs(X[:4], KEY)
    jacobian = jacobian_at(posterior, X[:4])
    covariance = jacobian @ posterior.precision.inverse_dense() @ jacobian.T
    found = np.cov(np.asarray(draws)[..., 0].T)
    scale = np.sqrt(np.diag(covariance))
    error = (found - covariance) / np.outer(scale, scale)
    assert np.abs(error).max() < 0.1


def test_a_mixture_has_the_moments_of_its_members(bent: Linearized) -> None:
    other = fitted(BENT, NOISE, -Y, precision=1.0, iterations=100).posterior
    mixture = Mixture.of([bent.posterior, other], [3.0, 1.0])
    predictive = Predictive(BENT, mixture, 64, linearized=True)
    mean, _, sd = predictive.moments(X[:5], KEY)
    parts = [
        Predictive(BENT, q, 64, linearized=True).moments(X[:5], KEY)
        for q in (bent.posterior, other)
    ]
    means = np.stack([part.mean for part in parts])
    variances = np.stack([part.sd_of_mean**2 for part in parts])
    weights = np.array([0.75, 0.25])[:, None, None]
    expected = (weights * means).sum(0)
    np.testing.assert_allclose(mean, expected, rtol=1e-10)
    spread = (weights * (variances + (means - expected) ** 2)).sum(0)
    np.testing.assert_allclose(sd**2, spread, rtol=1e-10)


def test_only_gaussians_are_linearised_about_their_means(bent: Linearized) -> None:
    nested = Mixture.of([Mixture.of([bent.posterior])])
    with pytest.raises(ValueError, match="mean of a Gaussian posterior"):
        Predictive(BENT, nested, linearized=True).moments(X, KEY)
