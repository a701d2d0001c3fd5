"""The Laplace family of fixed location.

    λ = −1/s,   T(x) = |x − loc|,   μ = s,   A(λ) = −log(−λ),   h = ½.

T is exponential, so μ → λ is −1/μ.

Source: Johnson, Kotz and Balakrishnan (1995), Continuous univariate distributions 2,
chapter 24.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families.domains import POSITIVE, REAL, Domain
from ngvi.families.exponential import ExponentialStatistic
from ngvi.families.numpyro_bridge import common_number
from ngvi.families.parameters import family, fixed, parameter
from ngvi.families.special import log_ratio_gap


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


@family
class Laplace(ExponentialStatistic):
    """Laplace(loc, scale s) on the line: p(x) ∝ exp(−|x − loc|/s).

    Args:
        loc: the centre, a Python number: one for the whole batch.
        scale: s > 0, the mean distance from the centre, shape (*b,).

    Example:
        >>> float(Laplace(1.0, 2.0).variance)
        8.0
    """

    loc: float = fixed("one finite number", _is_finite)
    scale: Float[Array, "*b"] = parameter(POSITIVE)

    support: ClassVar[Domain] = REAL
    numpyro_names: ClassVar[tuple[str, ...]] = ("Laplace",)

    @property
    def mean_params(self) -> Float[Array, "*b"]:
        return self.scale

    @classmethod
    def from_mean(cls, params: Float[Array, "*b"], *, loc: float) -> Self:
        return cls(loc, params)

    def sufficient_statistics(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return jnp.abs(x - self.loc)

    def log_base_measure(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return jnp.full_like(x, -math.log(2))

    def expected_log_base_measure(self) -> Float[Array, "*b"]:
        return jnp.full_like(self.scale, -math.log(2))

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Array:
        shape = (*shape, *self.batch_shape)
        return self.loc + self.scale * jax.random.laplace(key, shape, self.dtype)

    @property
    def mean(self) -> Float[Array, "*b"]:
        return jnp.full_like(self.scale, self.loc)

    @property
    def variance(self) -> Float[Array, "*b"]:
        return 2 * self.scale**2

    @property
    def mode(self) -> Float[Array, "*b"]:
        return jnp.full_like(self.scale, self.loc)

    def cdf(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        z = (x - self.loc) / self.scale
        tail = jnp.exp(-jnp.abs(z)) / 2
        return jnp.where(z < 0, tail, 1 - tail)

    def to_numpyro(self) -> Any:
        import numpyro.distributions as dist

        return dist.Laplace(self.loc, self.scale)

    @classmethod
    def from_numpyro(cls, distribution: Any) -> Self:
        return cls(common_number(distribution.loc, "Laplace: loc"), distribution.scale)

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        return -log_ratio_gap(self.scale, other.scale)
