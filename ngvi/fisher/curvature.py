"""A curvature of a model: a structured matrix over its parameters."""

from __future__ import annotations

from dataclasses import field, replace
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ngvi.families.parameters import is_concrete
from ngvi.fisher.damped import Damped, array_of, number_of, on_vectors, tree_of
from ngvi.fisher.layers import Network
from ngvi.fisher.layout import Layout, Vectors, in_flat_order
from ngvi.linalg import (
    Estimate,
    KroneckerEigen,
    KroneckerFactors,
    MatrixFree,
    Semidefinite,
    SemidefiniteDiagonal,
)
from ngvi.pytrees import inner, pytree


class SingularMatrixError(np.linalg.LinAlgError):
    """A curvature that cannot be solved with, because it is singular or indefinite."""


@pytree
class Curvature:
    """F, the mean over the examples of a model's curvature, with some structure.

    Vectors are pytrees like the parameters, or arrays of length P in the order of
    `jax.flatten_util.ravel_pytree`, both with any leading axes; what comes back has the
    form of what was given.

    It may be singular, and is solved with, or drawn from, after damping: F + λ I with a
    number λ, or F + diag λ with a pytree or vector of them. Where a result is needed
    more than once, `damp` keeps the factorisation.

    Attributes:
        matrix: the structured matrix, rows in the order of `layout`.
        layout: how parameters become a vector.
        network: the layers that were found, if the structure has any use for them.
    """

    matrix: Semidefinite
    layout: Layout = field(metadata={"static": True})
    network: Network | None = field(default=None, metadata={"static": True})

    @property
    def dim(self) -> int:
        """P, the number of parameters."""
        return self.layout.dim

    def mv(self, v: Vectors) -> Vectors:
        """F v."""
        return on_vectors("mv", self.layout, self.matrix, v)

    __matmul__ = mv

    def quadratic(self, v: Vectors) -> Float[Array, ""]:
        """vᵀ F v, twice the KL divergence of a short step v."""
        return inner(v, self.mv(v))

    def diagonal(self) -> Any:
        """The diagonal of F, a pytree like the parameters; of a matrix-free structure
        an estimate."""
        return tree_of("diagonal", self.layout, self.matrix)

    def trace(self) -> Float[Array, ""]:
        """tr F; of a matrix-free structure an estimate."""
        return number_of("trace", self.matrix)

    def dense(self) -> Float[Array, "p p"]:
        """F as an array, rows in the order of `ravel_pytree`."""
        return array_of("dense", self.layout, self.matrix)

    def estimate_trace(self) -> Estimate:
        """tr F with its standard error, which is zero but for a matrix-free structure
        of more than 64 parameters."""
        if isinstance(self.matrix, MatrixFree):
            return self.matrix.estimate_trace()
        trace = self.trace()
        return Estimate(trace, jnp.zeros_like(trace))

    def estimate_diagonal(self) -> Estimate:
        """The diagonal of F and its standard errors, pytrees like the parameters."""
        if isinstance(self.matrix, MatrixFree):
            found = self.matrix.estimate_diagonal()
            return Estimate(*map(self.layout.tree, found))
        diagonal = self.diagonal()
        return Estimate(diagonal, jax.tree.map(jnp.zeros_like, diagonal))

    # -- damped ------------------------------------------------------------------------

    def damp(
        self, damping: Any = 0.0, *, factored: bool = False, **options: Any
    ) -> Damped:
        """F + λ I, or F + diag λ, factorised.

        Args:
            damping: λ ≥ 0: a number; or, for dense, diagonal, low-rank and matrix-free
                structures, a vector of length P or a pytree like the parameters.
            factored: Kronecker blocks by (A + π √λ I) ⊗ (G + √λ/π I), Martens and
                Grosse's approximation: two Cholesky factors instead of two spectral
                decompositions, and more damping than was asked for.
            **options: of a matrix-free structure: `preconditioner` (another structure's
                `Damped`, near this one), `tolerance`, `max_iterations`, `steps`; see
                `ngvi.linalg.MatrixFree.damp`.

        Raises:
            SingularMatrixError: the sum is singular or indefinite to rounding (checked
                where its numbers are known, so not under `jit`; and not for a
                matrix-free structure, whose solves give NaN where it is indefinite).
            ValueError: a negative damping.
        """
        added = self._damping(damping)
        if is_concrete(added) and np.any(np.asarray(added) < 0):
            raise ValueError(f"damping must not be negative, got {np.min(added)}")
        if isinstance(self.matrix, MatrixFree):
            before = options.pop("preconditioner", None)
            if before is not None:
                before = in_flat_order(before.layout, before.matrix)
            free = self.matrix.damp(added, preconditioner=before, **options)
            return Damped(free, self.layout)
        if options:
            raise ValueError(
                f"{', '.join(options)}: options of matrix-free solves, but this one is "
                "direct"
            )
        damped = _damp(factored, self.matrix, added)
        _check_regular(damped, added)
        return Damped(damped, self.layout)

    def _damping(self, damping: Any) -> Array:
        """A number, or one for each row."""
        if not isinstance(damping, jax.Array | np.ndarray):
            if jax.tree_util.all_leaves([damping]):
                return jnp.asarray(damping)
            return self.layout.vector(damping)
        if damping.ndim == 0:
            return jnp.asarray(damping)
        return self.layout.from_any(damping)

    def solve(self, v: Vectors, damping: Any = 0.0, **options: Any) -> Vectors:
        """(F + λ)⁻¹ v; see `damp`."""
        return self.damp(damping, **options).solve(v)

    def logdet(self, damping: Any = 0.0, **options: Any) -> Float[Array, ""]:
        """log det(F + λ); see `damp`."""
        return self.damp(damping, **options).logdet()

    def draw(
        self,
        key: Key[Array, ""],
        shape: tuple[int, ...] = (),
        damping: Any = 0.0,
        **options: Any,
    ) -> Any:
        """Draws from N(0, (F + λ)⁻¹); see `Damped.draw`."""
        return self.damp(damping, **options).draw(key, shape)

    # -- other curvatures of the same parameters ---------------------------------------

    def scale(self, c: float | Float[Array, ""]) -> Self:
        """c F: with c = N the sum over the examples."""
        return replace(self, matrix=self.matrix.scale(c))

    def average(self, other: Curvature, weight: float | Float[Array, ""]) -> Self:
        """(1 − w) F + w F′, of other data or parameters: a step of a running average.

        Of Kronecker factors each is averaged. The weight n′/(n + n′) makes it the mean
        over all n + n′ examples; (1 − β)/(1 − βᵗ) at step t the exponential average
        with its bias corrected.
        """
        if other.layout != self.layout:
            raise ValueError("two curvatures of other parameters have no average")
        return replace(self, matrix=self.matrix.average(other.matrix, weight))

    def clip(self, minimum: float = 0.0) -> Self:
        """The nearest matrix whose eigenvalues are all at least this."""
        return replace(self, matrix=self.matrix.clip(minimum))

    def explain(self) -> str:
        """A table: which layers were found, what each got, and why other parameters
        are in none of them."""
        if self.network is None:
            return f"{type(self.matrix).__name__} of {self.dim:,} parameters"
        blocks = getattr(self.matrix, "blocks", ())
        if len(blocks) != len(self.network.layers) + len(self.network.rest):
            blocks = ()
        return self.network.explain([_described(block) for block in blocks])


