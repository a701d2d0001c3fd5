"""What every structured positive-definite matrix offers.

A structure is a symmetric positive-definite P (usually a precision) together with a
root B, P = B Bᵀ, and the inverse root A = B⁻ᵀ, so that P⁻¹ = A Aᵀ. If ε ~ N(0, I), then
A ε ~ N(0, P⁻¹). The root's columns are the *frame*: a step multiplies the root by a
factor on the right and never re-factorises P, because another root of the same P would
rotate every draw.

There are two floors. A `PositiveDefinite` is an operator: it multiplies, solves, draws.
The matrices of a `LinearStructure` are moreover all the positive-definite members of a
linear space of symmetric matrices, so that the Gaussians with such precisions are an
exponential family. Its matrices are described in three layouts, each a pytree:

- *entries*, the coordinates of a matrix X of the space (P itself, a sum, a projection);
- *tangents*, the entries of a symmetric matrix in the frame;
- *moments*, the dual coordinates: what a symmetric matrix M is to this structure, so
  that Σ entries(X) · moments(M) = tr(X M), the plain sum over all leaves.

For `Dense` and `Diagonal` all three look alike. For `Isotropic`, X = s I has the entry
s, while M counts through tr M only. Only the structure knows the layouts.

Every array a structure is made of may carry leading axes *c: it then stands for as many
matrices. They broadcast, as in NumPy, against the leading axes *b of the vectors, and
every result has them: shape (*broadcast(b, c), D) for a vector, (*c, D, D) for a dense
matrix, (*c,) for a number. A scalar argument may have the shape *c too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Tangent = Any
"""A symmetric matrix in the frame, in the layout of one structure (a pytree)."""

Entries = Any
"""The coordinates of a matrix of one structure's linear space (a pytree)."""

Moments = Any
"""The dual coordinates: a symmetric matrix as one structure sees it (a pytree)."""


class Retracted(NamedTuple):
    """A matrix moved along a tangent X: P⁺ = B R Bᵀ with R = R(X)."""

    matrix: LinearStructure
    solve: Callable[[Float[Array, "*b d"]], Float[Array, "*b d"]]
    """v ↦ R⁻¹ v, in the old frame."""
    trace_inverse: Float[Array, "*c"]
    """tr R⁻¹."""
    logdet: Float[Array, "*c"]
    """log det R."""
    log: Tangent
    """log R: how far the matrix went, as a tangent (∞ order in X)."""


class Symmetric(ABC):
    """A symmetric D × D matrix P, known by its products.

    Vectors may carry leading batch axes; the last axis has length `dim`.
    """

    @property
    @abstractmethod
    def dim(self) -> int:
        """The number of rows, D."""

    @property
    @abstractmethod
    def batch_shape(self) -> tuple[int, ...]:
        """The leading axes *c; () for a single matrix."""

    @abstractmethod
    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """P x."""

    @abstractmethod
    def diagonal(self) -> Float[Array, "*c d"]:
        """The diagonal of P."""

    def trace(self) -> Float[Array, "*c"]:
        """tr P."""
        return self.diagonal().sum(-1)

    @abstractmethod
    def dense(self) -> Float[Array, "*c d d"]:
        """P as an array."""

    @abstractmethod
    def scale(self, c: float | Float[Array, "*c"]) -> Self:
        """c P, c > 0, of the same structure and in the same frame."""


class PositiveDefinite(Symmetric):
    """A symmetric positive-definite D × D matrix P = B Bᵀ, P⁻¹ = A Aᵀ, A = B⁻ᵀ.

    Vectors may carry leading batch axes; the last axis has length `dim`.

    A matrix may be shared out over devices, each of which has its own part of it and of
    every vector (`ngvi.linalg.tree`). What is said of all of it is the same on each.
    """

    # -- as a linear operator ----------------------------------------------------

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

    def draw(
        self, key: Array, shape: tuple[int, ...] = ()
    ) -> Float[Array, "*shape *c d"]:
        """Independent draws from N(0, P⁻¹)."""
        dtype = jax.eval_shape(self.diagonal).dtype
        whole = (*shape, *self.batch_shape, self.dim)
        return self.unwhiten(jax.random.normal(key, whole, dtype))

    # -- numbers about it --------------------------------------------------------

    @abstractmethod
    def logdet(self) -> Float[Array, "*c"]:
        """log det P."""

    @abstractmethod
    def inverse_diagonal(self) -> Float[Array, "*c d"]:
        """The diagonal of P⁻¹: the marginal variances when P is a precision."""

    @abstractmethod
    def inverse_dense(self) -> Float[Array, "*c d d"]:
        """P⁻¹ as an array: the covariance when P is a precision."""

    def relative_trace(self, other: PositiveDefinite) -> Float[Array, "*c"]:
        """tr(P Q⁻¹) = ‖Bₚᵀ A_q‖², through the roots; D for Q = P."""
        diagonal = other.diagonal()
        batch = (1,) * (diagonal.ndim - 1)
        columns = jnp.eye(self.dim, dtype=diagonal.dtype)
        columns = columns.reshape(self.dim, *batch, self.dim)
        return (self.whiten(other.unwhiten(columns)) ** 2).sum((0, -1))

    # -- shared out over devices -------------------------------------------------

    @property
    def whole_dim(self) -> int:
        """D, where `dim` is that of one device's part."""
        return self.dim

    def dot(self, x: Float[Array, "d"], y: Float[Array, "d"]) -> Float[Array, ""]:
        """⟨x, y⟩."""
        return x @ y

    def everywhere(self, true: Bool[Array, ""]) -> Bool[Array, ""]:
        """Whether it is true on all devices."""
        return true

    def added_up(
        self, values: Float[Array, "*b"], gradients: Float[Array, "*b d"]
    ) -> tuple[Float[Array, "*b"], Float[Array, "*b d"]]:
        """A sum of functions, of which each device has its own, and its gradient."""
        return values, gradients


