"""Base draws: matched, antithetic, laid out in levels, and a function of the seed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from ngvi.mirror.draws import Ladder, antithetic, ladder, sobol_normals

shapes = st.tuples(st.sampled_from([1, 2, 5]), st.sampled_from([1, 2, 8]))
seeds = st.integers(0, 2**32 - 1)


def level(draws: Ladder, k: int) -> np.ndarray:
    """All draws of level k, shape (n, dim)."""
    batches = np.asarray(draws.batches[2**k - 1 : 2 ** (k + 1) - 1])
    return batches.reshape(-1, batches.shape[-1])


@given(shape=shapes, seed=seeds)
def test_antithetic_draws_are_matched_where_they_can_be(
    shape: tuple[int, int], seed: int
) -> None:
    dim, extra = shape
    half = np.random.default_rng(seed).standard_normal((dim + extra, dim))
    eps = antithetic(half)
    assert eps.shape == (2 * (dim + extra), dim)
    np.testing.assert_array_equal(eps[: dim + extra], -eps[dim + extra :])
    # The mean is 0 but for the order of summation.
    np.testing.assert_allclose(eps.mean(0), 0, atol=1e-15)
    covariance = eps.T @ eps / len(eps)
    np.testing.assert_allclose(covariance, np.eye(dim), atol=1e-8)
    # Matching is a linear map of the draws given: the directions come from them.
    np.testing.assert_array_equal(
        np.linalg.matrix_rank(np.hstack([half, eps[: dim + extra]])), dim
    )


@given(count=st.integers(1, 6), seed=seeds)
def test_with_few_draws_each_variance_is_matched(count: int, seed: int) -> None:
    dim = 6
    eps = antithetic(np.random.default_rng(seed).standard_normal((count, dim)))
    assert eps.shape == (2 * count, dim)
    np.testing.assert_array_equal(eps[:count], -eps[count:])
    np.testing.assert_allclose((eps**2).mean(0), 1, rtol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 5, 64, 100])
@pytest.mark.parametrize("dim", [1, 3, 40])
def test_sobol_normals_are_finite_and_reproducible(dim: int, count: int) -> None:
    draws = sobol_normals(dim, count, np.random.default_rng(0))
    assert draws.shape == (count, dim)
    assert np.isfinite(draws).all()
    np.testing.assert_array_equal(
        draws, sobol_normals(dim, count, np.random.default_rng(0))
    )


def test_sobol_normals_are_normal_and_more_even_than_random_ones() -> None:
    draws = sobol_normals(3, 1024, np.random.default_rng(0))
    for column in draws.T:
        # Kolmogorov's distance of random points would be about 0.87 / √1024 = 0.027.
        assert scipy.stats.kstest(column, "norm").statistic < 0.005
    assert np.abs(np.corrcoef(draws.T) - np.eye(3)).max() < 0.02


@pytest.mark.parametrize(
    ("dim", "batch", "levels"), [(1, 4, 3), (4, 10, 4), (9, 20, 3)]
)
def test_layout_of_the_ladder(dim: int, batch: int, levels: int) -> None:
    draws = ladder(dim, batch, levels, 64, 0, float)
    assert draws.levels == levels
    assert draws.batch_size == batch
    assert draws.batches.shape == (2**levels - 1, batch, dim)
    assert draws.check.shape == (64, dim)
    for k in range(levels):
        eps = level(draws, k)
        assert len(eps) == batch * 2**k
        # As a whole the level is antithetic and matched.
        np.testing.assert_allclose(eps.mean(0), 0, atol=1e-15)
        np.testing.assert_allclose(eps.T @ eps / len(eps), np.eye(dim), atol=1e-9)
    # Every batch holds its own pairs: [halves; their negatives].
    halves, negatives = np.split(np.asarray(draws.batches), 2, axis=1)
    np.testing.assert_array_equal(halves, -negatives)


def test_levels_are_disjoint() -> None:
    draws = ladder(3, 8, 4, 32, 0, float)
    everything = np.concatenate([level(draws, k) for k in range(4)] + [draws.check])
    # Matching rescales each level a little; no point of one is a point of another.
    distance = np.linalg.norm(everything[:, None] - everything[None], axis=-1)
    distance[np.diag_indices(len(distance))] = np.inf
    assert distance.min() > 1e-3
    # Before matching, too: the levels use successive points of one sequence.
    half = 4
    points = sobol_normals(
        3, half * 15, np.random.default_rng(np.random.SeedSequence(0).spawn(2)[0])
    )
    for k in range(4):
        start = half * (2**k - 1)
        expected = antithetic(points[start : start + half * 2**k])
        actual = level(draws, k)
        order = np.lexsort(expected.T), np.lexsort(actual.T)
        np.testing.assert_allclose(actual[order[1]], expected[order[0]])


def test_the_seed_decides() -> None:
    first, again, other = (ladder(3, 8, 2, 16, seed, float) for seed in (1, 1, 2))
    for a, b, c in zip(*map(jax.tree.leaves, (first, again, other)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.abs(a - c).max() > 0.1


def test_a_batch_smaller_than_the_dimension() -> None:
    draws = ladder(40, 16, 4, 32, 0, float)
    for k in range(4):
        eps = level(draws, k)
        assert np.isfinite(eps).all()
        np.testing.assert_allclose((eps**2).mean(0), 1, rtol=1e-9)
        matched = np.abs(eps.T @ eps / len(eps) - np.eye(40)).max() < 1e-9
        # 8 · 2ᵏ pairs: from k = 3 on there are more pairs than dimensions.
        assert matched == (k == 3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_ladder_has_the_type_asked_for(dtype: type) -> None:
    draws = ladder(5, 12, 3, 16, 0, dtype)
    assert draws.batches.dtype == draws.check.dtype == dtype
    for k in range(3):
        eps = level(draws, k)
        rounding = 10 * np.finfo(dtype).eps
        np.testing.assert_allclose(eps.T @ eps / len(eps), np.eye(5), atol=rounding)
