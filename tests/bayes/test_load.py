"""A loaded posterior answers as the one that was saved."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import ngvi
from ngvi.bayes.archive import Archive
from ngvi.bayes.load import LoadedPosterior, load


@pytest.fixture(scope="module")
def path(schools, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "schools.nc"
    schools.save(path)
    return path


@pytest.fixture
def loaded(path):
    return load(path)


def test_it_is_public(loaded):
    assert ngvi.load is load
    assert isinstance(loaded, ngvi.LoadedPosterior)


def test_it_looks_the_same(loaded, schools):
    assert repr(loaded) == repr(schools)
    pd.testing.assert_frame_equal(loaded.summary(), schools.summary())
    assert loaded.verdict == schools.verdict
    assert loaded.diagnostics == schools.diagnostics
    assert loaded.name == schools.name
    assert loaded.coordinate_names == schools.coordinate_names


def test_it_has_the_same_moments(loaded, schools):
    for one, other in [
        (loaded.mean, schools.mean),
        (loaded.sd, schools.sd),
        (loaded.quantile([0.1, 0.9]), schools.quantile([0.1, 0.9])),
    ]:
        assert list(one) == list(other)
        for name, value in other.items():
            np.testing.assert_array_equal(one[name], value)


def test_it_has_the_same_history(loaded, schools):
    assert set(loaded.history) == set(schools.history)
    for name, values in schools.history.items():
        np.testing.assert_array_equal(loaded.history[name], values)


def test_no_draw_is_taken_twice(loaded):
    draws = loaded.sample(2048, seed=3)
    stored = loaded.archive().groups["posterior"]
    np.testing.assert_array_equal(
        np.sort(draws["mu"]), np.sort(stored["mu"].to_numpy()[0])
    )
    few = loaded.sample(100, seed=3)
    assert few["theta"].shape == (100, 8)
    # The sites of one draw stay together.
    theta = few["mu"][:, None] + few["tau"][:, None] * few["z"]
    np.testing.assert_allclose(few["theta"], theta)
    np.testing.assert_array_equal(few["mu"], loaded.sample(100, seed=3)["mu"])
    assert (few["mu"] != loaded.sample(100, seed=4)["mu"]).any()


def test_more_draws_than_stored(loaded):
    with pytest.raises(ValueError, match=r"holds 2048 draws; 2049 were asked for"):
        loaded.sample(2049)
    with pytest.raises(ValueError, match="at least 1"):
        loaded.sample(0)


def test_resampling_follows_the_weights(loaded):
    stored = loaded.archive().groups
    log_weight = stored["sample_stats"]["log_weight"].to_numpy()[0]
    weight = np.exp(log_weight - log_weight.max())
    tau = stored["posterior"]["tau"].to_numpy()[0]
    exact = weight @ tau / weight.sum()
    draws = loaded.sample(20_000, resample=True)["tau"]
    # Smoothing shrinks the largest weights a little; unweighted draws are farther off.
    assert abs(draws.mean() - exact) < abs(tau.mean() - exact) / 2


def test_weights_that_are_not_finite(loaded):
    stats = loaded.archive().groups["sample_stats"]
    broken = stats.assign(log_weight=stats["log_weight"] * np.nan)
    archive = loaded.archive()
    groups = archive.groups | {"sample_stats": broken}
    with pytest.raises(ValueError, match="weights are not finite"):
        LoadedPosterior(Archive(groups, archive.record)).sample(9, resample=True)


def test_it_can_be_saved_again(loaded, tmp_path):
    loaded.save(tmp_path / "again.nc")
    again = load(tmp_path / "again.nc").archive()
    assert again.record == loaded.archive().record
    for name, group in loaded.archive().groups.items():
        xr.testing.assert_identical(again.groups[name], group)


def test_it_goes_to_arviz(loaded):
    data = loaded.to_arviz()
    mean = data["posterior"]["mu"].to_numpy().mean()
    np.testing.assert_allclose(mean, loaded.mean["mu"])


def test_sites_keep_their_names(awkward_posterior, awkward_archive, tmp_path):
    awkward_archive.write(tmp_path / "a.nc")
    loaded = load(tmp_path / "a.nc")
    assert repr(loaded) == repr(awkward_posterior)
    assert set(loaded.mean) == set(awkward_posterior.mean) - {"wave"}
    np.testing.assert_array_equal(
        loaded.mean["slope/group"], awkward_posterior.mean["slope/group"]
    )
    np.testing.assert_array_equal(loaded.mean["draw"], awkward_posterior.mean["draw"])


def test_numbers_that_json_does_not_know(loaded):
    archive = loaded.archive()
    diagnostics = archive.record["diagnostics"] | {"khat": "inf", "gap": None}
    diagnostics.pop("rejected_steps")  # as if an older version had written it
    record = archive.record | {"diagnostics": diagnostics}
    read = LoadedPosterior(Archive(archive.groups, record)).diagnostics
    assert read.khat == np.inf
    assert np.isnan(read.gap)
    assert read.rejected_steps is None
    assert read.elbo == loaded.diagnostics.elbo
