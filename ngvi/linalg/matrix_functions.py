"""Functions of a symmetric matrix near zero or of low rank, without D eigenvalues.

A step X of a search is short, and R(X)^½ a smooth function of it: on |x| ≤ ¼ a
polynomial of degree 7 or 19 equals it to the last digit of single or double precision.
It costs a few matrix products, a twentieth of a spectral decomposition. Whether the
spectrum is so small is known from ‖X⁴‖_F^¼ ≥ ‖X‖₂; where it is not, it is decomposed.

Where X = Σ wᵢ xᵢxᵢᵀ + s I has n terms and n ≪ D, all but n eigenvalues are s, and the
others are those of an n × n matrix in an orthonormal basis of the xᵢ.

Source: Paterson and Stockmeyer (1973), On the number of nonscalar multiplications
necessary to evaluate polynomials.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_BOUND = 0.25
_SMALL = 8
"""Below this size a decomposition is as fast."""

Scalar = Callable[[Array], Array]
Matrix = Float[Array, "*c d d"]


def half_powers(x: Matrix, function: Scalar) -> tuple[Matrix, Matrix]:
    """f(X)^½ and f(X)^−½, both symmetric.

    Args:
        x: a symmetric matrix.
        function: f, positive on the spectrum; analytic near |x| ≤ ¼.
    """
    if x.shape[-1] < _SMALL:
        return _decomposed(x, function)
    y = x / _BOUND
    second = y @ y
    fourth = second @ second
    short = (fourth**2).sum((-2, -1)).max() <= 1

    def polynomials(_: Matrix) -> tuple[Matrix, Matrix]:
        powers = [jnp.eye(x.shape[-1], dtype=x.dtype), y, second, y @ second]
        grow, shrink = (
            _polynomial(_coefficients(function, power, x.dtype), powers, fourth)
            for power in (0.5, -0.5)
        )
        return grow, shrink

    return jax.lax.cond(short, polynomials, lambda m: _decomposed(m, function), x)


class Spiked(NamedTuple):
    """c I + V diag(a) Vᵀ."""

    axes: Float[Array, "d n"]
    """V, with orthonormal columns."""
    along: Float[Array, "n"]
    """a."""
    rest: Float[Array, ""]
    """c."""

    def after(self, matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
        """The product, this matrix on the right."""
        return self.rest * matrix + (matrix @ self.axes * self.along) @ self.axes.mT


def half_powers_of_sum(
    x: Float[Array, "n d"],
    weights: Float[Array, "n"],
    rest: float | Float[Array, ""],
    function: Scalar,
) -> tuple[Spiked, Spiked]:
    """f(X)^½ and f(X)^−½ of X = Σ wᵢ xᵢxᵢᵀ + s I, n ≤ d.

    Args:
        x: xᵢ, in rows.
        weights: wᵢ, of any sign.
        rest: s.
        function: f, positive on the spectrum.
    """
    basis, coordinates = jnp.linalg.qr(x.mT)
    values, vectors = jnp.linalg.eigh((coordinates * weights) @ coordinates.mT)
    axes = basis @ vectors
    among = jnp.sqrt(function(values + rest))
    beside = jnp.sqrt(function(jnp.asarray(rest, x.dtype)))
    return (
        Spiked(axes, among - beside, beside),
        Spiked(axes, 1 / among - 1 / beside, 1 / beside),
    )


def _decomposed(x: Matrix, function: Scalar) -> tuple[Matrix, Matrix]:
    values, vectors = jnp.linalg.eigh(x)
    root = jnp.sqrt(function(values))[..., None, :]
    return (vectors * root) @ vectors.mT, (vectors / root) @ vectors.mT


def _coefficients(function: Scalar, power: float, dtype: np.dtype) -> np.ndarray:
    """Of 1, y, y², … for f(¼ y)^power, by interpolation at Chebyshev's points."""
    degree = 19 if dtype == jnp.float64 else 7

    nodes = np.polynomial.chebyshev.chebpts1(degree + 1)
    with jax.ensure_compile_time_eval():
        values = np.asarray(function(jnp.asarray(_BOUND * nodes)), float) ** power
    fit = np.polynomial.chebyshev.chebfit(nodes, values, degree)
    plain = np.polynomial.chebyshev.cheb2poly(fit)
    # It drops trailing zeros.
    return np.pad(plain, (0, degree + 1 - len(plain)))


def _polynomial(
    coefficients: np.ndarray, powers: list[Matrix], fourth: Matrix
) -> Matrix:
    """Horner's rule in Y⁴, with cubic polynomials for coefficients."""
    one, y, second, third = powers
    cubics = [
        a * one + b * y + c * second + d * third
        for a, b, c, d in coefficients.reshape(-1, 4).tolist()
    ]
    return reduce(lambda total, cubic: cubic + fourth @ total, reversed(cubics))
