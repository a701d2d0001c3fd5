"""The inverse Wishart family: X⁻¹ ~ Wishart(ν, Ψ⁻¹).

    λ = (−(ν + p + 1)/2, −½ Ψ),   T(X) = (log det X, X⁻¹),
    μ = (log det ½Ψ − ψ_p(ν/2), νΨ⁻¹),
    A(λ) = log Γ_p(a) − a log det ½Ψ,  a = ν/2,   h = 1.

μ → λ: p log a − ψ_p(a) = log det E[X⁻¹] + E[log det X] has one root a, and
Ψ = 2a E[X⁻¹]⁻¹.

Source: Gelman et al. (2013), Bayesian data analysis, appendix A.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families import wishart_terms as terms
from ngvi.families.domains import POSITIVE_DEFINITE, REAL
from ngvi.families.factored import factor, stein_loss
from ngvi.families.parameters import family, parameter
from ngvi.families.special.multivariate import (
    inverse_wishart_gap,
    multivariate_digamma,
    multivariate_log_gamma,
)
from ngvi.families.wishart import Matrix, Pair, ScatterMatrix
from ngvi.linalg.batching import diagonal_of
from ngvi.linalg.small import gram, inverse_triangular, multiply, outer


@family
class InverseWishart(ScatterMatrix):
    """InverseWishart(df ν, scale Ψ): p(X) ∝ det X^(−(ν+p+1)/2) exp(−½ tr ΨX⁻¹).

    Args:
        df: ν > p − 1, the degrees of freedom, shape (*b,).
        scale: Ψ, symmetric positive definite, shape (*b, p, p); the mean is
            Ψ/(ν − p − 1).

    Example:
        >>> import jax.numpy as jnp
        >>> q = InverseWishart(5.0, 2 * jnp.eye(2))
        >>> [float(v) for v in jnp.diagonal(q.mean)]
        [1.0, 1.0]
    """

    df: Float[Array, "*b"] = parameter(REAL)
    scale: Matrix = parameter(POSITIVE_DEFINITE)

    numpyro_names: ClassVar[tuple[str, ...]] = ("InverseWishart",)

    @property
    def natural_params(self) -> Pair:
        return -(self.df + self.dim + 1) / 2, -self.scale / 2

    @classmethod
    def from_natural(cls, params: Pair) -> Self:
        p = params[1].shape[-1]
        return cls(-2 * params[0] - p - 1, -2 * params[1])

    @classmethod
    def from_mean(cls, params: Pair) -> Self:
        mean_log_det, mean_inverse = params
        precision = factor(mean_inverse)
        gap = precision.log_det() + mean_log_det
        df = 2 * inverse_wishart_gap(gap, mean_inverse.shape[-1])
        return cls(df, df[..., None, None] * precision.inverse())

    def log_partition(self, params: Pair) -> Float[Array, "*b"]:
        p = params[1].shape[-1]
        a = -params[0] - (p + 1) / 2
        return multivariate_log_gamma(a, p) - a * factor(-params[1]).log_det()

    def sufficient_statistics(self, x: Matrix) -> Pair:
        value = factor(x)
        return value.log_det(), value.inverse()

    def _scaled(self, b: Matrix) -> Matrix:
        # With Ψ = L Lᵀ: X = L (B Bᵀ)⁻¹ Lᵀ, and no inverse of Ψ is formed.
        return gram(multiply(inverse_triangular(b), factor(self.scale).root.mT))

    @property
    def mean(self) -> Matrix:
        return terms.inverse_wishart_mean(self.df, self.scale)

    @property
    def variance(self) -> Matrix:
        p, df = self.dim, self.df[..., None, None]
        excess = df - p - 1
        product = outer(diagonal_of(self.scale))
        value = (excess + 2) * self.scale**2 + excess * product
        value = value / ((excess + 1) * excess**2 * (excess - 2))
        diverges = jnp.where(excess > 0, jnp.inf, jnp.nan)
        return jnp.where(excess > 2, value, diverges)

    @property
    def mode(self) -> Matrix:
        return self.scale / (self.df + self.dim + 1)[..., None, None]

    # Closed forms, see `wishart_terms`.

    @property
    def mean_params(self) -> Pair:
        p, scale = self.dim, factor(self.scale)
        mean_log_det = scale.log_det() - p * math.log(2)
        return (
            mean_log_det - multivariate_digamma(self.df / 2, p),
            self.df[..., None, None] * scale.inverse(),
        )

    def _log_density(self, x: Matrix) -> Float[Array, "*b"]:
        value = factor(x)
        loss = stein_loss(factor(self.scale), value.times(self.df))
        return terms.log_density(self.df / 2, loss, value.log_det(), self.dim)

    def entropy(self) -> Float[Array, "*b"]:
        # E[X⁻¹] = νΨ⁻¹.
        log_det_mean = self.dim * jnp.log(self.df) - factor(self.scale).log_det()
        return terms.entropy(self.df / 2, log_det_mean, self.dim, inverse=True)

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        mine, theirs = factor(self.scale), factor(other.scale)
        return terms.kl(self.df, other.df, theirs, mine)
