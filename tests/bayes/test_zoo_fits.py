"""Every model of the zoo is fitted, in both precisions, without a NaN."""

import jax
import numpy as np
import pytest

import ngvi
from ngvi import zoo

EXPECTED = {
    "ar": "trustworthy",
    "gaussian_mixture": "trustworthy",
    "linear_regression": "trustworthy",
    "logistic_regression": "trustworthy",
    "negative_binomial_regression": "trustworthy",
    "robust_regression": "trustworthy",
    "seeds": "means only",
}
QUICK = [name for name in zoo.names() if name not in ("gaussian_process", "rats")]


def check(entry, seed):
    posterior = ngvi.fit(entry.model, seed=seed, **entry.data())
    for name, draws in posterior.sample(100).items():
        assert np.isfinite(draws).all(), name
    assert np.isfinite(posterior.history["elbo"]).any()
    d = posterior.diagnostics
    assert d.converged or posterior.verdict.level == "do not trust"
    return posterior


@pytest.mark.parametrize("name", QUICK)
def test_one_seed(name):
    if name == "gaussian_mixture":
        pytest.importorskip("funsor")
    posterior = check(zoo.load(name), 0)
    assert posterior.diagnostics.converged
    assert posterior.verdict.level == EXPECTED.get(name, posterior.verdict.level)
    if name == "eight_schools_centered":  # a funnel
        assert posterior.verdict.level != "trustworthy"


@pytest.mark.parametrize("name", ["eight_schools", "negative_binomial_regression"])
def test_float32(name):
    with jax.enable_x64(False):
        assert check(zoo.load(name), 0).gaussian.mean.dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize("x64", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("name", zoo.names())
def test_twenty_seeds(name, x64):
    if name == "gaussian_mixture":
        pytest.importorskip("funsor")
    entry = zoo.load(name)
    with jax.enable_x64(x64):
        for seed in range(20):
            check(entry, seed)
