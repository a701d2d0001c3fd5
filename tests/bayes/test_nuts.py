"""NUTS in whitened coordinates: exact answers, whatever the units."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.diagnostics import effective_sample_size, gelman_rubin

from ngvi.bayes.nuts import _starts, _warn


def error(draws: np.ndarray, exact: float) -> float:
    """Of the mean of draws (chains, S), in Monte Carlo standard errors."""
    size = effective_sample_size(draws)
    return abs(draws.mean() - exact) / (draws.std() / np.sqrt(size))


def test_a_log_density_in_awkward_units(density_posterior):
    mcmc = density_posterior.nuts(num_samples=500)
    draws = {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}
    assert set(draws) == {"a", "b"}
    assert draws["a"].shape == (4, 500, 2)
    a = draws["a"] / 1e-3
    for values, mean in [
        (a[..., 0], 0.0),
        (a[..., 0] ** 2, 1.0),
        (a[..., 1] ** 2, 2.0),
        (a[..., 0] * a[..., 1], 1.0),
        (draws["b"], 3.0),
        ((draws["b"] - 3.0) ** 2, 1.0),
    ]:
        assert error(values, mean) < 5
        assert gelman_rubin(values) < 1.02
    # A standard normal in whitened coordinates: a few steps of about unit size.
    step = np.asarray(mcmc.last_state.adapt_state.step_size)
    assert (step > 0.3).all() and (step < 3).all()
    np.testing.assert_allclose(
        mcmc.last_state.adapt_state.inverse_mass_matrix, 1.0, rtol=0.8
    )


def test_eight_schools(schools):
    mcmc = schools.nuts(num_samples=500)
    sites = {k: np.asarray(v) for k, v in mcmc.get_samples().items()}
    assert {k: v.shape for k, v in sites.items()} == {
        "mu": (2000,),
        "tau": (2000,),
        "z": (2000, 8),
        "theta": (2000, 8),
    }
    theta = sites["mu"][:, None] + sites["tau"][:, None] * sites["z"]
    np.testing.assert_allclose(sites["theta"], theta)
    chains = {k: np.asarray(v) for k, v in mcmc.get_samples(True).items()}
    assert gelman_rubin(chains["mu"]) < 1.03
    assert gelman_rubin(np.log(chains["tau"])) < 1.03
    # Long runs of NUTS give 4.4 and 3.6 (standard deviations 3.3 and 3.2).
    assert error(chains["mu"], 4.4) < 5
    assert error(chains["tau"], 3.6) < 5
    fields = mcmc.get_extra_fields()
    assert {"potential_energy", "num_steps", "accept_prob", "diverging"} <= set(fields)
    assert int(fields["diverging"].sum()) < 10


def test_one_chain_and_options(density_posterior):
    mcmc = density_posterior.nuts(
        num_samples=300, num_chains=1, seed=2, target_accept_prob=0.97
    )
    a = np.asarray(mcmc.get_samples()["a"])
    assert a.shape == (300, 2)
    assert error(a[None, :, 0] / 1e-3, 0.0) < 5
    assert float(mcmc.get_extra_fields()["accept_prob"].mean()) > 0.93


class Finished:
    """A run with these draws."""

    def __init__(self, mu: np.ndarray, diverging: np.ndarray) -> None:
        self.mu, self.diverging = mu, diverging

    def get_samples(self, group_by_chain: bool) -> dict[str, np.ndarray]:
        assert group_by_chain
        constant = np.ones((*self.mu.shape, 2))
        return {"constant": constant, "mu": self.mu}

    def get_extra_fields(self) -> dict[str, np.ndarray]:
        return {"diverging": self.diverging}


def test_runs_that_went_wrong_are_reported():
    rng = np.random.default_rng(0)
    good, calm = rng.normal(size=(4, 100)), np.zeros(400, bool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _warn(Finished(good, calm))
    apart = good + np.arange(4)[:, None]
    with pytest.warns(UserWarning, match=r"r-hat of 'mu' is .*the chains disagree"):
        _warn(Finished(apart, calm))
    with pytest.warns(UserWarning, match="20 of 400 steps diverged"):
        _warn(Finished(good, np.arange(400) < 20))


def test_starts_are_where_the_density_is_finite():
    def potential(eps):
        return jnp.where((eps**2).sum() < 1.0, eps.sum(), jnp.nan)

    starts = _starts(potential, jax.random.key(0), 4, jnp.zeros(5))
    assert starts.shape == (4, 5)
    assert ((starts**2).sum(1) < 1).all()
    assert len(np.unique(np.asarray(starts)[:, 0])) == 4


def test_nowhere_to_start():
    with pytest.raises(ValueError, match="not finite at draws from the fit"):
        _starts(lambda eps: jnp.nan * eps.sum(), jax.random.key(0), 4, jnp.zeros(2))
