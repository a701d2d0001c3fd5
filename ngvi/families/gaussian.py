"""The Gaussian family over any structure of precision.

    λ = (S m, −½ S),   T(z) = (z, z zᵀ),   μ = (m, m mᵀ + S⁻¹),
    A(λ) = ½ mᵀ S m − ½ log det S,   log h = −½ D log 2π.

The second component holds what the structure holds: of λ the entries of a matrix (all
for `Dense`, the diagonal for `Diagonal`), of T and μ the moments dual to them. The
structure must be linear; a Kronecker product or a low rank plus a diagonal gives
Gaussians that have every method but those in λ and μ.

The state is (m, root of S), never E[z zᵀ], which loses every digit of a variance that
is small beside the mean.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families.base import ExponentialFamily
from ngvi.families.data import nan_unless
from ngvi.families.domains import POSITIVE_DEFINITE, REAL_VECTOR, Domain
from ngvi.families.parameters import (
    as_floats,
    branch,
    checked,
    family,
    is_concrete,
    parameter,
)
from ngvi.families.special.tables import LOG_2PI
from ngvi.linalg import BlockDiagonal, Dense, LinearStructure, PositiveDefinite

Params = tuple[Float[Array, "*b d"], Any]


@family
class Gaussian(ExponentialFamily):
    """N(mean, precision⁻¹) on ℝᴰ.

    Args:
        mean: m, shape (*b, D).
        precision: S, any structure of `ngvi.linalg`, of batch shape *b.

    Example:
        >>> import jax.numpy as jnp
        >>> from ngvi.linalg import Diagonal
        >>> q = Gaussian(jnp.zeros(2), Diagonal(jnp.array([1.0, 2.0])))
        >>> [float(v) for v in q.variance]
        [1.0, 0.25]
    """

    mean: Float[Array, "*b d"] = parameter(REAL_VECTOR)
    # A PositiveDefinite; what speaks of λ, μ or steps needs a LinearStructure.
    precision: Any = branch()

    support: ClassVar[Domain] = REAL_VECTOR
    numpyro_names: ClassVar[tuple[str, ...]] = (
        "MultivariateNormal",
        "LowRankMultivariateNormal",
    )

    def __post_init__(self) -> None:
        mean, _ = as_floats(self.mean, jax.tree.leaves(self.precision)[0])
        precision, batch = self.precision, self.precision.batch_shape
        if isinstance(precision, BlockDiagonal):
            precision = _in_one_batch(precision, batch)
        shape = (*batch, precision.dim)
        if mean.ndim == 0 or mean.shape[-1] != shape[-1]:
            raise ValueError(
                f"Gaussian: the mean must be a vector of length {shape[-1]}, the "
                f"precision's, got shape {mean.shape}"
            )
        if mean.shape != shape and mean.shape[:-1] == ():
            mean = jnp.broadcast_to(mean, shape)
        if mean.shape != shape:
            raise ValueError(
                f"Gaussian: the mean has batch shape {mean.shape[:-1]}, the precision "
                f"{shape[:-1]}; they must be the same"
            )
        mean = checked(mean, REAL_VECTOR, "Gaussian: mean")
        if not is_concrete(mean):
            # An invalid mean makes the whole member NaN; a bad precision has NaN roots.
            valid = ~jnp.isnan(mean).any(-1)
            precision = nan_unless(valid, precision)
        if is_concrete(*jax.tree.leaves(precision)):
            log_det = precision.logdet()
            if is_concrete(log_det) and not bool(jnp.isfinite(log_det).all()):
                raise ValueError(
                    "Gaussian: the precision must be symmetric positive definite, its "
                    f"log-determinant is {log_det}"
                )
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "precision", precision)

    @classmethod
    def from_covariance(
        cls, mean: Float[Array, "*b d"], covariance: Float[Array, "*b d d"]
    ) -> Self:
        """The Gaussian with a dense covariance matrix.

        Raises:
            ValueError: the covariance is not symmetric positive definite.
        """
        covariance = checked(covariance, POSITIVE_DEFINITE, "Gaussian: covariance")
        return cls(mean, Dense.from_moments(covariance))

    @property
    def dim(self) -> int:
        """D."""
        return self.mean.shape[-1]

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.dim,)

    @property
    def fixed(self) -> dict[str, Any]:
        return {"structure": self.precision}

    def _linear(self) -> LinearStructure:
        return _linear(self.precision)

    @property
    def natural_params(self) -> Params:
        half = jax.tree.map(lambda s: -s / 2, self._linear().entries())
        return self.precision.mv(self.mean), half

    @classmethod
    def from_natural(cls, params: Params, *, structure: PositiveDefinite) -> Self:
        """The Gaussian with natural parameters λ.

        Args:
            params: (S m, entries of −½ S).
            structure: any matrix of the precision's structure.
        """
        precision = _precision(structure, params[1])
        return cls(precision.solve(params[0]), precision)

    @classmethod
    def from_mean(cls, params: Params, *, structure: PositiveDefinite) -> Self:
        """The Gaussian with mean parameters μ.

        Args:
            params: (m, moments of m mᵀ + S⁻¹).
            structure: any matrix of the precision's structure.
        """
        mean, covariance = _central(params, structure)
        return cls(mean, _linear(structure).from_moments(covariance))

    @classmethod
    def natural_from_mean(
        cls, params: Params, *, structure: PositiveDefinite
    ) -> Params:
        if is_concrete(*jax.tree.leaves(params)):
            # By a member, which says what is wrong with them.
            return cls.from_mean(params, structure=structure).natural_params
        mean, covariance = _central(params, structure)
        linear, entries = _linear(structure).solve_moments(covariance, mean)
        return linear, jax.tree.map(lambda s: -s / 2, entries)

    def log_partition(self, params: Params) -> Float[Array, "*b"]:
        linear, precision = params[0], _precision(self.precision, params[1])
        return (linear * precision.solve(linear)).sum(-1) / 2 - precision.logdet() / 2

    def sufficient_statistics(self, x: Float[Array, "*b d"]) -> Params:
        return x, self._linear().outer(x)

    def log_base_measure(self, x: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        x = self.as_floats(x)
        return jnp.full(x.shape[:-1], -self.dim / 2 * LOG_2PI, x.dtype)

    def expected_log_base_measure(self) -> Float[Array, "*b"]:
        return jnp.full(self.batch_shape, -self.dim / 2 * LOG_2PI, self.dtype)

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Array:
        eps = jax.random.normal(key, (*shape, *self.mean.shape), self.dtype)
        return self.place(eps)

    @property
    def base_size(self) -> int:
        return self.dim

    def place(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """m + A ε: where base draws ε ~ N(0, I) lie under this distribution."""
        return self.mean + self.precision.unwhiten(eps)

    @property
    def variance(self) -> Float[Array, "*b d"]:
        """The marginal variances."""
        return self.precision.inverse_diagonal()

    @property
    def mode(self) -> Float[Array, "*b d"]:
        return self.mean

    def to_numpyro(self) -> Any:
        import numpyro.distributions as dist

        covariance = self.precision.inverse_dense()
        return dist.MultivariateNormal(self.mean, covariance)

    @classmethod
    def from_numpyro(cls, distribution: Any) -> Self:
        return cls.from_covariance(distribution.loc, distribution.covariance_matrix)

    # Closed forms: as exact as the root allows, where A(λ) would cancel digits.

    @property
    def mean_params(self) -> Params:
        structure = self._linear()
        covariance = structure.inverse_moments()
        return self.mean, jax.tree.map(jnp.add, structure.outer(self.mean), covariance)

    def _log_density(self, x: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        eps = self.precision.whiten(x - self.mean)
        return self.precision.logdet() / 2 - ((eps**2).sum(-1) + self.dim * LOG_2PI) / 2

    def entropy(self) -> Float[Array, "*b"]:
        return (self.dim * (1 + LOG_2PI) - self.precision.logdet()) / 2

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        shift = other.precision.whiten(other.mean - self.mean)
        trace = other.precision.relative_trace(self.precision)
        logdets = self.precision.logdet() - other.precision.logdet()
        return (trace - self.dim + logdets + (shift**2).sum(-1)) / 2

    def _fit(self, x: Float[Array, "n *b d"], weights: Float[Array, "n"]) -> Self:
        # The mean in two passes and moments about it: no digits lost far from 0.
        shift = x[0]
        mean = shift + jnp.tensordot(weights, x - shift, 1)
        scatter = _scatter(self._linear(), x - mean, weights)
        return type(self)(mean, self._linear().from_moments(scatter))


def _linear(structure: PositiveDefinite) -> LinearStructure:
    if not isinstance(structure, LinearStructure):
        raise TypeError(
            f"the Gaussians with a {type(structure).__name__} precision are no "
            "exponential family: those matrices form no linear space, so there are no "
            "natural or mean parameters, and no fit that matches them"
        )
    return structure


def _central(params: Params, structure: PositiveDefinite) -> Params:
    """m, and the moments of S⁻¹, of μ."""
    mean, second = params
    outer = _linear(structure).outer(mean)
    return mean, jax.tree.map(jnp.subtract, second, outer)


def _scatter(structure: LinearStructure, x: Array, weights: Array) -> Any:
    """Σᵢ wᵢ xᵢ xᵢᵀ, as the structure's moments."""
    if isinstance(structure, Dense):
        # As a product of matrices: the terms of the sum would fill the memory.
        half = jnp.sqrt(weights).reshape(-1, *[1] * (x.ndim - 1)) * x
        return jnp.einsum("n...i,n...j->...ij", half, half, precision="highest")
    return jax.tree.map(lambda t: jnp.tensordot(weights, t, 1), structure.outer(x))


def _in_one_batch(matrix: Any, batch: tuple[int, ...]) -> Any:
    """The same, each block of it repeated for the whole batch."""
    if isinstance(matrix, BlockDiagonal):
        return BlockDiagonal(tuple(_in_one_batch(b, batch) for b in matrix.blocks))
    own = len(matrix.batch_shape)

    def repeated(leaf: Array) -> Array:
        return jnp.broadcast_to(leaf, (*batch, *leaf.shape[own:]))

    return jax.tree.map(repeated, matrix)


def _precision(structure: PositiveDefinite, half: Any) -> LinearStructure:
    entries = jax.tree.map(lambda s: -2 * s, half)
    return _linear(structure).from_entries(entries)
