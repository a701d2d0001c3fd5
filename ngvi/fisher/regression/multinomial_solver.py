"""Natural-gradient steps of multinomial logistic regression, Γ⁺ = Γ + t F⁻¹ G.

t is the first of 1, ½, ¼, … that lowers the objective enough (Armijo's rule). How F⁻¹ G
is had: `multinomial_fisher`.

Source: Nocedal and Wright (2006), Numerical optimization, section 3.1; Böhning (1992),
Multinomial logistic regression algorithm.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Bool, Float, Int

from ngvi.fisher.regression.endings import RUNNING, ending
from ngvi.fisher.regression.multinomial_fisher import (
    Classes,
    Problem,
    conjugate_gradients,
    kept_products,
    reduced_fisher,
    whole,
)
from ngvi.fisher.regression.scoring import SHORTEST

ARMIJO = 1e-4


class Fit(NamedTuple):
    """Where the loop stands; at its end, what it found."""

    coefficients: Classes  # Γ
    logits: Float[Array, "k n"]
    probabilities: Float[Array, "k n"]
    objective: Float[Array, ""]
    iterations: Int[Array, ""]
    products: Int[Array, ""]
    status: Int[Array, ""]
    step: Classes


@partial(jax.jit, static_argnames=("classes", "dense"))
def solve(
    problem: Problem,
    tolerance: Float[Array, ""],
    max_iterations: Int[Array, ""],
    *,
    classes: int,
    dense: bool,
) -> tuple[Fit, Float[Array, "r r"] | None]:
    """Minimise −log likelihood + penalty from zero.

    Args:
        problem: the data.
        tolerance: the length √(gᵀ F⁻¹ g) of a last step.
        max_iterations: the most steps.
        classes: how many.
        dense: whether F is formed.

    Returns:
        The fit, and `reduced_fisher` there if F is formed.
    """
    basis, penalty, labels, weights = problem
    n, p = basis.shape
    eps = jnp.finfo(basis.dtype).eps
    one_hot = (jnp.arange(classes)[:, None] == labels).astype(basis.dtype)
    columns = kept_products(basis) if dense else None

    def value(logits: Array, gamma: Array) -> tuple[Array, Array]:
        """The objective, and probabilities."""
        top = logits.max(0)
        each = jnp.exp(logits - top)
        total = each.sum(0)
        chosen = (logits * one_hot).sum(0)
        loss = (weights * (jnp.log(total) + top - chosen)).sum()
        return loss + ((gamma @ penalty.T) ** 2).sum() / 2, each / total

    def direction(fit: Fit, gradient: Classes, shrunk: Array) -> tuple[Array, Array]:
        if dense:
            fisher = reduced_fisher(problem, fit.probabilities, columns)
            root = jnp.linalg.cholesky(fisher)
            solved = cho_solve((root, True), gradient[:-1].ravel())
            return whole(solved, p), jnp.asarray(0)
        return conjugate_gradients(problem, fit.probabilities, gradient, shrunk)

    def step(carry: tuple[Fit, Array]) -> tuple[Fit, Array]:
        fit, first = carry
        gradient = (weights * (one_hot - fit.probabilities)) @ basis
        gradient = gradient - (fit.coefficients @ penalty.T) @ penalty
        size = jnp.sqrt((gradient**2).sum())
        first = jnp.where(fit.iterations == 0, size, first)
        move, products = direction(fit, gradient, size / first)
        change = move @ basis.T
        square = (gradient * move).sum()
        rounding = 8 * eps * (1 + jnp.abs(fit.objective))

        def trial(length: Array) -> tuple[Array, Array, Array]:
            logits = fit.logits + length * change
            return logits, *value(logits, fit.coefficients + length * move)

        def refused(state: tuple) -> Array:
            length, (_, objective, _) = state
            enough = fit.objective - ARMIJO * length * square + rounding
            return ~(objective <= enough) & (length > SHORTEST)

        def shorter(state: tuple) -> tuple:
            return state[0] / 2, trial(state[0] / 2)

        whole_step = jnp.ones_like(square)
        length, found = jax.lax.while_loop(
            refused, shorter, (whole_step, trial(whole_step))
        )
        logits, objective, probabilities = found
        accepted = length > SHORTEST
        status = ending(
            square,
            change,
            accepted,
            tolerance=tolerance,
            noise=(8 * eps) ** 2 * (weights * (fit.logits**2).sum(0)).sum(),
            penalty=penalty,
        )
        taken = accepted & jnp.isfinite(square)
        after = fit._replace(
            coefficients=fit.coefficients + length * move,
            logits=logits,
            probabilities=probabilities,
            objective=objective,
        )
        after = jax.tree.map(lambda new, old: jnp.where(taken, new, old), after, fit)
        return after._replace(
            iterations=fit.iterations + 1,
            products=fit.products + products,
            status=status,
            step=move,
        ), first

    def going(carry: tuple[Fit, Array]) -> Bool[Array, ""]:
        fit = carry[0]
        return (fit.status == RUNNING) & (fit.iterations < max_iterations)

    start = jnp.zeros((classes, p), basis.dtype)
    logits = jnp.zeros((classes, n), basis.dtype)
    objective, probabilities = value(logits, start)
    zero, running = jnp.asarray(0), jnp.asarray(RUNNING)
    initial = Fit(start, logits, probabilities, objective, zero, zero, running, start)
    fit, _ = jax.lax.while_loop(going, step, (initial, jnp.ones_like(objective)))
    return fit, reduced_fisher(problem, fit.probabilities, columns) if dense else None
