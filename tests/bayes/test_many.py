"""Many fits by one program: each is what `ngvi.fit` makes of it."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ngvi

Y = np.random.default_rng(0).poisson(4.0, size=(7, 5))


def model(y: Any, scale: Any = 1.0) -> None:
    rate = numpyro.sample("rate", dist.LogNormal(0.0, scale))
    with numpyro.plate("rows", 5):
        numpyro.sample("y", dist.Poisson(rate), obs=y)


def log_density(z: Any, y: Any) -> Any:
    return -((z - y.mean()) ** 2).sum() / 2 - (z**4).sum() / 40


def test_each_is_the_fit_of_its_own_data() -> None:
    scales = np.linspace(0.5, 2.0, 7)
    fits = ngvi.fit_many(model, ngvi.Each(Y), scale=ngvi.Each(scales))
    assert len(fits) == 7 and fits.converged.all()
    for i in (0, 6):
        alone = ngvi.fit(model, Y[i], scale=scales[i])
        mine = fits[i]
        np.testing.assert_allclose(mine.gaussian.mean, alone.gaussian.mean, rtol=1e-6)
        np.testing.assert_allclose(
            mine.gaussian.variance, alone.gaussian.variance, rtol=1e-6
        )
        assert mine.diagnostics.iterations == alone.diagnostics.iterations
        assert mine.verdict.level == alone.verdict.level == "trustworthy"
        np.testing.assert_array_equal(mine.to_arviz().observed_data["y"].values, Y[i])
        # From fewer draws than the posterior's own.
        sd = float(alone.sd["rate"])
        assert abs(fits.mean["rate"][i] - alone.mean["rate"]) < 0.1 * sd
        assert abs(fits.sd["rate"][i] / sd - 1) < 0.1
    assert fits[-1] is fits[6] and len(fits[2:4]) == 2


def test_seeds_and_side_by_side() -> None:
    seeds = ngvi.Each([3, 4, 5])
    fits = ngvi.fit_many(model, Y[0], seed=seeds)
    alone = ngvi.fit(model, Y[0], seed=4)
    np.testing.assert_allclose(fits[1].gaussian.mean, alone.gaussian.mean, rtol=1e-6)
    assert fits[1].diagnostics.seed == 4
    beside = ngvi.fit_many(model, Y[0], seed=seeds, at_once=2)
    np.testing.assert_allclose(beside.mean["rate"], fits.mean["rate"], rtol=1e-3)
    table = fits.summary()
    assert list(table.columns[-2:]) == ["mean rate", "sd rate"] and len(table) == 3
    assert str(fits).startswith("3 fits of model, 3 converged")


def test_of_a_log_density() -> None:
    ys = np.array([[0.0, 2.0], [4.0, 4.0]])
    fits = ngvi.fit_many(log_density, ngvi.Each(ys), init=jnp.zeros(2))
    alone = ngvi.fit(log_density, jnp.asarray(ys[1]), init=jnp.zeros(2))
    np.testing.assert_allclose(fits[1].gaussian.mean, alone.gaussian.mean, rtol=1e-5)
    assert len(set(fits.elbo)) == 2


def test_what_cannot_be_fitted_is_named() -> None:
    each = ngvi.Each(Y)
    with pytest.raises(ValueError, match="Nothing differs from fit to fit"):
        ngvi.fit_many(model, Y[0])
    with pytest.raises(ValueError, match="one length, got 6, 7"):
        ngvi.fit_many(model, each, scale=ngvi.Each(np.ones(6)))
    with pytest.raises(ValueError, match="at_once must be at least 1"):
        ngvi.fit_many(model, each, at_once=0)
    with pytest.raises(ValueError, match="one for each fit"):
        ngvi.Each(3.0)
    with pytest.raises(ValueError, match="values of one shape"):
        ngvi.Each([np.zeros(2), np.zeros(3)])
    wrong = Y.copy()
    wrong[4, 2] = -1
    with pytest.raises(ValueError, match="Fit 4: the observed site 'y' has 1 values"):
        ngvi.fit_many(model, ngvi.Each(wrong))
    with pytest.raises(ValueError, match="not a Stream"):
        ngvi.fit_many(model, ngvi.Stream([(Y[0],)]), scale=ngvi.Each([1.0]))
    with pytest.raises(ValueError, match="low rank, one by one"):
        ngvi.fit_many(model, each, covariance="low-rank")
