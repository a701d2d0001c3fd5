"""∇_μ E_q[f] as the coefficients of f on the statistics T, for any family.

    f(x) ≈ c₀ + ⟨c, T(x)⟩ under q   ⇒   ∇_μ E_q[f] = F⁻¹ Cov(T, f) = c

- `least_squares`, from values alone: exact where f is such a combination, from one draw
  more than there are statistics; else with an O(1/n) bias and several times less noise
  than the score function's estimate.
- `from_gradients`, from ∂f/∂z = Σ c_k ∂T_k/∂z at a few points: many independent members
  at once, each from its own coordinates. What is left over says whether f is such a
  combination at all, that is, whether q's family is conjugate to it.
- `expected`, where c itself depends on other, independent variables: its mean over
  draws, with their centred statistics and the products of those as control variates.
  It is exact where c is a combination of these, as in all models whose conditionals are
  conjugate and in which no more than three blocks meet in a term.

Source: Salimans and Knowles (2013), Fixed-form variational posterior approximation
through stochastic linear regression.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.families import ExponentialFamily

_REFINEMENTS = 4


def least_squares(q: ExponentialFamily, x: Any, values: Float[Array, "n"]) -> Any:
    """∇_μ E_q[f] of one member from f at draws, a pytree like `q.mean_params`.

    Args:
        q: a single member.
        x: draws from q, leading axis n.
        values: f there.
    """
    statistics = q.flatten(q.sufficient_statistics(x)) - q.flatten(q.mean_params)
    columns = jnp.concatenate([jnp.ones_like(values)[:, None], statistics], -1)
    return q.unflatten(solve_least_squares(columns, values[:, None])[1:, 0])


def solve_least_squares(
    columns: Float[Array, "n f"], values: Float[Array, "n k"]
) -> Float[Array, "f k"]:
    """The least-squares coefficients, columns taken in their own units.

    By a Cholesky root of the regularised normal equations, refined: far cheaper than
    singular values. Directions that the columns all but lack stay near zero.
    """
    units = jnp.sqrt((columns**2).mean(0))
    units = jnp.where(units > 0, units, 1)
    scaled = columns / units
    count, size = columns.shape
    ridge = 1e3 * jnp.finfo(columns.dtype).eps * jnp.eye(size, dtype=columns.dtype)
    root = jnp.linalg.cholesky(scaled.T @ scaled / count + ridge)

    def refine(_: int, found: Array) -> Array:
        rest = scaled.T @ (values - scaled @ found) / count
        return found + jax.scipy.linalg.cho_solve((root, True), rest)

    start = jnp.zeros((size, values.shape[1]), columns.dtype)
    return jax.lax.fori_loop(0, _REFINEMENTS, refine, start) / units[:, None]


def from_gradients(
    design: Float[Array, "p m k d"], gradients: Float[Array, "n p m d"]
) -> tuple[Float[Array, "n m k"], Float[Array, "n m"]]:
    """The coefficients c of M members, n times over, and what is left.

    Args:
        design: ∂T_k/∂z_d at p points, for each member.
        gradients: ∂f/∂z_d there; n functions f.

    Returns:
        c, and the norm of the residual over the norm of the gradients.
    """
    _, members, size, _ = design.shape
    rows = jnp.moveaxis(design, (1, 0, 3), (0, 1, 2)).reshape(members, -1, size)
    units = jnp.sqrt((rows**2).sum(1, keepdims=True))
    units = jnp.where(units > 0, units, 1)
    inverse = jnp.linalg.pinv(rows / units) / units.mT
    sides = jnp.moveaxis(gradients, 2, 1).reshape(len(gradients), members, -1)
    found = jnp.einsum("mkr,nmr->nmk", inverse, sides)
    rest = sides - jnp.einsum("mrk,nmk->nmr", rows, found)
    size_of = jnp.sqrt((sides**2).sum(-1))
    tiny = jnp.finfo(sides.dtype).tiny
    return found, jnp.sqrt((rest**2).sum(-1)) / (size_of + tiny)


def control_variates(
    centred: Float[Array, "n f"], groups: np.ndarray
) -> tuple[Float[Array, "n c"], ...]:
    """Functions of independent variables whose means are zero: their centred statistics
    and the products of those of different variables, as far as n draws carry them.

    A regression that is exact is so wherever the draws are from.

    Args:
        centred: T − μ of all variables, side by side.
        groups: which variable each is of, (f,).
    """
    draws, size = centred.shape
    centred = _varying(centred)
    first, second = np.triu_indices(size, 1)
    apart = groups[first] != groups[second]
    first, second = first[apart], second[apart]
    if 2 * (1 + size + first.size) <= draws:
        products = centred[:, first] * centred[:, second]
        return centred, _varying(products)
    return (centred,) if 2 * (1 + size) <= draws else ()


def _varying(columns: Float[Array, "n f"]) -> Float[Array, "n f"]:
    """The columns, zero where draws all but never vary: in its own units such a column
    would be a constant and take over a part of the intercept."""
    keep = columns.std(0) > 1e-2 * jnp.abs(columns.mean(0))
    return jnp.where(keep, columns, 0)


def expected(
    values: Float[Array, "n k"], variates: tuple[Float[Array, "n c"], ...]
) -> Float[Array, "k"]:
    """The mean over the variables: the intercept of a regression on control variates.

    Statistics come first and their products take what those leave: of two rare events
    that no draw has both, the product is a combination of the other columns.
    """
    if not variates:
        return values.mean(0)
    # About the first row: what does not vary is had exactly.
    mean, rest = values[0], values - values[0]
    columns = jnp.ones_like(values[:, :1])
    for more in variates:
        columns = jnp.concatenate([columns, more], -1)
        found = solve_least_squares(columns, rest)
        mean, rest = mean + found[0], rest - columns @ found
    return mean
