"""Curvatures known by their products alone, at any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from ngvi.linalg.base import PositiveDefinite
from ngvi.linalg.batching import join, over_leading_axes, split
from ngvi.linalg.damped_matrix_free import DampedMatrixFree
from ngvi.linalg.semidefinite import Semidefinite, per_coordinate
from ngvi.linalg.stochastic import Estimate, estimate_diagonal, estimate_trace
from ngvi.pytrees import pytree


@pytree
class MatrixFree(Semidefinite):
    """F given by x ↦ F x.

    Its trace and diagonal are estimates, exact from D probes on; `estimate_trace` and
    `estimate_diagonal` state their errors. It stands for one matrix: `vmap` for more.

    Args:
        product: x ↦ F x on one vector, a pytree such as `jax.tree_util.Partial`: its
            leaves are data, so that new ones compile nothing.
        size: D.
        noise: key ↦ a draw from N(0, F), such as Jᵀ Λ^½ ε for F = Jᵀ Λ J.
        dtype: of the vectors; that of the product's leaves unless given.
        probes: the number of random vectors of an estimate.
        seed: theirs.
        sizes: of the parts in which the product takes and gives its vectors, lists of
            arrays; one array unless given. No solve joins the parts in its loop.
    """

    product: Callable[[Any], Any]
    size: int = field(metadata={"static": True})
    noise: Callable[[Array], Float[Array, "d"]] | None = None
    dtype: Any = field(default=None, metadata={"static": True})
    probes: int = field(default=64, metadata={"static": True})
    seed: int = field(default=0, metadata={"static": True})
    sizes: tuple[int, ...] | None = field(default=None, metadata={"static": True})

    @property
    def dim(self) -> int:
        return self.size

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return ()

    @property
    def vector_dtype(self) -> jnp.dtype:
        """The dtype of its vectors."""
        if self.dtype is not None:
            return jnp.dtype(self.dtype)
        leaves = jax.tree.leaves(self.product)
        floats = [x for x in leaves if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
        return jnp.result_type(*floats) if floats else jnp.dtype(float)

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return join(self.mv_parts(self.parts(x)))

    def parts(self, x: Float[Array, "*b d"]) -> list[Float[Array, "*b _"]]:
        """The vector as the product takes it, in a list."""
        return [x] if self.sizes is None else split(x, self.sizes)

    def mv_parts(self, parts: list[Array]) -> list[Array]:
        """F x in parts, of x in parts."""

        def product(parts: list[Array]) -> list[Array]:
            if self.sizes is None:
                return [self.product(*parts)]
            return self.product(parts)

        return over_leading_axes(product, parts[0].ndim - 1)(parts)

    @jax.jit
    def estimate_trace(self) -> Estimate:
        """tr F, with its standard error."""
        return estimate_trace(self.mv, *self.probing())

    @jax.jit
    def estimate_diagonal(self) -> Estimate:
        """diag F, with the standard error of each entry."""
        return estimate_diagonal(self.mv, *self.probing())

    def probing(self) -> tuple[int, int, Array, jnp.dtype]:
        """What an estimate needs beside the products."""
        return self.size, self.probes, jax.random.key(self.seed), self.vector_dtype

    def trace(self) -> Float[Array, ""]:
        return self.estimate_trace().value

    def diagonal(self) -> Float[Array, "d"]:
        return self.estimate_diagonal().value

    def dense(self) -> Float[Array, "d d"]:
        return self.mv(jnp.eye(self.size, dtype=self.vector_dtype))

    # -- arithmetic --------------------------------------------------------------

    def scale(self, c: float | Float[Array, ""]) -> Self:
        c, noise = jnp.asarray(c), self.noise
        if noise is not None:
            noise = Partial(_times, jnp.sqrt(c), noise)
        return replace(self, product=Partial(_times, c, self.product), noise=noise)

    def add(self, other: Semidefinite) -> Self:
        raise TypeError(
            "MatrixFree holds no average: a sum would need all its data for every "
            "product. Give one product over the whole data, or take a structure that "
            "is stored"
        )

    # -- what can be solved ------------------------------------------------------

    def damp(
        self,
        damping: float | Float[Array, ""] | Float[Array, "d"],
        preconditioner: PositiveDefinite | None = None,
        tolerance: float | Float[Array, ""] = 1e-5,
        max_iterations: int | None = None,
        steps: int = 64,
    ) -> DampedMatrixFree:
        """F + λ I or F + diag(λ), solved by conjugate gradients.

        Args:
            damping: λ ≥ 0.
            preconditioner: another structure's F + λ I, near this one.
            tolerance: of a solve, ‖b − P x‖ / ‖b‖.
            max_iterations: of a solve, 10 D unless given.
            steps: of Lanczos, for roots and the determinant.
        """
        return DampedMatrixFree(
            curvature=self,
            damping=per_coordinate(damping, self).astype(self.vector_dtype),
            preconditioner=preconditioner,
            tolerance=jnp.asarray(tolerance),
            max_iterations=max_iterations,
            steps=steps,
        )


def _times(c: Float[Array, ""], function: Callable[[Any], Any], x: Any) -> Any:
    """c f(x), in parts if f(x) is."""
    return jax.tree.map(lambda part: c * part, function(x))
