"""Conjugate updates are Bayes' rule; predictive distributions are its evidence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from ngvi import families
from ngvi.families import ExponentialFamily
from ngvi.families.conjugate_pairs import PAIRS
from ngvi.linalg import Dense, Diagonal
from tests.programs import compiled


def covariance(seed: int, dim: int) -> jax.Array:
    factor = np.random.default_rng(seed).standard_normal((dim, 2 * dim))
    return jnp.asarray(factor @ factor.T / dim)


# Members of the priors, and of the likelihoods in which something is known.
MEMBERS: dict[str, Callable[[], ExponentialFamily]] = {
    "Beta": lambda: families.Beta(2.3, 1.4),
    "Binomial": lambda: families.Binomial(0.3, total_count=5),
    "Dirichlet": lambda: families.Dirichlet(jnp.array([1.2, 2.0, 0.7])),
    "Gamma": lambda: families.Gamma(2.3, 1.7),
    "Gaussian": lambda: families.Gaussian(
        jnp.array([0.3, -1.0]), Dense.from_dense(covariance(0, 2))
    ),
    "InverseGamma": lambda: families.InverseGamma(3.3, 1.7),
    "InverseWishart": lambda: families.InverseWishart(5.0, covariance(1, 2)),
    "Laplace": lambda: families.Laplace(scale=1.0, loc=0.5),
    "MatrixNormalWishart": lambda: families.MatrixNormalWishart(
        jnp.ones((3, 2)), covariance(2, 3), 4.0, covariance(3, 2)
    ),
    "Multinomial": lambda: families.Multinomial(jnp.zeros(3), total_count=5),
    "NegativeBinomial": lambda: families.NegativeBinomial(0.3, total_count=2.5),
    "Normal": lambda: families.Normal(0.3, 1.7),
    "NormalGamma": lambda: families.NormalGamma(0.3, 1.2, 2.0, 1.5),
    "NormalInverseWishart": lambda: families.NormalInverseWishart(
        jnp.array([0.3, -1.0]), 1.5, 5.0, covariance(4, 2)
    ),
    "VonMises": lambda: families.VonMises(0.3, 1.7),
    "VonMisesFisher": lambda: families.VonMisesFisher(jnp.array([0.0, 0.6, 0.8]), 2.0),
    "Weibull": lambda: families.Weibull(1.0, concentration=1.5),
    "Wishart": lambda: families.Wishart(4.0, covariance(5, 2)),
}


def _with_rate(likelihood: Any, rate: jax.Array) -> ExponentialFamily:
    if isinstance(likelihood, type):
        likelihood = likelihood.from_natural(-1.0)
    return likelihood.with_natural_params(-rate)


# (likelihood, θ) ↦ its member with this parameter: by prior and likelihood.
AT: dict[tuple[str, str], Callable[[Any, Any], ExponentialFamily]] = {
    ("Beta", "Bernoulli"): lambda _, p: families.Bernoulli.from_probs(p),
    ("Beta", "Binomial"): lambda like, p: families.Binomial.from_probs(
        p, total_count=like.total_count
    ),
    # θ is the probability of the event that ends the wait.
    ("Beta", "Geometric"): lambda _, p: families.Geometric.from_natural(jnp.log1p(-p)),
    ("Beta", "NegativeBinomial"): lambda like, p: like.with_natural_params(
        jnp.log1p(-p)
    ),
    ("Dirichlet", "Categorical"): lambda _, p: families.Categorical.from_probs(p),
    ("Dirichlet", "Multinomial"): lambda like, p: families.Multinomial.from_probs(
        p, total_count=like.total_count
    ),
    ("Gamma", "Poisson"): lambda _, rate: families.Poisson(rate),
    ("Gamma", "Exponential"): _with_rate,
    ("Gamma", "Laplace"): _with_rate,
    ("Gamma", "Rayleigh"): _with_rate,
    ("Gamma", "Weibull"): _with_rate,
    ("Gamma", "Gamma"): lambda like, rate: families.Gamma(like.concentration, rate),
    ("Gamma", "Normal"): lambda like, precision: families.Normal(
        like.loc, precision**-0.5
    ),
    ("InverseGamma", "Normal"): lambda like, variance: families.Normal(
        like.loc, jnp.sqrt(variance)
    ),
    ("Normal", "Normal"): lambda like, loc: families.Normal(loc, like.scale),
    ("Gaussian", "Gaussian"): lambda like, mean: families.Gaussian(
        mean, like.precision
    ),
    ("VonMises", "VonMises"): lambda like, loc: families.VonMises(
        loc, like.concentration
    ),
    ("VonMisesFisher", "VonMisesFisher"): lambda like, loc: families.VonMisesFisher(
        loc, like.concentration
    ),
    ("Wishart", "Gaussian"): lambda like, precision: families.Gaussian(
        like.mean, Dense.from_dense(precision)
    ),
    ("InverseWishart", "Gaussian"): lambda like, matrix: families.Gaussian(
        like.mean, Dense.from_moments(matrix)
    ),
    ("NormalGamma", "Normal"): lambda _, theta: families.Normal(
        theta.mean, theta.precision**-0.5
    ),
    ("NormalInverseWishart", "Gaussian"): lambda _, theta: families.Gaussian(
        theta.mean, Dense.from_moments(theta.covariance)
    ),
}
REGRESSION = (families.MatrixNormalWishart, families.Gaussian)


def likelihood_of(cls: type[ExponentialFamily]) -> Any:
    return MEMBERS[cls.__name__]() if cls.__name__ in MEMBERS else cls


def pick(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


@pytest.mark.parametrize(
    ("prior_class", "likelihood_class"),
    [key for key in PAIRS if key != REGRESSION],
    ids=lambda cls: cls.__name__,
)
def test_the_posterior_is_bayes_rule(
    prior_class: type[ExponentialFamily], likelihood_class: type[ExponentialFamily]
) -> None:
    row = PAIRS[prior_class, likelihood_class]
    member = AT[prior_class.__name__, likelihood_class.__name__]
    prior = MEMBERS[prior_class.__name__]()
    likelihood = likelihood_of(likelihood_class)

    @compiled
    def evidence(prior: ExponentialFamily) -> tuple[jax.Array, ...]:
        """log p(y), which must not depend on the θ it is computed at, of data with
        weights, and of one datum, with that datum."""
        theta = prior.sample(jax.random.key(1), (4,))
        y = member(likelihood, pick(theta, 0)).sample(jax.random.key(2), (6,))
        weights = jnp.array([0.0, 1.0, 1.0, 2.0, 1.0, 0.5])

        def at(t: Any) -> tuple[jax.Array, jax.Array]:
            logs = member(likelihood, t).log_prob(y)
            return (weights * logs).sum(), logs[0]

        many, one = jax.vmap(at)(theta)
        posterior = prior.observe(likelihood, y, weights)
        after_one = prior.observe(likelihood, pick(y, slice(1)))
        start = prior.log_prob(theta)
        return (
            start + many - posterior.log_prob(theta),
            start + one - after_one.log_prob(theta),
            pick(y, 0),
        )

    many, one, y = evidence(prior)
    np.testing.assert_allclose(many, many[0], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(one, one[0], rtol=1e-10, atol=1e-10)
    if row.predictive is None:
        with pytest.raises(NotImplementedError, match="predictive"):
            prior.predictive(likelihood)
    else:
        predictive = prior.predictive(likelihood)
        np.testing.assert_allclose(predictive.log_prob(y), one[0], atol=1e-9)


def test_a_posterior_by_quadrature() -> None:
    prior, y = families.Gamma(2.3, 1.7), jnp.array([3.0, 5.0, 0.0])
    posterior = prior.observe(families.Poisson, y)
    grid = np.linspace(1e-4, 25, 200_001)
    logs = np.asarray(prior.log_prob(jnp.asarray(grid)))
    for datum in np.asarray(y):
        logs = logs + datum * np.log(grid) - grid
    density = np.exp(logs)
    density /= scipy.integrate.simpson(density, x=grid)
    np.testing.assert_allclose(
        density[1000::5000], np.exp(posterior.log_prob(grid[1000::5000])), rtol=1e-8
    )


@compiled
def _regression(
    prior: families.MatrixNormalWishart, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    theta = prior.sample(jax.random.key(1), (4,))

    def log_likelihood(t: Any) -> jax.Array:
        noise = Dense.from_dense(t.precision)
        residual = families.Gaussian(jnp.zeros(2), noise)
        return residual.log_prob(y - x @ t.weights).sum()

    posterior = prior.observe(families.Gaussian, (x, y))
    changes = (
        prior.log_prob(theta)
        + jax.vmap(log_likelihood)(theta)
        - posterior.log_prob(theta)
    )
    terms = [
        prior.observe(families.Gaussian, (x[:i], y[:i]))
        .predictive_at(x[i])
        .log_prob(y[i])
        for i in range(len(x))
    ]
    return changes, sum(terms)


def test_linear_regression() -> None:
    rng = np.random.default_rng(0)
    prior = MEMBERS["MatrixNormalWishart"]()
    x, y = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    changes, evidence = _regression(prior, jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(changes, changes[0], atol=1e-9)
    # The evidence is the product of what each datum was worth, given those before.
    np.testing.assert_allclose(evidence, changes[0], atol=1e-9)


def test_regression_approaches_least_squares() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 3))
    y = x @ np.arange(6.0).reshape(3, 2) + 0.1 * rng.standard_normal((500, 2))
    vague = families.MatrixNormalWishart(
        jnp.zeros((3, 2)), 1e-8 * jnp.eye(3), 2.0, jnp.eye(2)
    )
    posterior = vague.observe(families.Gaussian, (x, y))
    least_squares = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(posterior.loc, least_squares, atol=1e-7)


def test_batches_of_posteriors() -> None:
    prior = families.Gamma(jnp.array([1.0, 2.0]), 1.0)
    y = jnp.array([[3, 1], [5, 0], [4, 2]])
    posterior = prior.observe(families.Poisson, y)
    np.testing.assert_allclose(posterior.concentration, [13.0, 5.0])
    np.testing.assert_allclose(posterior.rate, [4.0, 4.0])


def test_mistakes_are_explained() -> None:
    gamma = families.Gamma(1.0, 1.0)
    with pytest.raises(TypeError, match="Gamma is not conjugate to Bernoulli; it is"):
        gamma.observe(families.Bernoulli, jnp.array([1.0]))
    dense = MEMBERS["Gaussian"]()
    diagonal = families.Gaussian(jnp.zeros(2), Diagonal(jnp.ones(2)))
    with pytest.raises(TypeError, match="the same structure, got Dense and Diagonal"):
        dense.observe(diagonal, jnp.zeros((3, 2)))


WITH_KNOWN = {
    *(("Gamma", name) for name in ("Gamma", "Laplace", "Normal", "Weibull")),
    *(("Beta", name) for name in ("Binomial", "NegativeBinomial")),
    *((name, "Gaussian") for name in ("Gaussian", "InverseWishart", "Wishart")),
    *((name, name) for name in ("Normal", "VonMises", "VonMisesFisher")),
    ("Dirichlet", "Multinomial"),
    ("InverseGamma", "Normal"),
}
"""Pairs in which the prior does not speak of all that the likelihood has."""


@pytest.mark.parametrize(
    ("prior_class", "likelihood_class"), PAIRS, ids=lambda cls: cls.__name__
)
def test_what_must_be_known_is_asked_for(
    prior_class: type[ExponentialFamily], likelihood_class: type[ExponentialFamily]
) -> None:
    prior, names = MEMBERS[prior_class.__name__](), (prior_class, likelihood_class)
    with pytest.raises((TypeError, ValueError)) as caught:
        prior.observe(likelihood_class, math.nan)
    asked = f"pass a member of {likelihood_class.__name__}" in str(caught.value)
    assert asked == (tuple(cls.__name__ for cls in names) in WITH_KNOWN)
