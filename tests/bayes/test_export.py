"""What an archive of a posterior holds, against the model written out by hand."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from scipy import stats

import ngvi
from models import eight_schools
from ngvi.bayes import replicates
from ngvi.bayes.importance import pareto_smoothed
from ngvi.linalg import Diagonal
from ngvi.report.html import render

DATA = eight_schools.data()


@pytest.fixture
def archive(schools_archive):
    return schools_archive


def draws(archive, group, name):
    return archive.groups[group][name].isel(chain=0).to_numpy()


def test_groups(archive):
    assert set(archive.groups) == {
        "posterior",
        "sample_stats",
        "importance",
        "fit_history",
        "gaussian",
        "posterior_predictive",
        "log_likelihood",
        "prior",
        "prior_predictive",
        "observed_data",
        "constant_data",
    }
    assert archive.record["notes"] == []


def test_axes_are_named_by_plates(archive):
    groups = archive.groups
    assert groups["posterior"]["theta"].dims == ("chain", "draw", "school")
    assert groups["posterior"]["tau"].dims == ("chain", "draw")
    for name in ("posterior_predictive", "log_likelihood", "prior_predictive"):
        assert groups[name]["y"].dims == ("chain", "draw", "school")
    assert groups["observed_data"]["y"].dims == ("school",)
    assert list(groups["observed_data"]["school"].to_numpy()) == list(range(8))


def test_draws_are_those_of_the_posterior(archive, schools):
    assert archive.groups["posterior"].sizes["chain"] == 1
    for name, mean in schools.mean.items():
        np.testing.assert_array_equal(draws(archive, "posterior", name).mean(0), mean)


def test_log_densities(archive):
    """lp against the joint density, log q against the weights."""
    stat = {k: draws(archive, "sample_stats", k) for k in ("lp", "log_q", "log_weight")}
    np.testing.assert_allclose(stat["log_weight"], stat["lp"] - stat["log_q"])
    for i in (0, 77):
        sites = {n: draws(archive, "posterior", n)[i] for n in ("mu", "tau", "z")}
        joint, _ = log_density(eight_schools.model, (), DATA, sites)
        # tau = exp(u): the Jacobian adds log tau.
        np.testing.assert_allclose(stat["lp"][i], joint + np.log(sites["tau"]))


def test_importance_weights_are_those_of_the_verdict(archive, schools):
    check = archive.groups["importance"]["log_weight"].to_numpy()
    own = draws(archive, "sample_stats", "log_weight")
    np.testing.assert_array_equal(check[: own.size], own)
    assert pareto_smoothed(check)[1] == schools.diagnostics.khat


def test_log_likelihood(archive):
    expected = stats.norm.logpdf(
        DATA["y"], draws(archive, "posterior", "theta"), DATA["sigma"]
    )
    np.testing.assert_allclose(draws(archive, "log_likelihood", "y"), expected)


def test_posterior_predictive(archive):
    theta = draws(archive, "posterior", "theta")
    noise = (draws(archive, "posterior_predictive", "y") - theta) / DATA["sigma"]
    # False alarm 1e-4: independent standard normals.
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-4
    assert np.unique(noise).size == noise.size


def test_prior(archive):
    tau, mu = draws(archive, "prior", "tau"), draws(archive, "prior", "mu")
    assert stats.kstest(tau, stats.halfcauchy(scale=5).cdf).pvalue > 1e-4
    assert stats.kstest(mu, stats.norm(scale=5).cdf).pvalue > 1e-4
    theta, z = draws(archive, "prior", "theta"), draws(archive, "prior", "z")
    np.testing.assert_allclose(theta, mu[:, None] + tau[:, None] * z)
    noise = (draws(archive, "prior_predictive", "y") - theta) / DATA["sigma"]
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-4


def test_data(archive):
    np.testing.assert_array_equal(archive.groups["observed_data"]["y"], DATA["y"])
    constant = archive.groups["constant_data"]
    assert list(constant) == ["sigma"]
    np.testing.assert_array_equal(constant["sigma"], DATA["sigma"])


def test_history(archive, schools):
    history = archive.groups["fit_history"]
    assert list(history) == [k for k in schools.history if k != "iteration"]
    np.testing.assert_array_equal(history["iteration"], schools.history["iteration"])
    np.testing.assert_array_equal(history["elbo"], schools.history["elbo"])


def test_record(archive, schools):
    record = archive.record
    json.dumps(record, allow_nan=False)
    assert record["model"] == schools.name
    assert record["ngvi"] == ngvi.__version__
    assert set(record["latent_sites"]) == {"mu", "tau", "z"}
    assert tuple(record["gaussian"]["names"]) == schools.coordinate_names
    assert record["diagnostics"]["khat"] == schools.diagnostics.khat
    table = schools.summary()
    assert record["summary"]["index"] == list(table.index)
    np.testing.assert_array_equal(record["summary"]["data"], table.to_numpy())


def test_the_report_reads_it(archive):
    page = render(archive)
    assert "Left out" not in page
    assert "Leaving out one observation" in page


def test_what_was_not_asked_for_is_not_there(schools):
    groups = schools.archive(predictive=False, prior=False).groups
    assert set(groups) == {
        "posterior",
        "sample_stats",
        "importance",
        "fit_history",
        "gaussian",
        "observed_data",
        "constant_data",
    }


def test_awkward_axes(awkward_archive):
    archive = awkward_archive
    dims = {n: a.dims[2:] for n, a in archive.groups["posterior"].data_vars.items()}
    assert dims == {
        "slope.group": ("group",),
        "curve": ("group", "curve_dim_1"),
        "location": ("axis",),
        "square": ("row", "square_dim_1"),
        "free": ("free_dim_0",),
        "draw_": (),
        "large": (),
    }
    assert archive.groups["posterior"]["slope.group"].attrs["site"] == "slope/group"
    assert archive.groups["posterior"]["large"].dtype == bool
    predicted = archive.groups["posterior_predictive"]
    assert predicted["y"].dims == ("chain", "draw", "item")
    # The distribution of all counts is one scalar; each is replicated all the same.
    assert predicted["counts"].shape == (1, 2048, 5)
    rows = draws(archive, "posterior_predictive", "counts")
    assert (rows != rows[:, :1]).any()
    assert archive.groups["log_likelihood"]["counts"].shape == (1, 2048, 5)
    constant = archive.groups["constant_data"]
    assert set(constant) == {"x", "design.grid"}
    assert set(archive.record["latent_sites"]) == {
        "slope.group",
        "location",
        "square",
        "free",
        "draw_",
    }
    assert any("'wave' is left out" in note for note in archive.record["notes"])


def test_an_improper_prior_has_no_draws(flat_posterior):
    archive = flat_posterior.archive(prior=True)
    assert "prior" not in archive.groups
    (note,) = archive.record["notes"]
    assert note.startswith("prior is left out") and "'beta'" in note
    assert list(archive.groups["constant_data"]) == ["x"]
    assert archive.groups["observed_data"]["y"].dims == ("y_dim_0",)


def test_a_summed_out_site_has_no_pointwise_likelihood(mixture_posterior):
    archive = mixture_posterior.archive(prior=True)
    assert "log_likelihood" not in archive.groups
    assert "log_likelihood is left out" in archive.record["notes"][0]
    assert set(archive.groups["posterior"]) == {"centre", "apart"}
    assert set(archive.groups["prior"]) == {"centre", "apart"}
    y = draws(archive, "posterior_predictive", "y")
    centre, apart = (draws(archive, "posterior", n) for n in ("centre", "apart"))
    z = (y - centre[:, None]) / apart[:, None]
    # Half a unit to either side, each about as often: 12,288 draws, five sd.
    assert abs((z > 0).mean() - 0.5) < 0.03
    assert 0.4 < np.median(np.abs(z)) < 0.6
    render(archive)


def test_a_log_density_has_draws_only(density_posterior):
    archive = density_posterior.archive(prior=True)
    assert set(archive.groups) == {
        "posterior",
        "sample_stats",
        "importance",
        "fit_history",
        "gaussian",
    }
    assert set(archive.record["latent_sites"]) == {"a", "b"}
    assert archive.groups["posterior"]["a"].dims == ("chain", "draw", "a_dim_0")
    assert "prior is left out" in archive.record["notes"][0]
    render(archive)


class Unsampled(dist.Normal):
    """A density without a sampler."""

    def sample(self, key, sample_shape=()):
        raise NotImplementedError("no sampler for this one")


def test_a_model_that_cannot_be_sampled_is_archived_all_the_same(under):
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("item", y.shape[0]):
            numpyro.sample("y", Unsampled(mu, 1.0), obs=y)

    y = jnp.array([0.5, 1.0])
    posterior = under(jnp.full(1, 0.5), Diagonal(jnp.full(1, 1.7)), model, y)
    with pytest.warns(UserWarning, match="posterior_predictive is left out"):
        archive = posterior.archive()
    assert "log_likelihood" in archive.groups
    assert "no sampler for this one" in archive.record["notes"][0]


def test_large_groups_are_thinned_and_say_so(archive, schools, monkeypatch):
    monkeypatch.setattr(replicates, "MOST_NUMBERS", 8 * 512)
    thin = schools.archive().groups["log_likelihood"]
    assert thin.sizes["draw"] == 512
    assert "512 of 2048 draws" in thin.attrs["thinned"]
    kept = archive.groups["log_likelihood"]["y"].sel(draw=thin["draw"])
    np.testing.assert_allclose(thin["y"], kept)
    assert "Left out" not in render(schools.archive())


def test_a_log_density_may_hold_a_prior(density_posterior):
    with pytest.raises(TypeError, match="may hold a prior"):
        density_posterior.update(2.0)
