"""The conjugate pairs, a row each; see `ngvi.families.conjugacy`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ngvi.families.bernoulli import Bernoulli
from ngvi.families.beta import Beta
from ngvi.families.binomial import Binomial
from ngvi.families.categorical import Categorical
from ngvi.families.conjugacy import Pair
from ngvi.families.dirichlet import Dirichlet
from ngvi.families.domains import REAL_VECTOR, Domain, Joint, whole_numbers
from ngvi.families.exponential import Exponential
from ngvi.families.factored import factor, inverse
from ngvi.families.gamma import Gamma
from ngvi.families.gaussian import Gaussian
from ngvi.families.geometric import Geometric
from ngvi.families.inverse_gamma import InverseGamma
from ngvi.families.inverse_wishart import InverseWishart
from ngvi.families.laplace import Laplace
from ngvi.families.matrix_normal_wishart import MatrixNormalWishart
from ngvi.families.multinomial import Multinomial
from ngvi.families.negative_binomial import NegativeBinomial
from ngvi.families.normal import Normal
from ngvi.families.normal_gamma import NormalGamma
from ngvi.families.normal_inverse_wishart import NormalInverseWishart
from ngvi.families.poisson import Poisson
from ngvi.families.von_mises import VonMises
from ngvi.families.von_mises_fisher import VonMisesFisher
from ngvi.families.weibull import Rayleigh, Weibull
from ngvi.families.wishart import Wishart
from ngvi.linalg.small import outer

Rows = dict[tuple[type, type], Pair]
"""By the prior's and the likelihood's class."""


def _numpyro() -> Any:
    import numpyro.distributions as dist

    return dist


def _squares(likelihood: Normal, y: Array) -> Array:
    return (y - likelihood.loc) ** 2


# -- probabilities ------------------------------------------------------------------


def _one_hot(prior: Dirichlet, _: Any, y: Array) -> Array:
    count = prior.concentration.shape[-1]
    return jax.nn.one_hot(y.astype(int), count, dtype=prior.dtype)


def _classes(prior: Dirichlet, _: Any) -> Domain:
    return whole_numbers(0, prior.concentration.shape[-1] - 1)


def _total(likelihood: Any, y: Array) -> Array:
    return jnp.full_like(y, likelihood.total_count)


PROBABILITIES: Rows = {
    (Beta, Bernoulli): Pair(
        lambda _, __, y: (y, 1 - y),
        lambda prior, _: _numpyro().Bernoulli(prior.mean),
    ),
    (Beta, Binomial): Pair(
        lambda _, like, y: (y, _total(like, y) - y),
        lambda prior, like: _numpyro().BetaBinomial(
            prior.concentration1, prior.concentration0, like.total_count
        ),
    ),
    # θ is the probability of the event that ends the wait.
    (Beta, Geometric): Pair(
        lambda _, __, y: (jnp.ones_like(y), y),
        lambda prior, _: _numpyro().BetaNegativeBinomial(
            prior.concentration0, prior.concentration1, 1
        ),
    ),
    (Beta, NegativeBinomial): Pair(
        lambda _, like, y: (_total(like, y), y),
        lambda prior, like: _numpyro().BetaNegativeBinomial(
            prior.concentration0, prior.concentration1, like.total_count
        ),
    ),
    (Dirichlet, Categorical): Pair(
        _one_hot,
        lambda prior, _: _numpyro().Categorical(prior.mean),
        support=_classes,
    ),
    (Dirichlet, Multinomial): Pair(
        lambda _, __, y: y,
        lambda prior, like: _numpyro().DirichletMultinomial(
            prior.concentration, like.total_count
        ),
    ),
}

# -- rates and scales ---------------------------------------------------------------


def _rate_terms(_: Any, likelihood: Any, y: Array) -> Any:
    if isinstance(likelihood, type):  # any member: its rate does not matter
        likelihood = likelihood.from_natural(-1.0)  # type: ignore[attr-defined]
    return jnp.ones_like(y), -likelihood.sufficient_statistics(y)


def _lomax(prior: Gamma, _: Any) -> Any:
    """Of y | b ~ Exponential(b), b ~ Gamma: y + rate is Pareto."""
    dist = _numpyro()
    shift = dist.transforms.AffineTransform(
        -prior.rate, 1.0, domain=dist.constraints.greater_than(prior.rate)
    )
    pareto = dist.Pareto(prior.rate, prior.concentration)
    return dist.TransformedDistribution(pareto, shift)


def _student_of_precision(prior: Gamma, likelihood: Normal) -> Any:
    a, b = prior.concentration, prior.rate
    return _numpyro().StudentT(2 * a, likelihood.loc, jnp.sqrt(b / a))


RATES: Rows = {
    (Gamma, Poisson): Pair(
        lambda _, __, y: (y, -jnp.ones_like(y)),
        lambda prior, _: _numpyro().GammaPoisson(prior.concentration, prior.rate),
    ),
    # θ is −λ: 1/scale of Laplace, scaleᐨᵏ of Weibull, 1/(2σ²) of Rayleigh.
    **{
        (Gamma, cls): Pair(_rate_terms, _lomax if cls is Exponential else None)
        for cls in (Exponential, Laplace, Rayleigh, Weibull)
    },
    # The likelihood's concentration is known, θ is its rate.
    (Gamma, Gamma): Pair(
        lambda _, like, y: (jnp.broadcast_to(like.concentration, y.shape), -y),
        known=True,
    ),
    # The likelihood's loc is known, θ is its precision or its variance.
    (Gamma, Normal): Pair(
        lambda _, like, y: (jnp.full_like(y, 0.5), -_squares(like, y) / 2),
        _student_of_precision,
        known=True,
    ),
    (InverseGamma, Normal): Pair(
        lambda _, like, y: (jnp.full_like(y, -0.5), -_squares(like, y) / 2),
        _student_of_precision,
        known=True,
    ),
}

# -- means and directions -----------------------------------------------------------


def _same_structure(prior: Gaussian, likelihood: Gaussian, y: Array) -> Any:
    mine: Any = prior.precision
    noise: Any = likelihood.precision
    shapes = [jax.tree.structure(precision) for precision in (mine, noise)]
    if len(set(shapes)) > 1:
        raise TypeError(
            "observe: the precisions of the prior and of the likelihood must have the "
            f"same structure, got {type(mine).__name__} and {type(noise).__name__}"
        )
    half = jax.tree.map(lambda s: -s / 2, noise.entries())
    count = (y.shape[0],)
    return noise.mv(y), jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (*count, *leaf.shape)), half
    )


def _normal_of_mean(prior: Normal, likelihood: Normal) -> Any:
    return _numpyro().Normal(prior.loc, jnp.sqrt(prior.scale**2 + likelihood.scale**2))


def _gaussian_of_mean(prior: Gaussian, likelihood: Gaussian) -> Any:
    noise = likelihood.precision.inverse_dense()
    covariance = prior.precision.inverse_dense() + noise
    return _numpyro().MultivariateNormal(prior.mean, covariance)


# The likelihood's scale, precision or concentration is known.
MEANS: Rows = {
    (Normal, Normal): Pair(
        lambda _, like, y: (
            y / like.scale**2,
            jnp.broadcast_to(-0.5 / like.scale**2, y.shape),
        ),
        _normal_of_mean,
        known=True,
    ),
    (Gaussian, Gaussian): Pair(_same_structure, _gaussian_of_mean, known=True),
    (VonMises, VonMises): Pair(
        lambda _, like, y: (
            like.concentration * jnp.cos(y),
            like.concentration * jnp.sin(y),
        ),
        known=True,
    ),
    (VonMisesFisher, VonMisesFisher): Pair(
        lambda _, like, y: like.concentration[..., None] * y,
        known=True,
    ),
}

# -- covariances, and means with them -----------------------------------------------


def _scatter(sign: float) -> Any:
    """±½ for log det X, −½ of the scatter around a known mean for the rest."""

    def terms(_: Any, likelihood: Gaussian, y: Array) -> Any:
        power = jnp.full(y.shape[:-1], sign / 2, y.dtype)
        return power, -outer(y - likelihood.mean) / 2

    return terms


def _student(df: Array, loc: Array, scale: Array) -> Any:
    """The multivariate t of a Gaussian whose precision is Wishart(df, scale⁻¹)."""
    remaining = df - scale.shape[-1] + 1
    root = factor(scale).root / jnp.sqrt(remaining)[..., None, None]
    return _numpyro().MultivariateStudentT(remaining, loc, root)


def _normal_gamma_student(prior: NormalGamma, _: Any) -> Any:
    ratio = prior.rate * (prior.kappa + 1) / (prior.concentration * prior.kappa)
    return _numpyro().StudentT(2 * prior.concentration, prior.loc, jnp.sqrt(ratio))


def _normal_wishart_terms(_: Any, __: Any, y: Array) -> Any:
    half = jnp.full(y.shape[:-1], 0.5, y.dtype)
    return y, -half, -outer(y) / 2, half


def _normal_wishart_student(prior: NormalInverseWishart, _: Any) -> Any:
    widening = ((prior.kappa + 1) / prior.kappa)[..., None, None]
    return _student(prior.df, prior.loc, widening * prior.scale)


def _regression_terms(_: Any, __: Any, pairs: tuple[Array, Array]) -> Any:
    x, y = pairs
    half = jnp.full(y.shape[:-1], 0.5, y.dtype)
    return x[..., :, None] * y[..., None, :], -outer(x) / 2, -outer(y) / 2, half


COVARIANCES: Rows = {
    (Wishart, Gaussian): Pair(
        _scatter(1.0),
        lambda prior, like: _student(prior.df, like.mean, inverse(prior.scale)),
        known=True,
    ),
    (InverseWishart, Gaussian): Pair(
        _scatter(-1.0),
        lambda prior, like: _student(prior.df, like.mean, prior.scale),
        known=True,
    ),
    (NormalGamma, Normal): Pair(
        lambda _, __, y: (
            y,
            jnp.full_like(y, -0.5),
            -(y**2) / 2,
            jnp.full_like(y, 0.5),
        ),
        _normal_gamma_student,
    ),
    (NormalInverseWishart, Gaussian): Pair(
        _normal_wishart_terms, _normal_wishart_student
    ),
    # Linear regression: an observation is a pair (x, y) with y ~ N(Wᵀx, Λ⁻¹). Its
    # predictive distribution needs x: see `MatrixNormalWishart.predictive_at`.
    (MatrixNormalWishart, Gaussian): Pair(
        _regression_terms,
        support=lambda _, __: Joint((REAL_VECTOR, REAL_VECTOR)),
    ),
}

PAIRS: Rows = {**PROBABILITIES, **RATES, **MEANS, **COVARIANCES}
