"""The normal-inverse-Wishart family: the conjugate prior of a Gaussian's mean and
covariance.

Over x (the mean) and Σ (the covariance), Λ = Σ⁻¹:
Σ ~ InverseWishart(ν, Ψ), x | Σ ~ N(m, Σ/κ).

    T = (Λx, xᵀΛx, Λ, log det Λ),
    λ = (κm, −½ κ, −½ (Ψ + κ m mᵀ), ½ (ν + p + 2)),
    μ = (E m, p/κ + mᵀ E m, E, ψ_p(ν/2) − log det ½Ψ),   E = νΨ⁻¹,
    A(λ) = log Γ_p(a) − a log det ½Ψ − ½ p log κ,  a = ν/2,   log h = −½ p log 2π.

μ → λ: m = E⁻¹ E[Λx], p/κ = E[xᵀΛx] − mᵀ E[Λx], and ν, Ψ as in `InverseWishart`. Data y
with likelihood N(y | x, Σ) add (y, −½, −½ y yᵀ, ½) to λ.

Source: Murphy (2007), Conjugate Bayesian analysis of the Gaussian distribution,
section 9.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from ngvi.families import wishart_terms as terms
from ngvi.families.base import ExponentialFamily
from ngvi.families.domains import (
    POSITIVE,
    POSITIVE_DEFINITE,
    REAL,
    REAL_VECTOR,
    Domain,
    Joint,
)
from ngvi.families.factored import Factored, apply, factor, stein_loss
from ngvi.families.inverse_wishart import InverseWishart
from ngvi.families.parameters import family, parameter
from ngvi.families.special import log_ratio_gap
from ngvi.families.special.multivariate import (
    inverse_wishart_gap,
    multivariate_digamma,
    multivariate_log_gamma,
)
from ngvi.families.special.tables import LOG_2PI
from ngvi.linalg.batching import diagonal_of, symmetric
from ngvi.linalg.small import gram, inverse_triangular, multiply, outer

Values = Float[Array, "*b"]
Vector = Float[Array, "*b p"]
Matrix = Float[Array, "*b p p"]
Four = tuple[Vector, Values, Matrix, Values]


class MeanAndCovariance(NamedTuple):
    """The mean and the covariance of a Gaussian.

    Also a pair of their shapes, or of their domains.
    """

    mean: Any  # shape (*b, p)
    covariance: Any  # shape (*b, p, p)


@family
class NormalInverseWishart(ExponentialFamily):
    """NormalInverseWishart(loc m, kappa κ, df ν, scale Ψ) over (mean, covariance).

    Args:
        loc: m, the mean of the mean, shape (*b, p).
        kappa: κ > 0, how many observations m is worth, shape (*b,).
        df: ν > p − 1, the covariance's degrees of freedom, shape (*b,).
        scale: Ψ, symmetric positive definite, shape (*b, p, p); the mean of the
            covariance is Ψ/(ν − p − 1).

    An event is a pair (mean, covariance).

    Example:
        >>> import jax.numpy as jnp
        >>> q = NormalInverseWishart(jnp.zeros(2), 1.0, 5.0, 2 * jnp.eye(2))
        >>> [float(v) for v in jnp.diagonal(q.mean.covariance)]
        [1.0, 1.0]
    """

    loc: Vector = parameter(REAL_VECTOR)
    kappa: Values = parameter(POSITIVE)
    df: Values = parameter(REAL)
    scale: Matrix = parameter(POSITIVE_DEFINITE)

    support: ClassVar[Joint] = Joint(MeanAndCovariance(REAL_VECTOR, POSITIVE_DEFINITE))

    def relations(self) -> list[tuple[Array, Bool[Array, "*b"], str]]:
        if self.loc.shape[-1] != self.dim:
            raise ValueError(
                f"NormalInverseWishart: loc has length {self.loc.shape[-1]}, but scale "
                f"is {self.dim} × {self.dim}"
            )
        return []

    def narrower_domains(self) -> dict[str, Domain]:
        return {"df": terms.enough_df(self.dim)}

    @property
    def dim(self) -> int:
        """p."""
        return self.scale.shape[-1]

    @property
    def event_shape(self) -> Any:
        """The shapes of the two arrays."""
        return MeanAndCovariance((self.dim,), (self.dim, self.dim))

    @property
    def covariance(self) -> InverseWishart:
        """The marginal distribution of the covariance."""
        return InverseWishart(self.df, self.scale)

    @property
    def natural_params(self) -> Four:
        kappa = self.kappa[..., None]
        second = self.scale + kappa[..., None] * outer(self.loc)
        power = (self.df + self.dim + 2) / 2
        return kappa * self.loc, -self.kappa / 2, -second / 2, power

    @classmethod
    def from_natural(cls, params: Four) -> Self:
        return cls(*_usual(params))

    @classmethod
    def from_mean(cls, params: Four) -> Self:
        linear, square, mean, mean_log_det = params
        p = mean.shape[-1]
        precision = factor(mean)
        half = precision.whiten(linear)
        loc = apply(precision.inverse_root.mT, half)
        df = 2 * inverse_wishart_gap(precision.log_det() - mean_log_det, p)
        scale = df[..., None, None] * precision.inverse()
        return cls(loc, p / (square - (half**2).sum(-1)), df, scale)

    def log_partition(self, params: Four) -> Values:
        _, kappa, df, scale = _usual(params)
        a, p = df / 2, scale.shape[-1]
        wishart = multivariate_log_gamma(a, p) - a * factor(scale / 2).log_det()
        return wishart - p / 2 * jnp.log(kappa)

    def sufficient_statistics(self, x: MeanAndCovariance) -> Four:
        mean, covariance = x
        value = factor(covariance)
        half = value.whiten(mean)
        linear = apply(value.inverse_root.mT, half)
        return linear, (half**2).sum(-1), value.inverse(), -value.log_det()

    def log_base_measure(self, x: MeanAndCovariance) -> Values:
        return super().log_base_measure(x) - self.dim / 2 * LOG_2PI

    def expected_log_base_measure(self) -> Values:
        return jnp.full_like(self.kappa, -self.dim / 2 * LOG_2PI)

    def sample(
        self, key: Key[Array, ""], shape: tuple[int, ...] = ()
    ) -> MeanAndCovariance:
        of_covariance, of_mean = jax.random.split(key)
        b = terms.bartlett(of_covariance, self.df, self.dim, shape)
        eps = jax.random.normal(of_mean, b.shape[:-1], self.dtype)
        return self._given(b, eps)

    @property
    def base_size(self) -> int:
        return self.dim + terms.bartlett_size(self.dim)

    def place(self, eps: Float[Array, "*b n"]) -> MeanAndCovariance:
        of_mean, rest = eps[..., : self.dim], eps[..., self.dim :]
        return self._given(terms.place_bartlett(rest, self.df, self.dim), of_mean)

    def _given(self, b: Matrix, eps: Vector) -> MeanAndCovariance:
        # With Ψ = L Lᵀ, L B⁻ᵀ is a root of Σ.
        root = multiply(inverse_triangular(b), factor(self.scale).root.mT).mT
        shift = apply(root, eps) / jnp.sqrt(self.kappa)[..., None]
        return MeanAndCovariance(self.loc + shift, gram(root.mT))

    @property
    def mean(self) -> MeanAndCovariance:
        # The mean is Student's t with ν − p + 1 degrees of freedom.
        loc = jnp.where((self.df > self.dim)[..., None], self.loc, jnp.nan)
        return MeanAndCovariance(loc, self.covariance.mean)

    @property
    def variance(self) -> MeanAndCovariance:
        covariance = self.covariance
        exists = jnp.where((self.df > self.dim)[..., None], 1, jnp.nan)
        marginal = diagonal_of(covariance.mean) / self.kappa[..., None]
        return MeanAndCovariance(exists * marginal, covariance.variance)

    @property
    def mode(self) -> MeanAndCovariance:
        excess = (self.df + self.dim + 2)[..., None, None]
        return MeanAndCovariance(self.loc, self.scale / excess)

    # Closed forms: the Wishart's, and the Gaussian's given the covariance.

    @property
    def mean_params(self) -> Four:
        p, scale = self.dim, factor(self.scale)
        mean = self.df[..., None, None] * scale.inverse()
        linear = apply(mean, self.loc)
        square = p / self.kappa + self.df * _squares(scale, self.loc)
        mean_log_det = multivariate_digamma(self.df / 2, p) - scale.log_det()
        return linear, square, mean, mean_log_det + p * math.log(2)

    def fisher_product(self, direction: Four) -> Four:
        # Through the parameters: λ has lost the digits of what is small beside κ m mᵀ.
        linear, half, second, power = direction
        kappa = -2 * half
        loc = (linear - kappa[..., None] * self.loc) / self.kappa[..., None]
        # d(κ m mᵀ), as the symmetric part of (dκ m + 2κ dm) mᵀ.
        change = kappa[..., None] * self.loc + 2 * self.kappa[..., None] * loc
        product = symmetric(change[..., :, None] * self.loc[..., None, :])
        return self._mean_params_along(loc, kappa, 2 * power, -2 * second - product)

    def _log_density(self, x: MeanAndCovariance) -> Values:
        mean, covariance = x
        value = factor(covariance)
        log_det, p = value.log_det(), self.dim
        loss = stein_loss(factor(self.scale), value.times(self.df))
        squares = self.kappa * _squares(value, mean - self.loc)
        normal = p * (jnp.log(self.kappa) - LOG_2PI) - log_det - squares
        return terms.log_density(self.df / 2, loss, log_det, p) + normal / 2

    def entropy(self) -> Values:
        p = self.dim
        log_det = factor(self.scale).log_det() - p * jnp.log(self.df)
        wishart = terms.entropy(self.df / 2, -log_det, p, inverse=True)
        # E log det Σ = log det E[Σ⁻¹]⁻¹ + the gap.
        mean_log_det = log_det + terms.wishart_gap(self.df / 2, p)
        normal = p * (1 + LOG_2PI - jnp.log(self.kappa)) + mean_log_det
        return wishart + normal / 2

    def kl(self, other: Self) -> Values:
        self.same_family(other)
        mine, theirs = factor(self.scale), factor(other.scale)
        wishart = terms.kl(self.df, other.df, theirs, mine)
        gap = log_ratio_gap(other.kappa, self.kappa)
        shift = other.kappa * self.df * _squares(mine, self.loc - other.loc)
        normal = shift - self.dim * gap
        return wishart + normal / 2

    def _fit(self, x: MeanAndCovariance, weights: Float[Array, "n"]) -> Self:
        # About the first mean: 1/κ is no difference of large numbers far from 0.
        mean, covariance = x
        near = super()._fit(MeanAndCovariance(mean - mean[0], covariance), weights)
        return type(self)(near.loc + mean[0], near.kappa, near.df, near.scale)


def _squares(matrix: Factored, x: Vector) -> Values:
    """xᵀ P⁻¹ x."""
    return (matrix.whiten(x) ** 2).sum(-1)


def _usual(params: Four) -> tuple[Vector, Values, Values, Matrix]:
    """m, κ, ν and Ψ of λ."""
    linear, half, second, power = params
    kappa = -2 * half
    scale = -2 * second - outer(linear) / kappa[..., None, None]
    df = 2 * power - linear.shape[-1] - 2
    return linear / kappa[..., None], kappa, df, scale
