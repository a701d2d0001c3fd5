"""Executors of other libraries: dask's clients, and Ray's pools."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ngvi
from ngvi.executors import PoolExecutor

MEAN = np.array([1.0, -2.0])


def log_density(z: np.ndarray) -> float:
    return float(-((z - MEAN) ** 2).sum() / 2)


def loss(x: np.ndarray) -> float:
    return -log_density(x)


@pytest.fixture(params=["dask", "ray"])
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Of two processes."""
    if request.param == "dask":
        distributed = pytest.importorskip("distributed")
        options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
        with (
            distributed.LocalCluster(**options) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
    else:
        ray = pytest.importorskip("ray")
        from ray.util.multiprocessing import Pool

        ray.init(num_cpus=2, include_dashboard=False)
        try:
            yield PoolExecutor(Pool(2))
        finally:
            ray.shutdown()


def test_searches_and_fits_on_a_cluster(executor: Any) -> None:
    found = ngvi.minimize(loss, np.zeros(2), ftarget=1e-6, executor=executor, seed=0)
    alone = ngvi.minimize(loss, np.zeros(2), ftarget=1e-6, vectorized=False, seed=0)
    np.testing.assert_array_equal(found.x, alone.x)
    options: Any = {"init": np.zeros(2), "gradients": False}
    fitted = ngvi.fit(log_density, executor=executor, timeout=60, **options)
    same = ngvi.fit(log_density, **options)
    np.testing.assert_array_equal(fitted.gaussian.mean, same.gaussian.mean)
