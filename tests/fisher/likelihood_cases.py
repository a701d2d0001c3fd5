"""The likelihoods under test: a new one is one row of `LIKELIHOODS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from ngvi import families
from ngvi.fisher.likelihoods import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Exponential,
    FromNumPyro,
    Gamma,
    Gaussian,
    HeteroscedasticGaussian,
    Likelihood,
    MultivariateGaussian,
    NaturalParameters,
    NegativeBinomial,
    Ordinal,
    Poisson,
    Product,
    StudentT,
    VonMises,
)

COVARIANCE = np.array([[2.0, 0.5], [0.5, 1.0]])
CUTS = np.array([-1.0, 0.3, 2.0])
COUNTS = np.array([3, 8, 20])
X = np.array([-0.7, 0.2, 1.1])
Z = np.array([0.3, 0.9, -0.4])


@dataclass(frozen=True)
class Case:
    """A likelihood at outputs f and others g, with a reference for log p(y | f)."""

    name: str
    likelihood: Likelihood
    f: Any
    g: Any
    log_prob: Callable[[Any, Any], Any]
    """(f, y) ↦ log p, NumPy arrays: SciPy's or NumPyro's. Summed over entries."""
    statistic: Callable[[Any], Any] | None = lambda y: y
    """What of y has the mean that the likelihood states; None for no such thing."""
    extreme: Any = None
    """Outputs where something saturates; scaled ones of f by default."""


def _norm(f: Any, y: Any) -> Any:
    return stats.norm.logpdf(y, f[0], np.exp(f[1]))


def _nbinom(f: Any, y: Any) -> Any:
    r, mean = np.exp(f[1]), np.exp(f[0])
    return stats.nbinom.logpmf(y, r, r / (r + mean))


def _gamma(f: Any, y: Any) -> Any:
    shape = np.exp(f[1])
    return stats.gamma.logpdf(y, shape, scale=np.exp(f[0]) / shape)


def _beta(f: Any, y: Any) -> Any:
    mean, precision = 1 / (1 + np.exp(-f[0])), np.exp(f[1])
    return stats.beta.logpdf(y, mean * precision, (1 - mean) * precision)


def _ordinal(f: Any, y: Any) -> Any:
    return dist.OrderedLogistic(f[0], f[1]).log_prob(y)


def _of_product(f: Any, y: Any) -> Any:
    count = stats.poisson.logpmf(y["count"], np.exp(f["count"]))
    return count.sum() + _norm(f["size"], y["size"]).sum()


def _hot(classes: int) -> Callable[[Any], Any]:
    return lambda y: jax.nn.one_hot(y, classes, dtype=float)


LIKELIHOODS = [
    Case(
        "gaussian",
        Gaussian(np.array([0.5, 1.0, 2.0])),
        X,
        Z,
        lambda f, y: stats.norm.logpdf(y, f, [0.5, 1.0, 2.0]),
    ),
    Case("gaussian-heteroscedastic", HeteroscedasticGaussian(), (X, Z), (Z, X), _norm),
    Case(
        "gaussian-covariance",
        MultivariateGaussian.from_covariance(COVARIANCE),
        np.stack([X, Z], -1),
        np.stack([Z, X], -1),
        lambda f, y: stats.multivariate_normal.logpdf(y - f, cov=COVARIANCE),
    ),
    Case(
        "bernoulli",
        Bernoulli(),
        X,
        Z,
        lambda f, y: stats.bernoulli.logpmf(y, 1 / (1 + np.exp(-f))),
    ),
    Case(
        "binomial",
        Binomial(COUNTS),
        X,
        Z,
        lambda f, y: stats.binom.logpmf(y, COUNTS, 1 / (1 + np.exp(-f))),
    ),
    Case(
        "categorical",
        Categorical(),
        np.stack([X, Z, X - Z, 0 * X], -1),
        np.stack([Z, X, 0 * X, X - Z], -1),
        lambda f, y: dist.Categorical(logits=f).log_prob(y),
        _hot(4),
    ),
    Case(
        "ordinal",
        Ordinal(CUTS),
        X,
        Z,
        lambda f, y: _ordinal((f, CUTS), y),
        _hot(4),
    ),
    Case(
        "ordinal-learned",
        Ordinal(),
        (X, np.tile(CUTS, (3, 1))),
        (Z, np.tile(CUTS + 0.2, (3, 1))),
        _ordinal,
        _hot(4),
        (np.array([-900.0, 0, 900]), np.tile(CUTS, (3, 1))),
    ),
    Case("poisson", Poisson(), X, Z, lambda f, y: stats.poisson.logpmf(y, np.exp(f))),
    Case(
        "negative-binomial-learned",
        NegativeBinomial(),
        (X + 1, Z),
        (Z, X),
        _nbinom,
        extreme=(np.array([-60.0, 0, 20]), np.array([10.0, 0, -9])),
    ),
    Case(
        "gamma",
        Gamma(2.5),
        X,
        Z,
        lambda f, y: _gamma((f, np.log(2.5)), y),
    ),
    Case("gamma-learned", Gamma(), (X, Z), (Z, X), _gamma),
    Case(
        "exponential",
        Exponential(),
        X,
        Z,
        lambda f, y: stats.expon.logpdf(y, scale=np.exp(f)),
    ),
    Case(
        "exponential-rate",
        Exponential("log rate"),
        X,
        Z,
        lambda f, y: stats.expon.logpdf(y, scale=np.exp(-f)),
    ),
    Case(
        "student-t-learned",
        StudentT(None, None),
        (X, Z, Z + 1.5),
        (Z, X, X + 1.5),
        lambda f, y: stats.t.logpdf(y, np.exp(f[2]), f[0], np.exp(f[1])),
        None,
        (X, 30 * Z, np.array([-3.0, 9, 16])),
    ),
    Case("beta-learned", Beta(), (X, Z), (Z, X), _beta, extreme=(15 * X, 15 * Z)),
    Case(
        "von-mises-learned",
        VonMises(),
        (X, Z),
        (Z, X),
        lambda f, y: stats.vonmises.logpdf(y, np.exp(f[1]), f[0]),
        None,
        (80 * X, 20 * Z),
    ),
    Case(
        "product",
        Product({"size": HeteroscedasticGaussian(), "count": Poisson()}),
        {"size": (X, Z), "count": Z},
        {"size": (Z, X), "count": X},
        _of_product,
    ),
    Case(
        "family",
        NaturalParameters(families.Gamma),
        (X + 1, -np.exp(Z)),
        (Z + 1, -np.exp(X)),
        lambda f, y: stats.gamma.logpdf(y, f[0] + 1, scale=-1 / f[1]),
        extreme=(100 * np.exp(X), -np.exp(20 * Z)),
    ),
    Case(
        "family-member",
        NaturalParameters.of(families.NegativeBinomial(0.0, 3)),
        -np.exp(X),
        -np.exp(Z),
        lambda f, y: stats.nbinom.logpmf(y, 3, -np.expm1(f)),
        extreme=-np.exp(3 * Z),
    ),
    Case(
        "numpyro",
        FromNumPyro(lambda f: dist.Gamma(jnp.exp(f[0]), jnp.exp(f[1]))),
        (X, Z),
        (Z, X),
        lambda f, y: stats.gamma.logpdf(y, np.exp(f[0]), scale=np.exp(-f[1])),
        extreme=(5 * X, 5 * Z),
    ),
    Case(
        "numpyro-enumerated",
        FromNumPyro(lambda f: dist.OrderedLogistic(f, jnp.asarray(CUTS, f.dtype))),
        X,
        Z,
        lambda f, y: _ordinal((f, CUTS), y),
        None,
        5 * X,
    ),
]

every_likelihood = pytest.mark.parametrize("case", LIKELIHOODS, ids=lambda c: c.name)
