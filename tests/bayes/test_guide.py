"""The guide draws from the same Gaussian, coordinate by coordinate."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import Predictive

import ngvi
from ngvi.linalg import Dense, Diagonal


def model(y=None):
    """Sites whose order in the program is neither alphabetical nor by size."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    rate = numpyro.sample("rate", dist.LogNormal(0.0, 0.5))
    a = numpyro.sample("a", dist.Normal(jnp.zeros((2, 2)), 1.0).to_event(2))
    numpyro.deterministic("total", a.sum() + rate)
    with numpyro.plate("item", 6):
        mean = rate * weights[0] + a[0, 1] - a[1, 0]
        numpyro.sample("y", dist.Normal(mean, 0.3), obs=y)


Y = np.array([0.2, 0.9, 1.4, 0.3, 1.0, 0.8])


@pytest.fixture(scope="module", params=["full", "diagonal"])
def posterior(request, under):
    rng = np.random.default_rng(0)
    if request.param == "diagonal":
        precision = Diagonal(jnp.asarray(rng.uniform(0.5, 20.0, 7)))
    else:
        root = rng.normal(size=(7, 7)) * np.geomspace(0.01, 1.0, 7)[:, None]
        precision = Dense.from_inverse_root(jnp.asarray(root))
    posterior = under(rng.normal(size=7), precision, model, Y)
    if request.param == "full":
        # The guide need not keep its coordinates in the order that we do.
        target = posterior.target
        posterior = ngvi.Posterior(
            replace(target, sites=target.sites[::-1]),
            posterior.data,
            posterior.gaussian,
            posterior.record,
            posterior.trace,
        )
    return posterior


@pytest.fixture(scope="module")
def guide_and_params(posterior):
    return posterior.as_guide()


def test_moments(posterior, guide_and_params):
    guide, params = guide_and_params
    theirs = guide.get_posterior(params)
    q, target = posterior.gaussian, posterior.target
    mean, covariance = theirs.mean, theirs.covariance_matrix
    # Where the guide keeps each of our coordinates.
    places = guide._unpack_latent(jnp.arange(q.dim))
    order = jnp.concatenate([places[site.name].ravel() for site in target.sites])
    np.testing.assert_allclose(mean[order], q.mean, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(
        covariance[jnp.ix_(order, order)],
        q.precision.inverse_dense(),
        rtol=1e-6,
        atol=1e-6 * float(q.variance.min()),
    )
    triangle = np.asarray(params["auto_scale_tril"])
    assert (np.diagonal(triangle) > 0).all()
    np.testing.assert_array_equal(triangle, np.tril(triangle))


def test_the_centre_on_the_supports(posterior, guide_and_params):
    guide, params = guide_and_params
    ours = posterior.target.constrain(posterior.data, posterior.gaussian.mean)
    theirs = guide.median(params)
    assert set(theirs) >= {"weights", "rate", "a", "total"}
    for name in ("weights", "rate", "a", "total"):
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-6)


def test_draws(posterior, guide_and_params):
    guide, params = guide_and_params
    key = jax.random.key(1)
    predicted = Predictive(guide, params=params, num_samples=4000)(key)
    direct = guide.sample_posterior(key, params, sample_shape=(4000,))
    for draws in (predicted, direct):
        for name, sd in posterior.sd.items():
            if name not in draws:
                continue  # Predictive has no deterministic sites of a guide
            error = np.abs(np.asarray(draws[name]).mean(0) - posterior.mean[name])
            # Five standard errors of 4,000 draws.
            assert (error <= 5 * sd / np.sqrt(4000)).all(), name
    assert direct["total"].shape == (4000,)


def test_predictions(posterior, guide_and_params):
    guide, params = guide_and_params
    predict = Predictive(model, guide=guide, params=params, num_samples=500)
    y = np.asarray(predict(jax.random.key(0))["y"])
    assert y.shape == (500, 6)
    ours = posterior.predictive(num_samples=2000)["y"]
    assert abs(y.mean() - np.asarray(ours).mean()) < 5 * y.mean(1).std() / np.sqrt(500)


def test_a_summed_out_site_is_no_part_of_the_guide(mixture_posterior):
    guide, params = mixture_posterior.as_guide()
    draws = guide.sample_posterior(jax.random.key(0), params, sample_shape=(50,))
    assert set(draws) == {"centre", "apart"}
    assert params["auto_loc"].shape == (2,)


def test_a_log_density_has_no_guide(density_posterior):
    with pytest.raises(TypeError, match="plain log density"):
        density_posterior.as_guide()
