"""The exponential family of one rate, and what its kin share.

    λ = −b,   T(x) = x,   μ = 1/b,   A(λ) = −log b,   h = 1.

If a statistic T(x) ≥ 0 of a family is itself exponentially distributed, all of this
holds with that T, and only h differs: so it is for Weibull, Rayleigh and Laplace. Such
a family is one number, the mean s = E[T] = −1/λ.

Source: Johnson, Kotz and Balakrishnan (1994), Continuous univariate distributions 1,
chapter 19.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families.base import ExponentialFamily
from ngvi.families.domains import NON_NEGATIVE, POSITIVE, Domain
from ngvi.families.parameters import as_floats, family, only_if, parameter
from ngvi.families.special import log_ratio_gap
from ngvi.linalg import Diagonal, PositiveDefinite


class ExponentialStatistic(ExponentialFamily):
    """A family whose only statistic T(x) is exponential with mean s."""

    @property
    @abstractmethod
    def mean_params(self) -> Float[Array, "*b"]:
        """s = E[T(x)]."""

    @property
    def natural_params(self) -> Float[Array, "*b"]:
        return -1 / self.mean_params

    @classmethod
    def from_natural(cls, params: Float[Array, "*b"], **fixed: Any) -> Self:
        return cls.from_mean(-1 / jnp.asarray(params), **fixed)

    @classmethod
    def natural_from_mean(
        cls, params: Float[Array, "*b"], **fixed: Any
    ) -> Float[Array, "*b"]:
        (s,) = as_floats(params)
        return only_if(s, POSITIVE, f"{cls.__name__}: mean parameter", -1 / s)

    def log_partition(self, params: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return -jnp.log(-params)

    def entropy(self) -> Float[Array, "*b"]:
        return 1 + jnp.log(self.mean_params) - self.expected_log_base_measure()

    @property
    def fisher(self) -> PositiveDefinite:
        return Diagonal(self.mean_params[..., None])


@family
class Exponential(ExponentialStatistic):
    """Exponential(rate b) on x ≥ 0: p(x) = b e⁻ᵇˣ.

    Args:
        rate: b > 0, one over the mean, shape (*b,).

    Example:
        >>> q = Exponential(4.0)
        >>> float(q.mean), float(q.variance)
        (0.25, 0.0625)
    """

    rate: Float[Array, "*b"] = parameter(POSITIVE)

    support: ClassVar[Domain] = NON_NEGATIVE
    numpyro_names: ClassVar[tuple[str, ...]] = ("Exponential",)

    @property
    def natural_params(self) -> Float[Array, "*b"]:
        return -self.rate

    @classmethod
    def from_mean(cls, params: Float[Array, "*b"]) -> Self:
        return cls(1 / jnp.asarray(params))

    def sufficient_statistics(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return x

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Array:
        shape = (*shape, *self.batch_shape)
        return jax.random.exponential(key, shape, self.dtype) / self.rate

    @property
    def mean_params(self) -> Float[Array, "*b"]:
        return 1 / self.rate

    @property
    def mean(self) -> Float[Array, "*b"]:
        return 1 / self.rate

    @property
    def variance(self) -> Float[Array, "*b"]:
        return self.rate**-2

    @property
    def mode(self) -> Float[Array, "*b"]:
        return jnp.zeros_like(self.rate)

    def cdf(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return -jnp.expm1(-self.rate * jnp.maximum(x, 0))

    def entropy(self) -> Float[Array, "*b"]:
        return 1 - jnp.log(self.rate)

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        return -log_ratio_gap(other.rate, self.rate)


def positive_exponential(
    key: Key[Array, ""], shape: tuple[int, ...], dtype: Any
) -> Float[Array, "*s"]:
    """Standard exponential draws that are never 0, of which logarithms exist."""
    draw = jax.random.exponential(key, shape, dtype)
    # A uniform number below half its resolution, which is what a draw of 0 stands for.
    return jnp.maximum(draw, jnp.finfo(dtype).eps / 2)
