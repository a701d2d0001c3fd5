"""The families under test: a new one is one row of `FAMILIES`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import strategies as st

from ngvi.families import ExponentialFamily, Gaussian
from ngvi.linalg import Dense, Diagonal, PositiveDefinite

DRAWS = 20_000
# Two-sided false-alarm rate of one comparison: 2e-8; of a thousand: 2e-5.
STANDARD_ERRORS = 5.6


class Case(NamedTuple):
    """A family, a random member of it, and someone else's log density of a member."""

    name: str
    member: Callable[[np.random.Generator, int], ExponentialFamily]
    log_prob: Callable[[Any, np.ndarray], np.ndarray]


def random_precision(rng: np.random.Generator, dim: int) -> np.ndarray:
    factor = rng.standard_normal((dim, 2 * dim + 2))
    units = np.exp(rng.standard_normal(dim) / 2)
    return (factor @ factor.T / (2 * dim) + 0.1 * np.eye(dim)) * np.outer(units, units)


def gaussian(structure: type[PositiveDefinite]) -> Callable:
    def member(rng: np.random.Generator, dim: int) -> Gaussian:
        precision = structure.from_dense(jnp.asarray(random_precision(rng, dim)))
        return Gaussian(jnp.asarray(rng.standard_normal(dim)), precision)

    return member


def scipy_gaussian(q: Gaussian, x: np.ndarray) -> np.ndarray:
    covariance = np.linalg.inv(q.precision.dense())
    # SciPy drops a leading axis of length one.
    return np.reshape(
        scipy.stats.multivariate_normal(q.mean, covariance).logpdf(x), x.shape[:-1]
    )


FAMILIES = [
    Case("gaussian-dense", gaussian(Dense), scipy_gaussian),
    Case("gaussian-diagonal", gaussian(Diagonal), scipy_gaussian),
]

every_family = pytest.mark.parametrize("case", FAMILIES, ids=lambda c: c.name)
# Every shape is compiled anew: one dimension only where it could go wrong alone.
dims = st.sampled_from([1, 3])
DIM = 3
seeds = st.integers(0, 2**32 - 1)


def same(actual: Any, expected: Any, tolerance: float = 1e-9) -> None:
    """Two pytrees agree, relative to the largest entry of each leaf."""
    left, right = jax.tree.leaves(actual), jax.tree.leaves(expected)
    for a, b in zip(left, right, strict=True):
        scale = max(np.abs(b).max(initial=0.0), 1e-3)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)


def within_error(samples: Any, expected: Any) -> None:
    """The means over axis 0 of a pytree agree up to their own standard errors."""
    for s, e in zip(jax.tree.leaves(samples), jax.tree.leaves(expected), strict=True):
        s = np.asarray(s)
        error = s.std(0) / np.sqrt(len(s))
        np.testing.assert_array_less(
            np.abs(s.mean(0) - e), STANDARD_ERRORS * error + 1e-12
        )


def tangent(q: ExponentialFamily, rng: np.random.Generator) -> Any:
    """A random direction in λ: what leads from q's λ to a member's with other μ."""
    statistics = q.sufficient_statistics(
        q.sample(jax.random.key(int(rng.integers(99))))
    )
    return jax.tree.map(lambda t: t - t.mean() * rng.standard_normal(), statistics)
