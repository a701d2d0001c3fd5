"""What every structured positive-definite matrix offers.

A structure is a symmetric positive-definite P (usually a precision) together with a
root B, P = B Bᵀ, and the inverse root A = B⁻ᵀ, so that P⁻¹ = A Aᵀ. If ε ~ N(0, I), then
A ε ~ N(0, P⁻¹). The root's columns are the *frame*: a step multiplies the root by a
factor on the right and never re-factorises P, because another root of the same P would
rotate every draw.

A *tangent* is a symmetric matrix X in that frame, restricted to what the structure can
represent and stored in the structure's own layout (a full matrix for `Dense`, a vector
for `Diagonal`). Only the structure knows the layout.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from jaxtyping import Array, Float

Tangent = Any
"""A symmetric matrix in the frame, in the layout of one structure (a pytree)."""

Entries = Any
"""The free entries of a matrix, in the layout of one structure (a pytree)."""


class Retracted(NamedTuple):
    """A matrix moved along a tangent X: P⁺ = B R Bᵀ with R = R(X)."""

    matrix: PositiveDefinite
    solve: Callable[[Float[Array, "d"]], Float[Array, "d"]]
    """v ↦ R⁻¹ v, in the old frame."""
    trace_inverse: Float[Array, ""]
    """tr R⁻¹."""
    logdet: Float[Array, ""]
    """log det R."""
    log: Tangent
    """log R: how far the matrix went, as a tangent (∞ order in X)."""


class PositiveDefinite(ABC):
    """A symmetric positive-definite D × D matrix P = B Bᵀ, P⁻¹ = A Aᵀ, A = B⁻ᵀ.

    Vectors may carry leading batch axes; the last axis has length `dim`.
    """

    @property
    @abstractmethod
    def dim(self) -> int:
        """The number of rows, D."""

    @classmethod
    @abstractmethod
    def from_dense(cls, matrix: Float[Array, "d d"]) -> Self:
        """The structure's entries of a dense positive-definite matrix."""

    @classmethod
    @abstractmethod
    def from_entries(cls, entries: Entries) -> Self:
        """The inverse of `entries`: the matrix whose free entries these are."""

    # -- as a linear operator ----------------------------------------------------

    @abstractmethod
    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """P x."""

    @abstractmethod
    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """P⁻¹ x."""

    @abstractmethod
    def whiten(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """A⁻¹ x = Bᵀ x: turns N(0, P⁻¹) into N(0, I)."""

    @abstractmethod
    def unwhiten(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """A ε: turns N(0, I) into N(0, P⁻¹)."""

    @abstractmethod
    def whiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Aᵀ g: the gradient with respect to ε of a function of A ε."""

    # -- numbers about it --------------------------------------------------------

    @abstractmethod
    def logdet(self) -> Float[Array, ""]:
        """log det P."""

    @abstractmethod
    def diagonal(self) -> Float[Array, "d"]:
        """The diagonal of P."""

    @abstractmethod
    def inverse_diagonal(self) -> Float[Array, "d"]:
        """The diagonal of P⁻¹: the marginal variances when P is a precision."""

    @abstractmethod
    def dense(self) -> Float[Array, "d d"]:
        """P as an array."""

    @abstractmethod
    def inverse_dense(self) -> Float[Array, "d d"]:
        """P⁻¹ as an array: the covariance when P is a precision."""

    @abstractmethod
    def entries(self) -> Entries:
        """The free entries of P."""

    def trace(self) -> Float[Array, ""]:
        """tr P."""
        return self.diagonal().sum()

    # -- arithmetic that stays in the structure ----------------------------------

    @abstractmethod
    def scale(self, c: float | Float[Array, ""]) -> Self:
        """c P, c > 0, in the same frame."""

    @abstractmethod
    def add(self, other: PositiveDefinite) -> Self:
        """P + Q, Q's entries outside this structure dropped."""

    @abstractmethod
    def damp(self, damping: float | Float[Array, ""]) -> Self:
        """P + λ I, λ ≥ 0."""

    @classmethod
    @abstractmethod
    def project(cls, matrix: Float[Array, "d d"]) -> Entries:
        """The entries of a symmetric (possibly indefinite) matrix kept by this
        structure: a curvature estimate restricted to what P can hold."""

    @classmethod
    @abstractmethod
    def outer(cls, x: Float[Array, "*b d"]) -> Entries:
        """`project(x xᵀ)` without forming more than the entries."""

    @classmethod
    @abstractmethod
    def inner(cls, x: Entries, y: Entries) -> Float[Array, ""]:
        """tr(X Y) of two symmetric matrices given by their entries."""

    # -- the tangent space at P, in the frame ------------------------------------

    @abstractmethod
    def tangent(self, eps: Float[Array, "n d"], g: Float[Array, "n d"]) -> Tangent:
        """Sym(mean εᵢ gᵢᵀ), restricted to the structure."""

    @abstractmethod
    def tangent_identity(self) -> Tangent:
        """The identity as a tangent."""

    @abstractmethod
    def whiten_curvature(self, matrix: Float[Array, "d d"]) -> Tangent:
        """Aᵀ H A of a symmetric H, restricted to the structure."""

    @abstractmethod
    def along(
        self, direction: Tangent
    ) -> Callable[[Float[Array, ""], Callable[[Array], Array]], Retracted]:
        """(ρ, R) ↦ P⁺ = B R(ρX) Bᵀ for a tangent X, the frame kept: B⁺ = B R^½.

        What does not depend on ρ (a spectral decomposition of X) is computed once, so
        that a trust region can try several lengths. R is a positive scalar function
        1 + x + O(x²) applied to the spectrum, see `ngvi.mirror.retractions`; R^½ is
        the symmetric square root.
        """
