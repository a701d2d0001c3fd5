"""The Gaussian family over any structure of precision.

    λ = (S m, −½ S),   T(z) = (z, z zᵀ),   μ = (m, m mᵀ + S⁻¹),
    A(λ) = ½ mᵀ S m − ½ log det S,   log h = −½ D log 2π.

The second component of λ, T and μ holds the structure's entries only: the diagonal for
`Diagonal`, the matrix for `Dense`. The state is (m, root of S), never E[z zᵀ], which
loses every digit of a variance that is small beside the mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families.base import ExponentialFamily
from ngvi.linalg import PositiveDefinite


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gaussian(ExponentialFamily):
    """N(mean, precision⁻¹) on ℝᴰ.

    Args:
        mean: m, shape (D,).
        precision: S, any structure of `ngvi.linalg`.

    Example:
        >>> import jax.numpy as jnp
        >>> from ngvi.linalg import Diagonal
        >>> q = Gaussian(jnp.zeros(2), Diagonal(jnp.array([1.0, 2.0])))
        >>> [float(v) for v in q.variance]
        [1.0, 0.25]
    """

    mean: Float[Array, "d"]
    precision: PositiveDefinite

    @property
    def dim(self) -> int:
        """D."""
        return self.mean.shape[-1]

    @property
    def variance(self) -> Float[Array, "d"]:
        """The marginal variances."""
        return self.precision.inverse_diagonal()

    @property
    def natural_params(self) -> tuple[Float[Array, "d"], Any]:
        half = jax.tree.map(lambda s: -s / 2, self.precision.entries())
        return self.precision.mv(self.mean), half

    def with_natural_params(self, params: tuple[Float[Array, "d"], Any]) -> Self:
        precision = self._precision(params[1])
        return type(self)(precision.solve(params[0]), precision)

    def with_mean_params(self, params: tuple[Float[Array, "d"], Any]) -> Self:
        mean, second = params
        outer = type(self.precision).outer(mean)
        return self._with_covariance(mean, jax.tree.map(jnp.subtract, second, outer))

    def _with_covariance(self, mean: Float[Array, "d"], covariance: Any) -> Self:
        structure = type(self.precision)
        inverse = structure.from_entries(covariance)
        return type(self)(mean, structure.from_dense(inverse.inverse_dense()))

    def _precision(self, half: Any) -> PositiveDefinite:
        entries = jax.tree.map(lambda s: -2 * s, half)
        return type(self.precision).from_entries(entries)

    def log_partition(self, params: tuple[Float[Array, "d"], Any]) -> Float[Array, ""]:
        precision = self._precision(params[1])
        linear = params[0]
        return linear @ precision.solve(linear) / 2 - precision.logdet() / 2

    def sufficient_statistics(
        self, x: Float[Array, "*b d"]
    ) -> tuple[Float[Array, "*b d"], Any]:
        return x, self.precision.outer(x)

    def log_base_measure(self, x: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        return jnp.full(x.shape[:-1], -self.dim / 2 * math.log(2 * math.pi))

    def expected_log_base_measure(self) -> Float[Array, ""]:
        return jnp.asarray(-self.dim / 2 * math.log(2 * math.pi))

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Array:
        eps = jax.random.normal(key, (*shape, self.dim), self.mean.dtype)
        return self.place(eps)

    def place(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """m + A ε: where base draws ε ~ N(0, I) lie under this distribution."""
        return self.mean + self.precision.unwhiten(eps)

    # Closed forms: as exact as the root allows, where A(λ) would cancel digits.

    @property
    def mean_params(self) -> tuple[Float[Array, "d"], Any]:
        structure = type(self.precision)
        covariance = structure.project(self.precision.inverse_dense())
        return self.mean, jax.tree.map(jnp.add, structure.outer(self.mean), covariance)

    def log_prob(self, x: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        eps = self.precision.whiten(x - self.mean)
        return (
            self.precision.logdet() / 2
            - ((eps**2).sum(-1) + self.dim * math.log(2 * math.pi)) / 2
        )

    def entropy(self) -> Float[Array, ""]:
        return (self.dim * (1 + math.log(2 * math.pi)) - self.precision.logdet()) / 2

    def cross_entropy(self, other: Self) -> Float[Array, ""]:
        return self.entropy() + self.kl(other)

    def fit(self, x: Array, weights: Float[Array, "n"] | None = None) -> Self:
        w = jnp.ones(x.shape[0], x.dtype) if weights is None else jnp.asarray(weights)
        w = w / w.sum()
        # The mean in two passes and moments about it: no digits lost far from 0.
        shift = x[0]
        mean = shift + w @ (x - shift)
        outer = type(self.precision).outer(x - mean)
        covariance = jax.tree.map(lambda t: jnp.tensordot(w, t, 1), outer)
        return self._with_covariance(mean, covariance)

    def kl(self, other: Self) -> Float[Array, ""]:
        shift = other.precision.whiten(other.mean - self.mean)
        columns = self.precision.unwhiten(jnp.eye(self.dim, dtype=self.mean.dtype))
        trace = (other.precision.whiten(columns) ** 2).sum()
        logdets = self.precision.logdet() - other.precision.logdet()
        return (trace - self.dim + logdets + shift @ shift) / 2
