"""k-hat of a report: right where the answer is known, and as ArviZ has it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ngvi.bayes.psis import fit_generalised_pareto
from ngvi.report.tail import (
    effective_draws,
    fit_tail,
    khat_threshold,
    pointwise_khat,
)


@pytest.mark.parametrize("k", [-0.3, 0.2, 0.7, 1.2])
def test_generalised_pareto_is_recovered(k):
    uniform = np.random.default_rng(0).uniform(size=20_000)
    draws = np.sort(2.5 * (uniform**-k - 1.0) / k)
    shape, sigma = fit_generalised_pareto(draws)
    # The asymptotic standard errors are (1 + k)/sqrt(n) and sigma sqrt(2(1 + k)/n).
    assert abs(shape - k) < 5 * (1 + k) / math.sqrt(draws.size) + 1e-3
    assert abs(sigma / 2.5 - 1) < 5 * math.sqrt(2 * (1 + k) / draws.size)


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_agrees_with_arviz(scale):
    # 3 sqrt(2500) is whole: versions of ArviZ round the length of the tail differently.
    log_weights = scale * np.random.default_rng(1).standard_t(4, size=2500)
    az = pytest.importorskip("arviz")
    if az.__version__.startswith("0."):
        expected = az.psislw(log_weights)[1]
    else:
        from arviz_stats.base import array_stats

        expected = array_stats.psislw(-log_weights)[1]
    assert fit_tail(log_weights).k == pytest.approx(float(expected), abs=1e-6)


def test_k_does_not_depend_on_the_constant_or_on_overflow():
    log_weights = np.random.default_rng(2).normal(size=500)
    expected = fit_tail(log_weights).k
    assert fit_tail(log_weights + 5000.0).k == pytest.approx(expected, rel=1e-6)


def test_survival_starts_at_the_share_of_the_tail():
    tail = fit_tail(np.random.default_rng(3).normal(size=1000))
    assert tail.survival(tail.cutoff) == pytest.approx(tail.share)
    line = tail.survival(np.linspace(tail.cutoff, 1.0, 20))
    assert (np.diff(line) < 0).all()
    # A larger k with the same scale is a heavier tail everywhere.
    assert (tail._replace(k=tail.k + 0.5).survival(tail.ratios) >= 
            tail.survival(tail.ratios)).all()  # fmt: skip


@pytest.mark.parametrize(
    "log_weights",
    [[], [0.0], np.zeros(500), np.full(500, np.nan), np.full(500, -np.inf),
     np.arange(10.0)],
    ids=["empty", "one", "equal", "nan", "-inf", "few"],
)  # fmt: skip
def test_no_tail_no_fit(log_weights):
    assert fit_tail(log_weights) is None


def test_leaving_out_an_observation_divides_its_likelihood_out():
    random = np.random.default_rng(4)
    log_weights = random.normal(size=400)
    likelihood = random.normal(size=(400, 3))
    expected = [fit_tail(log_weights - likelihood[:, i]).k for i in range(3)]
    np.testing.assert_allclose(pointwise_khat(log_weights, likelihood), expected)


def test_threshold_and_effective_draws():
    assert khat_threshold(100) == pytest.approx(0.5)
    assert khat_threshold(100_000) == 0.7
    assert effective_draws(np.full(50, 3.0)) == pytest.approx(50)
    assert effective_draws([0.0, -800.0, np.nan]) == pytest.approx(1)
    assert math.isnan(effective_draws([]))
