"""Estimates of the natural gradient agree with each other up to their errors."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import pytest

from ngvi.families import Gaussian
from ngvi.mirror.estimates import (
    FirstOrder,
    zeroth_order,
)
from tests.mirror.problems import (
    ESTIMATORS,
    fresh_draws,
    gaussian,
    quadratic,
    smooth,
    truth,
)

DIM = 3
# Two-sided false-alarm rate of one comparison: 2e-8.
STANDARD_ERRORS = 5.6


def replicate(
    estimator: Callable, q: Gaussian, count: int, batch: int
) -> list[np.ndarray]:
    """(value, γ, M) from independent batches, each with a leading batch axis."""
    keys = jax.random.split(jax.random.key(7), count)

    @jax.jit
    def one(key: jax.Array) -> tuple:
        result = estimator(smooth, q, fresh_draws(key, batch, q.dim))
        return result.value, *result.gradient

    return [np.asarray(part) for part in jax.lax.map(one, keys)]


@pytest.mark.parametrize(("name", "temperature"), [("dense", 0.5), ("diagonal", 1.0)])
def test_all_estimators_agree_up_to_their_standard_errors(
    name: str, temperature: float
) -> None:
    q = gaussian(name, np.random.default_rng(4), DIM)
    results = {
        # The mean of ℓ is subtracted, so zeroth order is biased by 1/N: large batches.
        order: replicate(
            make(temperature), q, *((40, 4000) if order == "zeroth" else (400, 100))
        )
        for order, make in ESTIMATORS.items()
    }
    reference = results["second"]
    for order, result in results.items():
        for mine, theirs in zip(result, reference, strict=True):
            variance = mine.var(0) / len(mine) + theirs.var(0) / len(theirs)
            error = STANDARD_ERRORS * np.sqrt(variance) + 1e-9
            difference = np.abs(mine.mean(0) - theirs.mean(0))
            # Ranked by what it may be: a failure names the estimator.
            assert (difference < error).all(), (order, difference / error)


def test_zeroth_order_converges_to_a_quadratic_s_truth() -> None:
    rng = np.random.default_rng(5)
    q, target = gaussian("dense", rng, DIM), quadratic(rng, DIM)
    expected = truth("dense", q, target, 1.0)
    keys = jax.random.split(jax.random.key(0), 50)

    @jax.jit
    def one(key: jax.Array) -> tuple:
        result = zeroth_order()(target, q, fresh_draws(key, 4000, DIM))
        return result.value, *result.gradient

    for samples, exact in zip(jax.lax.map(one, keys), expected, strict=True):
        samples = np.asarray(samples)
        error = samples.std(0) / np.sqrt(len(samples))
        bias = np.abs(exact) / 4000
        assert (np.abs(samples.mean(0) - exact) < STANDARD_ERRORS * error + bias).all()


def test_spread_is_the_variance_of_the_gradient_s_mean() -> None:
    # Over independent pairs: Var γ = (spread − γ²) / pairs.
    q = gaussian("dense", np.random.default_rng(9), DIM)
    pairs, count = 25, 4000
    keys = jax.random.split(jax.random.key(3), count)

    @jax.jit
    @jax.vmap
    def one(key: jax.Array) -> tuple:
        result = FirstOrder()(smooth, q, fresh_draws(key, 2 * pairs, DIM))
        return result.gradient.mean, result.spread

    gamma, spread = map(np.asarray, one(keys))
    predicted = (spread.mean(0) - gamma.mean(0) ** 2) / pairs
    # The relative error of a variance from n nearly normal values is √(2/n).
    np.testing.assert_allclose(
        gamma.var(0), predicted, rtol=STANDARD_ERRORS * np.sqrt(2 / count) * 1.5
    )
