"""The von Mises family on the circle.

    λ = κ (cos m, sin m),   T(x) = (cos x, sin x),   μ = A(κ) (cos m, sin m),
    A(κ) = I₁(κ)/I₀(κ),   A(λ) = log I₀(κ),   log h = −log 2π.

It is the von Mises–Fisher family of d = 2 in the angle; see there for μ → λ and for
λ = 0. Angles lie between −π and π.

Source: Mardia and Jupp (2000), Directional statistics, section 3.5.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families import von_mises_fisher as vmf
from ngvi.families.base import ExponentialFamily
from ngvi.families.domains import NON_NEGATIVE, REAL, Domain
from ngvi.families.gamma import Pair
from ngvi.families.parameters import family, parameter
from ngvi.families.polar_angle import sample_polar_angle
from ngvi.families.special import (
    bessel_ratio,
    inverse_bessel_ratio,
    log_bessel,
    log_bessel_scaled,
    one_minus_bessel_ratio,
    von_mises_cdf,
)
from ngvi.families.special.quantiles import von_mises_quantile
from ngvi.families.special.tables import LOG_2PI
from ngvi.linalg import Dense, PositiveDefinite

ANGLE = Domain("an angle between -pi and pi", 0, lambda v, xp: abs(v) <= math.pi)


@family
class VonMises(ExponentialFamily):
    """VonMises(loc m, concentration κ) on −π ≤ x ≤ π: p(x) ∝ exp(κ cos(x − m)).

    Args:
        loc: m, the mean direction, any angle in radians, shape (*b,).
        concentration: κ ≥ 0; zero is the uniform distribution, shape (*b,).

    Example:
        >>> q = VonMises(0.0, 2.0)
        >>> [round(float(v), 4) for v in q.mean_params]
        [0.6978, 0.0]
    """

    loc: Float[Array, "*b"] = parameter(REAL)
    concentration: Float[Array, "*b"] = parameter(NON_NEGATIVE)

    support: ClassVar[Domain] = ANGLE
    natural_everywhere: ClassVar[bool] = True
    numpyro_names: ClassVar[tuple[str, ...]] = ("VonMises",)

    @property
    def natural_params(self) -> Pair:
        k = self.concentration
        return k * jnp.cos(self.loc), k * jnp.sin(self.loc)

    @classmethod
    def from_natural(cls, params: Pair) -> Self:
        length, direction = vmf.polar(jnp.stack(params, -1))
        return cls(_angle(direction), length)

    @classmethod
    def from_mean(cls, params: Pair) -> Self:
        circle = vmf.VonMisesFisher.from_mean(jnp.stack(params, -1))
        return cls(_angle(circle.loc), circle.concentration)

    def log_partition(self, params: Pair) -> Float[Array, "*b"]:
        return log_bessel(0, vmf.polar(jnp.stack(params, -1))[0])

    def sufficient_statistics(self, x: Float[Array, "*b"]) -> Pair:
        return jnp.cos(x), jnp.sin(x)

    def log_base_measure(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return jnp.full_like(x, -LOG_2PI)

    def expected_log_base_measure(self) -> Float[Array, "*b"]:
        return jnp.full_like(self.concentration, -LOG_2PI)

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Array:
        angle_key, sign_key = jax.random.split(key)
        shape = (*shape, *self.batch_shape)
        angle = sample_polar_angle(angle_key, self.concentration, 2, shape)
        sign = jax.random.rademacher(sign_key, shape, self.dtype)
        return _wrap(self.loc + sign * angle)

    @property
    def base_size(self) -> int:
        return 1

    def place(self, eps: Float[Array, "*b 1"]) -> Float[Array, "*b"]:
        return _wrap(self.loc + von_mises_quantile(eps[..., 0], self.concentration))

    @property
    def mean(self) -> Float[Array, "*b"]:
        """The mean direction, as in NumPyro and SciPy, which is not the mean of x."""
        return _wrap(self.loc)

    @property
    def variance(self) -> Float[Array, "*b"]:
        """The circular variance 1 − I₁(κ)/I₀(κ), as in NumPyro."""
        return one_minus_bessel_ratio(0, self.concentration)

    @property
    def mode(self) -> Float[Array, "*b"]:
        return _wrap(self.loc)

    def cdf(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        start = jnp.full_like(self.loc, -math.pi)
        mass = self._unrolled_cdf(jnp.clip(x, -math.pi, math.pi))
        return jnp.clip(mass - self._unrolled_cdf(start), 0, 1)

    def _unrolled_cdf(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """∫ from loc − π to x of the density continued with period 2π."""
        angle = x - self.loc
        turns = jax.lax.stop_gradient(jnp.round(angle / (2 * math.pi)))
        return turns + von_mises_cdf(_wrap(angle), self.concentration)

    # Closed forms in the length and the direction of λ.

    @property
    def mean_params(self) -> Pair:
        length = bessel_ratio(0, self.concentration)
        return length * jnp.cos(self.loc), length * jnp.sin(self.loc)

    def _log_density(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        scaled = log_bessel_scaled(0, self.concentration)
        return -self.concentration * _versine(x - self.loc) - scaled - LOG_2PI

    def entropy(self) -> Float[Array, "*b"]:
        return vmf.entropy(self.concentration, 0)

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        turn = _versine(self.loc - other.loc)
        return vmf.divergence(self.concentration, other.concentration, turn, 0)

    @property
    def fisher(self) -> PositiveDefinite:
        across, along = vmf.spread(self.concentration, 0)
        cosine, sine = jnp.cos(self.loc), jnp.sin(self.loc)
        first = along * cosine**2 + across * sine**2
        second = along * sine**2 + across * cosine**2
        mixed = (along - across) * cosine * sine
        rows = [jnp.stack([first, mixed], -1), jnp.stack([mixed, second], -1)]
        return Dense.from_dense(jnp.stack(rows, -2))

    def _fit(self, x: Float[Array, "n *b"], weights: Float[Array, "n"]) -> Self:
        cosine, sine = (
            jnp.tensordot(weights, t, 1) for t in self.sufficient_statistics(x)
        )
        length, direction = vmf.polar(jnp.stack([cosine, sine], -1))
        loc = _angle(direction)
        # 1 − ‖mean‖ from the distances to the mean direction: no digits lost near 1.
        deficit = jnp.tensordot(weights, _versine(x - loc), 1)
        return type(self)(loc, inverse_bessel_ratio(0, length, deficit))


def _versine(angle: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """1 − cos, by the half angle."""
    return 2 * jnp.sin(angle / 2) ** 2


def _angle(direction: Float[Array, "*b 2"]) -> Float[Array, "*b"]:
    return jnp.arctan2(direction[..., 1], direction[..., 0])


def _wrap(angle: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """The same angle between −π and π."""
    turns = jax.lax.stop_gradient(jnp.round(angle / (2 * math.pi)))
    return jnp.clip(angle - 2 * math.pi * turns, -math.pi, math.pi)
