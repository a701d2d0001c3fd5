"""A posterior as the next prior: exact where all is Gaussian, each datum once."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

import ngvi
from ngvi.bayes.diagnostics import ONE_STEP
from ngvi.bayes.numpyro_model import model_target
from ngvi.bayes.stored_gaussian import restore, store
from ngvi.bayes.updating import weighed
from ngvi.families import Gaussian
from ngvi.linalg import BlockArrow, Dense, Diagonal, Level, Piece, Tree

NOISE, WIDTH = 0.5, 10.0


def line(x: Any, y: Any = None) -> None:
    beta = numpyro.sample(
        "beta", dist.Normal(0, WIDTH).expand([x.shape[1]]).to_event(1)
    )
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ beta, NOISE), obs=y)


def data(rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = np.c_[np.ones(rows), rng.normal(size=(rows, 2))]
    return x, x @ np.array([1.0, -2.0, 0.5]) + NOISE * rng.normal(size=rows)


X, Y = data()


def exact(weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and precision when each row's likelihood has a power of its own."""
    weighed = (X.T * weights) / NOISE**2
    precision = weighed @ X + np.eye(3) / WIDTH**2
    return np.linalg.solve(precision, weighed @ Y), precision


def check(posterior: ngvi.Posterior, weights: Any) -> None:
    mean, precision = exact(weights)
    np.testing.assert_allclose(posterior.gaussian.mean, mean, rtol=1e-6)
    found = posterior.gaussian.precision
    np.testing.assert_allclose(found.inverse_dense(), np.linalg.inv(precision), 1e-6)


@pytest.fixture(scope="module")
def first() -> ngvi.Posterior:
    return ngvi.fit(line, X[:30], Y[:30])


def test_two_halves_are_the_whole(first: ngvi.Posterior) -> None:
    noise = NOISE**2 * np.eye(len(Y)) + WIDTH**2 * X @ X.T
    evidence = dist.MultivariateNormal(jnp.zeros(len(Y)), noise).log_prob(Y)
    fitted = ngvi.fit(line, X[30:], Y[30:], prior=first)
    updated = first.update(X[30:], Y[30:])
    for second in (fitted, updated):
        check(second, 1.0)
        total = first.record.diagnostics.elbo + second.record.diagnostics.elbo
        np.testing.assert_allclose(total, evidence, rtol=1e-9)
    assert fitted.verdict.level == updated.verdict.level == "trustworthy"
    assert updated.diagnostics.stop_reason == ONE_STEP
    # Even weights: log p is that of the prior and the new data.
    assert np.ptp(updated.log_weights) < 1e-6
    assert updated.diagnostics.iterations == 2


def test_batch_by_batch_is_all_at_once(first: ngvi.Posterior) -> None:
    posterior = first
    for rows in (slice(30, 40), slice(40, 50), slice(50, 60)):
        posterior = posterior.update(X[rows], Y[rows])
    check(posterior, 1.0)


def test_power_and_forgetting_count_the_prior_once(first: ngvi.Posterior) -> None:
    weights = {"forgetting": 0.75, "likelihood_power": 2.0}
    found = ngvi.fit(line, X[30:], Y[30:], prior=first, **weights)
    check(found, np.repeat([0.25, 2.0], 30))


def grouped(y: Any, group: Any) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    with numpyro.plate("group", 4):
        theta = numpyro.sample("theta", dist.Normal(mean, 1.0))
    numpyro.sample("y", dist.Normal(theta[group], 0.5), obs=y)


def test_a_prior_with_structure() -> None:
    y = np.random.default_rng(0).normal(2.0, 1.0, 40)
    group = np.r_[np.arange(20) % 4, np.arange(20) % 2]
    before = ngvi.fit(grouped, y[:20], group[:20], covariance="structured")
    after = before.update(y[20:], group[20:])
    assert after.structure.covariance == "structured"
    precision = np.diag([0.04 + 4, *(1 + 4 * np.bincount(group))])
    precision[0, 1:] = precision[1:, 0] = -1
    mean = np.linalg.solve(precision, np.r_[0, 4 * np.bincount(group, y)])
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    # Within the tolerance of a fit with structure: it is not exact in one step.
    assert (np.abs(after.gaussian.mean - mean) / sd).max() < 0.02
    # Groups without new data changed through what they share alone.
    old, new = (p.gaussian.precision.dense()[3:] for p in (before, after))
    np.testing.assert_allclose(new, old, atol=1e-8)


def test_scales_masks_and_factors_are_the_likelihood_s() -> None:
    def model(y: Any) -> None:
        rate = numpyro.sample("rate", dist.Gamma(3.0, 1.0))
        numpyro.factor("pull", -rate)
        with handlers.scale(scale=2.0), handlers.mask(mask=jnp.array([True, False])):
            numpyro.sample("y", dist.Exponential(rate), obs=y)

    y = np.array([0.7, 9.0])
    target, arrays, _, _ = model_target(model, (y,), {}, None)
    z = jnp.array([0.3])
    rate = jnp.exp(z[0])
    likelihood = -rate + 2 * dist.Exponential(rate).log_prob(y[0])
    prior = dist.Gamma(3.0, 1.0).log_prob(rate) + z[0]
    np.testing.assert_allclose(target.likelihood(arrays, z), -likelihood, rtol=1e-12)
    np.testing.assert_allclose(target.own_prior(arrays, z), -prior, rtol=1e-12)
    np.testing.assert_allclose(target.joint(arrays, z), -prior - likelihood, 1e-12)
    third = weighed(arrays, target, None, None, 0.0, 1 / 3)
    expected = -prior - likelihood / 3
    np.testing.assert_allclose(target.potential(third, z), expected, 1e-12)


