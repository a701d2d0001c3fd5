"""Named scalar quantities, and the choice of those that are shown."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from ngvi.names import scalar_names
from ngvi.report.scalars import (
    draws_of,
    finite,
    most_correlated,
    numeric_sites,
    scalars,
    site_sizes,
)


def test_names_and_draws_belong_together(make_dataset):
    x = np.arange(24.0).reshape(4, 2, 3)
    dataset = make_dataset(mu=np.arange(4.0), x=x)
    found = dict(scalars(dataset, ["mu", "x"]))
    assert list(found) == ["mu", *scalar_names("x", (2, 3))]
    np.testing.assert_array_equal(found["x[1,2]"], x[:, 1, 2])
    assert site_sizes(dataset, ["mu", "x"]) == {"mu": 1, "x": 6}


def test_chains_are_joined_and_dimensions_may_be_in_any_order():
    values = np.arange(24.0).reshape(2, 3, 4)
    array = xr.DataArray(values, dims=("chain", "draw", "k"))
    expected = values.reshape(6, 4)
    np.testing.assert_array_equal(draws_of(array), expected)
    np.testing.assert_array_equal(
        draws_of(array.transpose("k", "draw", "chain")), expected
    )


def test_words_are_no_numbers(make_dataset):
    dataset = make_dataset(mu=np.zeros(3), label=np.array(["a", "b", "c"]))
    assert numeric_sites(dataset) == ["mu"]
    with pytest.raises(TypeError, match="label"):
        draws_of(dataset["label"])


def test_most_correlated_skips_constants_and_copies(make_dataset):
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 8))
    x[:, 7] = 0.9 * x[:, 2] + 0.3 * x[:, 7]
    x[:, 1] = x[:, 0]
    x[:, 3] = 2.0
    x[0, 5] = np.nan
    chosen, best = most_correlated(make_dataset(x=x), ["x"])
    assert best[:2] == ("x[2]", "x[7]")
    assert best[2] == pytest.approx(np.corrcoef(x[:, 2], x[:, 7])[0, 1])
    assert len(chosen) == 4
    assert not {"x[3]", "x[5]"} & set(chosen)


def test_nothing_to_correlate(make_dataset):
    dataset = make_dataset(mu=np.arange(5.0), c=np.ones(5))
    assert most_correlated(dataset, ["mu", "c"]) == ({}, None)


def test_finite_keeps_what_can_be_drawn():
    values = [1.0, np.nan, np.inf, -np.inf, 1e200, 5e-324, -2.0]
    np.testing.assert_array_equal(finite(values), [1.0, 0.0, -2.0])
