"""Draws of every family: their moments, their distribution, and their derivatives.

All draws have fixed seeds; `STANDARD_ERRORS` states how seldom a right family fails.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jaxtyping import Array

from ngvi.families import ExponentialFamily
from tests.families.cases import (
    FAMILIES,
    Case,
    each,
    each_with_a_cdf,
    members,
)
from tests.families.checks import Estimate, agrees, estimate
from tests.families.observations import draws
from tests.programs import compiled

BATCH, COUNT = (8,), 5_000
FALSE_ALARM = 1e-7
"""Of one test of a distribution; a thousand of them are run."""


class Moments(NamedTuple):
    """Averages over draws, and what they estimate."""

    estimates: dict[str, Estimate]
    expected: dict[str, Array]
    draws: Any
    slopes: Array


@compiled
def _moments(q: Any, p: Any, eps: Array, key: Array) -> Moments:
    fisher = q.fisher.dense()
    sd = jnp.sqrt(jnp.diagonal(fisher, axis1=-2, axis2=-1))
    direction = q.unflatten(eps / sd)

    def statistics(params: Any) -> tuple[Array, Any]:
        x = draws(q.with_natural_params(params), key, COUNT)
        return q.flatten(q.sufficient_statistics(x)), x

    t, slopes, x = jax.jvp(statistics, (q.natural_params,), (direction,), has_aux=True)
    mean = q.flatten(q.mean_params)
    centred = (t - mean) / sd
    correlation = fisher / (sd[..., :, None] * sd[..., None, :])
    logs, others = q.log_prob(x), p.log_prob(x)
    return Moments(
        estimates={
            "T": estimate(t),
            "Cov(T)": estimate(centred[..., :, None] * centred[..., None, :]),
            "log base measure": estimate(q.log_base_measure(x)),
            "KL": estimate(logs - others),
            "entropy": estimate(-logs),
            "cross entropy": estimate(-others),
            "dT/dλ": estimate(slopes / sd),
        },
        expected={
            "T": mean,
            "Cov(T)": correlation,
            "log base measure": q.expected_log_base_measure(),
            "KL": q.kl(p),
            "entropy": q.entropy(),
            "cross entropy": q.cross_entropy(p),
            "dT/dλ": jnp.einsum("...ij,...j->...i", correlation, eps),
        },
        draws=x,
        slopes=jnp.abs(slopes).max(0) > 0,
    )


@functools.cache
def moments(case: Case) -> tuple[Any, Moments]:
    """A batch of members, and a jitted study of their draws."""
    q, p = members(case, 1, BATCH)
    size = jax.eval_shape(lambda q: q.flatten(q.natural_params), q).shape[-1]
    eps = np.random.default_rng(2).standard_normal((*BATCH, size))
    return q, _moments(q, p, jnp.asarray(eps), jax.random.key(3))


@pytest.mark.parametrize(
    "what", ["T", "Cov(T)", "log base measure", "KL", "entropy", "cross entropy"]
)
@each(FAMILIES, heavy_are_slow=True)
def test_averages_over_draws(case: Case, what: str) -> None:
    _, found = moments(case)
    agrees(found.estimates[what], found.expected[what], what)


CHOOSING = {"Mixture"}
"""Families whose draws jump between parts as λ moves: what derivative there is, is that
of the part chosen."""


@each(
    [c for c in FAMILIES if c.family.__name__ not in CHOOSING],
    heavy_are_slow=True,
)
def test_derivatives_through_draws(case: Case) -> None:
    """E[∂T(x(λ))/∂λ] = F for what varies continuously; nothing for what does not."""
    q, found = moments(case)
    parts = jax.tree.leaves(getattr(q.support, "parts", q.support))
    if all(d.discrete for d in parts):
        assert not found.slopes.any()
        return
    assert found.slopes.all()
    agrees(found.estimates["dT/dλ"], found.expected["dT/dλ"], "dT/dλ")


@compiled
def _cdf(q: ExponentialFamily, x: Array) -> Array:
    return q.cdf(x)


@each_with_a_cdf
def test_draws_follow_the_cdf(case: Case) -> None:
    """Kolmogorov and Smirnov's test; Pearson's on the atoms of discrete families."""
    q, found = moments(case)
    x = found.draws
    at = np.asarray(_cdf(q, x))
    for i in range(*BATCH):
        if q.support.discrete:
            below = np.asarray(_cdf(q, x - 1))
            p_value = _chi_square(np.asarray(x)[:, i], (at - below)[:, i])
        else:
            p_value = scipy.stats.kstest(at[:, i], "uniform", method="asymp").pvalue
            assert len(np.unique(x[:, i])) > 0.99 * COUNT
        assert p_value > FALSE_ALARM


def _chi_square(drawn: np.ndarray, probabilities: np.ndarray) -> float:
    """The p-value of draws whose values have these probabilities; rare ones pooled."""
    values, first, counts = np.unique(drawn, return_index=True, return_counts=True)
    expected = probabilities[first] * len(drawn)
    common = expected > 10
    observed = np.append(counts[common], counts[~common].sum())
    rest = max(len(drawn) - expected[common].sum(), 0.0)
    predicted = np.append(expected[common], rest)
    if predicted[-1] < 1:
        assert observed[-1] <= 20
        observed, predicted = observed[:-1], predicted[:-1]
    assert len(values) > 1
    statistic = ((observed - predicted) ** 2 / predicted).sum()
    return float(scipy.stats.chi2.sf(statistic, max(len(predicted) - 1, 1)))
