"""The Dirichlet family.

    λ = α − 1,   T(x) = log x,   μ = ψ(α) − ψ(α₀),   α₀ = Σ_k α_k,
    A(λ) = Σ_k log Γ(α_k) − log Γ(α₀),   h = 1.

μ → λ by Newton's method in O(K), the Fisher matrix being a diagonal minus a matrix of
rank one.

The functions below the class serve the beta family too. They take α with its K entries
on the last axis and write log Γ by Stirling's formula, so that what is large cancels on
paper: with p = α/α₀ the mean, log Γ(α_k) contributes its part of the relative entropies

    −α₀ KL(p ‖ x) to log q(x),   α₀′ KL(p′ ‖ p) to KL(q ‖ q′),

and a remainder that is small wherever α is large.

Source: Minka (2000), Estimating a Dirichlet distribution.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ngvi.families.base import ExponentialFamily
from ngvi.families.domains import POSITIVE_VECTOR, SIMPLEX, Domain
from ngvi.families.gamma import place_log_gamma
from ngvi.families.parameters import family, parameter
from ngvi.families.special import (
    bregman_log_gamma_excess,
    digamma_difference,
    dirichlet_fisher_remainder,
    inverse_dirichlet,
    log_minus_digamma,
    log_ratio_gap,
    stirling_remainder,
    trigamma,
)
from ngvi.families.special.dirichlet import Split, split
from ngvi.families.special.tables import LOG_2PI
from ngvi.linalg import DiagonalMinusRankOne, PositiveDefinite

Vectors = Float[Array, "*b K"]


@family
class Dirichlet(ExponentialFamily):
    """Dirichlet(concentration α) on K positive numbers that sum to one.

    p(x) ∝ Π_k x_k^(α_k − 1).

    Args:
        concentration: α > 0, shape (*b, K).

    Example:
        >>> import jax.numpy as jnp
        >>> q = Dirichlet(jnp.array([1.0, 2.0, 5.0]))
        >>> [float(v) for v in q.mean]
        [0.125, 0.25, 0.625]
    """

    concentration: Vectors = parameter(POSITIVE_VECTOR)

    support: ClassVar[Domain] = SIMPLEX
    numpyro_names: ClassVar[tuple[str, ...]] = ("Dirichlet",)

    def relations(self) -> list[tuple[Any, Any, str]]:
        size = np.full(self.batch_shape, self.event_shape[0])
        return [(size, size > 1, "concentration needs two entries or more")]

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.concentration.shape[-1:]

    @property
    def natural_params(self) -> Vectors:
        return self.concentration - 1

    @classmethod
    def from_natural(cls, params: Vectors) -> Self:
        return cls(jnp.asarray(params) + 1)

    @classmethod
    def from_mean(cls, params: Vectors) -> Self:
        return cls(inverse_dirichlet(params))

    def log_partition(self, params: Vectors) -> Float[Array, "*b"]:
        return log_beta(params + 1)

    def sufficient_statistics(self, x: Vectors) -> Vectors:
        return jnp.log(x)

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Array:
        shape = (*shape, *self.batch_shape)
        x = jax.random.dirichlet(key, self.concentration, shape, self.dtype)
        return self._inside(x)

    @property
    def base_size(self) -> int:
        return 2 * self.concentration.shape[-1]

    def place(self, eps: Float[Array, "*b n"]) -> Vectors:
        pairs = eps.reshape(*eps.shape[:-1], self.concentration.shape[-1], 2)
        return self._inside(place(pairs, self.concentration))

    def _inside(self, x: Vectors) -> Vectors:
        # Tiny concentrations underflow: keep the draw inside the simplex.
        return jnp.maximum(x, jnp.finfo(self.dtype).tiny)

    @property
    def mean(self) -> Vectors:
        return self.concentration / self.concentration.sum(-1, keepdims=True)

    @property
    def variance(self) -> Vectors:
        alpha = self.concentration
        largest, _, rest, total = split(alpha)
        # α₀ − α_k without cancellation.
        others = jnp.where(largest, rest, total - alpha)
        return alpha / total * (others / total) / (total + 1)

    @property
    def mode(self) -> Vectors:
        above = self.concentration - 1
        bounded = (above >= 0).all(-1, keepdims=True)
        return jnp.where(bounded, above / above.sum(-1, keepdims=True), jnp.nan)

    # Closed forms that keep their digits where concentrations and their sum are large.

    @property
    def mean_params(self) -> Vectors:
        return mean_log(self.concentration)

    def _log_density(self, x: Vectors) -> Float[Array, "*b"]:
        return log_density(self.concentration, x)

    def entropy(self) -> Float[Array, "*b"]:
        return entropy(self.concentration)

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        return divergence(self.concentration, other.concentration)

    @property
    def fisher(self) -> PositiveDefinite:
        return fisher(self.concentration)


def place(eps: Float[Array, "*b K 2"], alpha: Vectors) -> Vectors:
    """x at base draws: gamma numbers over their sum."""
    return jax.nn.softmax(place_log_gamma(eps, alpha))


def _sum(each: Vectors) -> Float[Array, "*b"]:
    """Σ_k of what takes long to compute: fused into a sum over a short axis, the loop
    that computes it is not vectorised."""
    return jax.lax.optimization_barrier(each).sum(-1)


def _log_mean(alpha: Vectors, parts: Split) -> Vectors:
    """log(α/α₀), also where one entry is nearly all of the sum."""
    near_one = -jnp.log1p(parts.rest / jnp.where(parts.largest, alpha, parts.total))
    return jnp.where(parts.largest, near_one, jnp.log(alpha / parts.total))


def _peak(alpha: Vectors, total: Float[Array, "*b 1"]) -> Float[Array, "*b"]:
    """Σ [δ(α_k) − ½ log α_k] − [δ(α₀) − ½ log α₀] + ½ (K − 1) log 2π."""
    each = _sum(stirling_remainder(alpha) - jnp.log(alpha) / 2)
    whole = (stirling_remainder(total) - jnp.log(total) / 2)[..., 0]
    return each - whole + (alpha.shape[-1] - 1) / 2 * LOG_2PI


@jax.custom_jvp
def log_beta(alpha: Vectors) -> Float[Array, "*b"]:
    """Σ log Γ(α_k) − log Γ(α₀), with derivatives of any order."""
    parts = split(alpha)
    return _sum(alpha * _log_mean(alpha, parts)) + _peak(alpha, parts.total)


@log_beta.defjvp
def _(primals: tuple[Vectors], tangents: tuple[Vectors]) -> tuple[Array, Array]:
    (alpha,), (tangent,) = primals, tangents
    return log_beta(alpha), (mean_log(alpha) * tangent).sum(-1)


def mean_log(alpha: Vectors) -> Vectors:
    """E[log x] = ψ(α) − ψ(α₀), as sums of terms of one sign."""
    largest, top, rest, total = split(alpha)
    gap = log_minus_digamma(alpha) - log_minus_digamma(total)
    near_zero = -digamma_difference(top, rest)
    return jnp.where(largest, near_zero, jnp.log(alpha / total) - gap)


def log_density(alpha: Vectors, x: Vectors) -> Float[Array, "*b"]:
    """log q(x), from its value next to the mean downwards."""
    total = alpha.sum(-1, keepdims=True)
    # Σ α_k (x_k − p_k)/p_k is zero on the simplex, and would be rounding times α₀.
    relative = _sum(alpha * log_ratio_gap(x, alpha / total))
    return relative - jnp.log(x).sum(-1) - _peak(alpha, total)


def entropy(alpha: Vectors) -> Float[Array, "*b"]:
    """−E[log q]; the terms of the order of α₀ have cancelled."""
    total = alpha.sum(-1, keepdims=True)
    each = (alpha - 1) * log_minus_digamma(alpha) + jnp.log(alpha / total)
    whole = (total - alpha.shape[-1]) * log_minus_digamma(total)
    return _sum(each) - whole[..., 0] + _peak(alpha, total)


def divergence(alpha: Vectors, other: Vectors) -> Float[Array, "*b"]:
    """KL(Dirichlet(α) ‖ Dirichlet(α′))."""
    total, other_total = (a.sum(-1, keepdims=True) for a in (alpha, other))
    each = bregman_log_gamma_excess(alpha, other)
    whole = bregman_log_gamma_excess(total, other_total)
    relative = other * log_ratio_gap(alpha / total, other / other_total)
    return _sum(each - relative) - whole[..., 0]


def fisher(alpha: Vectors) -> PositiveDefinite:
    """diag ψ′(α) − ψ′(α₀) 1 1ᵀ."""
    level = jnp.sqrt(trigamma(alpha.sum(-1, keepdims=True)))
    return DiagonalMinusRankOne(
        trigamma(alpha),
        jnp.broadcast_to(level, alpha.shape),
        dirichlet_fisher_remainder(alpha),
    )
