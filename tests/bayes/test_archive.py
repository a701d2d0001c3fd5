"""Files and ArviZ: what goes in comes out, and what cannot be done is said."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ngvi.bayes import archive as module
from ngvi.bayes.archive import Archive, check_writable, plain

MODERN = int(version("arviz").split(".")[0]) >= 1


@pytest.fixture
def full(schools_archive):
    return schools_archive


def small() -> Archive:
    """An archive without a fit."""
    posterior = xr.Dataset({"mu": (("chain", "draw"), np.arange(6.0)[None])})
    record = {
        "format": module.FORMAT,
        "model": "m",
        "ngvi": "0.1.0",
        "verdict": {"level": "means only", "reasons": [], "advice": []},
        "diagnostics": {"elbo": None, "khat": "inf"},
    }
    return Archive({"posterior": posterior}, record)


def test_a_file_holds_all_of_the_archive(full, tmp_path):
    path = tmp_path / "new" / "folder" / "schools.nc"
    full.write(path)
    read = Archive.read(path)
    assert list(read.groups) == list(full.groups)
    for name, group in full.groups.items():
        xr.testing.assert_identical(read.groups[name], group)
        assert list(read.groups[name].data_vars) == list(group.data_vars)
    assert read.record == full.record
    assert os.listdir(path.parent) == ["schools.nc"]


def test_awkward_names_and_types_survive_a_file(awkward_archive, tmp_path):
    awkward_archive.write(tmp_path / "a.nc")
    for name, group in Archive.read(tmp_path / "a.nc").groups.items():
        xr.testing.assert_identical(group, awkward_archive.groups[name])


def test_arviz_opens_the_file(full, tmp_path):
    import arviz as az

    full.write(tmp_path / "a.nc")
    data = az.from_netcdf(tmp_path / "a.nc")
    assert json.loads(data.attrs["ngvi_record"]) == full.record
    np.testing.assert_array_equal(
        data["posterior"]["tau"], full.groups["posterior"]["tau"]
    )


@pytest.mark.filterwarnings("ignore")
def test_arviz_takes_the_groups(full, schools):
    import arviz as az
    import matplotlib

    matplotlib.use("agg")
    data = full.to_arviz()
    assert type(data).__name__ == ("DataTree" if MODERN else "InferenceData")
    assert data.attrs["verdict"] == schools.verdict.level
    assert set(data.children if MODERN else data.groups()) == set(full.groups)

    table = az.summary(data, var_names=["mu", "theta"])
    expected = [schools.mean["mu"], *schools.mean["theta"]]
    means = table["mean"].astype(float)
    assert np.abs(means - expected).max() < 0.06  # printed to two digits
    elpd = az.loo(data)
    assert -34 < float(elpd.elpd if MODERN else elpd.elpd_loo) < -30
    plot = {"backend": "matplotlib"} if MODERN else {}
    az.plot_trace(data, var_names=["mu", "tau"], **plot)


def test_arviz_gets_copies(full):
    data = full.to_arviz()
    data["posterior"].attrs["mine"] = "yes"
    assert "mine" not in full.groups["posterior"].attrs


def test_plain_values_are_strict_json():
    value = {
        "a": math.nan,
        1: [math.inf, -math.inf, np.float32(2)],
        "c": np.array([[1, 2]]),
        "d": (True, None, "x"),
        "e": Path("p"),
    }
    text = json.dumps(plain(value), allow_nan=False)
    assert json.loads(text) == {
        "a": None,
        "1": ["inf", "-inf", 2.0],
        "c": [[1, 2]],
        "d": [True, None, "x"],
        "e": "p",
    }


def test_numbers_that_are_none_do_not_stop_a_file(tmp_path):
    small().write(tmp_path / "a.nc")
    assert Archive.read(tmp_path / "a.nc").record == small().record


def test_a_long_record_fits_in_a_file(tmp_path):
    archive = small()
    archive.record["summary"] = {"index": [f"theta[{i}]" for i in range(50_000)]}
    archive.write(tmp_path / "a.nc")
    assert Archive.read(tmp_path / "a.nc").record == archive.record


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError, match=f"{tmp_path}.*it is a folder"):
        small().write(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "a.nc"
    with pytest.raises(OSError, match=f"Cannot write {path}"):
        small().write(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="Cannot write"):
        check_writable(tmp_path / "a.nc")


def test_a_bad_path_is_refused_before_the_work(
    density_posterior, tmp_path, monkeypatch
):
    def archive(*args, **kwargs):
        raise AssertionError("the work was done first")

    monkeypatch.setattr(type(density_posterior), "archive", archive)
    with pytest.raises(OSError, match="Cannot write"):
        density_posterior.save(tmp_path)


def test_a_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.nc"
    path.write_text("the old one")
    original = xr.Dataset.to_netcdf

    def full_disk(self, *args, **kwargs):
        if kwargs.get("group"):
            raise OSError(28, "No space left on device")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full_disk)
    with pytest.raises(OSError, match=f"Cannot write {path}: No space left"):
        small().write(path)
    assert path.read_text() == "the old one"
    assert os.listdir(tmp_path) == ["a.nc"]


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.nc"):
        Archive.read(tmp_path / "no.nc")


def test_not_netcdf(tmp_path):
    path = tmp_path / "a.nc"
    path.write_text("mean,sd\n1,2\n")
    with pytest.raises(ValueError, match=f"{path} is not a netCDF file"):
        Archive.read(path)


def test_a_netcdf_file_of_something_else(tmp_path):
    path = tmp_path / "a.nc"
    xr.Dataset({"x": ("t", [1.0])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match="not a posterior of ngvi"):
        Archive.read(path)


def test_a_file_from_the_future(tmp_path):
    archive = small()
    newer = replace(archive, record={**archive.record, "format": 99, "ngvi": "7.0"})
    newer.write(tmp_path / "a.nc")
    with pytest.raises(ValueError, match=r"written by ngvi 7\.0.*update ngvi"):
        Archive.read(tmp_path / "a.nc")
