"""The von Mises–Fisher family on the unit sphere of d dimensions.

    λ = κ u,   T(x) = x,   μ = A(κ) u,   A(κ) = I_{d/2}(κ)/I_{d/2−1}(κ),
    A(λ) = log [I_ν(κ) Γ(ν + 1) (2/κ)^ν] with ν = d/2 − 1,   log h = −log area.

μ → λ: κ solves A(κ) = ‖μ‖. Mean parameters of a large κ lie close to the sphere, where
1 − ‖μ‖ ≈ (ν + ½)/κ is all there is to tell κ from: in float32 μ holds two digits of
κ = 10⁵ in three dimensions. Fits to data do not pass through μ and keep all digits.

At λ = 0 the member is uniform and its direction arbitrary. Polar coordinates are
singular there, but what is computed from them is not: λ is moved by less than can be
seen, and derivatives with respect to λ are right.

Source: Mardia and Jupp (2000), Directional statistics, sections 9.3 and 10.3.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ngvi.families.base import ExponentialFamily
from ngvi.families.domains import NON_NEGATIVE, UNIT_VECTOR, Domain
from ngvi.families.parameters import family, parameter
from ngvi.families.polar_angle import sample_polar_angle
from ngvi.families.special import (
    bessel_ratio,
    bessel_ratio_slope,
    inverse_bessel_ratio,
    log_bessel,
    log_bessel_scaled,
    one_minus_bessel_ratio,
)
from ngvi.linalg import Dense, PositiveDefinite

Vectors = Float[Array, "*b d"]


@family
class VonMisesFisher(ExponentialFamily):
    """VonMisesFisher(loc u, concentration κ) on unit vectors: p(x) ∝ exp(κ ⟨u, x⟩).

    Args:
        loc: u, the mean direction, a vector of length one, shape (*b, d), d ≥ 2.
        concentration: κ ≥ 0; zero is the uniform distribution, shape (*b,).

    Example:
        >>> import jax.numpy as jnp
        >>> q = VonMisesFisher(jnp.array([0.0, 0.0, 1.0]), 2.0)
        >>> round(float(q.mean[2]), 4)  # coth 2 − 1/2
        0.5373
    """

    loc: Vectors = parameter(UNIT_VECTOR)
    concentration: Float[Array, "*b"] = parameter(NON_NEGATIVE)

    support: ClassVar[Domain] = UNIT_VECTOR

    def relations(self) -> list[tuple[Any, Any, str]]:
        size = np.full(self.batch_shape, self.event_shape[0])
        return [(size, size > 1, "loc needs two entries or more")]

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.loc.shape[-1:]

    @property
    def _order(self) -> float:
        """ν."""
        return self.loc.shape[-1] / 2 - 1

    @property
    def natural_params(self) -> Vectors:
        return self.concentration[..., None] * self.loc

    @classmethod
    def from_natural(cls, params: Vectors) -> Self:
        length, direction = polar(jnp.asarray(params))
        return cls(direction, length)

    @classmethod
    def from_mean(cls, params: Vectors) -> Self:
        params = jnp.asarray(params)
        length, direction = polar(params)
        order = params.shape[-1] / 2 - 1
        kappa = inverse_bessel_ratio(order, length, _deficit(params))
        return cls(direction, kappa)

    def log_partition(self, params: Vectors) -> Float[Array, "*b"]:
        return log_bessel(self._order, polar(params)[0])

    def sufficient_statistics(self, x: Vectors) -> Vectors:
        return x

    def log_base_measure(self, x: Vectors) -> Float[Array, "*b"]:
        return jnp.full(x.shape[:-1], -log_area(x.shape[-1]), self.dtype)

    def expected_log_base_measure(self) -> Float[Array, "*b"]:
        return jnp.full_like(self.concentration, -log_area(self.loc.shape[-1]))

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Array:
        angle_key, tangent_key = jax.random.split(key)
        shape = (*shape, *self.batch_shape)
        dim = self.loc.shape[-1]
        angle = sample_polar_angle(angle_key, self.concentration, dim, shape)
        tangent = jax.random.normal(tangent_key, (*shape, dim), self.dtype)
        for _ in range(2):  # the second projection removes the first one's rounding
            along = (tangent * self.loc).sum(-1, keepdims=True)
            tangent = tangent - along * self.loc
        tangent /= jnp.linalg.norm(tangent, axis=-1, keepdims=True)
        angle = angle[..., None]
        return jnp.cos(angle) * self.loc + jnp.sin(angle) * tangent

    @property
    def mean(self) -> Vectors:
        return self.mean_params

    @property
    def variance(self) -> Vectors:
        across, along = self._spread
        square = self.loc**2
        return across[..., None] * (1 - square) + along[..., None] * square

    @property
    def mode(self) -> Vectors:
        return self.loc

    # Closed forms in the length and the direction of λ.

    @property
    def mean_params(self) -> Vectors:
        return bessel_ratio(self._order, self.concentration)[..., None] * self.loc

    @property
    def _spread(self) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
        """The variances of x across and along the mean direction."""
        return spread(self.concentration, self._order)

    def _log_density(self, x: Vectors) -> Float[Array, "*b"]:
        # ⟨u, x⟩ − 1 = −½ ‖x − u‖² for unit vectors.
        turn = ((x - self.loc) ** 2).sum(-1) / 2
        scaled = log_bessel_scaled(self._order, self.concentration)
        return -self.concentration * turn - scaled - log_area(x.shape[-1])

    def entropy(self) -> Float[Array, "*b"]:
        return entropy(self.concentration, self._order)

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        turn = ((self.loc - other.loc) ** 2).sum(-1) / 2
        return divergence(self.concentration, other.concentration, turn, self._order)

    @property
    def fisher(self) -> PositiveDefinite:
        across, along = (s[..., None, None] for s in self._spread)
        outer = self.loc[..., :, None] * self.loc[..., None, :]
        identity = jnp.eye(self.loc.shape[-1], dtype=self.dtype)
        return Dense.from_dense(across * (identity - outer) + along * outer)

    def _fit(self, x: Vectors, weights: Float[Array, "n"]) -> Self:
        mean = jnp.tensordot(weights, x, 1)
        length, direction = polar(mean)
        # 1 − ‖mean‖ from the distances to the mean direction: no digits lost near 1.
        turns = ((x - direction) ** 2).sum(-1) / 2
        deficit = jnp.tensordot(weights, turns, 1)
        kappa = inverse_bessel_ratio(self._order, length, deficit)
        return type(self)(direction, kappa)


def log_area(dim: int) -> float:
    """The logarithm of the area of the unit sphere in ℝᵈ, 2 π^{d/2} / Γ(d/2)."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


