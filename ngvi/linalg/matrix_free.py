"""Curvatures known by their products alone, at any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from ngvi.linalg.base import PositiveDefinite
from ngvi.linalg.conjugate_gradients import (
    SolveInfo,
    conjugate_gradients,
    solve_positive,
)
from ngvi.linalg.isotropic import Isotropic
from ngvi.linalg.lanczos import Scalar, function_times
from ngvi.linalg.semidefinite import Semidefinite, per_coordinate
from ngvi.linalg.stochastic import (
    Estimate,
    estimate_diagonal,
    estimate_logdet,
    estimate_trace,
    mean_over_probes,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
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
    """

    product: Callable[[Float[Array, "d"]], Float[Array, "d"]]
    size: int = field(metadata={"static": True})
    noise: Callable[[Array], Float[Array, "d"]] | None = None
    dtype: Any = field(default=None, metadata={"static": True})
    probes: int = field(default=64, metadata={"static": True})
    seed: int = field(default=0, metadata={"static": True})

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
        return jnp.vectorize(self.product, signature="(d)->(d)")(x)

    @jax.jit
    def estimate_trace(self) -> Estimate:
        """tr F, with its standard error."""
        return estimate_trace(self.product, *self.probing())

    @jax.jit
    def estimate_diagonal(self) -> Estimate:
        """diag F, with the standard error of each entry."""
        return estimate_diagonal(self.product, *self.probing())

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
        per_coordinate(damping, self)
        return DampedMatrixFree(
            curvature=self,
            damping=jnp.asarray(damping),
            preconditioner=preconditioner,
            tolerance=jnp.asarray(tolerance),
            max_iterations=max_iterations,
            steps=steps,
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DampedMatrixFree(PositiveDefinite):
    """P = F + diag(λ), by conjugate gradients and Lanczos.

    With a preconditioner M = B₀ B₀ᵀ, A₀ = B₀⁻ᵀ, all happens in its frame, where P is
    K = A₀ᵀ P A₀, near to the identity:

        B = B₀ K^½,   A = A₀ K^−½,   log det P = log det M + log det K.

    The functions of K are Lanczos' of so many `steps`: about as good as a solve after
    as many iterations, and without derivatives with respect to P. Where the curvature
    makes noise, draws are solves instead: P⁻¹ (n + √λ ε) ~ N(0, P⁻¹) for n ~ N(0, F).
    `estimate_logdet` and `estimate_inverse_diagonal` state the errors of what is
    estimated from probes.

    Made by `MatrixFree.damp`.

    Sources: Papandreou and Yuille (2010), Gaussian sampling by local perturbations;
    Chow and Saad (2014), Preconditioned Krylov subspace methods for sampling
    multivariate Gaussian distributions.
    """

    curvature: MatrixFree
    damping: Float[Array, ""] | Float[Array, "d"]
    preconditioner: PositiveDefinite | None
    tolerance: Float[Array, ""]
    max_iterations: int | None = field(metadata={"static": True})
    steps: int = field(metadata={"static": True})

    @property
    def dim(self) -> int:
        return self.curvature.dim

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return ()

    # -- as a linear operator ----------------------------------------------------

    def mv(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.curvature.mv(x) + self.damping * x

    @jax.jit
    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """P⁻¹ x to the tolerance; NaN if P turns out not to be positive definite."""
        rules = self.tolerance, self.max_iterations
        return solve_positive(self.mv, x, self.preconditioner, *rules)

    @jax.jit
    def solve_with_info(
        self,
        x: Float[Array, "*b d"],
        progress: float | Float[Array, ""] | None = None,
        start: Float[Array, "*b d"] | None = None,
    ) -> tuple[Float[Array, "*b d"], SolveInfo]:
        """P⁻¹ x and how it was had; see `conjugate_gradients`."""
        return conjugate_gradients(
            self.mv,
            x,
            self.preconditioner,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            progress=progress,
            start=start,
        )

    @property
    def _frame(self) -> PositiveDefinite:
        """M."""
        if self.preconditioner is not None:
            return self.preconditioner
        return Isotropic(jnp.ones((), self.curvature.vector_dtype), self.dim)

    def _framed(self, y: Float[Array, "d"]) -> Float[Array, "d"]:
        """K y."""
        return self._frame.whiten_gradient(self.mv(self._frame.unwhiten(y)))

    def _times_function(
        self, function: Scalar, inverse: Scalar, y: Float[Array, "*b d"]
    ) -> Float[Array, "*b d"]:
        """f(K) y; as the solution of f(K)⁻¹ x = y, linear to differentiation too."""

        def one(y: Float[Array, "d"]) -> Float[Array, "d"]:
            return jax.lax.custom_linear_solve(
                lambda x: _function_times(inverse, self, x),
                y,
                lambda _, y: _function_times(function, self, y),
                symmetric=True,
            )

        return jnp.vectorize(one, signature="(d)->(d)")(y)

    @jax.jit
    def whiten(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self._times_function(jnp.sqrt, jax.lax.rsqrt, self._frame.whiten(x))

    @jax.jit
    def unwhiten(self, eps: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        inside = self._times_function(jax.lax.rsqrt, jnp.sqrt, eps)
        return self._frame.unwhiten(inside)

    @jax.jit
    def whiten_gradient(self, g: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        inside = self._frame.whiten_gradient(g)
        return self._times_function(jax.lax.rsqrt, jnp.sqrt, inside)

    def draw(self, key: Array, shape: tuple[int, ...] = ()) -> Float[Array, "*shape d"]:
        noise = self.curvature.noise
        if noise is None:
            return super().draw(key, shape)
        of_curvature, of_damping = jax.random.split(key)
        keys = jax.random.split(of_curvature, shape)
        perturbed = jnp.vectorize(noise, signature="()->(d)")(keys)
        eps = jax.random.normal(of_damping, (*shape, self.dim), perturbed.dtype)
        return self.solve(perturbed + jnp.sqrt(self.damping) * eps)

    # -- numbers about it --------------------------------------------------------

    @jax.jit
    def estimate_logdet(self) -> Estimate:
        """log det P, with its standard error.

        The derivative is the mean of zᵀ P⁻¹ dP z over the same probes, by solves.
        """
        return _logdet(self)

    @jax.jit
    def estimate_inverse_diagonal(self) -> Estimate:
        """diag P⁻¹, with the standard error of each entry; a solve for each probe."""
        return estimate_diagonal(self.solve, *self.curvature.probing())

    def logdet(self) -> Float[Array, ""]:
        return self.estimate_logdet().value

    def diagonal(self) -> Float[Array, "d"]:
        return self.curvature.diagonal() + self.damping

    def trace(self) -> Float[Array, ""]:
        added = jnp.broadcast_to(self.damping, (self.dim,)).sum()
        return self.curvature.trace() + added

    def inverse_diagonal(self) -> Float[Array, "d"]:
        return self.estimate_inverse_diagonal().value

    def dense(self) -> Float[Array, "d d"]:
        return self.mv(jnp.eye(self.dim, dtype=self.curvature.vector_dtype))

    def inverse_dense(self) -> Float[Array, "d d"]:
        return self.solve(jnp.eye(self.dim, dtype=self.curvature.vector_dtype))

    def scale(self, c: float | Float[Array, ""]) -> Self:
        c, frame = jnp.asarray(c), self.preconditioner
        return replace(
            self,
            curvature=self.curvature.scale(c),
            damping=c * self.damping,
            preconditioner=None if frame is None else frame.scale(c),
        )


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _function_times(
    function: Scalar, p: DampedMatrixFree, y: Float[Array, "d"]
) -> Float[Array, "d"]:
    """f(K) y."""
    return function_times(p._framed, function, y, p.steps)


@_function_times.defjvp
def _function_times_jvp(function: Scalar, primals: Any, tangents: Any) -> Any:
    # Lanczos' eigenvalues coincide where the space is exhausted: slopes would be NaN.
    raise NotImplementedError(
        "the roots of a matrix-free operator have no derivatives with respect to the "
        "matrix; solve, logdet, and draws of a curvature with `noise` have"
    )


@jax.custom_jvp
def _logdet(p: DampedMatrixFree) -> Estimate:
    inside = estimate_logdet(p._framed, *p.curvature.probing(), p.steps)
    return Estimate(inside.value + p._frame.logdet(), inside.standard_error)


@_logdet.defjvp
def _logdet_jvp(
    primals: tuple[DampedMatrixFree], tangents: tuple[DampedMatrixFree]
) -> tuple[Estimate, Estimate]:
    (p,), (change,) = primals, tangents

    def slope(z: Float[Array, "d"]) -> Float[Array, ""]:
        moved = jax.jvp(lambda q: q.mv(z), (p,), (change,))[1]
        return p.solve(z) @ moved

    value = _logdet(p)
    mean = mean_over_probes(slope, *p.curvature.probing()).value
    return value, Estimate(mean, jnp.zeros_like(mean))


def _times(c: Float[Array, ""], function: Callable[[Array], Array], x: Array) -> Array:
    """c f(x)."""
    return c * function(x)
