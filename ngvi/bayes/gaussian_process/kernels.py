"""Covariance functions of Gaussian processes.

With r² = Σ_j (x_j − x′_j)²/ℓ_j² and variance s,

    RBF         s exp(−½ r²)
    Matern12    s exp(−r)
    Matern32    s (1 + √3 r) exp(−√3 r)
    Matern52    s (1 + √5 r + 5/3 r²) exp(−√5 r)
    Constant    s
    Linear      s Σ_j x_j x′_j / ℓ_j²

and sums and products of them, k + k and k * k. A kernel is a pytree whose leaves are
all positive, so that `jax.tree.map(jnp.log, kernel)` has no borders.

Source: Rasmussen and Williams (2006), Gaussian processes for machine learning,
chapter 4.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families.domains import POSITIVE
from ngvi.families.parameters import checked, is_concrete
from ngvi.families.parameters import family as record

Inputs = Float[Array, "n d"]


class Kernel(ABC):
    """A covariance function k(x, x′)."""

    @abstractmethod
    def __call__(self, x: Inputs, y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        """k of all pairs."""

    @abstractmethod
    def diagonal(self, x: Inputs) -> Float[Array, "n"]:
        """k(x, x)."""

    def __add__(self, other: Kernel) -> Sum:
        return Sum(self, other)

    def __mul__(self, other: Kernel) -> Product:
        return Product(self, other)


def _hold_positive(kernel: Kernel, *names: str) -> None:
    for name in names:
        value = getattr(kernel, name)
        if is_concrete(value):
            whole = f"{type(kernel).__name__}: {name}"
            object.__setattr__(kernel, name, checked(value, POSITIVE, whole))


class _Scaled(Kernel):
    """A kernel of inputs in units of their lengthscales."""

    variance: Any
    lengthscale: Any

    def __post_init__(self) -> None:
        _hold_positive(self, "variance", "lengthscale")

    def _units(self, x: Inputs) -> Inputs:
        count = jnp.shape(self.lengthscale)
        if count and count != x.shape[-1:]:
            raise ValueError(
                f"{type(self).__name__}: lengthscale has shape {count}; it must be one "
                f"number, or one for each of the {x.shape[-1]} columns of X"
            )
        return x / self.lengthscale


class _Stationary(_Scaled):
    """A kernel of distances."""

    @abstractmethod
    def _shape(self, square: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """k / s as a function of r²."""

    def __call__(self, x: Inputs, y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        a, b = self._units(x), self._units(y)
        # Differences, not |a|² + |b|² − 2ab, which cancels for near neighbours.
        square = ((a[:, None] - b[None]) ** 2).sum(-1)
        return self.variance * self._shape(square)

    def diagonal(self, x: Inputs) -> Float[Array, "n"]:
        return jnp.broadcast_to(self.variance, x.shape[:1])


def _distance(square: Array) -> Array:
    """√r², with derivative zero at zero: there k has none, or it vanishes."""
    some = square > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, square, 1)), 0)


@record
class RBF(_Stationary):
    """s exp(−½ r²): infinitely smooth functions.

    Args:
        variance: s.
        lengthscale: ℓ, one number or one for each column.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[0.0], [1.0]])
        >>> RBF(2.0, 0.5)(x, x).shape
        (2, 2)
    """

    variance: Any = 1.0
    lengthscale: Any = 1.0

    def _shape(self, square: Array) -> Array:
        return jnp.exp(-square / 2)


@record
class Matern12(_Stationary):
    """s exp(−r): continuous functions without derivatives; see `RBF`."""

    variance: Any = 1.0
    lengthscale: Any = 1.0

    def _shape(self, square: Array) -> Array:
        return jnp.exp(-_distance(square))


@record
class Matern32(_Stationary):
    """s (1 + √3 r) exp(−√3 r): functions with one derivative; see `RBF`."""

    variance: Any = 1.0
    lengthscale: Any = 1.0

    def _shape(self, square: Array) -> Array:
        r = _distance(3 * square)
        return (1 + r) * jnp.exp(-r)


@record
class Matern52(_Stationary):
    """s (1 + √5 r + 5/3 r²) exp(−√5 r): functions with two derivatives; see `RBF`."""

    variance: Any = 1.0
    lengthscale: Any = 1.0

    def _shape(self, square: Array) -> Array:
        r = _distance(5 * square)
        return (1 + r + r * r / 3) * jnp.exp(-r)


@record
class Constant(Kernel):
    """s everywhere: a level that is not known."""

    variance: Any = 1.0

    def __post_init__(self) -> None:
        _hold_positive(self, "variance")

    def __call__(self, x: Inputs, y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return jnp.broadcast_to(self.variance, (len(x), len(y)))

    def diagonal(self, x: Inputs) -> Float[Array, "n"]:
        return jnp.broadcast_to(self.variance, x.shape[:1])


@record
class Linear(_Scaled):
    """s Σ_j x_j x′_j/ℓ_j²: linear functions through the origin."""

    variance: Any = 1.0
    lengthscale: Any = 1.0

    def __call__(self, x: Inputs, y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return self.variance * self._units(x) @ self._units(y).T

    def diagonal(self, x: Inputs) -> Float[Array, "n"]:
        return self.variance * (self._units(x) ** 2).sum(-1)


@record
class Sum(Kernel):
    """k₁ + k₂: the sum of two independent functions."""

    first: Any
    second: Any

    def __call__(self, x: Inputs, y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return self.first(x, y) + self.second(x, y)

    def diagonal(self, x: Inputs) -> Float[Array, "n"]:
        return self.first.diagonal(x) + self.second.diagonal(x)


@record
class Product(Kernel):
    """k₁ k₂."""

    first: Any
    second: Any

    def __call__(self, x: Inputs, y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return self.first(x, y) * self.second(x, y)

    def diagonal(self, x: Inputs) -> Float[Array, "n"]:
        return self.first.diagonal(x) * self.second.diagonal(x)
