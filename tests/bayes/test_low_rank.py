"""Fits with a low-rank precision: what they reach, what they say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ngvi
from ngvi.mirror.loop import Settings

RNG = np.random.default_rng(0)
DIM, ROWS = 40, 400
X = RNG.standard_normal((ROWS, 3)) @ RNG.standard_normal((3, DIM))
X = jnp.asarray((X + RNG.standard_normal((ROWS, DIM))) / 2)
Y = jnp.asarray(RNG.uniform(size=ROWS) < 1 / (1 + np.exp(-X[:, 0])), float)


def log_density(b: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    logits = x @ b
    return (y * logits - jnp.logaddexp(0, logits)).sum() - b @ b / 2


def fit(covariance: str, **options: Any) -> ngvi.Posterior:
    start = jnp.zeros(DIM)
    chosen = {"covariance": covariance, **options}
    return ngvi.fit(log_density, X, Y, init=start, progress=False, **chosen)


@pytest.fixture(scope="module")
def bounds() -> dict[str, float]:
    return {name: fit(name).record.diagnostics.elbo for name in ("full", "diagonal")}


def test_few_directions_recover_most(bounds: dict[str, float]) -> None:
    posterior = fit("low-rank", rank=3)
    gap = bounds["full"] - bounds["diagonal"]
    gained = posterior.record.diagnostics.elbo - bounds["diagonal"]
    assert gap > 15
    assert gained > 0.9 * gap
    assert posterior.record.diagnostics.converged
    assert "a diagonal and 3 directions" in str(posterior.structure)


def test_at_full_rank_it_is_the_full_one(bounds: dict[str, float]) -> None:
    posterior = fit("low-rank", rank=DIM)
    assert posterior.record.diagnostics.elbo == bounds["full"]
    assert f"{DIM} directions are all there are" in str(posterior.structure)


def test_the_rank_grows_while_that_gains(
    bounds: dict[str, float], tmp_path: Path
) -> None:
    posterior = fit("low-rank")
    assert posterior.record.diagnostics.elbo > bounds["full"] - 2
    assert "twice the rank of 8 gained" in str(posterior.structure)
    assert posterior.gaussian.precision.rank == 16
    posterior.save(tmp_path / "run.nc")
    loaded = ngvi.load(tmp_path / "run.nc")
    again = ngvi.fit(
        lambda b, x: -((x @ b) ** 2).sum() / 2,
        X[:5],
        init=jnp.zeros(DIM),
        prior=loaded,
        progress=False,
    )
    assert again.record.diagnostics.converged


def test_no_rank_is_tried_beyond_the_last_iteration() -> None:
    posterior = fit("low-rank", settings=Settings(max_iterations=5))
    assert posterior.diagnostics.iterations == 5
    assert "iterations allowed were used up" in posterior.diagnostics.stop_reason
    assert np.isfinite(posterior.diagnostics.fisher_length)
    assert posterior.diagnostics.fisher_length > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"covariance": "low-rank", "rank": 41}, "from 1 to the 40 dimensions .* 41"),
        ({"covariance": "low-rank", "rank": 0}, "from 1 to the 40 dimensions .* 0"),
        ({"covariance": "full", "rank": 4}, "rank=4 is for covariance='low-rank'"),
        ({"covariance": "low rank"}, "'low-rank' or 'diagonal', not 'low rank'"),
    ],
)
def test_a_rank_that_is_none(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(**options)
