"""Lanczos' tridiagonal matrix, and functions of a symmetric matrix by it.

From a vector q₁ of length 1, k products make orthonormal rows Q with Q F Qᵀ = T
tridiagonal. Every new row is made orthogonal to all before it, twice: the recurrence
alone loses that to rounding as soon as an eigenvalue has converged. Where the rows
already span a space that F maps to itself, a random one goes on and T falls into
blocks, so multiple eigenvalues are found too. With T = U diag(θ) Uᵀ,

    f(F) q₁ ≈ Qᵀ U f(θ) Uᵀ e₁,    q₁ᵀ f(F) q₁ ≈ Σ u₁ᵢ² f(θᵢ),

the first exact for polynomials of a degree below k, the second (Gauss' quadrature) for
those below 2k.

Sources: Golub and Van Loan (2013), Matrix computations, section 10.1; Golub and Meurant
(2010), Matrices, moments and quadrature with applications, chapter 6; Greenbaum (1989),
Behavior of slightly perturbed Lanczos and conjugate-gradient recurrences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Operator = Callable[[Float[Array, "d"]], Float[Array, "d"]]
Scalar = Callable[[Array], Array]


class Tridiagonal(NamedTuple):
    """Q F Qᵀ = T."""

    rows: Float[Array, "k d"]
    """Q, or the latest rows of it."""
    diagonal: Float[Array, "k"]
    beside: Float[Array, "k"]
    """Below and above the diagonal; the last, outside of T, is the length of what F
    leads out of the rows to."""

    def matrix(self) -> Float[Array, "k k"]:
        """T."""
        beside = jnp.diag(self.beside[:-1], 1)
        return jnp.diag(self.diagonal) + beside + beside.T


def lanczos(
    mv: Operator, start: Float[Array, "d"], steps: int, keep: int | None = None
) -> Tridiagonal:
    """Tridiagonal form on the space of F's powers times a vector.

    Args:
        mv: x ↦ F x, F symmetric.
        start: in the direction of q₁.
        steps: k, at most D.
        keep: the number of rows that are held and that a new one is made orthogonal
            to, all unless given. Two make it the bare recurrence, which is enough for
            a quadrature: what rounding does to T then repeats eigenvalues and shares
            their weights among them.
    """
    dim = start.shape[-1]
    steps = min(steps, dim)
    keep = steps if keep is None else keep
    eps = jnp.finfo(start.dtype).eps

    def outside(x: Array, rows: Array) -> Array:
        for _ in range(2):
            x = x - (rows @ x) @ rows
        return x

    def other(index: Array, rows: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(0), index)
        x = outside(jax.random.normal(key, (dim,), start.dtype), rows)
        return x / jnp.linalg.norm(x)

    def step(
        carry: tuple[Array, Array, Array], index: Array
    ) -> tuple[tuple[Array, Array, Array], tuple[Array, Array]]:
        rows, row, size = carry
        rows = rows.at[index % keep].set(row)
        image = mv(row)
        middle = row @ image
        rest = outside(image, rows)
        length = jnp.linalg.norm(rest)
        size = jnp.maximum(size, jnp.linalg.norm(image))
        ended = length <= 32 * eps * size
        row = lax.cond(
            ended,
            lambda: other(index, rows),
            lambda: rest / jnp.where(ended, 1, length),
        )
        return (rows, row, size), (middle, jnp.where(ended, 0, length))

    rows = jnp.zeros((keep, dim), start.dtype)
    length = jnp.linalg.norm(start)
    first = lax.cond(
        length > 0,
        lambda: start / jnp.where(length > 0, length, 1),
        lambda: other(jnp.asarray(steps), rows),
    )
    begin = rows, first, jnp.zeros((), start.dtype)
    (rows, _, _), (diagonal, beside) = lax.scan(step, begin, jnp.arange(steps))
    return Tridiagonal(rows, diagonal, beside)


def function_times(
    mv: Operator, function: Scalar, x: Float[Array, "d"], steps: int
) -> Float[Array, "d"]:
    """f(F) x for a scalar function f on the spectrum."""
    t = lanczos(mv, x, steps)
    values, vectors = jnp.linalg.eigh(t.matrix())
    first = jnp.linalg.norm(x) * vectors[0]
    return (vectors @ (function(values) * first)) @ t.rows


def quadrature(
    t: Tridiagonal, function: Scalar, steps: int | None = None
) -> Float[Array, ""]:
    """q₁ᵀ f(F) q₁, by all or by the first of the steps."""
    values, vectors = jnp.linalg.eigh(t.matrix()[:steps, :steps])
    return (vectors[0] ** 2 * function(values)).sum()
