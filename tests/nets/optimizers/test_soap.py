"""SOAP against its published updates, written naively."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ngvi.nets.optimizers import soap
from tests.nets.optimizers.updates import DIRECTION, GRADIENTS, updates


def naive(gradients, b1, b2, eps, every):
    """Of one matrix, as in the paper's algorithm 3; without a learning rate."""
    m, v = np.zeros_like(gradients[0]), np.zeros_like(gradients[0])
    first = gradients[0]
    left, right = (1 - b2) * first @ first.T, (1 - b2) * first.T @ first
    q, r = (np.linalg.eigh(x)[1][:, ::-1] for x in (left, right))
    steps = [np.zeros_like(first)]
    for t, g in enumerate(gradients[1:], start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * (q.T @ g @ r) ** 2
        above, below = q.T @ m @ r / (1 - b1**t), np.sqrt(v / (1 - b2**t)) + eps
        steps.append(q @ (above / below) @ r.T)
        left = b2 * left + (1 - b2) * g @ g.T
        right = b2 * right + (1 - b2) * g.T @ g
        if t % every == 0:
            order = np.argsort(-np.diag(q.T @ left @ q))
            q, v = np.linalg.qr(left @ q[:, order])[0], v[order]
            order = np.argsort(-np.diag(r.T @ right @ r))
            r, v = np.linalg.qr(right @ r[:, order])[0], v[:, order]
    return np.stack(steps)


@pytest.mark.parametrize("every", [1, 2])
def test_as_published(every):
    b1, b2, eps = 0.8, 0.9, 1e-3
    found = updates(soap(DIRECTION, b1, b2, eps, every=every))
    expected = naive([g["w"] for g in GRADIENTS], b1, b2, eps, every)
    np.testing.assert_allclose(found["w"], expected, rtol=1e-12, atol=1e-12)


def test_in_single_precision():
    single = jax.tree.map(lambda g: g.astype(np.float32), GRADIENTS)
    found = updates(soap(DIRECTION, 0.8, 0.9, 0.1, every=2), single, single[0])["w"]
    expected = naive([g["w"] for g in GRADIENTS], 0.8, 0.9, 0.1, 2)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_half_precision_of_bases_and_momentum():
    half = {"mu_dtype": jnp.bfloat16, "basis_dtype": jnp.bfloat16}
    optimizer = soap(DIRECTION, 0.8, 0.9, 0.1, every=2, **half)
    state = optimizer.init(GRADIENTS[0])
    assert optax.tree.get(state, "bases")["w"].made[0].dtype == jnp.bfloat16
    found = updates(optimizer)["w"]
    expected = naive([g["w"] for g in GRADIENTS], 0.8, 0.9, 0.1, 2)
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


def test_without_bases_it_is_adam_a_step_later():
    found = updates(soap(0.1, 0.9, 0.999, min_ndim=3))
    adam = updates(optax.adam(0.1, 0.9, 0.999), GRADIENTS[1:])
    for name, steps in found.items():
        np.testing.assert_array_equal(steps[0], 0)
        np.testing.assert_allclose(steps[1:], adam[name], rtol=1e-12)


def test_power_iteration_finds_the_eigenvectors():
    # Gradients of one covariance: the basis of the sums is that of the covariance.
    rng = np.random.default_rng(1)
    scales = np.array([4.0, 2.0, 1.0])
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    gradients = [turn @ (scales[:, None] * rng.normal(size=(3, 50))) for _ in range(60)]
    optimizer = soap(DIRECTION, basis_decay=0.99, every=1)
    state = optimizer.init(gradients[0])
    update = jax.jit(optimizer.update)
    for g in gradients:
        _, state = update(g, state)
    vectors = optax.tree.get(state, "bases").made[0][0]
    np.testing.assert_allclose(np.abs(vectors.T @ turn), np.eye(3), atol=0.1)
