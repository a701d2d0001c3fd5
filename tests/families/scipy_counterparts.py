"""The distributions of `scipy.stats` that equal a family's members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats as st

ON_NUMBERS: dict[str, Callable[[Any], Any]] = {
    "Bernoulli": lambda q: st.bernoulli(q.probs),
    "Beta": lambda q: st.beta(q.concentration1, q.concentration0),
    "Binomial": lambda q: st.binom(q.total_count, q.probs),
    "ChiSquared": lambda q: st.chi2(q.df),
    "Exponential": lambda q: st.expon(scale=1 / q.rate),
    "Gamma": lambda q: st.gamma(q.concentration, scale=1 / q.rate),
    "Geometric": lambda q: st.geom(q.probs, loc=-1),
    "InverseGamma": lambda q: st.invgamma(q.concentration, scale=q.rate),
    "InverseGaussian": lambda q: st.invgauss(
        q.loc / q.concentration, scale=q.concentration
    ),
    "Laplace": lambda q: st.laplace(q.loc, q.scale),
    "LogNormal": lambda q: st.lognorm(q.scale, scale=np.exp(q.loc)),
    "LogSeries": lambda q: st.logser(q.probs),
    "NegativeBinomial": lambda q: st.nbinom(q.total_count, 1 - q.probs),
    "Normal": lambda q: st.norm(q.loc, q.scale),
    "Poisson": lambda q: st.poisson(q.rate),
    "Rayleigh": lambda q: st.rayleigh(scale=q.scale),
    "Weibull": lambda q: st.weibull_min(q.concentration, scale=q.scale),
}
"""Of batches of members."""


def _categorical(q: Any, x: Any) -> Any:
    return np.log(np.asarray(q.probs)[int(x)])


def _gaussian(q: Any, x: Any) -> Any:
    covariance = np.linalg.inv(q.precision.dense())
    return st.multivariate_normal(q.mean, covariance).logpdf(x)


def _normal_gamma(q: Any, x: Any) -> Any:
    precision = st.gamma(q.concentration, scale=1 / q.rate).logpdf(x.precision)
    sd = 1 / np.sqrt(q.kappa * x.precision)
    return precision + st.norm(q.loc, sd).logpdf(x.mean)


def _normal_inverse_wishart(q: Any, x: Any) -> Any:
    covariance = st.invwishart(float(q.df), q.scale).logpdf(x.covariance)
    mean = st.multivariate_normal(q.loc, np.asarray(x.covariance) / float(q.kappa))
    return covariance + mean.logpdf(x.mean)


def _matrix_normal_wishart(q: Any, x: Any) -> Any:
    precision = st.wishart(float(q.df), q.scale).logpdf(x.precision)
    rows, columns = np.linalg.inv(q.row_precision), np.linalg.inv(x.precision)
    return precision + st.matrix_normal(q.loc, rows, columns).logpdf(x.weights)


def _product(q: Any, x: Any) -> Any:
    slopes, noise = q.factors["slopes"], q.factors["noise"]
    first = ON_NUMBERS["Normal"](slopes).logpdf(x["slopes"]).sum()
    return first + ON_NUMBERS["Gamma"](noise).logpdf(x["noise"])


def _mixture(q: Any, x: Any) -> Any:
    component, value = x
    of = ON_NUMBERS[type(q.components).__name__](q.components)
    return np.log(q.weights[component]) + of.logpdf(value)[int(component)]


def _von_mises(q: Any, x: Any) -> Any:
    return st.vonmises(q.concentration, q.loc).logpdf(x)


ONE_BY_ONE: dict[str, Callable[[Any, Any], Any]] = {
    "Categorical": _categorical,
    "Dirichlet": lambda q, x: st.dirichlet(q.concentration).logpdf(x / x.sum()),
    "Gaussian": _gaussian,
    "InverseWishart": lambda q, x: st.invwishart(float(q.df), q.scale).logpdf(x),
    "MatrixNormalWishart": _matrix_normal_wishart,
    "Mixture": _mixture,
    "Multinomial": lambda q, x: st.multinomial(q.total_count, q.probs).logpmf(x),
    "NormalGamma": _normal_gamma,
    "NormalInverseWishart": _normal_inverse_wishart,
    "Product": _product,
    "VonMises": _von_mises,
    "VonMisesFisher": lambda q, x: st.vonmises_fisher(
        q.loc, float(q.concentration)
    ).logpdf(x),
    "Wishart": lambda q, x: st.wishart(float(q.df), q.scale).logpdf(x),
}
"""Log densities of single members at single observations."""
