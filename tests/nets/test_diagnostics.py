"""What is said about a posterior, on posteriors whose answers are known."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.fisher import MLP
from ngvi.fisher.likelihoods import Gaussian
from ngvi.linalg import BlockOperators, Dense, Diagonal
from ngvi.linalg.batching import diagonal_blocks
from ngvi.nets import ObservationNoise, Prior, WeightPosterior, full
from ngvi.nets.diagnostics import (
    compare_with_nuts,
    prune,
    shares,
    signal_to_noise,
    to_arviz,
)
from ngvi.nets.net import Net
from ngvi.nets.train import run_epochs
from ngvi.terminal.table import text_table

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
NET = MLP((2, 3, 1))
LAYOUT = Net.of(NET, NET.init(KEY), jnp.zeros((2, 2))).layout
SIZES, P = (9, 4), 13
MEAN = jnp.asarray(RNG.normal(size=P))
ROOT = RNG.normal(size=(P, P))
COVARIANCE = ROOT @ ROOT.T / P + 0.1 * np.eye(P)
PRIOR = Prior.of([{"b": 2.0, "w": 2.0}, {"b": 0.5, "w": 0.5}], LAYOUT)


def posterior(precision: Any, noise: Any = None, prior: Prior = PRIOR) -> Any:
    return WeightPosterior(MEAN, precision, prior, Gaussian(0.1), noise)


def of_covariance(covariance: np.ndarray) -> Dense:
    return Dense.from_moments(jnp.asarray(covariance))


BLOCKS = tuple(of_covariance(block) for block in diagonal_blocks(COVARIANCE, SIZES))


def test_shares_of_layers_that_are_independent() -> None:
    q = posterior(BlockOperators(BLOCKS), ObservationNoise.begin())
    table = shares(q)
    assert list(table.index) == ["0", "1", "noise"]
    assert list(table.weights) == [9, 4, 0]
    np.testing.assert_allclose(table.kl.sum(), q.kl())
    np.testing.assert_allclose(table.share.sum(), 1)
    # Each layer alone is a posterior of its own.
    for k, (rows, delta) in enumerate(((slice(9), 2.0), (slice(9, P), 0.5))):
        m, c = np.asarray(MEAN)[rows], COVARIANCE[rows, rows]
        size = len(m)
        expected = delta * (np.trace(c) + m @ m) - size - size * np.log(delta)
        expected = (expected - np.linalg.slogdet(c)[1]) / 2
        np.testing.assert_allclose(table.kl.iloc[k], expected)
        ratios = np.abs(m) / np.sqrt(np.diag(c))
        np.testing.assert_allclose(table.snr.iloc[k], np.median(ratios))
    assert text_table(table).splitlines()[1].startswith("0")


def test_what_layers_share_has_a_row_of_its_own() -> None:
    dense = shares(posterior(of_covariance(COVARIANCE)))
    assert list(dense.index) == ["0", "1", "between layers"]
    np.testing.assert_allclose(
        dense.kl.sum(), posterior(of_covariance(COVARIANCE)).kl()
    )
    # The same marginals, and the mutual information of two Gaussians.
    np.testing.assert_allclose(
        dense.kl[:2], shares(posterior(BlockOperators(BLOCKS))).kl
    )
    apart = sum(np.linalg.slogdet(b)[1] for b in diagonal_blocks(COVARIANCE, SIZES))
    between = (apart - np.linalg.slogdet(COVARIANCE)[1]) / 2
    np.testing.assert_allclose(dense.kl.iloc[2], between)

    diagonal = posterior(Diagonal.from_deviations(jnp.sqrt(np.diag(COVARIANCE))))
    table = shares(diagonal)
    assert list(table.index) == ["0", "1"]
    np.testing.assert_allclose(table.kl.sum(), diagonal.kl())


def test_leaves_in_no_layer_have_a_row_of_their_own() -> None:
    def bent(params: Any, x: jax.Array) -> jax.Array:
        return NET(params["net"], x) ** 2 * jnp.exp(params["power"] * x[:, :1])

    params = {"net": NET.init(KEY), "power": jnp.zeros(())}
    layout = Net.of(bent, params, jnp.zeros((2, 2))).layout
    q = WeightPosterior(
        jnp.ones(P + 1),
        Diagonal(jnp.ones(P + 1)),
        Prior.of(2.0, layout),
        Gaussian(0.1),
        None,
    )
    table = shares(q)
    assert list(table.index) == ["net/0", "net/1", "power"]
    assert list(table.weights) == [9, 4, 1]


def test_a_prior_about_another_mean() -> None:
    about = LAYOUT.tree(MEAN + 1)
    prior = Prior.of(2.0, LAYOUT, mean=about)
    q = posterior(BlockOperators(BLOCKS), prior=prior)
    np.testing.assert_allclose(shares(q).kl.sum(), q.kl())
    at_zero = Prior.of(2.0, LAYOUT)
    moved = WeightPosterior(-jnp.ones(P), q.precision, at_zero, q.likelihood, None)
    np.testing.assert_allclose(q.kl(), moved.kl())
    np.testing.assert_allclose(prior.gradient(MEAN), -2 * np.ones(P))


def test_pruning() -> None:
    deviations = jnp.abs(MEAN) / jnp.arange(1, P + 1)
    q = posterior(Diagonal.from_deviations(deviations))
    ratios = LAYOUT.vector(signal_to_noise(q))
    np.testing.assert_allclose(ratios, np.arange(1, P + 1))
    pruned = prune(q, 0.4)
    mean = LAYOUT.vector(pruned.params)
    np.testing.assert_array_equal(mean, np.where(np.arange(P) < 5, 0, MEAN))
    draws = LAYOUT.vector(pruned.sample(KEY, (4,)))
    whole = LAYOUT.vector(q.sample(KEY, (4,)))
    np.testing.assert_array_equal(draws[:, :5], 0)
    np.testing.assert_array_equal(draws[:, 5:], whole[:, 5:])
    assert pruned.likelihood is q.likelihood and pruned.noise is None
    np.testing.assert_array_equal(LAYOUT.vector(prune(q, 0.0).params), MEAN)
    np.testing.assert_array_equal(LAYOUT.vector(prune(q, 1.0).params), 0)
    with pytest.raises(ValueError, match="from 0 to 1"):
        prune(q, 1.5)


def test_arviz_has_the_functions_at_the_draws() -> None:
    x = jnp.ones((3, 2))
    q = posterior(of_covariance(COVARIANCE))
    functions = {
        "f": lambda params: NET(params, x),
        "size": lambda params: (params[0]["w"] ** 2).sum(),
    }
    group = to_arviz(q, functions, KEY, draws=6)["posterior"]
    assert group["f"].dims == ("chain", "draw", "f_dim_0", "f_dim_1")
    assert group["size"].dims == ("chain", "draw")
    draws = q.sample(KEY, (6,))
    np.testing.assert_allclose(group["f"].values[0], jax.vmap(functions["f"])(draws))
    np.testing.assert_allclose(
        group["size"].values[0], jax.vmap(functions["size"])(draws)
    )
    with pytest.raises(ValueError, match="'chain' and 'draw' are axes"):
        to_arviz(q, {"draw": functions["size"]}, KEY)
    with pytest.raises(ValueError, match="needs functions"):
        to_arviz(q, {}, KEY)


def test_arviz_summarises_what_is_exported() -> None:
    import arviz

    q = posterior(of_covariance(COVARIANCE))
    tree = to_arviz(q, {"b": lambda params: params[1]["b"]}, KEY, draws=500)
    summary = arviz.summary(tree)
    assert list(summary.index) == ["b[0]"]
    expected = float(q.params[1]["b"][0])
    sd = float(q.standard_deviations[1]["b"][0])
    assert abs(float(summary["mean"].iloc[0]) - expected) < 4 * sd / np.sqrt(500)


@pytest.mark.slow
@pytest.mark.parametrize("learned", [False, True])
def test_nuts_agrees_where_the_posterior_is_known(learned: bool) -> None:
    x = RNG.normal(size=(25, 2))
    y = x @ np.array([[1.0], [-1.0]]) + 0.3 * RNG.normal(size=(25, 1))
    noise = ObservationNoise.begin(400.0, 36.0) if learned else Gaussian(0.3)
    linear = MLP((2, 1))
    # A pair of opposite draws gives a linear model's gradient at the mean exactly.
    pairs = {"samples": 2, "antithetic": True}
    row = full(linear, noise, 25, learning_rate=0.3, precision_rate=0.03, **pairs)
    state = row.init(linear.init(KEY), (x, y))
    state, _ = run_epochs(row.rule, state, x, y, KEY, epochs=500, batch_size=25)
    found = compare_with_nuts(
        linear, row.posterior(state), (x, y), x[:8], KEY, draws=4000, samples=1000
    )
    assert found.rhat < 1.02
    # 2,000 draws of NUTS, thinned by what they share: a mean is off by 0.03.
    assert found.shift < 0.15
    assert abs(found.spread - 1) < 0.08
    assert "against NUTS" in str(found)
