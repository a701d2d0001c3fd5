"""Traces, diagonals and determinants from products with random signs.

With z of independent signs, E zᵀ F z = tr F and E z ∘ F z = diag F; with Lanczos'
quadrature for f(F) = log F also log det F = tr log F. An estimate is a mean over such
probes, and states its standard error.

Where as many probes as dimensions are allowed, z = √D eᵢ are used instead, one for each
coordinate: then nothing is random.

Sources: Hutchinson (1990), A stochastic estimator of the trace of the influence matrix;
Bekas, Kokiopoulou and Saad (2007), An estimator for the diagonal of a matrix; Ubaru,
Chen and Saad (2017), Fast estimation of tr(f(A)) via stochastic Lanczos quadrature.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ngvi.linalg.lanczos import Operator, lanczos, quadrature


class Estimate(NamedTuple):
    """A number or a vector, and how far it may be off."""

    value: Float[Array, "*s"]
    standard_error: Float[Array, "*s"]


def mean_over_probes(
    function: Callable[[Float[Array, "d"]], Array],
    dim: int,
    probes: int,
    key: Array,
    dtype: jnp.dtype,
) -> Estimate:
    """The mean of f(z), E z zᵀ = I; exact for f quadratic if there are D probes.

    One probe at a time, so that memory does not grow with them.
    """
    exact = probes >= dim
    count = dim if exact else probes

    def probe(index: Array) -> Array:
        if exact:
            return jnp.sqrt(dim).astype(dtype) * (jnp.arange(dim) == index)
        return jax.random.rademacher(jax.random.fold_in(key, index), (dim,), dtype)

    def step(
        carry: tuple[Array, Array], index: Array
    ) -> tuple[tuple[Array, Array], None]:
        # Welford's recurrence.
        mean, squares = carry
        value = function(probe(index))
        apart = value - mean
        mean = mean + apart / (index + 1)
        return (mean, squares + apart * (value - mean)), None

    shape = jax.eval_shape(function, jax.ShapeDtypeStruct((dim,), dtype))
    zeros = jnp.zeros(shape.shape, shape.dtype)
    (mean, squares), _ = lax.scan(step, (zeros, zeros), jnp.arange(count))
    if exact:
        return Estimate(mean, zeros)
    if count == 1:
        return Estimate(mean, jnp.full_like(mean, jnp.inf))
    return Estimate(mean, jnp.sqrt(squares / (count * (count - 1))))


def estimate_trace(
    mv: Operator, dim: int, probes: int, key: Array, dtype: jnp.dtype
) -> Estimate:
    """tr F."""
    return mean_over_probes(lambda z: z @ mv(z), dim, probes, key, dtype)


def estimate_diagonal(
    mv: Operator, dim: int, probes: int, key: Array, dtype: jnp.dtype
) -> Estimate:
    """diag F."""
    return mean_over_probes(lambda z: z * mv(z), dim, probes, key, dtype)


def estimate_logdet(
    mv: Operator, dim: int, probes: int, key: Array, dtype: jnp.dtype, steps: int
) -> Estimate:
    """log det P of a positive-definite P.

    The standard error includes what the last quarter of Lanczos' steps changed.
    """
    steps = min(steps, dim)
    # All steps are exact if the rows are orthogonal; fewer need no memory for them.
    keep = dim if steps == dim else 2

    def both(z: Array) -> Array:
        t = lanczos(mv, z, steps, keep)
        whole, less = (quadrature(t, jnp.log, k) for k in (steps, -(-3 * steps // 4)))
        return dim * jnp.stack([whole, whole - less])

    value, error = mean_over_probes(both, dim, probes, key, dtype)
    cut = 0 if steps == dim else value[1]
    return Estimate(value[0], jnp.hypot(error[0], cut))
