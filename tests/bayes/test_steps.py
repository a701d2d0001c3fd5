"""Chains read off a time axis, held against the density, and fits that keep them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

import ngvi
from ngvi.bayes.plan import Chained
from tests.bayes.test_structure import chosen

STEPS = 40
RNG = np.random.default_rng(0)
Y = np.cumsum(0.5 * RNG.normal(size=STEPS)) + RNG.normal(size=STEPS)
WALK, NOISE = 0.5, 1.0


def known_level(y: Any) -> None:
    """A random walk seen through noise, both of known variance."""
    level = numpyro.sample("level", dist.GaussianRandomWalk(WALK, num_steps=len(y)))
    numpyro.sample("y", dist.Normal(level, NOISE), obs=y)


def scanned_level(y: Any) -> None:
    """The same walk step by step, of unknown variance."""
    sd = numpyro.sample("sd", dist.LogNormal(-1.0, 0.3))

    def step(level: Any, y: Any) -> tuple[Any, None]:
        level = numpyro.sample("level", dist.Normal(level, sd))
        numpyro.sample("y", dist.Normal(level, NOISE), obs=y)
        return level, None

    scan(step, 0.0, y)


def walk(prior: Callable[[Any], Any], count: int = 210) -> Callable[[], None]:
    """States under a prior that is written with arrays."""

    def model() -> None:
        sd = numpyro.sample("sd", dist.HalfNormal(1.0))
        with numpyro.plate("time", count):
            x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.factor("prior", prior(x) / sd - 0.1 * (x**4).sum())

    return model


def first_order(x: Any) -> Any:
    return -((x[1:] - x[:-1]) ** 2).sum()


def second_order(x: Any) -> Any:
    return -((x[2:] - x[1:-1] + 0.5 * x[:-2]) ** 2).sum()


def test_neighbours_in_a_plate_are_a_chain() -> None:
    plan, structure = chosen(walk(first_order))
    assert isinstance(plan, Chained)
    assert (plan.chain.count, plan.chain.size, plan.chain.rest) == (210, 1, 1)
    assert str(structure) == (
        "structured covariance over 211 coordinates\n"
        "border: 1 (sd)\n"
        "chain of 210 steps of 1 (x): each meets the next\n"
        "the precision fills 0.014 of a full matrix"
    )


def test_a_farther_reach_makes_blocks_of_steps() -> None:
    plan, structure = chosen(walk(second_order, 211))
    assert (plan.chain.count, plan.chain.size, plan.chain.rest) == (105, 2, 2)
    assert "each meets the 2 next, the last 1 in the border" in str(structure)


def test_sites_of_other_lengths_are_in_the_border() -> None:
    def model() -> None:
        x = numpyro.sample("x", dist.GaussianRandomWalk(1.0, num_steps=30))
        v = numpyro.sample("v", dist.Normal(jnp.zeros((2, 30)), 1.0).to_event(2))
        longer = numpyro.sample("longer", dist.Normal(jnp.zeros(31), 1.0).to_event(1))
        numpyro.factor(
            "all", -(x.sum() ** 0) * (v**2 * jnp.exp(x)).sum() - longer.sum()
        )

    plan, structure = chosen(model, covariance="structured")
    assert structure.steps.sites == ("x", "v")
    assert structure.steps.border == ("longer",)
    assert (plan.chain.size, plan.chain.rest) == (3, 31)


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        (lambda x: -(x.sum() ** 2), "meets more than the 16 next ones"),
        (
            lambda x: first_order(jnp.cumsum(x)) - (jnp.cumsum(x) ** 2).sum(),
            "cumulative",
        ),
        (lambda x: first_order(x) - x[3] * x[150], "far apart meet"),
    ],
    ids=["sum", "cumulative", "a far pair"],
)
def test_steps_that_are_no_chain(prior: Callable[[Any], Any], words: str) -> None:
    plan, structure = chosen(walk(prior))
    assert plan.covariance == "full"
    assert words in structure.notes[0]


@pytest.mark.parametrize("steps", [1, 2])
def test_a_chain_of_one_or_two_steps(steps: int) -> None:
    with pytest.raises(ValueError, match="an axis of 3 steps or more"):
        chosen(known_level, Y[:steps], covariance="structured")


def test_undefined_data_in_the_middle() -> None:
    y = np.where(np.arange(STEPS) == 20, np.nan, Y)
    with pytest.raises(ValueError, match="'y' holds NaN or infinity in 1 of 40"):
        ngvi.fit(known_level, y, covariance="structured")


def kalman_smoother(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances of the states of `known_level`, by Rauch, Tung, Striebel."""
    mean, variance = np.zeros(len(y)), np.zeros(len(y))
    m, v = 0.0, 0.0
    for t, observed in enumerate(y):
        v += WALK**2
        gain = v / (v + NOISE**2)
        m, v = m + gain * (observed - m), (1 - gain) * v
        mean[t], variance[t] = m, v
    for t in reversed(range(len(y) - 1)):
        ahead = variance[t] + WALK**2
        gain = variance[t] / ahead
        variance[t] += gain**2 * (variance[t + 1] - ahead)
        mean[t] += gain * (mean[t + 1] - mean[t])
    return mean, variance


