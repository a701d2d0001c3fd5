"""A curvature of a model: a structured matrix over its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ngvi.fisher.layers import Network
from ngvi.fisher.layout import Layout
from ngvi.linalg import MatrixFree, PositiveDefinite, Semidefinite

Vectors = Any
"""A pytree like the parameters, or an array of length P in the order of
`jax.flatten_util.ravel_pytree`; with any leading axes."""


class SingularMatrixError(np.linalg.LinAlgError):
    """A curvature that cannot be solved with, because it is singular or indefinite."""


class _OnVectors:
    """Takes vectors in any form to the order of a layout, and back."""

    layout: Layout

    def _apply(self, function: Callable[[Array], Array], v: Vectors) -> Vectors:
        if isinstance(v, jax.Array | np.ndarray) and not self._is_one_leaf(v):
            if v.shape[-1:] != (self.layout.dim,):
                raise ValueError(
                    f"expected a vector of {self.layout.dim} parameters, or a pytree "
                    f"like the parameters, got an array of shape {v.shape}"
                )
            layout = self.layout
            return layout.to_flat(function(layout.from_flat(jnp.asarray(v))))
        return self.layout.tree(function(self.layout.vector(v)))

    def _is_one_leaf(self, v: Array | np.ndarray) -> bool:
        """Whether the parameters are one array with more axes than one."""
        (shape, *others) = self.layout.shapes
        bare = jax.tree_util.treedef_is_leaf(self.layout.treedef) and not others
        return bare and v.shape[v.ndim - len(shape) :] == shape and len(shape) != 1


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Damped(_OnVectors):
    """F + λ I (or F + diag λ), factorised: solve with it, draw from it.

    Made by `Curvature.damp`; the same vectors are taken and given as there.
    """

    matrix: PositiveDefinite
    layout: Layout = field(metadata={"static": True})

    def mv(self, v: Vectors) -> Vectors:
        """(F + λ) v."""
        return self._apply(self.matrix.mv, v)

    __matmul__ = mv

    def solve(self, v: Vectors) -> Vectors:
        """(F + λ)⁻¹ v."""
        return self._apply(self.matrix.solve, v)

    def whiten(self, v: Vectors) -> Vectors:
        """Bᵀ v, (F + λ) = B Bᵀ: what was N(0, (F + λ)⁻¹) becomes N(0, I)."""
        return self._apply(self.matrix.whiten, v)

    def unwhiten(self, eps: Vectors) -> Vectors:
        """B⁻ᵀ ε: what was N(0, I) becomes N(0, (F + λ)⁻¹)."""
        return self._apply(self.matrix.unwhiten, eps)

    def root(self) -> Float[Array, "p p"]:
        """B as an array, (F + λ) = B Bᵀ."""
        # Row i of the images of the unit vectors is row i of B.
        return self._dense(self.matrix.whiten)

    def draw(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Any:
        """Draws from N(0, (F + λ)⁻¹), pytrees like the parameters.

        Args:
            key: of the draws.
            shape: leading axes of every leaf.
        """
        return self.layout.tree(self.matrix.draw(key, shape))

    def logdet(self) -> Float[Array, ""]:
        """log det(F + λ)."""
        return self.matrix.logdet()

    def diagonal(self) -> Any:
        """The diagonal of F + λ, a pytree like the parameters."""
        return self.layout.tree(self.matrix.diagonal())

    def inverse_diagonal(self) -> Any:
        """The diagonal of (F + λ)⁻¹, a pytree like the parameters."""
        return self.layout.tree(self.matrix.inverse_diagonal())

    def dense(self) -> Float[Array, "p p"]:
        """F + λ as an array, rows in the order of `ravel_pytree`."""
        return _reordered(self.layout, self.matrix.dense())

    def inverse_dense(self) -> Float[Array, "p p"]:
        """(F + λ)⁻¹ as an array."""
        return _reordered(self.layout, self.matrix.inverse_dense())

    def _dense(self, function: Callable[[Array], Array]) -> Float[Array, "p p"]:
        dtype = self.matrix.diagonal().dtype
        return self._apply(function, jnp.eye(self.layout.dim, dtype=dtype))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Curvature(_OnVectors):
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
        return _mv(self, v)

    __matmul__ = mv

    def quadratic(self, v: Vectors) -> Float[Array, ""]:
        """vᵀ F v, twice the KL divergence of a short step v."""
        products = jax.tree.map(lambda a, b: (a * b).sum(), v, self.mv(v))
        return sum(jax.tree.leaves(products), start=jnp.zeros(()))

    def diagonal(self) -> Any:
        """The diagonal of F, a pytree like the parameters; of a matrix-free structure
        an estimate."""
        return self.layout.tree(self.matrix.diagonal())

    def trace(self) -> Float[Array, ""]:
        """tr F; of a matrix-free structure an estimate."""
        return self.matrix.trace()

    def dense(self) -> Float[Array, "p p"]:
        """F as an array, rows in the order of `ravel_pytree`."""
        return _reordered(self.layout, self.matrix.dense())

    # -- damped ------------------------------------------------------------------------

    def damp(self, damping: Any = 0.0, **options: Any) -> Damped:
        """F + λ I, or F + diag λ, factorised.

        Args:
            damping: λ ≥ 0: a number; or, for dense, diagonal, low-rank and matrix-free
                structures, a vector of length P or a pytree like the parameters.
            **options: of a matrix-free structure: `preconditioner` (another `Damped`
                of the same parameters, in the order of `ravel_pytree`), `tolerance`,
                `max_iterations`, `steps`; see `ngvi.linalg.MatrixFree.damp`.

        Raises:
            SingularMatrixError: the sum is singular or indefinite to rounding (checked
                where its numbers are known, so not under `jit`).
            ValueError: a negative damping.
        """
        if not jnp.isscalar(damping) and jnp.ndim(damping) != 0:
            damping = self._per_parameter(damping)
        if _known(damping) and np.any(np.asarray(damping) < 0):
            raise ValueError(f"damping must not be negative, got {np.min(damping)}")
        damped = self.matrix.damp(damping, **options)
        if not isinstance(self.matrix, MatrixFree) and _known(damped):
            _check_regular(damped, damping)
        return Damped(damped, self.layout)

    def _per_parameter(self, damping: Any) -> Float[Array, "p"]:
        if isinstance(damping, jax.Array | np.ndarray) and np.ndim(damping) == 1:
            return self.layout.from_flat(jnp.asarray(damping))
        return self.layout.vector(damping)

    def solve(self, v: Vectors, damping: Any = 0.0, **options: Any) -> Vectors:
        """(F + λ)⁻¹ v; see `damp`."""
        return self.damp(damping, **options).solve(v)

    def root(self, damping: Any = 0.0) -> Float[Array, "p p"]:
        """B, F + λ = B Bᵀ, as an array; see `damp`."""
        return self.damp(damping).root()

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
        """Which parameters got which part of the structure: a table."""
        if self.network is None:
            return f"{type(self.matrix).__name__} over {self.dim:,} parameters"
        return self.network.explain()


@partial(jax.jit, static_argnums=0)
def _reordered(layout: Layout, matrix: Float[Array, "p p"]) -> Float[Array, "p p"]:
    """A matrix in the order of `ravel_pytree`."""
    if not layout.layers:
        return matrix
    with jax.ensure_compile_time_eval():
        order = layout.to_flat(jnp.arange(layout.dim))
    return matrix[order][:, order]


@jax.jit
def _mv(curvature: Curvature, v: Vectors) -> Vectors:
    return curvature._apply(curvature.matrix.mv, v)


def _known(values: Any) -> bool:
    return not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(values))


def _check_regular(damped: PositiveDefinite, damping: Any) -> None:
    """Refuse what a solve would make noise of.

    Pᵢᵢ (P⁻¹)ᵢᵢ is how much of the variance of a parameter is due to the others: 1 where
    there is none, in all units.
    """
    inflation = np.asarray(damped.diagonal() * damped.inverse_diagonal())
    limit = 0.1 / np.finfo(inflation.dtype).eps
    worst = inflation.max() if inflation.size else 1.0
    if not worst < limit:
        raise SingularMatrixError(
            f"the curvature with damping {_shown(damping)} is singular or indefinite "
            f"to rounding (a parameter is determined by the others to 1 part in "
            f"{worst:.1e}): some direction leaves the model's output as it is, as a "
            "shift of all logits does. Add damping, such as the precision of a prior"
        )


def _shown(damping: Any) -> str:
    return f"{float(damping):g}" if np.ndim(damping) == 0 else "as given"
