"""How a loop of Fisher scoring ends, and what is said of it.

It has converged when a step's length √(gᵀ F⁻¹ g), in standard errors of the estimate,
is below the tolerance or that of rounding. Where that is small while some linear
predictor still moves, the likelihood has no maximum: it rises for ever along a
direction, as with classes that x separates.

Source: Albert and Anderson (1984), On the existence of maximum likelihood estimates in
logistic regression models.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.linalg import solve_triangular

from ngvi.fisher.regression.design import Design

RUNNING, CONVERGED, DIVERGING, STUCK, SINGULAR = range(5)
"""Why the loop ended: by its number of iterations, or by one of the others."""

MOVING = 0.3
"""A step that changes a linear predictor so much, at a length of `NO_WEIGHT`, means
that the rows it changes have no weight left."""
NO_WEIGHT = 1e-5


def ending(
    square: Float[Array, ""],
    change: Float[Array, "*rows"],
    accepted: Bool[Array, ""],
    *,
    tolerance: Float[Array, ""],
    noise: Float[Array, ""],
    penalty: Float[Array, "p p"],
    dispersion: float | Float[Array, ""] = 1.0,
) -> Int[Array, ""]:
    """Whether a step was the last, and why.

    Args:
        square: gᵀ F⁻¹ g, the square of the whole step's length.
        change: what the whole step adds to the linear predictors.
        accepted: whether some part of it was taken.
        tolerance: the length of a last step, in standard errors.
        noise: the square of the length of a rounding of the linear predictors.
        penalty: with one there always is a maximum.
        dispersion: what standard errors are scaled by the root of.
    """
    done = square <= jnp.maximum(tolerance**2 * dispersion, noise)
    moving = jnp.abs(change).max() > MOVING
    weightless = square <= NO_WEIGHT**2 * dispersion
    close = square <= jnp.sqrt(jnp.finfo(square.dtype).eps) * dispersion
    status = jnp.where(accepted, RUNNING, jnp.where(close, CONVERGED, STUCK))
    status = jnp.where(done, CONVERGED, status)
    status = jnp.where(moving & weightless & (penalty == 0).all(), DIVERGING, status)
    return jnp.where(jnp.isfinite(square), status, SINGULAR)


def explain(
    status: int,
    iterations: int,
    matrix: Design,
    step: Float[np.ndarray, "p k"],
    moving: Bool[np.ndarray, "n"] | None = None,
) -> str:
    """How a loop ended, in words.

    Args:
        status: why it did.
        iterations: its steps.
        matrix: the design.
        step: the last one, a column for each predictor.
        moving: the rows whose one linear predictor it still changed: they have no
            weight left, and so are fitted perfectly. None where a row has several.
    """
    count = f"{iterations} iteration" + ("s" if iterations != 1 else "")
    if status == CONVERGED:
        return f"converged in {count}"
    if status == DIVERGING:
        triangle = np.asarray(matrix.triangle)
        change = np.abs(solve_triangular(triangle, step)).max(1)
        size = change * np.linalg.norm(triangle, axis=0)
        grow = size > 0.05 * size.max()
        named = [name for name, g in zip(matrix.names, grow, strict=True) if g]
        fits = ""
        if moving is not None:
            fits = f", which fits {moving.sum()} of {len(moving)} rows perfectly"
        return (
            "not converged, there is no maximum: the likelihood rises for ever as "
            f"the coefficients of {', '.join(named)} grow{fits} (separation); use "
            "l2 > 0"
        )
    if status == STUCK:
        return (
            f"not converged: after {count} no step lowers the deviance; rescale the "
            "columns of x, or use l2 > 0"
        )
    if status == SINGULAR:
        return (
            f"not converged: after {count} the Fisher matrix is singular or not "
            "finite; use l2 > 0, another link, or another start"
        )
    return f"not converged in {count}: raise max_iterations"
