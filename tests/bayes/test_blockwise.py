"""Weights block by block, beside what is known exactly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ngvi
from ngvi.bayes.blockwise import blockwise

GROUPS = 250
RNG = np.random.default_rng(3)
Y = RNG.normal(1.0, 1.3, GROUPS)


def levels(y: jax.Array) -> None:
    """Normal data of normal groups, one each: a scale that is told weakly."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    log_sd = numpyro.sample("log_sd", dist.Normal(-0.5, 1.0))
    with numpyro.plate("group", y.shape[0]):
        theta = numpyro.sample("theta", dist.Normal(mean, jnp.exp(log_sd)))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def tails(y: jax.Array) -> None:
    """Blocks that no Gaussian follows."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("group", y.shape[0]):
        theta = numpyro.sample("theta", dist.Cauchy(mean, 1.0))
        numpyro.sample("y", dist.Normal(theta, 20.0), obs=y)


@pytest.fixture(scope="module")
def posterior() -> ngvi.Posterior:
    return ngvi.fit(levels, Y, covariance="structured", progress=False)


def exact() -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of (mean, log_sd): the groups integrate out."""
    mean, log_sd = np.meshgrid(
        np.linspace(0.4, 1.6, 201), np.linspace(-3.0, 0.8, 801), indexing="ij"
    )
    variance = 1 + np.exp(2 * log_sd)
    square = ((Y[:, None, None] - mean) ** 2).sum(0)
    log_p = -square / (2 * variance) - GROUPS * np.log(variance) / 2
    log_p -= mean**2 / 50 + (log_sd + 0.5) ** 2 / 2
    weights = np.exp(log_p - log_p.max())
    weights /= weights.sum()
    means = np.array([(weights * x).sum() for x in (mean, log_sd)])
    squares = np.array([(weights * x**2).sum() for x in (mean, log_sd)])
    return means, np.sqrt(squares - means**2)


def test_the_border_is_reweighted_to_its_exact_marginal(
    posterior: ngvi.Posterior,
) -> None:
    found = blockwise(posterior)
    assert found is not None
    comparison = found.comparison
    mean, sd = exact()
    # q's sd of log_sd is 0.6 times the exact one: few draws see so far out.
    for k, (name, near) in enumerate({"mean": 0.05, "log_sd": 0.2}.items()):
        i = posterior.coordinate_names.index(name)
        of_q = float(posterior.gaussian.mean[i])
        sd_of_q = float(np.sqrt(posterior.gaussian.variance[i]))
        reweighted = sd_of_q / comparison.sd_ratio[i]
        assert abs(reweighted / sd[k] - 1) < near
        moved = of_q - comparison.mean_error[i] * reweighted
        assert abs(moved - mean[k]) < 0.15 * sd[k]


def test_the_verdict_is_theirs_where_joint_weights_say_nothing(
    posterior: ngvi.Posterior,
) -> None:
    assert posterior.diagnostics.khat > 0.7
    found = posterior.blockwise
    assert found is not None
    assert found.border_khat < 0.7
    assert found.block_khats[0] < 0.2  # given the border the groups are normal
    verdict = posterior.verdict
    assert verdict.level == "means only"
    assert verdict.reasons[0].startswith("Pareto k-hat, block by block, is 0.")
    assert "(log_sd)" in verdict.reasons[1]


def test_blocks_with_tails_are_seen() -> None:
    posterior = ngvi.fit(tails, 10 * Y, covariance="structured", progress=False)
    assert posterior.diagnostics.khat > 0.7
    found = posterior.blockwise
    assert found is not None
    assert found.block_khats[0] > 0.5
    assert found.comparison.sd_ratio.min() < 0.85
    assert posterior.verdict.level != "trustworthy"


def test_without_blocks_there_is_nothing_to_look_at() -> None:
    posterior = ngvi.fit(levels, Y[:5], covariance="full", progress=False)
    assert blockwise(posterior) is None
