"""Products and roots of batches of small matrices.

A batch is worked on by arithmetic over all of it, row by row of the matrices: a call to
BLAS or LAPACK for each member takes longer than the few operations it is for.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from ngvi.linalg.batching import diagonal_of, symmetric

Matrix = Float[Array, "*b p p"]

# Measured on a CPU: up to here loops over rows are the faster, and quick to compile.
_UNROLLED_ROOT = 6
_UNROLLED_PRODUCT = 8
_MANY = 8


def many(matrix: Matrix) -> bool:
    """Whether arithmetic over the batch is faster than a call for each member."""
    return math.prod(matrix.shape[:-2]) >= _MANY


def lapack_roots(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """L and L⁻¹ of a symmetric P = L Lᵀ, by LAPACK."""
    lower = jnp.linalg.cholesky(matrix)
    eye = jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=lower.dtype), lower.shape)
    return lower, solve_triangular(lower, eye, lower=True)


def multiply(x: Float[Array, "*b m n"], y: Float[Array, "*b n k"]) -> Array:
    """x y for batches of small matrices."""
    return x @ y if x.shape[-1] > _UNROLLED_PRODUCT else _unrolled(x, y)


def multiply_vector(matrix: Float[Array, "*c m n"], x: Float[Array, "*b n"]) -> Array:
    """M x for small matrices and vectors, whose leading axes broadcast."""
    return multiply(matrix, x[..., None])[..., 0]


@jax.custom_jvp
def _unrolled(x: Float[Array, "*b m n"], y: Float[Array, "*b n k"]) -> Array:
    total = x[..., :, 0, None] * y[..., 0, None, :]
    for i in range(1, x.shape[-1]):
        total = total + x[..., :, i, None] * y[..., i, None, :]
    # Else the sum would be fused into its readers, and computed again in each.
    return lax.optimization_barrier(total)


@_unrolled.defjvp
def _unrolled_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    # The transpose of the loop is ten times as slow as that of a sum.
    def summed(x: Array, y: Array) -> Array:
        return (x[..., :, :, None] * y[..., None, :, :]).sum(-2)

    (x, y), (dx, dy) = primals, tangents
    return _unrolled(x, y), summed(dx, y) + summed(x, dy)


def gram(x: Float[Array, "*b n p"]) -> Matrix:
    """xᵀ x, exactly symmetric."""
    return symmetric(multiply(x.mT, x))


def outer(x: Float[Array, "*b p"]) -> Matrix:
    """x xᵀ."""
    return x[..., :, None] * x[..., None, :]


@jax.custom_jvp
def roots(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """L and L⁻¹ of a symmetric P = L Lᵀ."""
    if matrix.shape[-1] > _UNROLLED_ROOT:
        lower = jnp.linalg.cholesky(matrix)
    else:
        columns, rest = [], matrix
        while rest.shape[-1]:
            # The first column of the root, and what its square leaves of the others.
            column = rest[..., :, 0] / jnp.sqrt(rest[..., :1, 0])
            columns.append(column)
            rest = rest[..., 1:, 1:] - outer(column[..., 1:])
        batch = [(0, 0)] * (matrix.ndim - 2)
        columns = [jnp.pad(c, [*batch, (k, 0)]) for k, c in enumerate(columns)]
        lower = jnp.stack(columns, -1)
    return lower, inverse_triangular(lower)


@roots.defjvp
def _roots_jvp(
    primals: tuple[Matrix], tangents: tuple[Matrix]
) -> tuple[tuple[Matrix, Matrix], tuple[Matrix, Matrix]]:
    root, inverse_root = roots(*primals)
    # dL = L Φ(L⁻¹ dP L⁻ᵀ), Φ the lower triangle with half of the diagonal.
    inner = multiply(multiply(inverse_root, tangents[0]), inverse_root.mT)
    eye = jnp.eye(inner.shape[-1], dtype=inner.dtype)
    phi = jnp.tril(inner) - eye * inner / 2
    changes = multiply(root, phi), -multiply(phi, inverse_root)
    return (root, inverse_root), changes


@jax.custom_jvp
def inverse_triangular(lower: Matrix) -> Matrix:
    """L⁻¹ of a lower triangular L."""
    p = lower.shape[-1]
    eye = jnp.broadcast_to(jnp.eye(p, dtype=lower.dtype), lower.shape)
    if p > _UNROLLED_ROOT:
        return lax.linalg.triangular_solve(lower, eye, left_side=True, lower=True)
    rows: list[Array] = []
    for k in range(p):
        row = eye[..., k, :]
        for j in range(k):
            row = row - lower[..., k, j, None] * rows[j]
        rows.append(row / lower[..., k, k, None])
    return jnp.stack(rows, -2)


@inverse_triangular.defjvp
def _inverse_triangular_jvp(
    primals: tuple[Matrix], tangents: tuple[Matrix]
) -> tuple[Matrix, Matrix]:
    value = inverse_triangular(*primals)
    return value, -multiply(multiply(value, tangents[0]), value)


@jax.custom_jvp
def inverse(matrix: Matrix) -> Matrix:
    """P⁻¹ of a symmetric P, NaN where it is not positive definite."""
    units = jnp.sqrt(diagonal_of(matrix))
    both = units[..., :, None] * units[..., None, :]
    if many(matrix):
        return gram(roots(matrix / both)[1]) / both
    root = lapack_roots(matrix / both)[1]
    return symmetric(root.mT @ root) / both


@inverse.defjvp
def _inverse_jvp(
    primals: tuple[Matrix], tangents: tuple[Matrix]
) -> tuple[Matrix, Matrix]:
    value = inverse(*primals)
    product = multiply if many(value) else jnp.matmul
    return value, -product(product(value, tangents[0]), value)