def test_a_log_likelihood(first: ngvi.Posterior) -> None:
    def log_likelihood(beta: Any, x: Any, y: Any) -> Any:
        return dist.Normal(x @ beta, NOISE).log_prob(y).sum()

    prior = Gaussian(jnp.zeros(3), Dense.from_dense(jnp.eye(3) / WIDTH**2))
    half = ngvi.fit(log_likelihood, X[:30], Y[:30], init=np.zeros(3), prior=prior)
    check(half.update(X[30:], Y[30:]), 1.0)
    with pytest.raises(ValueError, match="own prior, which a log likelihood does not"):
        ngvi.fit(log_likelihood, X, Y, init=np.zeros(3), prior=prior, forgetting=0.5)
    with pytest.raises(ValueError, match="of other parameters than the model"):
        ngvi.fit(log_likelihood, X, Y, init=np.zeros(3), prior=first)


def test_a_step_that_was_too_short_is_not_trusted(under: Any) -> None:
    def model(y: Any) -> None:
        rate = numpyro.sample("rate", dist.LogNormal(0.0, 2.0))
        numpyro.sample("y", dist.Poisson(rate), obs=y)

    before = under([0.0], Dense.from_dense(jnp.eye(1)), model, np.array([1, 0]))
    far = before.update(np.full(50, 30))
    assert far.verdict.level == "do not trust"
    assert "One natural step was taken; the Fisher length left" in str(far.verdict)


def test_what_an_update_saves(first: ngvi.Posterior, tmp_path: Any) -> None:
    second = first.update(X[30:], Y[30:])
    second.save(tmp_path / "second.nc")
    loaded = ngvi.load(tmp_path / "second.nc")
    np.testing.assert_allclose(loaded.mean["beta"], second.mean["beta"])
    assert loaded.diagnostics.stop_reason == ONE_STEP
    assert loaded.verdict == second.verdict
    # A saved posterior is a prior as well.
    again = ngvi.fit(line, X[30:], Y[30:], prior=loaded)
    mean = ngvi.fit(line, X[30:], Y[30:], prior=second).gaussian.mean
    np.testing.assert_allclose(again.gaussian.mean, mean, rtol=1e-12)
    notes = second.archive(predictive=False, prior=True).record["notes"]
    assert any("another posterior's" in note for note in notes)


def test_every_structure_can_be_stored() -> None:
    tree = Tree((Level((Piece(0, (2,)),)), Level((Piece(2, (3, 2), (0,)),), 0)))
    for precision in (
        Dense.from_dense(jnp.diag(jnp.arange(1.0, 9.0))),
        Diagonal(jnp.arange(1.0, 9.0)),
        BlockArrow.identity(tree, jnp.float64).scale(3.0),
    ):
        q = Gaussian(jnp.arange(8.0), precision)
        arrays, plain = store(q)
        back = restore(arrays, json.loads(json.dumps(plain)))
        assert jax.tree.structure(back) == jax.tree.structure(q)
        np.testing.assert_array_equal(back.precision.dense(), q.precision.dense())


def other(wide: bool, positive: bool, more: bool) -> Any:
    def model(x: Any, y: Any = None) -> None:
        shape = [4 if wide else 3]
        prior = dist.LogNormal(0, 1) if positive else dist.Normal(0, 1)
        beta = numpyro.sample("beta", prior.expand(shape).to_event(1))
        if more:
            numpyro.sample("extra", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(x @ beta[:3], NOISE), obs=y)

    return model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((True, False, False), r"'beta' has the unconstrained shape \(4,\) here and"),
        ((False, True, False), "'beta' has another support than in the prior"),
        ((False, False, True), "latent site 'extra' is not in the prior"),
    ],
)
def test_sites_must_agree(
    first: ngvi.Posterior, options: tuple[bool, bool, bool], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ngvi.fit(other(*options), X, Y, prior=first)


def test_wrong_weights(first: ngvi.Posterior) -> None:
    with pytest.raises(ValueError, match="forgetting must be from 0 to 1, not 2"):
        ngvi.fit(line, X, Y, prior=first, forgetting=2.0)
    with pytest.raises(ValueError, match="forgetting needs a prior"):
        ngvi.fit(line, X, Y, forgetting=0.5)
    with pytest.raises(ValueError, match="likelihood_power must be positive, not 0"):
        ngvi.fit(line, X, Y, likelihood_power=0.0)
    with pytest.raises(TypeError, match=r"what ngvi\.fit returned"):
        ngvi.fit(line, X, Y, prior="monday")
    broken = Y.copy()
    broken[4] = np.nan
    with pytest.raises(ValueError, match="'y' holds NaN or infinity in 1 of 60"):
        first.update(X, broken)
