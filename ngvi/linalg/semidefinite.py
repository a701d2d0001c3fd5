"""What every structured curvature matrix offers, before it is damped.

A Fisher matrix F is positive *semi*definite: it says nothing about directions that
leave the model's output as it is. So it can be multiplied by and averaged, but neither
solved nor drawn from until a multiple of the identity, or a diagonal such as a prior
precision, has been added to it:

    F.damp(λ) = F + λ I,        a `PositiveDefinite`.

A Hessian has these structures too, and may be indefinite: `clip` makes it semidefinite
where its eigenvalues can be had. Where F + λ I is not positive definite, its roots and
its determinant are NaN or infinite.

Leading axes are those of `ngvi.linalg.base`. A damping has the shape *c (or none), or
*c with the axis of the vectors after it: one λ for each coordinate.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.base import PositiveDefinite, Symmetric


class Semidefinite(Symmetric):
    """A symmetric D × D matrix F ⪰ 0: it is multiplied by, averaged and damped."""

    # -- arithmetic that stays in the structure ----------------------------------

    @abstractmethod
    def add(self, other: Semidefinite) -> Self:
        """F + F′ of the same structure.

        Raises:
            TypeError: the other has another structure, or the sum of two such matrices
                is no such matrix.
        """

    def average(self, other: Semidefinite, weight: float | Float[Array, "*c"]) -> Self:
        """(1 − w) F + w F′: a step of a running average.

        The weight n′/(n + n′) makes it the mean over n + n′ examples; the weights
        (1 − β)/(1 − βᵗ), t = 1, 2, …, an exponential average without bias.
        """
        kept = self.scale(1 - jnp.asarray(weight))
        return kept.add(self._matching(other).scale(jnp.asarray(weight)))

    def clip(self, minimum: float | Float[Array, "*c"]) -> Semidefinite:
        """The nearest matrix (in the Frobenius norm) without smaller eigenvalues.

        Raises:
            TypeError: the structure does not know its eigenvalues.
        """
        raise TypeError(
            f"{type(self).__name__} does not know its eigenvalues, so none can be "
            "clipped: damp it, or take a dense, diagonal or Kronecker structure"
        )

    # -- what can be solved ------------------------------------------------------

    @abstractmethod
    def damp(
        self, damping: float | Float[Array, "*c"] | Float[Array, "*c d"]
    ) -> PositiveDefinite:
        """F + λ I, or F + diag(λ) where the structure allows.

        Args:
            damping: λ ≥ 0, large enough to make the sum positive definite.

        Raises:
            ValueError: λ has a length other than D, or the structure allows but one λ.
        """

    def damp_factored(self, damping: float | Float[Array, "*c"]) -> PositiveDefinite:
        """F + λ I to what is cheapest: only Kronecker factors take a short cut."""
        return self.damp(damping)

    def _matching(self, other: Semidefinite) -> Self:
        """The other, if it is of this structure."""
        if type(other) is type(self) and other.dim == self.dim:
            return other
        raise TypeError(
            f"{type(self).__name__} of {self.dim} rows can be added to, or averaged "
            f"with, its like, got {type(other).__name__} of {other.dim}"
        )


def per_coordinate(
    damping: float | Array, matrix: Semidefinite
) -> Float[Array, "*c #d"]:
    """λ with an axis for the coordinates, of length D or 1."""
    array = jnp.asarray(damping)
    if array.ndim <= len(matrix.batch_shape):
        return array[..., None]
    if array.shape[-1] != matrix.dim:
        raise ValueError(
            f"damp: one λ for each of {matrix.dim} coordinates was expected, got "
            f"{array.shape[-1]}"
        )
    return array


def one_damping(damping: float | Array, matrix: Semidefinite) -> Float[Array, "*c"]:
    """λ, which must be one number for all coordinates."""
    array = jnp.asarray(damping)
    if array.ndim > len(matrix.batch_shape):
        raise ValueError(
            f"damp: {type(matrix).__name__} takes one λ for all coordinates, got an "
            f"array of shape {array.shape}; a λ for each coordinate needs a dense, "
            "diagonal, low-rank or matrix-free structure"
        )
    return array