class LinearStructure(PositiveDefinite):
    """The positive-definite matrices of a linear space that holds the identity.

    Methods that make a new matrix are called on a member, because a layout alone need
    not say everything (the sizes of blocks, the D of s I). A structure whose layout
    does, as `Dense` and `Diagonal`, offers them on the class as well.
    """

    # -- the linear space --------------------------------------------------------

    @abstractmethod
    def entries(self) -> Entries:
        """The coordinates of P."""

    @abstractmethod
    def from_entries(self, entries: Entries) -> Self:
        """The inverse of `entries`: the matrix with these coordinates."""

    @abstractmethod
    def project(self, matrix: Float[Array, "*c d d"]) -> Entries:
        """The entries of the nearest matrix of the space (in the Frobenius norm) to a
        symmetric, possibly indefinite one: a curvature restricted to what P can hold.
        """

    @abstractmethod
    def inner(self, x: Entries, y: Entries) -> Float[Array, "*c"]:
        """tr(X Y) of two symmetric matrices given by their entries, or of two tangents.

        In particular inner(entries(P), project(M)) = tr(P M) for any symmetric M.
        """

    @abstractmethod
    def add(self, other: PositiveDefinite) -> Self:
        """P + Q, Q projected on this structure."""

    @abstractmethod
    def damp(self, damping: float | Float[Array, "*c"]) -> Self:
        """P + λ I, λ ≥ 0."""

    # -- its dual ----------------------------------------------------------------

    @abstractmethod
    def outer(self, x: Float[Array, "*b d"]) -> Moments:
        """The moments of x xᵀ, without forming it: Σ entries(P) · outer(x) = xᵀ P x."""

    @abstractmethod
    def inverse_moments(self) -> Moments:
        """The moments of P⁻¹: of the covariance, when P is a precision."""

    @abstractmethod
    def from_moments(self, moments: Moments) -> Self:
        """The inverse of `inverse_moments`: the P of this structure whose inverse has
        these moments. So the maximum-likelihood precision, given second moments."""

    def matched(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Vectors whitened by their own second moments, as far as the structure sees
        them: tangent(x, x) is then the identity. At least as many are needed as there
        are coordinates that meet."""
        moments = jax.tree.map(lambda m: m.mean(0), self.outer(x))
        return self.from_moments(moments).whiten(x)

    def solve_moments(
        self, moments: Moments, x: Float[Array, "*c d"]
    ) -> tuple[Float[Array, "*c d"], Entries]:
        """P x and the entries of P, for the P of `from_moments`, whose root is of no
        use then."""
        matrix = self.from_moments(moments)
        return matrix.mv(x), matrix.entries()

    # -- the tangent space at P, in the frame ------------------------------------

    @abstractmethod
    def tangent(
        self, eps: Float[Array, "n *c d"], g: Float[Array, "n *c d"]
    ) -> Tangent:
        """Sym(mean εᵢ gᵢᵀ), restricted to the structure; of the two halves only the
        one along which a step can move the frame, where it cannot along both.

        The mean is over axis 0; leading axes of the matrices come after it.
        """

    @abstractmethod
    def tangent_identity(self) -> Tangent:
        """The identity as a tangent."""

    def tangent_inner(self, x: Tangent, y: Tangent) -> Float[Array, "*c"]:
        """tr(X Y) of two tangents, where their layout is not that of entries."""
        return self.inner(x, y)

    @abstractmethod
    def whiten_curvature(self, matrix: Float[Array, "*c d d"]) -> Tangent:
        """Aᵀ H A of a symmetric H, restricted to the structure."""

    @abstractmethod
    def along(
        self, direction: Tangent
    ) -> Callable[[Float[Array, "*c"], Callable[[Array], Array]], Retracted]:
        """(ρ, R) ↦ P⁺ = B R(ρX) Bᵀ for a tangent X, the frame kept: B⁺ = B R^½.

        What does not depend on ρ (a spectral decomposition of X) is computed once, so
        that a trust region can try several lengths. R is a positive scalar function
        1 + x + O(x²) applied to the spectrum, see `ngvi.mirror.retractions`; R^½ is
        the symmetric square root. A structure that holds no functions of its tangents
        says what it does instead, the same to first order.
        """

    def retract(
        self, direction: Tangent, retraction: Callable[[Array], Array]
    ) -> LinearStructure:
        """P⁺ = B R(X) Bᵀ as `along` has it, where nothing else of a step is wanted."""
        return self.along(direction)(jnp.asarray(1.0), retraction).matrix

    def retract_sum(
        self,
        x: Float[Array, "n d"],
        weights: Float[Array, "n"],
        rest: float | Float[Array, ""],
        retraction: Callable[[Array], Array],
    ) -> LinearStructure:
        """`retract` along X = Σ wᵢ xᵢxᵢᵀ + rest · I, of a matrix without leading axes.

        A structure that can do it in less time than `retract` does not form X.
        """
        squares = self.tangent(x, len(x) * weights[:, None] * x)
        direction = jax.tree.map(
            lambda s, i: s + rest * i, squares, self.tangent_identity()
        )
        return self.retract(direction, retraction)
