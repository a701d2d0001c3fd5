"""Negative powers of semidefinite matrices.

With the ridge r = ε ‖A‖_F, relative to the norm so that the power of c A is that power
of c times the power of A,

    (A + r I)^(−q)

is computed from eigenvalues, or for q = 1/p by the coupled Newton iteration

    Xₖ₊₁ = Xₖ Tₖ,   Mₖ₊₁ = Tₖ^p Mₖ,   Tₖ = (1 + 1/p) I − Mₖ/p,

which starts at M₀ = z A, X₀ = z^(1/p) I with z = (1 + p)/(2 ‖A‖_F), keeps M = X^p A and
takes it to I: matrix products only, which accelerators prefer.

Source: Guo and Higham (2006), A Schur–Newton method for the matrix pth root and its
inverse; Anil, Gupta, Koren, Regan and Singer (2020), Scalable second order optimization
for deep learning.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Method = Literal["eigh", "newton"]

Carry = tuple[Array, Array, Array, Array, Array]
"""k, X, M, how far M is from I, and how far it was before."""

_TINY = 1e-30
"""Added to the ridge, so that the power of zero is finite: it multiplies zeros."""
_ITERATIONS = 100


def inverse_power(
    matrix: Float[Array, "n d d"], power: float, epsilon: Any, method: Method = "eigh"
) -> Float[Array, "n d d"]:
    """(A + r I)^(−q), of each matrix.

    Args:
        matrix: A, symmetric and semidefinite but for rounding.
        power: q.
        epsilon: ε.
        method: "eigh", or "newton" for q = 1/p.
    """
    if method == "newton":
        return jax.vmap(partial(_newton, round(1 / power), epsilon))(matrix)
    values, vectors = jnp.linalg.eigh(matrix)
    ridge = _ridge(jnp.linalg.norm(values, axis=-1, keepdims=True), epsilon)
    # What is negative is rounding.
    powers = (jnp.maximum(values, 0) + ridge) ** -power
    return (vectors * powers[..., None, :]) @ vectors.mT


def _ridge(norm: Array, epsilon: Any) -> Array:
    return epsilon * norm + _TINY


def _newton(p: int, epsilon: Any, matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    one = jnp.eye(len(matrix), dtype=matrix.dtype)
    damped = matrix + _ridge(jnp.linalg.norm(matrix), epsilon) * one
    scale = (1 + p) / (2 * jnp.linalg.norm(damped))
    enough = 10 * jnp.finfo(matrix.dtype).eps

    def go_on(carry: Carry) -> Array:
        k, _, _, error, before = carry
        # Far from the limit the error may stand still; near it rounding ends its fall.
        falls = (error > 0.1) | (error < before)
        return (k < _ITERATIONS) & (error > enough) & falls

    def step(carry: Carry) -> Carry:
        k, x, m, error, _ = carry
        t = (1 + 1 / p) * one - m / p
        m = jnp.linalg.matrix_power(t, p) @ m
        return k + 1, x @ t, m, jnp.abs(m - one).max(), error

    far = jnp.asarray(jnp.inf, matrix.dtype)
    start: Carry = (jnp.asarray(0), scale ** (1 / p) * one, scale * damped, far, far)
    # On accelerators the default precision of products would be too low.
    with jax.default_matmul_precision("highest"):
        return jax.lax.while_loop(go_on, step, start)[1]
