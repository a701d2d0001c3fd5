"""Simulation-based calibration: uniform where q is exact, telling where it is not."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import ngvi
from ngvi.bayes.calibration import DRAWS

X = np.array([[1.0, 0.9], [1.0, 1.1], [1.0, 1.4], [1.0, 0.7]])


def regression(x, y=None):
    """A flat likelihood across the prior's correlation: a diagonal q is too narrow."""
    beta = numpyro.sample("beta", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ beta, 0.3), obs=y)


@pytest.fixture(scope="module")
def exact() -> ngvi.Calibration:
    return ngvi.calibrate(regression, X, np.zeros(4), num_simulations=60)


def test_an_exact_fit_is_calibrated(exact):
    assert exact.names == ("beta[0]", "beta[1]")
    assert exact.ranks.shape == (60, 2) and exact.failed == 0
    assert exact.ranks.min() >= 0 and exact.ranks.max() <= DRAWS
    assert exact.calibrated
    assert "60 simulated data sets" in str(exact) and "Calibrated" in str(exact)
    # By chance, in one of 10,000 sets of ranks.
    assert (exact.p_values > 1e-4).all()


def test_a_narrow_fit_is_found_out():
    narrow = ngvi.calibrate(
        regression, X, num_simulations=60, fit_options={"covariance": "diagonal"},
        y=np.zeros(4),
    )  # fmt: skip
    assert not narrow.calibrated
    table = narrow.summary()
    assert (table["spread"] > 1.5).all()
    assert (table["in 90 %"] < 0.8).all()
    assert "too narrow" in narrow.verdict


def test_the_picture(exact):
    pytest.importorskip("matplotlib").use("Agg")
    figure = exact.plot()
    titles = {ax.get_title() for ax in figure.axes}
    assert set(exact.names) <= titles
    with pytest.raises(ValueError, match="no quantity 'gamma'"):
        exact.plot(names=("gamma",))


def improper(y):
    mu = numpyro.sample("mu", dist.ImproperUniform(constraints.real, (), ()))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def test_what_cannot_be_simulated_is_said():
    with pytest.raises(ValueError, match="calibration needs proper priors"):
        ngvi.calibrate(improper, jnp.array(0.5))
    with pytest.raises(ValueError, match="observes nothing"):
        ngvi.calibrate(lambda: numpyro.sample("z", dist.Normal()))
    with pytest.raises(ValueError, match="at least 10, not 3"):
        ngvi.calibrate(regression, X, num_simulations=3)