@pytest.fixture(scope="module")
def known() -> ngvi.Posterior:
    return ngvi.fit(known_level, Y, covariance="structured", progress=False)


def test_it_is_the_kalman_smoother(known: ngvi.Posterior) -> None:
    mean, variance = kalman_smoother(Y)
    np.testing.assert_allclose(known.gaussian.mean, mean, atol=1e-9)
    np.testing.assert_allclose(known.gaussian.variance, variance, rtol=1e-9)
    assert known.diagnostics.converged
    assert known.verdict.level == "trustworthy"


@pytest.fixture(scope="module")
def scanned() -> ngvi.Posterior:
    return ngvi.fit(scanned_level, Y, covariance="structured", progress=False)


def test_a_scan_is_a_chain_and_equals_the_dense_fit(scanned: ngvi.Posterior) -> None:
    assert scanned.structure.steps.sites == ("level",)
    dense = ngvi.fit(scanned_level, Y, covariance="full", progress=False)
    assert scanned.diagnostics.converged
    np.testing.assert_allclose(
        scanned.diagnostics.elbo, dense.diagnostics.elbo, atol=0.08
    )
    sd = np.sqrt(np.asarray(dense.gaussian.variance))
    error = (scanned.gaussian.mean - dense.gaussian.mean) / sd
    assert np.abs(error).max() < 0.1
    # Draws matched along the chain leave little, and it says so.
    assert (scanned.summary()["mcse"] < 0.1 * scanned.summary()["sd"]).all()
    np.testing.assert_allclose(np.sqrt(scanned.gaussian.variance), sd, rtol=0.05)


def test_it_is_used_as_any_posterior(scanned: ngvi.Posterior, tmp_path: Any) -> None:
    assert scanned.sample(3)["level"].shape == (3, STEPS)
    scanned.save(tmp_path / "level.nc")
    loaded = ngvi.load(tmp_path / "level.nc")
    assert loaded.diagnostics.covariance == "structured"
    assert "chain of 40 steps of 1 (level): each meets the next" in str(
        scanned.structure
    )


def test_a_picture_of_it(scanned: ngvi.Posterior) -> None:
    import matplotlib

    matplotlib.use("Agg")
    (axes,) = scanned.structure.plot().axes
    drawn = sum(len(collection.get_paths()) for collection in axes.collections)
    assert drawn == STEPS + 2 * (STEPS - 1) + 2
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["chain", "border"]


def test_a_fit_stays_finite_in_single_precision() -> None:
    with jax.enable_x64(False):
        posterior = ngvi.fit(known_level, Y, covariance="structured", progress=False)
    mean, _ = kalman_smoother(Y)
    np.testing.assert_allclose(posterior.gaussian.mean, mean, atol=1e-3)
