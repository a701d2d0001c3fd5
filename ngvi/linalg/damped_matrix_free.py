"""Positive-definite operators known by their products alone, at any size."""

from __future__ import annotations

from dataclasses import field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.base import PositiveDefinite
from ngvi.linalg.batching import join
from ngvi.linalg.conjugate_gradients import (
    SolveInfo,
    conjugate_gradients,
    solve_positive,
)
from ngvi.linalg.isotropic import Isotropic
from ngvi.linalg.lanczos import Scalar, function_times
from ngvi.linalg.stochastic import (
    Estimate,
    estimate_diagonal,
    estimate_logdet,
    mean_over_probes,
)
from ngvi.pytrees import pytree

if TYPE_CHECKING:
    from ngvi.linalg.matrix_free import MatrixFree


@pytree
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
    damping: Float[Array, "#d"]
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
        return join(self._mv_parts(self.curvature.parts(x)))

    def _mv_parts(self, parts: list[Array]) -> list[Array]:
        """P x in the parts of the curvature's product, of x in parts."""
        damping = [self.damping] * len(parts)
        if self.damping.shape[-1] == self.dim:
            damping = self.curvature.parts(self.damping)
        each = zip(self.curvature.mv_parts(parts), damping, parts, strict=True)
        return [image + added * x for image, added, x in each]

    @jax.jit
    def solve(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """P⁻¹ x to the tolerance; NaN if P turns out not to be positive definite."""
        rules = self.preconditioner, self.tolerance, self.max_iterations
        parts = self.curvature.parts(x)
        return join(solve_positive(self._mv_parts, parts, *rules))

    @jax.jit
    def solve_with_info(
        self,
        x: Float[Array, "*b d"],
        progress: float | Float[Array, ""] | None = None,
        start: Float[Array, "*b d"] | None = None,
    ) -> tuple[Float[Array, "*b d"], SolveInfo]:
        """P⁻¹ x and how it was had; see `conjugate_gradients`."""
        parts = self.curvature.parts
        found, info = conjugate_gradients(
            self._mv_parts,
            parts(x),
            self.preconditioner,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            progress=progress,
            start=None if start is None else parts(start),
        )
        return join(found), info

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
