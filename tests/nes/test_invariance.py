"""What a search must not notice: monotone changes of f, affine changes of x."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.families import Gaussian
from ngvi.linalg import Dense
from ngvi.nes.search import init
from ngvi.nes.strategies import Strategy, cma, cr_fm_nes, pgpe, snes, xnes
from tests.nes.runs import keys, run

DIM, SEEDS, GENERATIONS = 3, 1000, 30


def transformed(x: jax.Array, data: dict[str, jax.Array]) -> jax.Array:
    """A quartic bowl of T⁻¹(x − t), to a power."""
    y = data["inverse"] @ (x - data["shift"])
    value = (y**2 * jnp.asarray([1.0, 5.0, 25.0])).sum() + 0.1 * (y[0] - y[1]) ** 4
    return value ** data["power"]


PLAIN = {
    "inverse": jnp.eye(DIM),
    "shift": jnp.zeros(DIM),
    "power": jnp.asarray(1.0),
}
STRATEGIES = {
    "xnes": xnes(DIM),
    "snes": snes(DIM),
    "cma": cma(DIM),
    "xnes-as": xnes(DIM, adaptive=True),
    "lra-cma": cma(DIM, adaptive=True),
    "pgpe": pgpe(DIM),
    "cr-fm-nes": cr_fm_nes(DIM),
}


def means(strategy: Strategy, q: Gaussian, data: dict[str, jax.Array]) -> np.ndarray:
    """The means of 1,000 searches, seeds × generations × D, from one program."""
    state = replace(init(strategy, q.mean, 1.0), q=q)
    return np.asarray(
        run(strategy, transformed, state, keys(SEEDS), data, GENERATIONS)[1].mean
    )


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_searches_do_not_notice_a_change_of_units(name: str) -> None:
    strategy = STRATEGIES[name]
    rng = np.random.default_rng(0)
    dense = strategy.structure is Dense
    root = rng.standard_normal((DIM, DIM)) if dense else np.diag([2.0, 0.5, 1.0])
    change = rng.standard_normal((DIM, DIM)) if dense else np.diag([1e3, 1e-2, 1.0])
    mean, shift = rng.standard_normal(DIM), np.array([10.0, -3.0, 0.5])

    def gaussian(mean: np.ndarray, root: np.ndarray) -> Gaussian:
        if dense:
            inverse = np.linalg.inv(root).T
            return Gaussian(
                jnp.asarray(mean), Dense(jnp.asarray(inverse), jnp.asarray(root))
            )
        sd = jnp.asarray(np.diag(root))
        return Gaussian(jnp.asarray(mean), strategy.structure.from_deviations(sd))

    plain = means(strategy, gaussian(mean, root), PLAIN)

    # Of the values only the order counts: not a digit of any iterate changes.
    monotone = means(
        strategy, gaussian(mean, root), PLAIN | {"power": jnp.asarray(2.0)}
    )
    np.testing.assert_array_equal(plain, monotone)

    data = {
        "inverse": jnp.asarray(np.linalg.inv(change)),
        "shift": jnp.asarray(shift),
        "power": jnp.asarray(0.5),
    }
    moved = means(strategy, gaussian(change @ mean + shift, change @ root), data)
    back = (moved - shift) @ np.linalg.inv(change).T
    np.testing.assert_allclose(back, plain, atol=1e-8)

    # It was a search, and every seed another one.
    assert np.abs(plain[:, -1]).mean() < np.abs(mean).mean() / 2
    assert len(np.unique(plain[:, -1, 0])) == SEEDS
