"""Natural gradients of multinomial logistic regression, dense and matrix-free.

With p the classes' probabilities of a row, logits Γ x in the orthonormal coordinates of
`design`, and the penalty's rows Q₂,

    F V = Σᵢ wᵢ (diag pᵢ − pᵢ pᵢᵀ) V xᵢ xᵢᵀ + V Q₂ᵀ Q₂,      Γ⁺ = Γ + t F⁻¹ G.

Nothing changes when all classes' logits shift alike: gradients have sum zero over
classes, and so have all steps from zero.

Matrix-free: products of F are two matrix products with p (v − p·v) between them;
conjugate gradients to a relative residual that falls as the gradient does, so that
convergence is faster than linear while early steps are cheap. In these coordinates the
Kronecker-factored F is Ḡ ⊗ I, Ḡ = Σ wᵢ (diag pᵢ − pᵢ pᵢᵀ)/n: its inverse is the
preconditioner, without which rare classes take many times as long.

Dense: one class is held at zero, and the block of classes k, l is the cross-product
Xᵀ diag(−w p_k p_l) X, symmetric as well. All blocks are one matrix product of the
class pairs' weights with the products x_i x_j of columns, i ≥ j, kept from the start
where they fit in memory.

Source: Nocedal and Wright (2006), Numerical optimization, sections 3.1 and 7.1;
Böhning (1992), Multinomial logistic regression algorithm.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Bool, Float, Int

from ngvi.fisher.regression.scoring import (
    CONVERGED,
    DIVERGING,
    MOVING,
    NO_WEIGHT,
    RUNNING,
    SHORTEST,
    SINGULAR,
    STUCK,
)

ARMIJO = 1e-4
FORCING = 0.25
"""The relative residual of the first conjugate-gradient solve; then the square root of
how much the gradient has shrunk, but never less than what rounding allows."""
LEAST_FORCING = 1e-3
MOST_PRODUCTS = 250
KEPT = 2**25
"""Products of columns that are kept in memory: 256 MB in float64."""

Classes = Float[Array, "k p"]


class Problem(NamedTuple):
    """A regression with classes."""

    basis: Float[Array, "n p"]
    penalty_basis: Float[Array, "p p"]
    labels: Int[Array, "n"]
    weights: Float[Array, "n"]


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
    columns = column_products(basis) if dense and _fits(n, p) else None

    def value(logits: Array, gamma: Array) -> tuple[Array, Array]:
        """The objective, and probabilities."""
        top = logits.max(0)
        each = jnp.exp(logits - top)
        total = each.sum(0)
        chosen = (logits * one_hot).sum(0)
        loss = (weights * (jnp.log(total) + top - chosen)).sum()
        return loss + ((gamma @ penalty.T) ** 2).sum() / 2, each / total

    def direction(fit: Fit, gradient: Classes, first: Array) -> tuple[Array, Array]:
        if dense:
            fisher = reduced_fisher(problem, fit.probabilities, columns)
            root = jnp.linalg.cholesky(fisher)
            return whole(cho_solve((root, True), gradient[:-1].ravel()), p), first * 0
        return conjugate_gradients(problem, fit.probabilities, gradient, first)

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
        noise = (8 * eps) ** 2 * (weights * (fit.logits**2).sum(0)).sum()
        done = square <= jnp.maximum(tolerance**2, noise)
        moving = (jnp.abs(change).max() > MOVING) & (square <= NO_WEIGHT**2)
        close = square <= jnp.sqrt(eps)
        accepted = length > SHORTEST
        status = jnp.where(accepted, RUNNING, jnp.where(close, CONVERGED, STUCK))
        status = jnp.where(done, CONVERGED, status)
        status = jnp.where(moving & (penalty == 0).all(), DIVERGING, status)
        status = jnp.where(jnp.isfinite(square), status, SINGULAR)
        taken = accepted & jnp.isfinite(square)
        after = Fit(
            fit.coefficients + length * move,
            logits,
            probabilities,
            objective,
            fit.iterations,
            fit.products,
            status,
            move,
        )
        after = jax.tree.map(lambda a, b: jnp.where(taken, a, b), after, fit)
        return after._replace(
            iterations=fit.iterations + 1,
            products=fit.products + products.astype(int),
            status=status,
            step=move,
        ), first

    def going(carry: tuple[Fit, Array]) -> Bool[Array, ""]:
        fit = carry[0]
        return (fit.status == RUNNING) & (fit.iterations < max_iterations)

    start = jnp.zeros((classes, p), basis.dtype)
    logits = jnp.zeros((classes, n), basis.dtype)
    objective, probabilities = value(logits, start)
    zero = jnp.asarray(0)
    initial = Fit(
        start,
        logits,
        probabilities,
        objective,
        zero,
        zero,
        jnp.asarray(RUNNING),
        start,
    )
    fit, _ = jax.lax.while_loop(going, step, (initial, jnp.ones_like(objective)))
    return fit, reduced_fisher(problem, fit.probabilities, columns) if dense else None


# -- matrix-free ---------------------------------------------------------------------


def conjugate_gradients(
    problem: Problem,
    probabilities: Float[Array, "k n"],
    gradient: Classes,
    shrunk: Float[Array, ""],
) -> tuple[Classes, Int[Array, ""]]:
    """F⁻¹ g to a relative residual of √shrunk, and the products it took."""
    basis, penalty, _, weights = problem
    weighted = weights * probabilities
    classes = len(probabilities)
    mean = jnp.diag(weighted.sum(1)) - weighted @ probabilities.T
    # Fills the null direction; residuals have no part in it.
    fill = jnp.trace(mean) / classes**2
    root = jnp.linalg.cholesky(mean + fill)

    def product(v: Classes) -> Classes:
        z = v @ basis.T
        inner = weighted * (z - (probabilities * z).sum(0))
        return inner @ basis + (v @ penalty.T) @ penalty

    def precondition(r: Classes) -> Classes:
        return cho_solve((root, True), r)

    # Rounding leaves a little of the null direction, which no step can take away.
    gradient = gradient - gradient.mean(0)
    start = precondition(gradient)
    square = (gradient * start).sum()
    forcing = jnp.clip(jnp.sqrt(shrunk), LEAST_FORCING, FORCING)

    def going(state: tuple) -> Array:
        *_, rest, count = state
        return (rest > forcing**2 * square) & (count < MOST_PRODUCTS)

    def step(state: tuple) -> tuple:
        x, r, d, rest, count = state
        fd = product(d)
        length = rest / (d * fd).sum()
        r = r - length * fd
        z = precondition(r)
        new = (r * z).sum()
        return x + length * d, r, z + new / rest * d, new, count + 1

    zero = jnp.zeros_like(gradient)
    initial = (zero, gradient, start, square, jnp.asarray(0))
    x, *_, count = jax.lax.while_loop(going, step, initial)
    return x, count


# -- dense ---------------------------------------------------------------------------


def _fits(n: int, p: int) -> bool:
    return n * p * (p + 1) // 2 <= KEPT


def column_products(basis: Float[Array, "n p"]) -> Float[Array, "n q"]:
    """x_i x_j of the columns, i ≥ j."""
    i, j = np.tril_indices(basis.shape[1])
    return basis[:, i] * basis[:, j]


def reduced_fisher(
    problem: Problem,
    probabilities: Float[Array, "k n"],
    columns: Float[Array, "n q"] | None,
) -> Float[Array, "kp kp"]:
    """F with the last class held at zero, classes before columns.

    Args:
        problem: the data.
        probabilities: of the classes.
        columns: `column_products`; None to make them again, block by block.
    """
    basis, penalty, _, weights = problem
    n, p = basis.shape
    free = len(probabilities) - 1
    k, l = np.tril_indices(free)  # noqa: E741
    first, second = probabilities[k], probabilities[l]
    pairs = weights * jnp.where((k == l)[:, None], first * (1 - first), -first * second)
    if columns is not None:
        blocks = pairs @ columns
    else:
        rows = max(KEPT // 16 // (p * (p + 1) // 2), 1)
        count = -(-n // rows)
        pad = count * rows - n
        split_basis = jnp.pad(basis, ((0, pad), (0, 0))).reshape(count, rows, p)
        split_pairs = jnp.pad(pairs, ((0, 0), (0, pad))).reshape(-1, count, rows)

        def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
            return total + part[0] @ column_products(part[1]), None

        zero = jnp.zeros((len(k), p * (p + 1) // 2), basis.dtype)
        parts = (jnp.moveaxis(split_pairs, 1, 0), split_basis)
        blocks, _ = jax.lax.scan(add, zero, parts)
    square = blocks[:, _from_triangle(p)][_from_triangle(free)]
    # Coefficients have sum zero over classes: the last counts in the penalty too.
    shared = jnp.eye(free, dtype=basis.dtype) - 1 / (free + 1)
    square = square + shared[:, :, None, None] * (penalty.T @ penalty)
    return square.transpose(0, 2, 1, 3).reshape(free * p, free * p)


def whole(reduced: Float[Array, "r"], p: int) -> Classes:
    """Coefficients of sum zero over classes, from those less the last class's."""
    others = reduced.reshape(-1, p)
    gamma = jnp.concatenate([others, jnp.zeros((1, p), others.dtype)])
    return gamma - gamma.mean(0)


def _from_triangle(size: int) -> np.ndarray:
    """Where the entries of a symmetric matrix are in its lower triangle."""
    index = np.zeros((size, size), int)
    i, j = np.tril_indices(size)
    index[i, j] = index[j, i] = np.arange(len(i))
    return index
