"""The matrix-normal-Wishart family: the conjugate prior of multivariate linear
regression.

In y = Wᵀx + noise, x ∈ ℝᵖ, y ∈ ℝ^q, the noise has precision Λ:
Λ ~ Wishart(ν, V), W | Λ matrix normal with mean M, row precision K and column precision
Λ, that is p(W | Λ) ∝ det Λ^(p/2) exp(−½ tr Λ(W − M)ᵀK(W − M)).

    T = (WΛ, WΛWᵀ, Λ, log det Λ),
    λ = (KM, −½ K, −½ (V⁻¹ + MᵀKM), ½ (ν + p − q − 1)),
    μ = (ME, qK⁻¹ + M E Mᵀ, E, ψ_q(ν/2) + log det 2V),   E = νV,
    A(λ) = log Γ_q(a) − a log det ½V⁻¹ − ½ q log det K,  a = ν/2,
    log h = −½ pq log 2π.

μ → λ: M = E[WΛ] E⁻¹, qK⁻¹ = E[WΛWᵀ] − M E[WΛ]ᵀ, and ν, V as in `Wishart`. An
observation (x, y) adds (x yᵀ, −½ x xᵀ, −½ y yᵀ, ½) to λ.

Source: Bishop (2006), Pattern recognition and machine learning, section 3.1.5, for the
model; Minka (2000), Bayesian linear regression, for its conjugate prior.
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
    POSITIVE_DEFINITE,
    REAL,
    REAL_MATRIX,
    Domain,
    Joint,
)
from ngvi.families.factored import Factored, factor, inverse, stein_loss
from ngvi.families.parameters import family, parameter
from ngvi.families.special.multivariate import (
    inverse_wishart_gap,
    multivariate_digamma,
    multivariate_log_gamma,
)
from ngvi.families.special.tables import LOG_2PI
from ngvi.families.wishart import Wishart
from ngvi.linalg.batching import diagonal_of, symmetric
from ngvi.linalg.small import gram, inverse_triangular, multiply

Values = Float[Array, "*b"]
Rectangle = Float[Array, "*b p q"]
Rows = Float[Array, "*b p p"]
Columns = Float[Array, "*b q q"]
Four = tuple[Rectangle, Rows, Columns, Values]


class WeightsAndPrecision(NamedTuple):
    """The weights of a linear regression and the precision of its noise.

    Also a pair of their shapes, or of their domains.
    """

    weights: Any  # shape (*b, p, q)
    precision: Any  # shape (*b, q, q)


@family
class MatrixNormalWishart(ExponentialFamily):
    """MatrixNormalWishart(loc M, row_precision K, df ν, scale V) over (W, Λ).

    Args:
        loc: M, the mean of the weights, shape (*b, p, q).
        row_precision: K, symmetric positive definite, shape (*b, p, p); what XᵀX is
            to the data.
        df: ν > q − 1, the noise precision's degrees of freedom, shape (*b,).
        scale: V, symmetric positive definite, shape (*b, q, q); the mean of the noise
            precision is νV.

    An event is a pair (weights, precision).

    Example:
        >>> import jax.numpy as jnp
        >>> q = MatrixNormalWishart(jnp.ones((3, 2)), jnp.eye(3), 4.0, jnp.eye(2) / 4)
        >>> q.mean.weights.shape, float(q.mean.precision[0, 0])
        ((3, 2), 1.0)
    """

    loc: Rectangle = parameter(REAL_MATRIX)
    row_precision: Rows = parameter(POSITIVE_DEFINITE)
    df: Values = parameter(REAL)
    scale: Columns = parameter(POSITIVE_DEFINITE)

    general_matrices: ClassVar[tuple[bool, ...]] = (True, False, False, False)
    support: ClassVar[Joint] = Joint(
        WeightsAndPrecision(REAL_MATRIX, POSITIVE_DEFINITE)
    )

    def relations(self) -> list[tuple[Array, Bool[Array, "*b"], str]]:
        shape = self.row_precision.shape[-1], self.scale.shape[-1]
        if self.loc.shape[-2:] != shape:
            raise ValueError(
                f"MatrixNormalWishart: loc is {self.loc.shape[-2]} × "
                f"{self.loc.shape[-1]}, but row_precision has {shape[0]} rows and "
                f"scale {shape[1]}"
            )
        return []

    def narrower_domains(self) -> dict[str, Domain]:
        return {"df": terms.enough_df(self.scale.shape[-1])}

    @property
    def event_shape(self) -> Any:
        """The shapes of the two arrays."""
        p, q = self.loc.shape[-2:]
        return WeightsAndPrecision((p, q), (q, q))

    @property
    def precision(self) -> Wishart:
        """The marginal distribution of the noise's precision."""
        return Wishart(self.df, self.scale)

    @property
    def natural_params(self) -> Four:
        p, q = self.loc.shape[-2:]
        linear = multiply(self.row_precision, self.loc)
        second = inverse(self.scale) + symmetric(multiply(self.loc.mT, linear))
        power = (self.df + (p - q - 1)) / 2
        return linear, -self.row_precision / 2, -second / 2, power

    @classmethod
    def from_natural(cls, params: Four) -> Self:
        loc, rows, df, inverse_scale = _usual(params)
        return cls(loc, rows.matrix, df, inverse(inverse_scale))

    @classmethod
    def from_mean(cls, params: Four) -> Self:
        linear, square, mean, mean_log_det = params
        q = mean.shape[-1]
        precision = factor(mean)
        half = multiply(precision.inverse_root, linear.mT)
        loc = multiply(half.mT, precision.inverse_root)
        df = 2 * inverse_wishart_gap(precision.log_det() - mean_log_det, q)
        rows = q * inverse(square - gram(half))
        return cls(loc, rows, df, mean / df[..., None, None])

    def log_partition(self, params: Four) -> Values:
        _, rows, df, inverse_scale = _usual(params)
        a, q = df / 2, inverse_scale.shape[-1]
        wishart = multivariate_log_gamma(a, q) - a * factor(inverse_scale / 2).log_det()
        return wishart - q / 2 * rows.log_det()

    def sufficient_statistics(self, x: WeightsAndPrecision) -> Four:
        weights, precision = x
        value = factor(precision)
        half = multiply(weights, value.root)
        linear = multiply(weights, precision)
        return linear, gram(half.mT), precision, value.log_det()

    def log_base_measure(self, x: WeightsAndPrecision) -> Values:
        return super().log_base_measure(x) + self._log_base_measure

    def expected_log_base_measure(self) -> Values:
        return jnp.full_like(self.df, self._log_base_measure)

    @property
    def _log_base_measure(self) -> float:
        p, q = self.loc.shape[-2:]
        return -p * q / 2 * LOG_2PI

    def sample(
        self, key: Key[Array, ""], shape: tuple[int, ...] = ()
    ) -> WeightsAndPrecision:
        of_precision, of_weights = jax.random.split(key)
        q, p = self.scale.shape[-1], self.row_precision.shape[-1]
        b = terms.bartlett(of_precision, self.df, q, shape)
        root = multiply(factor(self.scale).root, b)
        eps = jax.random.normal(of_weights, (*root.shape[:-2], p, q), self.dtype)
        # Z G⁻¹ has column covariance (G Gᵀ)⁻¹, L⁻ᵀ Z row covariance (L Lᵀ)⁻¹.
        columns = multiply(eps, inverse_triangular(root))
        rows = factor(self.row_precision).inverse_root.mT
        shift = multiply(rows, columns)
        return WeightsAndPrecision(self.loc + shift, gram(root.mT))

    @property
    def mean(self) -> WeightsAndPrecision:
        # The weights are Student's t with ν − q + 1 degrees of freedom.
        exists = (self.df > self.scale.shape[-1])[..., None, None]
        loc = jnp.where(exists, self.loc, jnp.nan)
        return WeightsAndPrecision(loc, self.precision.mean)

    @property
    def variance(self) -> WeightsAndPrecision:
        # E[Λ⁻¹] of the columns times K⁻¹ of the rows.
        noise = terms.inverse_wishart_mean(self.df, inverse(self.scale))
        columns, rows = diagonal_of(noise), diagonal_of(inverse(self.row_precision))
        exists = (self.df > self.scale.shape[-1])[..., None, None]
        variance = rows[..., :, None] * columns[..., None, :]
        return WeightsAndPrecision(
            jnp.where(exists, variance, jnp.nan), self.precision.variance
        )

    @property
    def mode(self) -> WeightsAndPrecision:
        p, q = self.loc.shape[-2:]
        excess = self.df + (p - q - 1)
        excess = jnp.where(excess >= 0, excess, jnp.nan)[..., None, None]
        return WeightsAndPrecision(self.loc, excess * self.scale)

    def predictive_at(self, x: Float[Array, "*b p"]) -> Any:
        """The distribution of y at a new x, weights and precision integrated over.

        Returns:
            A `numpyro.distributions.MultivariateStudentT` over y, shape (*b, q), with
            ν − q + 1 degrees of freedom.
        """
        import numpyro.distributions as dist

        df = self.df - self.scale.shape[-1] + 1
        whitened = multiply(x[..., None, :], factor(self.row_precision).inverse_root.mT)
        widening = (1 + (whitened**2).sum((-2, -1))) / df
        root = jnp.sqrt(widening)[..., None, None] * factor(inverse(self.scale)).root
        loc = multiply(self.loc.mT, x[..., None])[..., 0]
        return dist.MultivariateStudentT(df, loc, root)

    # Closed forms: the Wishart's, and the matrix normal's given the precision.

    @property
    def mean_params(self) -> Four:
        q, scale = self.scale.shape[-1], factor(self.scale)
        mean = self.df[..., None, None] * self.scale
        square = gram(multiply(self.loc, scale.root).mT) * self.df[..., None, None]
        mean_log_det = multivariate_digamma(self.df / 2, q) + scale.log_det()
        return (
            multiply(self.loc, mean),
            q * inverse(self.row_precision) + square,
            mean,
            mean_log_det + q * math.log(2),
        )

    def fisher_product(self, direction: Four) -> Four:
        # Through the parameters: λ has lost the digits of what is small beside MᵀKM.
        linear, half, second, power = direction
        rows = -2 * half
        change = linear - multiply(rows, self.loc)
        loc = multiply(inverse(self.row_precision), change)
        # d(MᵀKM), as the symmetric part of Mᵀ(dK M + 2K dM) = Mᵀ(2 d(KM) − dK M).
        product = symmetric(multiply(self.loc.mT, linear + change))
        inverse_scale = -2 * second - product
        scale = -symmetric(multiply(multiply(self.scale, inverse_scale), self.scale))
        return self._mean_params_along(loc, rows, 2 * power, scale)

    def _log_density(self, x: WeightsAndPrecision) -> Values:
        weights, precision = x
        p, q = self.loc.shape[-2:]
        value, rows = factor(precision), factor(self.row_precision)
        log_det = value.log_det()
        loss = stein_loss(value, self._mean_precision())
        squares = _squares(rows.root, weights - self.loc, value.root)
        normal = q * rows.log_det() + p * log_det - p * q * LOG_2PI - squares
        return terms.log_density(self.df / 2, loss, log_det, q) + normal / 2

    def entropy(self) -> Values:
        p, q = self.loc.shape[-2:]
        log_det = self._mean_precision().log_det()
        mean_log_det = log_det - terms.wishart_gap(self.df / 2, q)
        rows = q * factor(self.row_precision).log_det()
        normal = p * q * (1 + LOG_2PI) - rows - p * mean_log_det
        return terms.entropy(self.df / 2, log_det, q) + normal / 2

    def kl(self, other: Self) -> Values:
        self.same_family(other)
        q, mine = self.scale.shape[-1], factor(self.scale)
        wishart = terms.kl(self.df, other.df, mine, factor(other.scale))
        rows = factor(other.row_precision)
        normal = q * stein_loss(rows, factor(self.row_precision))
        shift = self.df * _squares(rows.root, self.loc - other.loc, mine.root)
        return wishart + (normal + shift) / 2

    def _mean_precision(self) -> Factored:
        """E[Λ] = νV."""
        return factor(self.df[..., None, None] * self.scale)

    def _fit(self, x: WeightsAndPrecision, weights: Float[Array, "n"]) -> Self:
        # About the first W: K⁻¹ is no difference of large numbers far from 0.
        values, precision = x
        near = super()._fit(WeightsAndPrecision(values - values[0], precision), weights)
        return type(self)(near.loc + values[0], near.row_precision, near.df, near.scale)


def _squares(rows: Rows, x: Rectangle, columns: Columns) -> Values:
    """‖Rᵀ X C‖² = tr CCᵀ Xᵀ RRᵀ X."""
    return (multiply(multiply(rows.mT, x), columns) ** 2).sum((-2, -1))


def _usual(params: Four) -> tuple[Rectangle, Factored, Values, Columns]:
    """M, K, ν and V⁻¹ of λ."""
    linear, half, second, power = params
    p, q = linear.shape[-2:]
    rows = factor(-2 * half)
    white = multiply(rows.inverse_root, linear)
    loc = multiply(rows.inverse_root.mT, white)
    return loc, rows, 2 * power - (p - q - 1), -2 * second - gram(white)
