"""Black-box log densities on executors: the answer of a call after the other."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ngvi
from ngvi.executors import Workers

MEAN = np.array([1.0, -2.0])


def log_density(z: np.ndarray, scale: float = 1.0) -> float:
    return float(-((z - MEAN) ** 2).sum() / (2 * scale**2))


def mortal(z: np.ndarray, mark: str) -> float:
    """Kills its process, once in all."""
    path = Path(mark)
    if z[0] > 1.2 and not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return log_density(z)


def hanging(z: np.ndarray, mark: str) -> float:
    """Sleeps, once in all."""
    path = Path(mark)
    if z[0] > 1.2 and not path.exists():
        path.touch()
        time.sleep(600)
    return log_density(z)


def fit(function: Any = log_density, *args: Any, **options: Any) -> ngvi.Posterior:
    return ngvi.fit(function, *args, init=np.zeros(2), gradients=False, **options)


def test_threads_give_the_same_answer() -> None:
    alone = fit(scale=2.0)
    with ThreadPoolExecutor(4) as pool:
        beside = fit(scale=2.0, executor=pool)
        assert beside.verdict.level == "trustworthy"
    np.testing.assert_array_equal(beside.gaussian.mean, alone.gaussian.mean)
    np.testing.assert_allclose(beside.gaussian.mean, MEAN, atol=1e-3)


def test_workers_that_die_or_hang_are_replaced(tmp_path: Path) -> None:
    with Workers(2) as workers:
        lost = fit(mortal, str(tmp_path / "died"), executor=workers)
        np.testing.assert_allclose(lost.gaussian.mean, MEAN, atol=1e-3)
        with pytest.warns(UserWarning, match="1 evaluations failed, the first by Time"):
            hung = fit(hanging, str(tmp_path / "hung"), executor=workers, timeout=2.0)
        np.testing.assert_allclose(hung.gaussian.mean, MEAN, atol=1e-2)


def test_an_executor_is_for_functions_on_the_host() -> None:
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(ValueError, match="gradients=False"),
    ):
        ngvi.fit(lambda z: -(z**2).sum(), init=np.zeros(2), executor=pool)
