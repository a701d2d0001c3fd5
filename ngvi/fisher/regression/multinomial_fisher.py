"""The Fisher matrix of multinomial logistic regression, dense and matrix-free.

With p the classes' probabilities of a row, logits Γ x in the orthonormal coordinates of
`design`, and the penalty's rows Q₂,

    F V = Σᵢ wᵢ (diag pᵢ − pᵢ pᵢᵀ) V xᵢ xᵢᵀ + V Q₂ᵀ Q₂.

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

Source: Nocedal and Wright (2006), Numerical optimization, section 7.1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float, Int

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


def kept_products(basis: Float[Array, "n p"]) -> Float[Array, "n q"] | None:
    """x_i x_j of the columns, i ≥ j; None where they are too many to be kept."""
    n, p = basis.shape
    return _column_products(basis) if n * p * (p + 1) // 2 <= KEPT else None


def _column_products(basis: Float[Array, "n p"]) -> Float[Array, "n q"]:
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
        columns: `kept_products`; None to make them again, block by block.
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
            return total + part[0] @ _column_products(part[1]), None

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
