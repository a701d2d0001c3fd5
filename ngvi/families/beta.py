"""The beta family: the Dirichlet family of two entries, x and 1 − x.

    λ = (a − 1, b − 1),   T(x) = (log x, log(1 − x)),   h = 1,
    μ = (ψ(a) − ψ(a + b), ψ(b) − ψ(a + b)),   A(λ) = log B(a, b).

μ → λ by Newton's method, see `ngvi.families.dirichlet`.

Source: Minka (2000), Estimating a Dirichlet distribution.
"""

from __future__ import annotations

from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from jax.scipy.special import betainc
from jaxtyping import Array, Float, Key

from ngvi.families import dirichlet
from ngvi.families.base import ExponentialFamily
from ngvi.families.domains import POSITIVE, PROBABILITY, Domain
from ngvi.families.gamma import Pair
from ngvi.families.parameters import family, parameter
from ngvi.families.special import digamma_difference, inverse_dirichlet
from ngvi.linalg import PositiveDefinite


@family
class Beta(ExponentialFamily):
    """Beta(concentration1 a, concentration0 b) on 0 < x < 1: p(x) ∝ xᵃ⁻¹ (1 − x)ᵇ⁻¹.

    Args:
        concentration1: a > 0, shape (*b,).
        concentration0: b > 0, shape (*b,).

    Example:
        >>> q = Beta(3.0, 1.0)
        >>> float(q.mean), float(q.variance)
        (0.75, 0.0375)
    """

    concentration1: Float[Array, "*b"] = parameter(POSITIVE)
    concentration0: Float[Array, "*b"] = parameter(POSITIVE)

    support: ClassVar[Domain] = PROBABILITY
    numpyro_names: ClassVar[tuple[str, ...]] = ("Beta",)

    @property
    def _both(self) -> Float[Array, "*b 2"]:
        return jnp.stack([self.concentration1, self.concentration0], -1)

    @property
    def natural_params(self) -> Pair:
        return self.concentration1 - 1, self.concentration0 - 1

    @classmethod
    def from_natural(cls, params: Pair) -> Self:
        return cls(params[0] + 1, params[1] + 1)

    @classmethod
    def from_mean(cls, params: Pair) -> Self:
        return cls(*_unstack(inverse_dirichlet(jnp.stack(params, -1))))

    def log_partition(self, params: Pair) -> Float[Array, "*b"]:
        return dirichlet.log_beta(jnp.stack(params, -1) + 1)

    def sufficient_statistics(self, x: Float[Array, "*b"]) -> Pair:
        return jnp.log(x), jnp.log1p(-x)

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Array:
        shape = (*shape, *self.batch_shape)
        a, b = self.concentration1, self.concentration0
        return self._inside(jax.random.beta(key, a, b, shape, self.dtype))

    @property
    def base_size(self) -> int:
        return 4

    def place(self, eps: Float[Array, "*b 4"]) -> Float[Array, "*b"]:
        pairs = eps.reshape(*eps.shape[:-1], 2, 2)
        return self._inside(dirichlet.place(pairs, self._both)[..., 0])

    def _inside(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        # Tiny concentrations round to 0 or 1: keep the draw inside the support.
        limits = jnp.finfo(self.dtype)
        return jnp.clip(x, limits.tiny, 1 - limits.epsneg)

    @property
    def mean(self) -> Float[Array, "*b"]:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def variance(self) -> Float[Array, "*b"]:
        a, b = self.concentration1, self.concentration0
        return a / (a + b) * (b / (a + b)) / (a + b + 1)

    @property
    def mode(self) -> Float[Array, "*b"]:
        a, b = self.concentration1 - 1, self.concentration0 - 1
        return jnp.where((a >= 0) & (b >= 0), a / (a + b), jnp.nan)

    def cdf(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        a, b = self.concentration1, self.concentration0
        return betainc(*jnp.broadcast_arrays(a, b, jnp.clip(x, 0, 1)))

    @property
    def mean_params(self) -> Pair:
        a, b = self.concentration1, self.concentration0
        return -digamma_difference(a, b), -digamma_difference(b, a)

    # Closed forms, the Dirichlet family's.

    def _log_density(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return dirichlet.log_density(self._both, jnp.stack([x, 1 - x], -1))

    def entropy(self) -> Float[Array, "*b"]:
        return dirichlet.entropy(self._both)

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        return dirichlet.divergence(self._both, other._both)

    @property
    def fisher(self) -> PositiveDefinite:
        return dirichlet.fisher(self._both)


def _unstack(both: Float[Array, "*b 2"]) -> Pair:
    return both[..., 0], both[..., 1]
