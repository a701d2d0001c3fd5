"""Expected log factorials and entropies of counts against sums over all counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from ngvi.families.special.count_gaps import log_series_mean_log
from ngvi.families.special.expectations import (
    multinomial_entropy,
    negative_binomial_entropy,
    poisson_entropy,
    poisson_log_factorial,
)
from ngvi.families.special.logistic import binary_entropy, sigmoid
from tests.programs import compiled

dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def expectation(law: Any, of: Callable, counts: np.ndarray) -> np.ndarray:
    """Σ P(x) of(x, log P(x)) of a batch of frozen distributions of SciPy."""
    logs = law.logpmf(counts[:, None])
    terms = np.where(np.isfinite(logs), np.exp(logs) * of(counts[:, None], logs), 0)
    return terms.sum(0)


def surprise(_: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    return -log_p


# Either side of the limits between the tables.
MEANS = np.array([1e-6, 0.5, 9.99, 10.01, 29.9, 30.1, 400.0])
LOGITS = np.array([-9.0, -3.0, -0.3, 0.0, 0.01, 2.0, 5.0])
STOPPED_LOGITS = np.array([-6.0, -1.0, 0.0, 3.0])
SERIES_LOGITS = np.array([-20.0, -2.0, 0.0, 1.0, 4.0])
TRIALS, STOPS = (1, 15, 16, 500, 20_000), (0.3, 1.0, 2.5, 1000.0)


def binomial_entropy(count: int, x: jax.Array) -> jax.Array:
    p = jnp.stack([sigmoid(x), sigmoid(-x)], -1)
    return multinomial_entropy(count, p, p[..., ::-1], binary_entropy(x))


@compiled
def everything(mean: Any, logits: Any, stopped: Any, series: Any) -> dict[str, Any]:
    return {
        "poisson": poisson_entropy(mean),
        "log factorial": poisson_log_factorial(mean),
        "log series": log_series_mean_log(series),
        **{f"binomial {n}": binomial_entropy(n, logits) for n in TRIALS},
        **{f"stopped {r}": negative_binomial_entropy(r, stopped) for r in STOPS},
    }


@pytest.fixture(scope="module")
def sums() -> dict[str, np.ndarray]:
    def log_factorial(x: np.ndarray, _: np.ndarray) -> np.ndarray:
        return scipy.special.gammaln(x + 1)

    poisson, counts = scipy.stats.poisson(MEANS), np.arange(1000)
    p, stop = scipy.special.expit(LOGITS), scipy.special.expit(-STOPPED_LOGITS)
    series = scipy.stats.logser(scipy.special.expit(SERIES_LOGITS))
    return {
        "poisson": expectation(poisson, surprise, counts),
        "log factorial": expectation(poisson, log_factorial, counts),
        "log series": expectation(series, lambda x, _: np.log(x), np.arange(1, 5000)),
        **{
            f"binomial {n}": expectation(
                scipy.stats.binom(n, p), surprise, np.arange(n + 1)
            )
            for n in TRIALS
        },
        **{
            f"stopped {r}": expectation(
                scipy.stats.nbinom(r, stop), surprise, np.arange(60_000)
            )
            for r in STOPS
        },
    }


@dtypes
def test_against_sums_over_all_counts(dtype: str, sums: dict[str, np.ndarray]) -> None:
    arguments = (MEANS, LOGITS, STOPPED_LOGITS, SERIES_LOGITS)
    found = everything(*(jnp.asarray(a, dtype) for a in arguments))
    for name, expected in sums.items():
        assert found[name].dtype == dtype
        # SciPy's own probabilities have errors of 1e-11 or so.
        tolerance = 5e-6 if dtype == "float32" else 1e-9 if "stop" in name else 1e-10
        np.testing.assert_allclose(found[name], expected, rtol=tolerance, err_msg=name)


def test_entropies_at_extreme_logits_approach_their_limits() -> None:
    # A rare event's entropy is m (1 − log m); a huge mean makes X/m a gamma variable.
    x, counts = jnp.asarray([-80.0, 80.0], jnp.float32), np.array([40.0, 0.5])
    both = compiled(lambda x: [negative_binomial_entropy(r, x) for r in (40.0, 0.5)])
    rare, common = np.asarray(both(x), float).T
    mean = counts * np.exp(-80.0)
    np.testing.assert_allclose(rare, mean * (1 - np.log(mean)), rtol=1e-5)
    limit = scipy.stats.gamma(counts).entropy() + 80
    np.testing.assert_allclose(common, limit, rtol=1e-5)


def test_entropies_have_their_derivatives() -> None:
    x, h = jnp.asarray([-4.0, 0.3, 2.5]), 1e-5

    def functions(x: jax.Array) -> jax.Array:
        kinds = (
            binomial_entropy(300, x),
            negative_binomial_entropy(0.7, x),
            poisson_entropy(jnp.exp(2 * x)),
            log_series_mean_log(x),
        )
        return jnp.stack(kinds)

    slope = compiled(lambda x: jax.jvp(functions, (x,), (jnp.ones_like(x),))[1])(x)
    low, high = compiled(jax.vmap(functions))(jnp.stack([x - h, x + h]))
    difference = (high - low) / (2 * h)
    np.testing.assert_allclose(slope, difference, rtol=1e-6, atol=1e-9)
