"""Weights by rank: the published formulas, ties, and what is not a number."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.nes.shaping import (
    by_rank,
    centered_ranks,
    nes_weights,
    recombination_weights,
)

weigh = jax.jit(by_rank)
WEIGHTS = jnp.asarray([8.0, 4.0, 2.0, 1.0, -15.0])


def test_utilities_are_those_published() -> None:
    # Wierstra et al. (2014), section 3.1, written out for n = 6: log(4) − log k.
    n = 6
    raw = [max(0.0, np.log(n / 2 + 1) - np.log(k)) for k in range(1, n + 1)]
    np.testing.assert_allclose(nes_weights(n), np.array(raw) / sum(raw) - 1 / n)
    np.testing.assert_allclose(nes_weights(n).sum(), 0, atol=1e-15)
    # μ_eff of the positive part as printed by other implementations.
    for count, mass in [(6, 2.26), (10, 3.42), (24, 7.28)]:
        w = nes_weights(count) + 1 / count
        np.testing.assert_allclose(1 / (w**2).sum(), mass, atol=0.006)


def test_recombination_weights_are_those_published() -> None:
    # Hansen (2016), equation 49, λ = 10: μ_eff = 3.17.
    w = recombination_weights(10)
    raw = np.log(5.5) - np.log(np.arange(1, 6))
    np.testing.assert_allclose(w[:5], raw / raw.sum())
    np.testing.assert_array_equal(w[5:], 0)
    np.testing.assert_allclose(1 / (w**2).sum(), 3.167, atol=5e-4)


def test_centered_ranks_are_equally_spaced_and_sum_to_zero() -> None:
    np.testing.assert_allclose(centered_ranks(5) * 5, [0.5, 0.25, 0, -0.25, -0.5])


def test_the_smallest_value_has_the_first_weight() -> None:
    got = weigh(jnp.asarray([3.0, -1.0, 7.0, 0.0, 5.0]), WEIGHTS)
    np.testing.assert_allclose(got, [2, 8, -15, 4, 1])


def test_ties_share_the_weights_of_their_ranks() -> None:
    got = weigh(jnp.asarray([1.0, 0.0, 1.0, 1.0, 2.0]), WEIGHTS)
    np.testing.assert_allclose(got, [7 / 3, 8, 7 / 3, 7 / 3, -15])
    got = weigh(jnp.zeros(5), WEIGHTS)
    np.testing.assert_allclose(got, WEIGHTS.mean())


def test_nan_and_infinity_rank_last_together() -> None:
    got = weigh(jnp.asarray([jnp.nan, 1.0, -jnp.inf, jnp.inf, 0.0]), WEIGHTS)
    np.testing.assert_allclose(got, [-7, 2, 8, -7, 4])


@pytest.mark.parametrize("count", [40, 300])
def test_many_values_with_ties_against_sorting_in_numpy(count: int) -> None:
    rng = np.random.default_rng(count)
    values = rng.integers(0, count // 3, count).astype(float)
    columns = rng.standard_normal((count, 2))
    order = np.argsort(values)
    expected = np.empty((count, 2))
    for value in np.unique(values):
        expected[values == value] = columns[values[order] == value].mean(0)
    got = weigh(jnp.asarray(values), jnp.asarray(columns))
    np.testing.assert_allclose(got, expected, atol=1e-12)
    one = weigh(jnp.asarray(values), jnp.asarray(columns[:, 1]))
    np.testing.assert_allclose(one, expected[:, 1], atol=1e-12)


def test_single_precision_stays_so_and_integers_are_values_too() -> None:
    w = jnp.asarray(nes_weights(4), jnp.float32)
    assert weigh(jnp.zeros(4, jnp.float32), w).dtype == jnp.float32
    got = weigh(jnp.asarray([3, 1, 2, 0]), jnp.asarray([4.0, 3.0, 2.0, 1.0]))
    np.testing.assert_allclose(got, [1, 3, 2, 4])