def _described(block: Semidefinite) -> str:
    match block:
        case KroneckerFactors():
            return f"Kronecker {block.left.shape[-1]} ⊗ {block.right.shape[-1]}"
        case KroneckerEigen():
            left, right = block.values.shape
            return f"Kronecker eigenbasis {left} ⊗ {right}"
        case SemidefiniteDiagonal():
            return f"diagonal of {block.dim}"
    return f"block {block.dim} × {block.dim}"


@partial(jax.jit, static_argnums=0)
def _damp(factored: bool, matrix: Any, damping: Array) -> Any:
    return matrix.damp_factored(damping) if factored else matrix.damp(damping)


@jax.jit
def _inflation(damped: Any) -> Float[Array, ""]:
    """The largest Pᵢᵢ (P⁻¹)ᵢᵢ: how much of a parameter's variance is due to others; 1
    where none is, in all units."""
    return (damped.diagonal() * damped.inverse_diagonal()).max()


def _check_regular(damped: Any, damping: Any) -> None:
    """Refuse what a solve would make noise of."""
    inflation = _inflation(damped)
    if not is_concrete(inflation):
        return
    if not inflation < 0.1 / jnp.finfo(inflation.dtype).eps:
        shown = f"{float(damping):g}" if np.ndim(damping) == 0 else "as given"
        raise SingularMatrixError(
            f"the curvature with damping {shown} is singular or indefinite to rounding "
            f"(a parameter is determined by the others to 1 part in {inflation:.1e}): "
            "some direction leaves the model's output as it is, as a shift of all "
            "logits does. Add damping, such as the precision of a prior"
        )
