"""The ladder: each rung where it applies, the first good verdict ends it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import ngvi
from ngvi.bayes import refinement
from ngvi.bayes.weighted_draws import Evidence, from_chains, from_weights, vouched

RNG = np.random.default_rng(0)


def correlated(z):
    """Two coordinates with correlation 0.95, the third independent."""
    rest = z["a"][1] - 0.95 * z["a"][0]
    return -(z["a"][0] ** 2 + rest**2 / (1 - 0.95**2) + z["b"] ** 2) / 2


@pytest.fixture(scope="module")
def narrow() -> ngvi.Posterior:
    init = {"a": jnp.zeros(2), "b": 0.0}
    return ngvi.fit(correlated, init=init, covariance="diagonal", progress=False)


def names(posterior: ngvi.Posterior) -> list[str]:
    assert posterior.refinement is not None
    return [rung.name for rung in posterior.refinement.rungs]


def test_a_diagonal_gets_its_correlations(narrow):
    assert narrow.verdict.level != "trustworthy"
    better = narrow.refine(progress=False)
    assert names(better) == ["a Gaussian", "fuller covariance"]
    assert better.verdict.level == "trustworthy"
    np.testing.assert_allclose(better.sd["a"], 1.0, rtol=0.02)
    rung = better.refinement.rungs[-1]
    assert rung.sd_moved > 1.0 and rung.gradients > 0 and rung.seconds > 0
    lines = str(better.refinement).splitlines()
    assert len(lines) == 3 and lines[0].startswith("rung")
    assert len({len(line) for line in lines}) == 1
    assert narrow.refinement is None


def test_a_good_posterior_stays_as_it_is(narrow):
    good = narrow.refine(progress=False)
    again = good.refine(progress=False)
    assert names(again) == ["a Gaussian"]
    assert again.gaussian is good.gaussian


def test_weights_suffice_for_eight_schools(schools):
    better = schools.refine(progress=False)
    assert names(better) == ["a Gaussian", "importance weights"]
    assert better.verdict.level == "trustworthy"
    assert better.verdict.reasons[0].startswith("Draws reweighted by p/q")
    # What the weighed draws of the fit say, up to the noise of resampling.
    weights, sites = schools._weighed.weights, schools._weighed.sites
    tau = sites["tau"]
    mean = weights @ tau
    sd = np.sqrt(weights @ (tau - mean) ** 2)
    assert abs(better.mean["tau"] - mean) < 5 * sd / np.sqrt(2048)
    assert abs(better.sd["tau"] / sd - 1) < 0.1
    assert better.diagnostics.khat == pytest.approx(schools.diagnostics.khat)
    assert np.isnan(better.log_evidence)
    # It answers all that a fit answers.
    assert better.sample(7)["theta"].shape == (7, 8)
    assert better.predictive(num_samples=5)["y"].shape == (5, 8)
    assert np.isfinite(better.loo().elpd)
    assert (better.summary()["mcse"] > 0).all()
    assert "draws" in repr(better).splitlines()[0]


def test_what_was_refined_is_kept(schools, tmp_path):
    better = schools.refine(progress=False)
    better.save(tmp_path / "better.nc")
    loaded = ngvi.load(tmp_path / "better.nc")
    assert loaded.verdict == better.verdict
    np.testing.assert_array_equal(loaded.mean["tau"], better.mean["tau"])


def test_the_budget_ends_the_ladder(narrow, monkeypatch):
    with pytest.raises(ValueError, match="positive number of seconds, not 0"):
        narrow.refine(budget=0)
    kept = narrow.refine(budget=1e-6, progress=False)
    assert names(kept) == ["a Gaussian"]
    assert kept.verdict.level == narrow.verdict.level


def test_the_best_rung_is_returned_even_if_none_is_good(narrow, monkeypatch):
    poor = from_chains(
        RNG.standard_normal((4, 20, 3)) + np.arange(4)[:, None, None], 0.2
    )
    chains = refinement._of_draws(narrow, poor)
    monkeypatch.setattr(refinement, "_fuller", lambda *_: None)
    monkeypatch.setattr(refinement, "_reweighed", lambda *_: None)
    monkeypatch.setattr(refinement, "_mixture", lambda *_: None)
    monkeypatch.setattr(refinement, "_chains", lambda *_: chains)
    end = narrow.refine(progress=False)
    assert names(end) == ["a Gaussian", "NUTS", "NUTS, longer"]
    assert end.refinement.rungs[1].level == "do not trust"
    assert end.verdict.level == narrow.verdict.level or end is not chains


def test_chains_are_judged_by_rhat_size_and_divergences():
    draws = RNG.standard_normal((4, 500, 2))
    good = from_chains(draws, 0.0)
    assert good.evidence.verdict.level == "trustworthy"
    assert from_chains(draws, 0.02).evidence.verdict.level == "means only"
    apart = from_chains(draws + np.arange(4)[:, None, None], 0.0)
    assert apart.evidence.rhat > 1.5
    assert apart.evidence.verdict.level == "do not trust"
    stuck = from_chains(np.where(np.arange(2) == 1, 0.0, draws), 0.0)
    assert stuck.evidence.verdict.level == "do not trust"
    values = np.asarray(good.draws(1000, RNG))
    errors = good.mean_errors(jnp.asarray(values), values, np.array([0, 1]))
    np.testing.assert_allclose(errors, 1 / np.sqrt(2000), rtol=0.3)


def test_weighted_draws_are_those_of_the_weights():
    points = RNG.standard_normal((4000, 2))
    log_weight = points[:, 0] - 0.5  # towards N((1, 0), I)
    weights = np.exp(log_weight) / np.exp(log_weight).sum()
    q = from_weights(points, weights, 0.3)
    spread = np.asarray(q.draws(2000, np.random.default_rng(1)))
    size = q.evidence.effective
    np.testing.assert_allclose(spread.mean(0), [1, 0], atol=5 / np.sqrt(size))
    np.testing.assert_allclose(q.gaussian.mean, weights @ points)
    assert np.isnan(np.asarray(q.log_prob(jnp.asarray(points)))).all()
    # Each as often as its weight says, up to one.
    once = np.unique(spread, axis=0, return_counts=True)[1]
    assert once.max() <= np.ceil(2000 * weights.max()) + 1


@pytest.mark.parametrize(
    ("khat", "efficiency", "level"),
    [
        (0.3, 0.1, "trustworthy"),
        (0.6, 0.5, "trustworthy"),
        (0.65, 0.05, "means only"),
        (0.9, 0.5, "do not trust"),
        (float("nan"), 0.5, "do not trust"),
    ],
)
def test_weights_near_the_limit_must_be_even(khat, efficiency, level):
    evidence = Evidence("importance", 1000.0, khat=khat, efficiency=efficiency)
    assert evidence.verdict.level == level
    assert vouched(khat, efficiency) == (level == "trustworthy")


def test_few_effective_draws_are_said():
    verdict = Evidence("importance", 50.0, khat=0.1, efficiency=0.5).verdict
    assert verdict.level == "means only" and "fewer than 400" in str(verdict)
