"""A damped curvature, factorised; and what is compiled once for any structure."""

from __future__ import annotations

from dataclasses import field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher.layout import Layout, Vectors
from ngvi.linalg import DampedMatrixFree, PositiveDefinite
from ngvi.linalg.conjugate_gradients import SolveInfo
from ngvi.pytrees import pytree


@pytree
class Damped:
    """F + λ I (or F + diag λ), factorised: solve with it, draw from it.

    Made by `Curvature.damp`; the same vectors are taken and given as there.
    """

    matrix: PositiveDefinite
    layout: Layout = field(metadata={"static": True})

    def mv(self, v: Vectors) -> Vectors:
        """(F + λ) v."""
        return on_vectors("mv", self.layout, self.matrix, v)

    __matmul__ = mv

    def solve(self, v: Vectors) -> Vectors:
        """(F + λ)⁻¹ v."""
        return on_vectors("solve", self.layout, self.matrix, v)

    def solve_with_info(
        self, v: Any, progress: float | None = None, start: Any = None
    ) -> tuple[Any, SolveInfo]:
        """The same for a matrix-free structure, and how conjugate gradients went.

        Args:
            v: a pytree like the parameters.
            progress: Martens' rule: end when the quadratic model has gained less than
                this of its value a step, over the last tenth of them.
            start: of the iteration, a pytree like the parameters; zero by default.

        Raises:
            TypeError: the structure has a direct solve.
        """
        if not isinstance(self.matrix, DampedMatrixFree):
            raise TypeError(
                f"{type(self.matrix).__name__} is solved directly: use `solve`"
            )
        begun = None if start is None else self.layout.vector(start)
        found, info = self.matrix.solve_with_info(
            self.layout.vector(v), progress, begun
        )
        return self.layout.tree(found), info

    def whiten_gradient(self, g: Vectors) -> Vectors:
        """B⁻¹ g: ‖B⁻¹ g‖² = gᵀ (F + λ)⁻¹ g."""
        return on_vectors("whiten_gradient", self.layout, self.matrix, g)

    def whiten(self, v: Vectors) -> Vectors:
        """Bᵀ v, (F + λ) = B Bᵀ: what was N(0, (F + λ)⁻¹) becomes N(0, I)."""
        return on_vectors("whiten", self.layout, self.matrix, v)

    def unwhiten(self, eps: Vectors) -> Vectors:
        """B⁻ᵀ ε: what was N(0, I) becomes N(0, (F + λ)⁻¹)."""
        return on_vectors("unwhiten", self.layout, self.matrix, eps)

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
        return number_of("logdet", self.matrix)

    def diagonal(self) -> Any:
        """The diagonal of F + λ, a pytree like the parameters."""
        return tree_of("diagonal", self.layout, self.matrix)

    def inverse_diagonal(self) -> Any:
        """The diagonal of (F + λ)⁻¹, a pytree like the parameters."""
        return tree_of("inverse_diagonal", self.layout, self.matrix)

    def dense(self) -> Float[Array, "p p"]:
        """F + λ as an array, rows in the order of `ravel_pytree`."""
        return array_of("dense", self.layout, self.matrix)

    def inverse_dense(self) -> Float[Array, "p p"]:
        """(F + λ)⁻¹ as an array."""
        return array_of("inverse_dense", self.layout, self.matrix)


# -- compiled once for a structure, whatever its numbers -------------------------------


@partial(jax.jit, static_argnums=(0, 1))
def on_vectors(method: str, layout: Layout, matrix: Any, v: Vectors) -> Vectors:
    function = getattr(matrix, method)
    if layout.is_flat(v):
        return layout.to_flat(function(layout.from_any(v)))
    return layout.tree(function(layout.vector(v)))


@partial(jax.jit, static_argnums=0)
def number_of(method: str, matrix: Any) -> Float[Array, ""]:
    return getattr(matrix, method)()


@partial(jax.jit, static_argnums=(0, 1))
def tree_of(method: str, layout: Layout, matrix: Any) -> Any:
    return layout.tree(getattr(matrix, method)())


@partial(jax.jit, static_argnums=(0, 1))
def array_of(method: str, layout: Layout, matrix: Any) -> Float[Array, "p p"]:
    whole = getattr(matrix, method)()
    if not layout.layers:
        return whole
    with jax.ensure_compile_time_eval():
        order = layout.to_flat(jnp.arange(layout.dim))
    return whole[order[:, None], order]


@partial(jax.jit, static_argnums=(0, 1))
def _draw(layout: Layout, shape: tuple[int, ...], matrix: Any, key: Array) -> Any:
    return layout.tree(matrix.draw(key, shape))
