"""Densities, distribution functions, moments: SciPy's, and each other's integrals."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from ngvi.families import Mixture
from ngvi.families.domains import UNIT_VECTOR
from tests.families.cases import (
    DIM,
    FAMILIES,
    MODERATE,
    NUMBERS,
    Case,
    each,
    each_with_a_cdf,
    every_family,
    having,
    members,
)
from tests.families.checks import close, within_error
from tests.families.scipy_counterparts import ON_NUMBERS, ONE_BY_ONE
from tests.programs import compiled

BATCH, COUNT = (32,), 8
DECADES = 2.0


@compiled
def _log_probs(q: Any, key: Array) -> tuple[Any, Array]:
    x = q.sample(key, (COUNT,))
    return x, q.log_prob(x)


@every_family
def test_log_prob_is_that_of_scipy(case: Case) -> None:
    (q,) = members(case, 5, BATCH, DECADES, count=1)
    if hasattr(q, "df") and hasattr(q, "scale"):
        # Fewer degrees of freedom draw matrices that are singular to rounding.
        q = case.family(**{**vars(q), "df": q.df + DIM})
    x, logs = _log_probs(q, jax.random.key(6))
    name = case.family.__name__
    if name in ON_NUMBERS:
        other = ON_NUMBERS[name](q)
        expected = (other.logpmf if q.support.discrete else other.logpdf)(x)
    else:
        where = "tests/families/scipy_counterparts.py"
        assert name in ONE_BY_ONE, f"add the density of {name} to {where}"
        expected = np.array(
            [
                [ONE_BY_ONE[name](_one(q, i), _at(x, (n, i))) for i in range(*BATCH)]
                for n in range(COUNT)
            ]
        )
    close(logs, expected, 1e-10 * (1 + np.abs(expected)), name)


def _at(tree: Any, index: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[index], tree)


def _one(q: Any, i: int) -> Any:
    return _at(q, (i,))


WITHOUT_MEAN = {"Categorical", "VonMises"}
"""Families of class numbers and of angles."""

# Sixty-four nodes integrate a smooth density between quantiles to rounding.
NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(64)


@compiled
def _curves(q: Any, x: Array, grid: Array) -> tuple[Array, Array, Array]:
    far = jnp.stack([jnp.full(q.batch_shape, s * jnp.inf) for s in (-1, 1)])
    return q.cdf(x), jnp.exp(q.log_prob(grid)), q.cdf(far)


_mode = compiled(lambda q: q.mode)


@each_with_a_cdf
def test_the_cdf_is_the_integral_of_the_density(case: Case) -> None:
    (q,) = members(case, 7, BATCH, MODERATE, count=1)
    draws, _ = _log_probs(q, jax.random.key(8))
    x = np.sort(np.asarray(draws, float), 0)
    if q.support.discrete:
        below, above = x[0] - 3, x[-1]
        grid = below + np.arange(1, 1 + int((above - below).max()))[:, None]
        ends, density, far = _curves(q, jnp.stack([below, above]), jnp.asarray(grid))
        inside = grid <= above
        mass = np.where(inside, density, 0).sum(0)
        close(ends[1] - ends[0], mass, 1e-10, "sum")
        halfway, _, _ = _curves(q, jnp.stack([below, above + 0.5]), jnp.asarray(grid))
        close(halfway, ends, 1e-14, "between two whole numbers")
    else:
        # The density may have a corner at the mode and a pole at zero.
        mode, positive = np.asarray(_mode(q)), not q.support.holds(-1.0)
        between = q.support.holds(mode) & ~(positive & (mode == 0))
        x = np.sort(np.stack([*x, np.where(between, mode, x[0])]), 0)
        t = np.log(x) if positive else x
        half = np.diff(t, axis=0) / 2
        grid = t[:-1] + half + half * NODES[:, None, None]
        grid, slope = (np.exp(grid), np.exp(grid)) if positive else (grid, 1.0)
        at, density, far = _curves(q, jnp.asarray(x), jnp.asarray(grid))
        mass = np.einsum("n,n...->...", NODE_WEIGHTS, density * slope) * half
        close(np.diff(at, axis=0), mass, 1e-8, "integral")
    close(far, np.array([[0.0], [1.0]]), 1e-12, "limits")


@compiled
def _study(q: Any, x: Any) -> dict[str, Any]:
    return {"mean": q.mean, "variance": q.variance, "cdf": q.cdf(x)}


@pytest.mark.parametrize(
    "case",
    [c for c in NUMBERS if c.family.__name__ in ON_NUMBERS],
    ids=lambda c: c.name,
)
def test_moments_and_cdf_are_those_of_scipy(case: Case) -> None:
    """Also where a moment is infinite or does not exist."""
    name = case.family.__name__
    (q,) = members(case, 9, BATCH, DECADES, count=1)
    x, _ = _log_probs(q, jax.random.key(10))
    if not q.support.discrete:
        # Smaller numbers are flushed to zero when divided.
        x = jnp.where(jnp.abs(x) < 1e-290, 1e-290, x)
    other = ON_NUMBERS[name](q)
    found = _study(q, x)
    expected = {"mean": other.mean(), "variance": other.var(), "cdf": other.cdf(x)}
    for what, value in expected.items():
        value = np.broadcast_to(value, np.shape(found[what]))
        exists = np.isfinite(value)
        assert exists.any()
        assert not np.isfinite(found[what][~exists]).any()
        close(found[what][exists], value[exists], 1e-9 * np.abs(value[exists]), what)


@compiled
def _around_the_mode(q: Any, key: Array) -> tuple[Any, Array, Array]:
    """The density at the mode over that at draws, and at points between, near it."""
    mode, x = q.mode, q.sample(key, (64,))
    moved = jax.tree.map(lambda m, v: m + 1e-4 * (v - m), mode, x)
    if q.support is UNIT_VECTOR:
        moved = moved / jnp.linalg.norm(moved, axis=-1, keepdims=True)
    top = q.log_prob(mode)
    return mode, top - q.log_prob(x), top - q.log_prob(moved)


@each(having("mode", FAMILIES), heavy_are_slow=True)
def test_the_density_is_highest_at_the_mode(case: Case) -> None:
    (q,) = members(case, 11, BATCH, MODERATE, count=1)
    mode, drop, near = _around_the_mode(q, jax.random.key(12))
    exists = ~np.any(
        [np.isnan(v).reshape(*BATCH, -1).any(-1) for v in jax.tree.leaves(mode)],
        0,
    )
    assert exists.any()
    top = np.where(exists, drop.min(0), 0)
    inside = np.asarray(q.support.holds(mode))
    # A mode on the edge of the support, as of an exponential distribution, has no
    # density of its own: only its neighbours are compared.
    assert (top[inside] >= -1e-9).all()
    parts = jax.tree.leaves(getattr(q.support, "parts", q.support))
    if not any(d.discrete for d in parts):
        assert (near[:, exists & inside] >= -1e-11).all()


@compiled
def _moments_of_draws(q: Any, key: Array) -> Any:
    x = q.sample(key, (4000,))
    return (x[1] if isinstance(q, Mixture) else x), q.mean, q.variance


@pytest.mark.parametrize(
    "case",
    [
        c
        for c in having("variance", having("mean", FAMILIES))
        if c.family.__name__ not in {*ON_NUMBERS, *WITHOUT_MEAN}
    ],
    ids=lambda c: c.name,
)
def test_mean_and_variance_of_draws(case: Case) -> None:
    """Of vectors, matrices and pairs; those of numbers are compared with SciPy's."""
    (q,) = members(case, 13, (4,), 0.2, count=1)
    # More of these give draws that have eight moments.
    heavy = {n: getattr(q, n) + 16 for n in ("df", "concentration") if hasattr(q, n)}
    q = case.family(**{**vars(q), **heavy})
    x, mean, variance = _moments_of_draws(q, jax.random.key(14))
    within_error(x, mean)
    within_error(jax.tree.map(lambda v, m: (v - m) ** 2, x, mean), variance)
