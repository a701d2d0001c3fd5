"""SVRG against its published update, and its purpose."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ngvi.nets.optimizers import svrg

RNG = np.random.default_rng(0)
N, P = 20, 3
X = jnp.asarray(RNG.normal(size=(N, P)))
Y = jnp.asarray(RNG.normal(size=N))
ROWS = jnp.asarray(RNG.integers(0, N, size=(400, 2)))
SOLUTION = np.linalg.lstsq(X, Y)[0]


def loss(w, rows=slice(None)):
    return ((X[rows] @ w - Y[rows]) ** 2).mean() / 2


def run(optimizer, batches):
    """The weights after each step."""
    optimizer = optax.with_extra_args_support(optimizer)

    def step(carry, rows):
        w, state = carry

        def of_batch(w):
            return loss(w, rows)

        updates, state = optimizer.update(
            jax.grad(of_batch)(w), state, w, obj_fn=of_batch, full_fn=loss
        )
        w = optax.apply_updates(w, updates)
        return (w, state), w

    start = jnp.zeros(P)
    begin = start, optimizer.init(start)
    return np.asarray(jax.jit(lambda b: jax.lax.scan(step, begin, b)[1])(batches))


def gradient(w, rows=slice(None)):
    x = np.asarray(X)[rows]
    return x.T @ (x @ w - np.asarray(Y)[rows]) / len(x)


def test_as_published():
    def schedule(count):
        return 1 - 0.5 * count / 7

    found = run(optax.chain(svrg(3, schedule), optax.sgd(0.1)), ROWS[:7])
    w = anchor = np.zeros(P)
    for t, rows in enumerate(np.asarray(ROWS[:7])):
        if t % 3 == 0:
            anchor, full = w, gradient(w)
        c = 1 - 0.5 * t / 7
        w = w - 0.1 * (gradient(w, rows) - c * (gradient(anchor, rows) - full))
        np.testing.assert_allclose(found[t], w, rtol=1e-12)


def test_a_constant_step_converges():
    # Where plain gradient descent in batches stays at the variance of its gradients.
    distances = [
        np.linalg.norm(run(optimizer, ROWS)[-1] - SOLUTION)
        for optimizer in (optax.sgd(0.1), optax.chain(svrg(20), optax.sgd(0.1)))
    ]
    assert distances[1] < 1e-6 and distances[0] > 1e-2


def test_what_is_missing_is_named():
    optimizer = svrg(2)
    with pytest.raises(ValueError, match="needs the parameters and two losses"):
        optimizer.update(jnp.zeros(P), optimizer.init(jnp.zeros(P)), jnp.zeros(P))
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        svrg(0)
