"""A curvature of a model: a structured matrix over its parameters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ngvi.families.parameters import is_concrete
from ngvi.fisher.layers import Network
from ngvi.fisher.layout import Layout, Vectors, in_flat_order
from ngvi.linalg import MatrixFree, PositiveDefinite, Semidefinite


class SingularMatrixError(np.linalg.LinAlgError):
    """A curvature that cannot be solved with, because it is singular or indefinite."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Damped:
    """F + λ I (or F + diag λ), factorised: solve with it, draw from it.

    Made by `Curvature.damp`; the same vectors are taken and given as there.
    """

    matrix: PositiveDefinite
    layout: Layout = field(metadata={"static": True})

    def mv(self, v: Vectors) -> Vectors:
        """(F + λ) v."""
        return _on_vectors("mv", self.layout, self.matrix, v)

    __matmul__ = mv

    def solve(self, v: Vectors) -> Vectors:
        """(F + λ)⁻¹ v."""
        return _on_vectors("solve", self.layout, self.matrix, v)

    def whiten(self, v: Vectors) -> Vectors:
        """Bᵀ v, (F + λ) = B Bᵀ: what was N(0, (F + λ)⁻¹) becomes N(0, I)."""
        return _on_vectors("whiten", self.layout, self.matrix, v)

    def unwhiten(self, eps: Vectors) -> Vectors:
        """B⁻ᵀ ε: what was N(0, I) becomes N(0, (F + λ)⁻¹)."""
        return _on_vectors("unwhiten", self.layout, self.matrix, eps)

    def root(self) -> Float[Array, "p p"]:
        """B as an array, (F + λ) = B Bᵀ."""
        # Bᵀ eᵢ is row i of B.
        dtype = jax.eval_shape(self.matrix.diagonal).dtype
        return self.whiten(jnp.eye(self.layout.dim, dtype=dtype))

    def draw(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Any:
        """Draws from N(0, (F + λ)⁻¹), pytrees like the parameters.

        Args:
            key: of the draws.
            shape: leading axes of every leaf.
        """
        return _draw(self.layout, shape, self.matrix, key)

    def logdet(self) -> Float[Array, ""]:
        """log det(F + λ)."""
        return _number("logdet", self.matrix)

    def diagonal(self) -> Any:
        """The diagonal of F + λ, a pytree like the parameters."""
        return _tree("diagonal", self.layout, self.matrix)

    def inverse_diagonal(self) -> Any:
        """The diagonal of (F + λ)⁻¹, a pytree like the parameters."""
        return _tree("inverse_diagonal", self.layout, self.matrix)

    def dense(self) -> Float[Array, "p p"]:
        """F + λ as an array, rows in the order of `ravel_pytree`."""
        return _array("dense", self.layout, self.matrix)

    def inverse_dense(self) -> Float[Array, "p p"]:
        """(F + λ)⁻¹ as an array."""
        return _array("inverse_dense", self.layout, self.matrix)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
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
        return _on_vectors("mv", self.layout, self.matrix, v)

    __matmul__ = mv

    def quadratic(self, v: Vectors) -> Float[Array, ""]:
        """vᵀ F v, twice the KL divergence of a short step v."""
        return inner(v, self.mv(v))

    def diagonal(self) -> Any:
        """The diagonal of F, a pytree like the parameters; of a matrix-free structure
        an estimate."""
        return _tree("diagonal", self.layout, self.matrix)

    def trace(self) -> Float[Array, ""]:
        """tr F; of a matrix-free structure an estimate."""
        return _number("trace", self.matrix)

    def dense(self) -> Float[Array, "p p"]:
        """F as an array, rows in the order of `ravel_pytree`."""
        return _array("dense", self.layout, self.matrix)

    # -- damped ------------------------------------------------------------------------

    def damp(self, damping: Any = 0.0, **options: Any) -> Damped:
        """F + λ I, or F + diag λ, factorised.

        Args:
            damping: λ ≥ 0: a number; or, for dense, diagonal, low-rank and matrix-free
                structures, a vector of length P or a pytree like the parameters.
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
        damped = _damp(self.matrix, added)
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


def inner(a: Any, b: Any) -> Float[Array, ""]:
    """⟨a, b⟩ of two pytrees."""
    products = jax.tree.map(lambda x, y: (x * y).sum(), a, b)
    return sum(jax.tree.leaves(products), start=jnp.zeros(()))


# -- compiled once for a structure, whatever its numbers -------------------------------


@partial(jax.jit, static_argnums=(0, 1))
def _on_vectors(method: str, layout: Layout, matrix: Any, v: Vectors) -> Vectors:
    function = getattr(matrix, method)
    if layout.is_flat(v):
        return layout.to_flat(function(layout.from_any(v)))
    return layout.tree(function(layout.vector(v)))


@partial(jax.jit, static_argnums=0)
def _number(method: str, matrix: Any) -> Float[Array, ""]:
    return getattr(matrix, method)()


@partial(jax.jit, static_argnums=(0, 1))
def _tree(method: str, layout: Layout, matrix: Any) -> Any:
    return layout.tree(getattr(matrix, method)())


@partial(jax.jit, static_argnums=(0, 1))
def _array(method: str, layout: Layout, matrix: Any) -> Float[Array, "p p"]:
    whole = getattr(matrix, method)()
    with jax.ensure_compile_time_eval():
        order = layout.to_flat(jnp.arange(layout.dim))
    return whole[order[:, None], order]


@partial(jax.jit, static_argnums=(0, 1))
def _draw(layout: Layout, shape: tuple[int, ...], matrix: Any, key: Array) -> Any:
    return layout.tree(matrix.draw(key, shape))


@jax.jit
def _damp(matrix: Any, damping: Array) -> Any:
    return matrix.damp(damping)


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
