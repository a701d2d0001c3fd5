"""The design matrix of a regression: columns, names, and an orthonormal basis.

Regressions are solved in coordinates γ = R β of [X; P^½] = Q R, in which the columns of
the design are orthonormal: natural-gradient steps are the same in any coordinates, and
here the normal equations are as well conditioned as the weights. P is the penalty, ½
βᵀ P β; its rows take the place of data, so that with a penalty fewer rows than columns,
or collinear columns, are no trouble.

Source: Golub and Van Loan (2013), Matrix computations, section 5.4.2 (pivoting, for the
rank).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from ngvi.families.parameters import as_floats

INTERCEPT = "intercept"


class Design(NamedTuple):
    """Q, R, and what the columns are called."""

    basis: Float[Array, "n p"]  # the rows of Q for the data
    penalty_basis: Float[Array, "p p"]  # its rows for the penalty: zero without one
    triangle: Float[Array, "p p"]  # R
    names: tuple[str, ...]


class Rows(NamedTuple):
    """What a regression takes besides x, one entry for each row."""

    y: Array
    weights: Float[Array, "n"]
    offset: Float[Array, "n"]


def design(
    where: str,
    x: Any,
    *,
    intercept: bool,
    l2: float,
    names: Sequence[str] | None = None,
) -> Design:
    """The design matrix in orthonormal coordinates.

    Args:
        where: the function to name in errors.
        x: shape (n, p); a data frame's columns name the coefficients.
        intercept: whether a column of ones comes first, which is not penalised.
        l2: P is l2 times the identity, 0 for none.
        names: of the columns.

    Raises:
        ValueError: x is no finite matrix, it has no rows, or its columns are linearly
            dependent and there is no penalty.
    """
    names = _names(where, x, names)
    matrix = _as_matrix(where, x)
    if intercept:
        names = (INTERCEPT, *names)
    n, p = len(matrix), len(names)
    if n == 0:
        raise ValueError(f"{where}: there are no examples (N = 0)")
    if p == 0:
        raise ValueError(f"{where}: x has no columns and there is no intercept")
    if not np.isfinite(l2) or l2 < 0:
        raise ValueError(f"{where}: l2 must be zero or more, got {l2}")
    basis, penalty_basis, triangle = _orthonormal(
        matrix, jnp.asarray(l2, matrix.dtype), intercept=intercept
    )
    _check_rank(where, np.asarray(triangle), names, n)
    return Design(basis, penalty_basis, triangle, names)


def predictors(
    x: Any, coefficients: Float[np.ndarray, "*k p"], intercept: Any
) -> Float[Array, "n *k"]:
    """Linear predictors at new rows, in the precision of x.

    Raises:
        ValueError: x is no finite matrix of p columns.
    """
    matrix, p = _as_matrix("predict", x), coefficients.shape[-1]
    if matrix.shape[1] != p:
        raise ValueError(f"predict: x must have {p} columns, got {matrix.shape[1]}")
    slopes, constant = (jnp.asarray(v, matrix.dtype) for v in (coefficients, intercept))
    return matrix @ slopes.T + constant


def _as_matrix(where: str, x: Any) -> Float[Array, "n p"]:
    """x as a finite matrix.

    Raises:
        ValueError: it is none.
    """
    (matrix,) = as_floats(np.asarray(x) if hasattr(x, "columns") else x)
    if matrix.ndim != 2:
        raise ValueError(
            f"{where}: x must be a matrix, a row for every example, got shape "
            f"{matrix.shape}"
        )
    wrong = ~np.isfinite(np.asarray(matrix))
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{where}: x must be finite, got {matrix[row, column]} in row {row}, "
            f"column {column}"
        )
    return matrix


def rows(where: str, n: int, dtype: Any, y: Any, weights: Any, offset: Any) -> Rows:
    """Labels, weights (one by default) and offsets (zero by default) as arrays.

    Raises:
        ValueError: a shape does not fit, or a weight is negative or all are zero.
    """
    named = {"weights": weights, "offset": offset}
    given = [
        jnp.full(n, default, dtype) if v is None else jnp.asarray(v, dtype)
        for v, default in zip(named.values(), (1, 0), strict=True)
    ]
    for name, values in zip(named, given, strict=True):
        if values.shape != (n,):
            raise ValueError(
                f"{where}: {name} must have shape ({n},), got {values.shape}"
            )
        if not bool(jnp.isfinite(values).all()):
            raise ValueError(f"{where}: {name} must be finite")
    if not bool((given[0] >= 0).all()) or not bool((given[0] > 0).any()):
        raise ValueError(
            f"{where}: weights must be zero or more, and positive for one or more, got "
            f"a least one of {float(given[0].min()):g}"
        )
    return Rows(jnp.asarray(y), *given)


@partial(jax.jit, static_argnames="intercept")
def _orthonormal(x: Array, l2: Array, *, intercept: bool) -> tuple[Array, Array, Array]:
    """Q of the data and of the penalty, and R."""
    ones = jnp.ones((len(x), 1), x.dtype)
    columns = jnp.concatenate([ones, x], 1) if intercept else x
    n, p = columns.shape
    penalised = jnp.ones(p, x.dtype).at[0].set(0 if intercept else 1)
    root = jnp.diag(penalised * jnp.sqrt(l2))
    q, triangle = jnp.linalg.qr(jnp.concatenate([columns, root]))
    return q[:n], q[n:], triangle


def _names(where: str, x: Any, names: Sequence[str] | None) -> tuple[str, ...]:
    count = np.shape(x)[-1] if np.ndim(x) else 0
    if names is None:
        names = [str(c) for c in getattr(x, "columns", [f"x{i}" for i in range(count)])]
    if len(names) != count:
        raise ValueError(
            f"{where}: there are {len(names)} names for {count} columns of x"
        )
    return tuple(names)


def _check_rank(
    where: str, triangle: np.ndarray, names: tuple[str, ...], n: int
) -> None:
    """Columns of X and of R have the same lengths and angles: find the dependent."""
    size = np.linalg.norm(triangle, axis=0)
    advice = "drop it, or use l2 > 0"
    if not size.all():
        name = names[int(np.argmin(size))]
        raise ValueError(f"{where}: the column {name!r} of x is zero: {advice}")
    _, r, order = scipy.linalg.qr(triangle / size, pivoting=True)
    tolerance = 10 * np.finfo(triangle.dtype).eps * np.sqrt(n + len(names))
    rank = int((np.abs(np.diag(r)) > tolerance).sum())
    if rank == len(names):
        return
    if n < len(names):
        raise ValueError(
            f"{where}: {len(names)} coefficients cannot be told from {n} rows: use "
            "fewer columns, or l2 > 0"
        )
    share = scipy.linalg.solve_triangular(r[:rank, :rank], r[:rank, rank])
    others = [names[order[i]] for i in range(rank) if abs(share[i]) > 1e-6]
    raise ValueError(
        f"{where}: the column {names[order[rank]]!r} of x is a linear combination of "
        f"{', '.join(repr(name) for name in others)} (collinear): {advice}"
    )
