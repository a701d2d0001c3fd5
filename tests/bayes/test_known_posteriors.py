"""Fits against posteriors with known answers: accuracy, cost, and honest verdicts."""

import jax
import numpy as np
import pytest

import ngvi
from benchmarks.known_posteriors import available, load, names

pytestmark = pytest.mark.skipif(
    not available(), reason="the reference posteriors are not beside this checkout"
)

# The best full Gaussian's ELBO: fits with many more draws, over 100,000 fresh draws.
BEST_ELBO = {
    "kidiq": -1872.821,
    "earnings": -13405.721,
    "mesquite": -20.527,
    "wells": -1963.641,
    "garch": -450.510,
    "eight_schools": -31.537,
    "gp_poisson": -49.060,
    "glm_poisson": -163.338,
    "arK": 58.571,
    "seeds": -63.937,
    "radon": -1045.833,
}
# Gradient evaluations that a plain fixed-draw natural-gradient loop needs.
BUDGET = {
    "kidiq": 396,
    "earnings": 688,
    "mesquite": 256,
    "wells": 48,
    "garch": 160,
    "eight_schools": 4840,
    "gp_poisson": 40740,
}
NEARLY_GAUSSIAN = {"kidiq", "earnings", "mesquite", "wells", "glm_poisson", "arK"}


def errors(known, sites):
    """Mean errors in reference sds, and ratios of sds, over the quantities."""
    values = known.quantities(sites)
    mean = [(values[q].mean() - r.mean) / r.sd for q, r in known.reference.items()]
    ratio = [values[q].std() / r.sd for q, r in known.reference.items()]
    return np.array(mean), np.array(ratio)


@pytest.mark.parametrize("name", names())
def test_default_fit_reaches_the_best_gaussian_within_its_budget(name):
    known = load(name)
    posterior = ngvi.fit(known.model, **known.data)
    assert posterior.diagnostics.converged
    eps = jax.random.normal(jax.random.key(1), (10_000, posterior.gaussian.dim))
    log_p, log_q, sites = posterior.evaluate(eps)
    weight = log_p - log_q
    standard_error = weight.std() / 100
    assert weight.mean() > BEST_ELBO[name] - 0.1 - 2 * standard_error
    mean, _ = errors(known, sites)
    # A Gaussian on log rho and log alpha misses the skew of the Gaussian process.
    assert np.sqrt((mean**2).mean()) < (0.15 if name == "gp_poisson" else 0.1)
    cost = posterior.diagnostics.gradient_evaluations
    assert cost <= BUDGET.get(name, np.inf)
    if name in NEARLY_GAUSSIAN:
        assert posterior.verdict.level == "trustworthy"


def honest(known, posterior):
    mean, ratio = errors(known, posterior.sample(20_000))
    poor = (np.abs(mean) > 0.3).any() or (np.abs(ratio - 1) > 0.3).any()
    return not (poor and posterior.verdict.level == "trustworthy")


@pytest.mark.parametrize("name", ["eight_schools", "seeds"])
def test_a_poor_fit_is_never_called_trustworthy(name):
    known = load(name)
    for seed in range(3):
        assert honest(known, ngvi.fit(known.model, seed=seed, **known.data)), seed


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_honest_over_twenty_seeds(name):
    known = load(name)
    for seed in range(20):
        posterior = ngvi.fit(known.model, seed=seed, **known.data)
        assert posterior.diagnostics.converged, seed
        assert honest(known, posterior), seed
        if name in NEARLY_GAUSSIAN:
            assert posterior.verdict.level == "trustworthy", seed
