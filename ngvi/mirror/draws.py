"""Base draws ε ~ N(0, I) for the expectations under a Gaussian.

Fixed draws make a fit deterministic: the same ε at every iteration turn the objective
into a plain function, which a line search can trust. They are scrambled Sobol points
mapped to normals, made antithetic [ε; −ε] (odd moments vanish) and matched (sample
covariance exactly I), so that a quadratic ℓ is integrated exactly.

A `Ladder` holds the draws of every level a fit may climb to: level k has 2ᵏ batches of
one fixed size, its draws are not those of any lower level, and a fit that doubles its
draws meets unseen ones.

Source: Buchholz, Wenzel and Mandt (2018), Quasi-Monte Carlo variational inference.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.linalg import LinearStructure
from ngvi.pytrees import pytree


def sobol_normals(dim: int, count: int, seed: Any) -> np.ndarray:
    """`count` scrambled Sobol points mapped to N(0, I), shape (count, dim); of a Latin
    hypercube where no Sobol sequence has so many dimensions."""
    from scipy.special import ndtri
    from scipy.stats import qmc

    if dim > qmc.Sobol.MAXDIM:
        points = qmc.LatinHypercube(dim, seed=seed).random(count)
    else:
        # It is balanced in powers of two; any prefix of it is still valid.
        sobol = qmc.Sobol(dim, seed=seed)
        points = sobol.random_base2(max(count - 1, 1).bit_length())[:count]
    return ndtri(np.clip(points, 1e-10, 1 - 1e-10))


def antithetic(half: np.ndarray) -> np.ndarray:
    """[ε; −ε], then matched: covariance exactly I when there are more draws than
    dimensions, else each coordinate's variance exactly 1."""
    count, dim = half.shape
    if count > dim:
        lower = np.linalg.cholesky(half.T @ half / count)
        half = np.linalg.solve(lower, half.T).T
    else:
        half = half / np.sqrt((half**2).mean(0))
    return np.concatenate([half, -half])


def antithetic_within(
    structure: LinearStructure, half: np.ndarray, room: int
) -> np.ndarray:
    """[ε; −ε], matched so that their covariance is I as far as the structure sees it.

    Args:
        structure: of the precision.
        half: n draws, more than there are coordinates that meet.
        room: at least n; calls with the same number share a compiled program.
    """
    # Zeros change no second moment, but the number that it is divided by.
    grow = np.sqrt(room / len(half))
    padded = np.pad(grow * half, ((0, room - len(half)), (0, 0)))
    matched = np.asarray(_matched(structure, jnp.asarray(padded)))[: len(half)] / grow
    return np.concatenate([matched, -matched])


@jax.jit
def _matched(structure: LinearStructure, half: Array) -> Array:
    return structure.matched(half)


@pytree
class Ladder:
    """The fixed draws of every level, as batches of one size."""

    batches: Float[Array, "total n d"]
    """Level k is batches[2ᵏ − 1 : 2ᵏ⁺¹ − 1]."""
    check: Float[Array, "s d"]
    """Draws of their own, to tell whether a level had enough."""

    @property
    def levels(self) -> int:
        """How many levels there are."""
        return self.batches.shape[0].bit_length()

    @property
    def batch_size(self) -> int:
        """Draws in one batch; level k has 2ᵏ times as many."""
        return self.batches.shape[1]

    @property
    def check_batches(self) -> Float[Array, "s/n n d"]:
        """`check` in batches, as many draws as fill them."""
        half, dim = self.batch_size // 2, self.batches.shape[2]
        pairs = self.check[: len(self.check) // 2]
        pairs = pairs[: len(pairs) // half * half].reshape(-1, half, dim)
        return jnp.concatenate([pairs, -pairs], axis=1)


def ladder(
    dim: int,
    batch_size: int,
    levels: int,
    check: int,
    seed: int,
    dtype: Any,
    structure: LinearStructure | None = None,
) -> Ladder:
    """Scrambled Sobol draws for `levels` levels from one integer seed.

    Args:
        dim: D.
        batch_size: draws of level 0, even; more than 2D for exact matching.
        levels: how many times the draws can double, plus one.
        check: how many draws tell a level's over-fit, even.
        seed: the same seed gives the same draws.
        dtype: of the arrays.
        structure: of the precision, if draws need to match only what it sees: then a
            level needs more than twice as many as there are coordinates that meet.
    """
    scramble, scramble_check = np.random.SeedSequence(seed).spawn(2)
    half = batch_size // 2
    points = sobol_normals(dim, half * (2**levels - 1), np.random.default_rng(scramble))
    largest = max(half * 2 ** (levels - 1), check // 2)

    def match(points: np.ndarray) -> np.ndarray:
        if structure is None:
            return antithetic(points)
        return antithetic_within(structure, points, largest)

    batches = []
    for level in range(levels):
        start, count = half * (2**level - 1), half * 2**level
        matched = match(points[start : start + count])
        # Each batch keeps its pairs together: [its halves; their negatives].
        pairs = matched[:count].reshape(2**level, half, dim)
        batches.append(np.concatenate([pairs, -pairs], axis=1))
    fresh = sobol_normals(dim, check // 2, np.random.default_rng(scramble_check))
    return Ladder(
        jnp.asarray(np.concatenate(batches), dtype),
        jnp.asarray(match(fresh), dtype),
    )
