"""A diagonal plus a matrix of low rank."""

from __future__ import annotations

from typing import Self

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from ngvi.linalg.base import PositiveDefinite
from ngvi.linalg.batching import apply, diagonal_matrix, diagonal_of, times
from ngvi.pytrees import pytree


@pytree
class LowRankPlusDiagonal(PositiveDefinite):
    """P = diag(D) + U Uᵀ, U of shape (d, k): O(d k) for a vector, O(d k²) to make.

    With V = D^{-½} U, the triangle L of I + VᵀV = L Lᵀ and Q = V L⁻ᵀ,

        B = D^½ (I + V N Qᵀ),   A = D^{-½} (I − Q N Qᵀ),   N = (I + L)⁻¹ L,

    because (I + V C Vᵀ)(I + V Cᵀ Vᵀ) = I + V Vᵀ for C = (I + L)⁻¹ and any root L. All
    four are smooth at any U, also where its columns are dependent or zero. A vector is
    unwhitened with an error of about ε √(1 + ‖vᵢ‖²) standard deviations in coordinate
    i, where ‖vᵢ‖² = (U Uᵀ)ᵢᵢ / Dᵢ and ε is the unit of rounding.

    Made by `from_factor`; the fields depend on each other.

    Source: Woodbury's identity and the determinant lemma, Golub and Van Loan (2013),
    Matrix computations, section 2.1.4.
    """

    root_diagonal: Float[Array, "*c d"]
    """D^½."""
    whitened: Float[Array, "*c d k"]
    """V."""
    basis: Float[Array, "*c d k"]
    """Q; its singular values σ/√(1 + σ²), with σ those of V, are less than 1."""
    triangle: Float[Array, "*c k k"]
    """L, lower triangular with a diagonal of at least 1."""

    @classmethod
    def from_factor(
        cls, diagonal: Float[Array, "*c d"], factor: Float[Array, "*c d k"]
    ) -> Self:
        """diag(D) + U Uᵀ.

        Args:
            diagonal: D > 0.
            factor: U, of any rank.
        """
        root = jnp.sqrt(diagonal)
        whitened = factor / root[..., None]
        *leading, dim, rank = whitened.shape
        identity = jnp.eye(rank, dtype=whitened.dtype)
        identity = jnp.broadcast_to(identity, (*leading, rank, rank))
        # [V; I] = [Q; L⁻ᵀ] Lᵀ has full rank and never squares V: Cholesky of I + VᵀV
        # would fail in single precision from σ ≈ 3000 on.
        q, r = jnp.linalg.qr(jnp.concatenate([whitened, identity], -2))
        sign = jnp.where(diagonal_of(r) < 0, -1, 1).astype(r.dtype)
        basis = q[..., :dim, :] * sign[..., None, :]
        return cls(root, whitened, basis, (r * sign[..., None]).mT)

    @property
    def dim(self) -> int:
        return self.whitened.shape[-2]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return jnp.broadcast_shapes(
            self.root_diagonal.shape[:-1], self.whitened.shape[:-2]
        )

    @property
    def _middle(self) -> Float[Array, "*c k k"]:
        """N = (I + L)⁻¹ L, lower triangular."""
        identity = jnp.eye(self.triangle.shape[-1], dtype=self.triangle.dtype)
        return solve_triangular(self.triangle + identity, self.triangle, lower=True)

    # -- as a linear operator ----------------------------------------------------

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        y = self.root_diagonal * x
        return self.root_diagonal * (y + apply(self.whitened, times(y, self.whitened)))

    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        # Through the root: Woodbury's I − Q Qᵀ alone would cancel twice the digits.
        return self.unwhiten(self.whiten_gradient(x))

    def whiten(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        y = self.root_diagonal * x
        inside = apply(self._middle.mT, times(y, self.whitened))
        return y + apply(self.basis, inside)

    def unwhiten(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        inside = apply(self._middle, times(eps, self.basis))
        return (eps - apply(self.basis, inside)) / self.root_diagonal

    def whiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        y = g / self.root_diagonal
        inside = apply(self._middle.mT, times(y, self.basis))
        return y - apply(self.basis, inside)

    # -- numbers about it --------------------------------------------------------

    def logdet(self) -> Float[Array, "*c"]:
        """log det D + log det(I + VᵀV)."""
        triangle = jnp.log(diagonal_of(self.triangle)).sum(-1)
        return 2 * (jnp.log(self.root_diagonal).sum(-1) + triangle)

    def diagonal(self) -> Float[Array, "*c d"]:
        return self.root_diagonal**2 * (1 + (self.whitened**2).sum(-1))

    def inverse_diagonal(self) -> Float[Array, "*c d"]:
        """(1 − ‖qᵢ‖²) / Dᵢ, to a relative error of about ε (1 + ‖vᵢ‖²)."""
        # 1/(1 + ‖vᵢ‖²) bounds it from below, exactly where vᵢ is a direction of its
        # own, which is also where the difference loses its digits.
        below = 1 / (1 + (self.whitened**2).sum(-1))
        kept = jnp.maximum(1 - (self.basis**2).sum(-1), below)
        return kept / self.root_diagonal**2

    def relative_trace(self, other: PositiveDefinite) -> Float[Array, "*c"]:
        """Σ Dᵢ (Q⁻¹)ᵢᵢ + tr(Uᵀ Q⁻¹ U)."""
        factor = self.root_diagonal[..., None] * self.whitened
        batch = jnp.broadcast_shapes(self.batch_shape, other.batch_shape)
        factor = jnp.broadcast_to(factor, (*batch, *factor.shape[-2:]))
        columns = other.whiten_gradient(jnp.moveaxis(factor, -1, 0))
        own = (self.root_diagonal**2 * other.inverse_diagonal()).sum(-1)
        return own + (columns**2).sum((0, -1))

    def dense(self) -> Float[Array, "*c d d"]:
        factor = self.root_diagonal[..., None] * self.whitened
        return diagonal_matrix(self.root_diagonal**2) + factor @ factor.mT

    def inverse_dense(self) -> Float[Array, "*c d d"]:
        left = self.basis @ self._middle
        identity = jnp.eye(self.dim, dtype=left.dtype)
        inverse_root = identity - left @ self.basis.mT
        inverse_root = inverse_root / self.root_diagonal[..., None]
        return inverse_root @ inverse_root.mT

    # -- arithmetic --------------------------------------------------------------

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        root = self.root_diagonal * jnp.sqrt(c)[..., None]
        return type(self)(root, self.whitened, self.basis, self.triangle)

    def damp(self, damping: float | Float[Array, "*c"]) -> Self:
        """P + λ I, λ ≥ 0; the frame changes."""
        factor = self.root_diagonal[..., None] * self.whitened
        diagonal = self.root_diagonal**2 + jnp.asarray(damping)[..., None]
        return self.from_factor(diagonal, factor)
