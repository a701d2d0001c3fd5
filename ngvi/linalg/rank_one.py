"""A diagonal minus a matrix of rank one."""

from __future__ import annotations

from typing import Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.base import PositiveDefinite
from ngvi.linalg.batching import diagonal_matrix, dot
from ngvi.pytrees import pytree


@pytree
class DiagonalMinusRankOne(PositiveDefinite):
    """P = diag(d) − w wᵀ > 0: Fisher matrices of categorical and Dirichlet families.

    With u = w/d, v = w/√d and the remainder r = 1 − wᵀ diag(d)⁻¹ w = 1 − ‖v‖² > 0,

        B = diag(√d) (I − v vᵀ/(1 + √r)),   A = diag(1/√d) (I + v vᵀ/(√r (1 + √r))),
        P⁻¹ = diag(1/d) + u uᵀ/r,           log det P = Σ log d + log r.

    Near-singular matrices are the rule: the remainder must be given, computed without
    cancellation, and the products use it in place of 1 − ‖v‖². P u = r w: a vector is
    split into a multiple of u, which P shrinks by r, and a rest orthogonal to w.

    Args:
        diagonal_part: d > 0.
        vector: w; may be zero.
        remainder: r, 0 < r ≤ 1.

    Example:
        >>> import jax.numpy as jnp
        >>> p = jnp.array([0.25, 0.5])  # and the last category's 0.25
        >>> fisher = DiagonalMinusRankOne(p, p, jnp.asarray(0.25))
        >>> [float(v) for v in fisher.diagonal()]
        [0.1875, 0.25]

    Source: Sherman and Morrison's formula, Golub and Van Loan (2013), Matrix
    computations, section 2.1.4.
    """

    diagonal_part: Float[Array, "*c d"]
    vector: Float[Array, "*c d"]
    remainder: Float[Array, "*c"]

    @property
    def dim(self) -> int:
        return self.vector.shape[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        leading = self.diagonal_part.shape[:-1], self.vector.shape[:-1]
        return jnp.broadcast_shapes(*leading, self.remainder.shape)

    @property
    def _flat(self) -> Float[Array, "*c d"]:
        """u = w/d, the direction P shrinks: P u = r w."""
        return _over(self.vector, self.diagonal_part)

    @property
    def _whitened(self) -> Float[Array, "*c d"]:
        """v = w/√d."""
        some = self.diagonal_part > 0
        return _over(self.vector, jnp.sqrt(jnp.where(some, self.diagonal_part, 1)))

    @property
    def _remainder(self) -> Float[Array, "*c 1"]:
        return self.remainder[..., None]

    def _split(
        self, x: Float[Array, "*b d"]
    ) -> tuple[Float[Array, "*b 1"], Float[Array, "*b d"]]:
        """x = a u + z with ⟨w, z⟩ = 0: (a, z)."""
        flat, vector = self._flat, self.vector
        square = dot(vector, flat)
        square = jnp.where(square > 0, square, 1)
        first = dot(vector, x) / square
        rest = x - first * flat
        # Once more: what rounding left of u in z would outweigh r a.
        second = dot(vector, rest) / square
        return first + second, rest - second * flat

    def _lengthen(self, y: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """(I + v vᵀ/(√r (1 + √r))) y."""
        root, v = jnp.sqrt(self._remainder), self._whitened
        return y + v * (dot(v, y) / (root * (1 + root)))

    # -- as a linear operator ----------------------------------------------------

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        along, rest = self._split(x)
        return self.diagonal_part * rest + self._remainder * along * self.vector

    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        flat = self._flat
        return x / self.diagonal_part + flat * (dot(flat, x) / self._remainder)

    def whiten(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        along, rest = self._split(x)
        shrunk = jnp.sqrt(self._remainder) * along * self._whitened
        return jnp.sqrt(self.diagonal_part) * rest + shrunk

    def unwhiten(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._lengthen(eps) / jnp.sqrt(self.diagonal_part)

    def whiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._lengthen(g / jnp.sqrt(self.diagonal_part))

    # -- numbers about it --------------------------------------------------------

    def logdet(self) -> Float[Array, "*c"]:
        return jnp.log(self.diagonal_part).sum(-1) + jnp.log(self.remainder)

    def diagonal(self) -> Float[Array, "*c d"]:
        """dᵢ (1 − vᵢ²) = dᵢ (r + Σ_{j≠i} vⱼ²), a sum of positive terms."""
        squares = self.vector * self._flat
        nothing = jnp.zeros_like(squares[..., :1])
        before = jnp.cumsum(squares[..., :-1], -1)
        after = jnp.cumsum(squares[..., :0:-1], -1)[..., ::-1]
        others = jnp.concatenate([nothing, before], -1) + jnp.concatenate(
            [after, nothing], -1
        )
        return self.diagonal_part * (self._remainder + others)

    def inverse_diagonal(self) -> Float[Array, "*c d"]:
        return 1 / self.diagonal_part + self._flat**2 / self._remainder

    def dense(self) -> Float[Array, "*c d d"]:
        products = self.vector[..., :, None] * self.vector[..., None, :]
        identity = jnp.eye(self.dim, dtype=bool)
        return jnp.where(identity, self.diagonal()[..., None, :], -products)

    def inverse_dense(self) -> Float[Array, "*c d d"]:
        flat = self._flat
        products = flat[..., :, None] * (flat / self._remainder)[..., None, :]
        return diagonal_matrix(1 / self.diagonal_part) + products

    # -- arithmetic --------------------------------------------------------------

    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        factor = jnp.asarray(c)[..., None]
        return type(self)(
            self.diagonal_part * factor,
            self.vector * jnp.sqrt(factor),
            self.remainder,
        )

    def damp(self, damping: float | Float[Array, "*c"]) -> Self:
        """P + λ I, λ ≥ 0; the frame changes."""
        added = jnp.asarray(damping)[..., None]
        diagonal = self.diagonal_part + added
        gained = self.vector * self._flat * (added / diagonal)
        return type(self)(diagonal, self.vector, self.remainder + gained.sum(-1))


def _over(x: Float[Array, "*c d"], y: Float[Array, "*c d"]) -> Float[Array, "*c d"]:
    """x/y; x where y is 0: that of a probability too small for the dtype, as x is."""
    return x / jnp.where(y == 0, 1, y)
