"""Symmetric positive-definite matrices with their Cholesky roots, in batches.

Roots are taken of the matrix scaled to a unit diagonal, so that mixed units cost no
digits. The root's inverse is kept beside it: a batch of many small matrices is then
worked on by products alone, and matrices of a few rows are factored by arithmetic over
the whole batch instead of one LAPACK call for each member.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ngvi.families.special import log1p_minus
from ngvi.linalg.batching import diagonal_of, symmetric
from ngvi.linalg.small import gram, multiply, roots

Matrix = Float[Array, "*b p p"]


class Factored(NamedTuple):
    """P = L Lᵀ with L lower triangular, and L⁻¹."""

    matrix: Matrix
    root: Matrix
    inverse_root: Matrix

    def log_det(self) -> Float[Array, "*b"]:
        """log det P."""
        return _log_det(self)

    def inverse(self) -> Matrix:
        """P⁻¹, exactly symmetric."""
        return gram(self.inverse_root)

    def times(self, c: Float[Array, "*b"]) -> Factored:
        """c P, c > 0."""
        c = jnp.asarray(c)[..., None, None]
        root = jnp.sqrt(c)
        return Factored(c * self.matrix, root * self.root, self.inverse_root / root)

    def whiten(self, x: Float[Array, "*b p"]) -> Float[Array, "*b p"]:
        """L⁻¹ x, so that ‖L⁻¹x‖² = xᵀP⁻¹x."""
        return apply(self.inverse_root, x)


def factor(matrix: Matrix) -> Factored:
    """A matrix with its roots; NaN where it is not positive definite."""
    # The root of D⁻¹ P D⁻¹, times D, is the same for every D: no derivative in D.
    units = lax.stop_gradient(jnp.sqrt(diagonal_of(matrix)))
    matrix = symmetric(matrix)
    scaled = matrix / (units[..., :, None] * units[..., None, :])
    root, inverse_root = roots(scaled)
    return Factored(matrix, units[..., None] * root, inverse_root / units[..., None, :])


def inverse(matrix: Matrix) -> Matrix:
    """P⁻¹ of a positive-definite P."""
    return factor(matrix).inverse()


def apply(matrix: Float[Array, "*b m n"], x: Float[Array, "*b n"]) -> Array:
    """M x for vectors, shape (*b, m)."""
    return (matrix * x[..., None, :]).sum(-1)


def stein_loss(
    x: Factored, y: Factored, growth: float | Float[Array, "*b"] = 0.0
) -> Float[Array, "*b"]:
    """D((1 + g)X, Y), where D(X, Y) = tr(Y⁻¹X) − p − log det(Y⁻¹X) ≥ 0.

    Its zero at X = Y keeps its digits. With Y = L Lᵀ and C the Cholesky root of
    L⁻¹XL⁻ᵀ = I + H, whose diagonal is 1 + hₖ + Σ_{j<k} Cₖⱼ²,

        tr H − log det(I + H) = Σ_{j<k} Cₖⱼ² + Σₖ [hₖ − log(1 + hₖ)],

    a sum of positive terms, in which a small H is had from the difference X − Y. For a
    large one C is L⁻¹ times the root of X, which holds however small X is beside Y.

    Args:
        x: X.
        y: Y.
        growth: g > −1.

    Source: James and Stein (1961), Estimation with quadratic loss, section 5.
    """
    return _stein_loss(x, y, jnp.asarray(growth, x.matrix.dtype))


@jax.custom_jvp
def _stein_loss(x: Factored, y: Factored, growth: Float[Array, "*b"]) -> Array:
    half = multiply(y.inverse_root, _excess(x, y, growth))
    excess = symmetric(multiply(half, y.inverse_root.mT))
    near = jnp.abs(excess).sum(-1).max(-1) < 0.5
    small = jnp.where(near[..., None, None], excess, 0)
    eye = jnp.eye(excess.shape[-1], dtype=excess.dtype)
    below = (jnp.tril(roots(small + eye)[0], -1) ** 2).sum(-1)
    close = (below - log1p_minus(diagonal_of(small) - below)).sum(-1)
    c = multiply(y.inverse_root, x.root)
    log_det = x.log_det() - y.log_det() + c.shape[-1] * jnp.log1p(growth)
    wide = (1 + growth) * (c**2).sum((-2, -1)) - c.shape[-1] - log_det
    return jnp.where(near, close, wide)


@_stein_loss.defjvp
def _(
    primals: tuple[Factored, Factored, Array],
    tangents: tuple[Factored, Factored, Array],
) -> tuple[Array, Array]:
    # With E = (1 + g)X − Y: dD = tr X⁻¹EY⁻¹ dX − tr Y⁻¹EY⁻¹ dY + tr Y⁻¹E dg / (1 + g).
    # Roots are functions of their matrices, whose changes are all that counts.
    x, y, growth = primals
    dx, dy, dg = tangents
    half = multiply(y.inverse(), _excess(x, y, growth))
    by_x, by_y = multiply(half, x.inverse()), multiply(half, y.inverse())
    change = (by_x * dx.matrix - by_y * dy.matrix).sum((-2, -1))
    trace = diagonal_of(half).sum(-1) / (1 + growth)
    return _stein_loss(x, y, growth), change + trace * dg


def _excess(x: Factored, y: Factored, growth: Float[Array, "*b"]) -> Matrix:
    """(1 + g)X − Y."""
    return symmetric(x.matrix - y.matrix) + growth[..., None, None] * x.matrix


@jax.custom_jvp
def _log_det(x: Factored) -> Float[Array, "*b"]:
    return 2 * jnp.log(diagonal_of(x.root)).sum(-1)


@_log_det.defjvp
def _(primals: tuple[Factored], tangents: tuple[Factored]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return _log_det(x), (x.inverse() * dx.matrix).sum((-2, -1))
