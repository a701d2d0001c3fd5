"""The Wishart family, and what it shares with its inverse.

    λ = ((ν − p − 1)/2, −½ V⁻¹),   T(X) = (log det X, X),
    μ = (ψ_p(ν/2) + log det 2V, νV),
    A(λ) = log Γ_p(a) − a log det M,  a = ν/2,  M = ½ V⁻¹,   h = 1.

μ → λ: p log a − ψ_p(a) = log det E[X] − E[log det X] has one root a, and V = E[X]/(2a).

Source: Muirhead (1982), Aspects of multivariate statistical theory, chapter 3.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar, Self

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families import wishart_terms as terms
from ngvi.families.base import ExponentialFamily
from ngvi.families.domains import POSITIVE_DEFINITE, REAL, Domain
from ngvi.families.factored import Factored, factor, inverse, stein_loss
from ngvi.families.parameters import family, parameter
from ngvi.families.special.multivariate import (
    inverse_wishart_gap,
    multivariate_digamma,
    multivariate_log_gamma,
)
from ngvi.linalg.batching import diagonal_of
from ngvi.linalg.small import gram, multiply, outer

Matrix = Float[Array, "*b p p"]
Pair = tuple[Float[Array, "*b"], Matrix]


class ScatterMatrix(ExponentialFamily):
    """Positive-definite matrices made of Bartlett's root B, B Bᵀ ~ Wishart(ν, I)."""

    df: Float[Array, "*b"]
    scale: Matrix

    support: ClassVar[Domain] = POSITIVE_DEFINITE

    @abstractmethod
    def _scaled(self, b: Matrix) -> Matrix:
        """The matrix of a root B."""

    def narrower_domains(self) -> dict[str, Domain]:
        return {"df": terms.enough_df(self.dim)}

    @property
    def dim(self) -> int:
        """p."""
        return self.scale.shape[-1]

    @property
    def event_shape(self) -> tuple[int, int]:
        return self.dim, self.dim

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Matrix:
        return self._scaled(terms.bartlett(key, self.df, self.dim, shape))

    @property
    def base_size(self) -> int:
        return terms.bartlett_size(self.dim)

    def place(self, eps: Float[Array, "*b n"]) -> Matrix:
        return self._scaled(terms.place_bartlett(eps, self.df, self.dim))

    def to_numpyro(self) -> Any:
        import numpyro.distributions as dist

        counterpart = getattr(dist, self.numpyro_names[0])
        return counterpart(self.df, scale_matrix=self.scale)

    @classmethod
    def from_numpyro(cls, distribution: Any) -> Self:
        # The families are dataclasses, as this is not.
        return cls(distribution.concentration, distribution.scale_matrix)  # type: ignore[call-arg]


@family
class Wishart(ScatterMatrix):
    """Wishart(df ν, scale V): p(X) ∝ det X^((ν−p−1)/2) exp(−½ tr V⁻¹X).

    Args:
        df: ν > p − 1, the degrees of freedom, shape (*b,).
        scale: V, symmetric positive definite, shape (*b, p, p); the mean is νV.

    Example:
        >>> import jax.numpy as jnp
        >>> q = Wishart(4.0, jnp.eye(2) / 4)
        >>> [float(v) for v in jnp.diagonal(q.mean)]
        [1.0, 1.0]
    """

    df: Float[Array, "*b"] = parameter(REAL)
    scale: Matrix = parameter(POSITIVE_DEFINITE)

    numpyro_names: ClassVar[tuple[str, ...]] = ("Wishart",)

    @property
    def natural_params(self) -> Pair:
        return (self.df - self.dim - 1) / 2, -inverse(self.scale) / 2

    @classmethod
    def from_natural(cls, params: Pair) -> Self:
        p = params[1].shape[-1]
        return cls(2 * params[0] + p + 1, inverse(-2 * params[1]))

    @classmethod
    def from_mean(cls, params: Pair) -> Self:
        mean_log_det, mean = params
        gap = factor(mean).log_det() - mean_log_det
        df = 2 * inverse_wishart_gap(gap, mean.shape[-1])
        return cls(df, mean / df[..., None, None])

    def log_partition(self, params: Pair) -> Float[Array, "*b"]:
        p = params[1].shape[-1]
        a = params[0] + (p + 1) / 2
        return multivariate_log_gamma(a, p) - a * factor(-params[1]).log_det()

    def sufficient_statistics(self, x: Matrix) -> Pair:
        return factor(x).log_det(), x

    def _scaled(self, b: Matrix) -> Matrix:
        return gram(multiply(factor(self.scale).root, b).mT)

    @property
    def mean(self) -> Matrix:
        return self.df[..., None, None] * self.scale

    @property
    def variance(self) -> Matrix:
        product = outer(diagonal_of(self.scale))
        return self.df[..., None, None] * (self.scale**2 + product)

    @property
    def mode(self) -> Matrix:
        excess = self.df - self.dim - 1
        excess = jnp.where(excess >= 0, excess, jnp.nan)
        return excess[..., None, None] * self.scale

    # Closed forms, see `wishart_terms`.

    @property
    def mean_params(self) -> Pair:
        p = self.dim
        log_det = factor(self.scale).log_det() + p * math.log(2)
        return multivariate_digamma(self.df / 2, p) + log_det, self.mean

    def _log_density(self, x: Matrix) -> Float[Array, "*b"]:
        value = factor(x)
        loss = stein_loss(value, self._factored_mean())
        return terms.log_density(self.df / 2, loss, value.log_det(), self.dim)

    def entropy(self) -> Float[Array, "*b"]:
        return terms.entropy(self.df / 2, self._factored_mean().log_det(), self.dim)

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        mine, theirs = factor(self.scale), factor(other.scale)
        return terms.kl(self.df, other.df, mine, theirs)

    def _factored_mean(self) -> Factored:
        return factor(self.mean)
