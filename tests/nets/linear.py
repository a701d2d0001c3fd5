"""Linear regression, whose posteriors are known: a layer of one output, with a bias."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.fisher.likelihoods.normal import Gaussian
from ngvi.nets import Algorithm, State
from ngvi.nets.train import run_epochs
from tests.programs import compiled

RNG = np.random.default_rng(3)
DATA_SIZE, DIM = 12, 4
X = jnp.asarray(RNG.standard_normal((DATA_SIZE, 3)) @ RNG.standard_normal((3, 3)))
Y = jnp.asarray(RNG.standard_normal((DATA_SIZE, 1)))
WITH_ONE = np.column_stack([X, np.ones(DATA_SIZE)])
PARAMS = {"w": jnp.ones((3, 1)), "b": jnp.ones(1)}
SD, DELTA = 0.5, 1.5
LIKELIHOOD = Gaussian(SD)


def apply(p: Any, x: jax.Array) -> jax.Array:
    return x @ p["w"] + p["b"]


def exact(
    noise_precision: float = SD**-2, delta: float = DELTA, kl_weight: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and precision of the posterior."""
    s = noise_precision / kl_weight * WITH_ONE.T @ WITH_ONE + delta * np.eye(DIM)
    pull = noise_precision / kl_weight * WITH_ONE.T @ np.asarray(Y)[:, 0]
    return np.linalg.solve(s, pull), s


def converged(algorithm: Algorithm, steps: int, x: Any = X, y: Any = Y) -> State:
    """After so many steps with all data."""

    def run(params: Any, x: Any, y: Any) -> State:
        state, key = algorithm.init(params, (x, y)), jax.random.key(0)
        options = {"epochs": steps, "batch_size": len(x)}
        return run_epochs(algorithm.rule, state, x, y, key, **options)[0]

    return compiled(run)(PARAMS, x, y)
