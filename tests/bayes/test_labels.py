"""Names of axes and variables that any netCDF file can hold."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.bayes.labels import dataset, portable, site_name, storable


def test_unnamed_axes_are_numbered():
    labelled = dataset({"x": np.zeros((2, 3))}, {"x": (None, "row")})
    assert labelled["x"].dims == ("x_dim_0", "row")
    assert list(labelled["row"].to_numpy()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("arrays", "axes", "dims"),
    [
        ({"x": (3, 3)}, {"x": ("a", "a")}, ("a", "x_dim_1")),
        ({"x": (3,)}, {"x": ("x",)}, ("x_dim_0",)),
        ({"y": (2,), "x": (3,)}, {"y": ("a",), "x": ("a",)}, ("x_dim_0",)),
        ({"x": (3,)}, {"x": ("deep/plate",)}, ("deep.plate",)),
        ({"x": (3,)}, {"x": ("draw",)}, ("x_dim_0",)),
    ],
    ids=["twice", "as the site", "two lengths", "slash", "reserved"],
)
def test_names_that_cannot_be_kept(arrays, axes, dims):
    leading = {"chain": np.arange(1), "draw": np.arange(4)}
    values = {name: np.zeros((1, 4, *shape)) for name, shape in arrays.items()}
    labelled = dataset(values, axes, leading)
    assert labelled["x"].dims == ("chain", "draw", *dims)


def test_site_names_come_back():
    labelled = dataset({"a/b": np.zeros(2), "a.b": np.ones(2), "draw": np.ones(2)}, {})
    assert len(labelled) == 3
    assert [site_name(v) for v in labelled.values()] == ["a/b", "a.b", "draw"]


def test_portable_names_are_new():
    assert portable("a/b") == "a.b"
    assert portable("a/b", ["a.b"]) == "a.b_"
    assert portable("chain") == "chain_"


def test_what_a_file_can_hold():
    assert storable(jnp.ones(2, jnp.bfloat16)).dtype == np.float32
    assert storable(np.ones(2, np.float16)).dtype == np.float32
    assert storable(np.ones(2, bool)).dtype == bool
    assert storable(np.ones(2, complex)) is None
    assert storable(jax.random.key(0)) is None
    assert storable(np.array(["a"])) is None