def polar(vector: Vectors) -> tuple[Float[Array, "*b"], Vectors]:
    """Length and direction; next to zero, those of a vector too short to be seen."""
    unseen = 1e3 * math.sqrt(jnp.finfo(vector.dtype).tiny)
    short = (jnp.abs(vector) < unseen).all(-1, keepdims=True)
    first = jnp.arange(vector.shape[-1]) == 0
    vector = vector + jnp.where(short & first, 4 * unseen, 0).astype(vector.dtype)
    scale = jax.lax.stop_gradient(jnp.abs(vector).max(-1, keepdims=True))
    scaled = vector / scale
    length = jnp.sqrt((scaled**2).sum(-1, keepdims=True))
    return (scale * length)[..., 0], scaled / length


def _deficit(mean: Vectors) -> Float[Array, "*b"]:
    """1 − ‖μ‖, the largest entry's share of 1 − ‖μ‖² without cancellation."""
    largest = jnp.arange(mean.shape[-1]) == jnp.abs(mean).argmax(-1, keepdims=True)
    top = jnp.where(largest, mean, 0).sum(-1)
    others = jnp.where(largest, 0, mean**2).sum(-1)
    square = (1 - top) * (1 + top) - others
    return square / (1 + jnp.sqrt(top**2 + others))


def spread(
    kappa: Float[Array, "*b"], order: float
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """A(κ)/κ and A'(κ): the variances across and along the mean direction."""
    safe = jnp.maximum(kappa, jnp.finfo(kappa.dtype).tiny ** 0.5)
    return bessel_ratio(order, safe) / safe, bessel_ratio_slope(order, kappa)


def entropy(kappa: Float[Array, "*b"], order: float) -> Float[Array, "*b"]:
    """−E[log q]."""
    scaled = log_bessel_scaled(order, kappa)
    turn = one_minus_bessel_ratio(order, kappa)
    return log_area(round(2 * order) + 2) + scaled + kappa * turn


def divergence(
    kappa: Float[Array, "*b"],
    other: Float[Array, "*b"],
    turn: Float[Array, "*b"],
    order: float,
) -> Float[Array, "*b"]:
    """KL between members whose directions have the cosine 1 − turn."""
    difference = other - kappa
    deficit = one_minus_bessel_ratio(order, kappa)
    scaled = [log_bessel_scaled(order, k) for k in (other, kappa)]
    far = scaled[0] - scaled[1] + difference * deficit
    # ∫ (1 − t) A'(κ + t d) dt d²: three points are exact to the order of (d/κ)⁸.
    near = jnp.zeros_like(kappa)
    for point, weight in zip(JACOBI_POINTS, JACOBI_WEIGHTS, strict=True):
        near = near + weight * bessel_ratio_slope(order, kappa + point * difference)
    limit = 0.2 if jnp.finfo(kappa.dtype).bits <= 32 else 0.01
    close = jnp.abs(difference) < limit * (kappa + (2 * order + 2))
    change = jnp.where(close, difference**2 * near, far)
    return change + other * turn * bessel_ratio(order, kappa)


# Gauss and Jacobi's rule for ∫_0^1 (1 − t) f(t) dt.
JACOBI_POINTS = (0.08858795951270395, 0.4094668644407347, 0.7876594617608471)
JACOBI_WEIGHTS = (0.2009319137389589, 0.2292411063595862, 0.0698269799014549)
