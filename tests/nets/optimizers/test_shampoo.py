"""Shampoo against its published updates, written naively."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ngvi.nets.optimizers import shampoo
from tests.nets.optimizers.updates import DIRECTION, GRADIENTS, updates


def power(matrix: np.ndarray, q: float, eps: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors * (values + eps * np.linalg.norm(values)) ** -q @ vectors.T


def test_as_first_published():
    # Gupta, Koren and Singer, algorithm 1: sums, and no momentum.
    settings = {"every": 1, "graft": None, "debias": False, "min_ndim": 1}
    found = updates(shampoo(DIRECTION, 0.0, 1.0, 1e-4, **settings))
    left, right, full = np.zeros((4, 4)), np.zeros((3, 3)), np.zeros((3, 3))
    for t, g in enumerate(GRADIENTS):
        left += g["w"] @ g["w"].T
        right += g["w"].T @ g["w"]
        full += np.outer(g["b"], g["b"])
        expected = power(left, 1 / 4, 1e-4) @ g["w"] @ power(right, 1 / 4, 1e-4)
        np.testing.assert_allclose(found["w"][t], expected, rtol=1e-12)
        # A vector has one axis: full-matrix AdaGrad.
        expected = power(full, 1 / 2, 1e-4) @ g["b"]
        np.testing.assert_allclose(found["b"][t], expected, rtol=1e-12)


@pytest.mark.parametrize("root", ["eigh", "newton"])
def test_averages_stale_roots_and_grafting(root):
    b1, b2, eps, every = 0.8, 0.9, 1e-4, 2
    found = updates(shampoo(0.5, b1, b2, eps, every=every, root=root))
    adam = updates(optax.adam(0.5, b1, b2))
    m, left, right = np.zeros((4, 3)), np.zeros((4, 4)), np.zeros((3, 3))
    for t, g in enumerate([g["w"] for g in GRADIENTS]):
        m = b1 * m + (1 - b1) * g
        left = b2 * left + (1 - b2) * g @ g.T
        right = b2 * right + (1 - b2) * g.T @ g
        if t < every or t % every == 0:
            roots = [power(x / (1 - b2 ** (t + 1)), 1 / 4, eps) for x in (left, right)]
        direction = -roots[0] @ m @ roots[1]
        length = np.linalg.norm(adam["w"][t]) / np.linalg.norm(direction)
        np.testing.assert_allclose(found["w"][t], length * direction, rtol=1e-12)
    np.testing.assert_allclose(found["b"], adam["b"], rtol=1e-12)


def test_single_precision():
    single = jax.tree.map(lambda g: g.astype(np.float32), GRADIENTS)
    settings = {"every": 1, "eps": 1e-2}
    found = updates(shampoo(0.1, **settings), single, single[0])
    expected = updates(shampoo(0.1, **settings))
    assert found["w"].dtype == jnp.float32
    np.testing.assert_allclose(found["w"], expected["w"], atol=1e-6)


def test_half_precision_of_roots_and_momentum():
    half = {"mu_dtype": jnp.bfloat16, "root_dtype": jnp.bfloat16}
    optimizer = shampoo(0.1, every=1, **half)
    state = optimizer.init(GRADIENTS[0])
    kept = optax.tree.get(state, "factors")["w"]
    assert kept.made[0].dtype == jnp.bfloat16 != kept.statistics[0].dtype
    assert state[0].mu["w"].dtype == jnp.bfloat16
    found, expected = (updates(o)["w"] for o in (optimizer, shampoo(0.1, every=1)))
    # The first step's root is that of a singular matrix, whose entries are rounded
    # relative to its norm, 10^(6/4) times that of the part that matters.
    errors = np.linalg.norm(found - expected, axis=(1, 2))
    errors /= np.linalg.norm(expected, axis=(1, 2))
    assert errors[0] < 10**1.5 * 2**-8 and (errors[1:] < 2 * 2**-8).all()


def test_another_graft():
    found = updates(shampoo(0.5, graft=optax.identity()))
    for t, g in enumerate(GRADIENTS):
        length = np.linalg.norm(found["w"][t])
        np.testing.assert_allclose(length, 0.5 * np.linalg.norm(g["w"]), rtol=1e-10)
        np.testing.assert_allclose(found["b"][t], -0.5 * g["b"], rtol=1e-10)


def test_tensors_take_turns():
    gradients = [{"a": g["w"], "b": g["w"]} for g in GRADIENTS]
    optimizer = shampoo(DIRECTION, every=2, stagger=True, graft=None)
    state = optimizer.init(gradients[0])
    renewed = []
    update = jax.jit(optimizer.update)
    for g in gradients:
        before, (_, state) = state, update(g, state)
        new, old = (optax.tree.get(s, "factors") for s in (state, before))
        renewed.append([bool((new[k].made[0] != old[k].made[0]).any()) for k in "ab"])
    # Both at first.
    assert renewed == [[True, True], [True, True], [True, False], [False, True]]


def test_no_gradient_is_no_step():
    zero = [jax.tree.map(jnp.zeros_like, GRADIENTS[0])] * 2
    for graft in ("adam", None):
        for leaf in jax.tree.leaves(updates(shampoo(DIRECTION, graft=graft), zero)):
            np.testing.assert_array_equal(leaf, 0)


def test_invalid_settings():
    for settings, message in (
        ({"b1": 1}, "b1 must be at least 0 and below 1, got 1"),
        ({"b2": 2}, "b2 must be from 0 to 1, got 2"),
        ({"b2": 1.0}, "graft='adam' needs b2 below 1"),
        ({"root": "newton", "exponent": 0.3}, "got exponent=0.3: take root='eigh'"),
        ({"root": "qr"}, "root must be 'eigh' or 'newton', got 'qr'"),
    ):
        with pytest.raises(ValueError, match=message):
            shampoo(0.1, **settings)
