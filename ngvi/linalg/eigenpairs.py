"""The leading eigenpairs of a matrix known by its products.

Two ways to a basis Q that holds the leading eigenvectors nearly; those of Q F Qᵀ are
then the answer:

- *Lanczos*: Q spans the powers of F times one random vector, one product a step. The
  most accurate for a number of products.
- *randomised*: Q spans F^(q+1) Ω for random Ω, all its products at once, which a
  compiled program does faster than one after another; q + 2 = 4 times
  `rank` + 10 of them.

Source: Halko, Martinsson and Tropp (2011), Finding structure with randomness,
algorithms 4.4 and 5.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.linalg.batching import symmetric
from ngvi.linalg.lanczos import lanczos
from ngvi.linalg.semidefinite_low_rank import LowRank

Product = Callable[[Float[Array, "*b d"]], Float[Array, "*b d"]]

_OVERSAMPLING = 10
_POWERS = 2
"""q."""


def low_rank(
    mv: Product,
    dim: int,
    rank: int,
    key: Array,
    method: Literal["lanczos", "randomised"] = "lanczos",
    *,
    dtype: jnp.dtype | type = float,
) -> LowRank:
    """The `rank` eigenpairs that are largest in absolute value, in ascending order.

    Args:
        mv: x ↦ F x, F symmetric; the randomised method gives it a leading axis.
        dim: D.
        rank: at most D.
        key: for random vectors.
        method: see above; Lanczos takes 2 `rank` + 10 steps.
        dtype: of the vectors.
    """
    if not 0 < rank <= dim:
        raise ValueError(f"low_rank: a rank from 1 to {dim} was expected, got {rank}")
    if method == "lanczos":
        start = jax.random.normal(key, (dim,), dtype)
        t = lanczos(mv, start, 2 * rank + _OVERSAMPLING)
        basis, inside = t.rows, t.matrix()
    elif method == "randomised":
        shape = (min(rank + _OVERSAMPLING, dim), dim)
        basis = jax.random.normal(key, shape, dtype)
        for _ in range(_POWERS + 1):
            basis = jnp.linalg.qr(mv(basis).T)[0].T
        inside = symmetric(basis @ mv(basis).T)
    else:
        raise ValueError(
            f"low_rank: the method is 'lanczos' or 'randomised', got {method!r}"
        )
    values, turn = jnp.linalg.eigh(inside)
    kept = jnp.sort(jnp.argsort(jnp.abs(values))[-rank:])
    return LowRank.from_vectors(basis.T @ turn[:, kept], values[kept])
