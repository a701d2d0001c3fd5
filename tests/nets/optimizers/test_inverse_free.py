"""Inverse-free Shampoo against its published update, written naively."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ngvi.nets.optimizers import inverse_free_shampoo
from tests.nets.optimizers.updates import DIRECTION, GRADIENTS, RNG, updates

directions = partial(inverse_free_shampoo, DIRECTION, momentum=0.0)
PROJECTIONS = {
    "dense": lambda n: n,
    "diagonal": lambda n: np.diag(np.diag(n)),
    "triangular": lambda n: np.tril(n) + np.tril(n, -1),
}


def naive(gradients, project, rate, decay, damping, batch_size, start):
    """Of one matrix: ½ (B H Hᵀ/d₂ + λ ‖K₂‖² K₁ᵀK₁/d₂ − I) and its mirror image."""
    d, e = gradients[0].shape
    k, c = start * np.eye(d), start * np.eye(e)
    mk, mc = np.zeros((d, d)), np.zeros((e, e))
    steps = []
    for g in gradients:
        h = k.T @ g @ c
        nk = batch_size * h @ h.T / e + damping * np.trace(c.T @ c) / e * k.T @ k
        nc = batch_size * h.T @ h / d + damping * np.trace(k.T @ k) / d * c.T @ c
        mk = decay * mk + (1 - decay) * project((nk - np.eye(d)) / 2)
        mc = decay * mc + (1 - decay) * project((nc - np.eye(e)) / 2)
        k = k @ (np.eye(d) - rate * mk / max(1, np.linalg.norm(mk)))
        c = c @ (np.eye(e) - rate * mc / max(1, np.linalg.norm(mc)))
        steps.append(k @ k.T @ g @ c @ c.T)
    return np.stack(steps)


@pytest.mark.parametrize("structure", PROJECTIONS)
def test_as_published(structure):
    settings = {"rate": 0.3, "decay": 0.4, "damping": 0.2, "batch_size": 3}
    found = updates(directions(**settings, structure=structure, initial_scale=0.8))
    expected = naive(
        [g["w"] for g in GRADIENTS], PROJECTIONS[structure], **settings, start=0.8
    )
    np.testing.assert_allclose(found["w"], expected, rtol=1e-12)


def test_it_starts_with_a_white_gradient():
    found = updates(directions(batch_size=3))
    for name, k in (("w", 2), ("b", 1)):
        start = (3 * (GRADIENTS[0][name] ** 2).mean() + 1e-3) ** (-1 / (2 * k))
        fixed = updates(directions(batch_size=3, initial_scale=start))
        np.testing.assert_allclose(found[name], fixed[name], rtol=1e-12)


@pytest.mark.parametrize("structure", ["triangular", "hierarchical"])
def test_structures_are_kept(structure):
    gradients = [RNG.normal(size=(6, 5)) for _ in range(3)]
    optimizer = directions(structure=structure, rank=2)
    state = optimizer.init(gradients[0])
    update = jax.jit(optimizer.update)
    for g in gradients:
        _, state = update(g, state)
    root = optax.tree.get(state, "factors").roots[0][0]
    pattern = np.asarray(root != 0).astype(int)
    expected = {
        "triangular": np.tril(np.ones((6, 6))),
        "hierarchical": [
            [1, 1, 1, 1, 1, 1],
            [1, 1, 1, 1, 1, 1],
            [0, 0, 1, 0, 0, 0],
            [0, 0, 0, 1, 0, 0],
            [0, 0, 1, 1, 1, 1],
            [0, 0, 1, 1, 1, 1],
        ],
    }
    np.testing.assert_array_equal(pattern, expected[structure])


@pytest.mark.parametrize("structure", ["dense", "hierarchical"])
def test_gradients_become_white(structure):
    # Of covariance A ⊗ B with A and B far from I.
    rng = np.random.default_rng(1)
    left, right = (
        np.linalg.qr(rng.normal(size=(d, d)))[0] * np.geomspace(0.3, 3, d)
        for d in (4, 3)
    )
    gradients = jnp.asarray(left @ rng.normal(size=(1500, 4, 3)) @ right.T)
    optimizer = directions(0.02, 0.9, 0.0, structure=structure, rank=2)

    def step(state, gradient):
        return optimizer.update(gradient, state)[1], None

    begun = optimizer.init(gradients[0])
    state = jax.jit(lambda s, g: jax.lax.scan(step, s, g)[0])(begun, gradients)
    k, c = (root[0] for root in optax.tree.get(state, "factors").roots)
    cover = np.kron(k.T @ left @ left.T @ k, c.T @ right @ right.T @ c)
    np.testing.assert_allclose(cover, np.eye(12), atol=0.3)


def test_single_and_half_precision():
    expected = updates(inverse_free_shampoo(0.1))["w"]
    single = jax.tree.map(np.float32, GRADIENTS)
    found = updates(inverse_free_shampoo(0.1), single, single[0])["w"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-6 * scale)
    half = inverse_free_shampoo(0.1, factor_dtype=jnp.bfloat16)
    found = updates(half, single, single[0])["w"]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=0.03 * scale)


def test_a_number_keeps_its_gradient():
    found = updates(
        inverse_free_shampoo(0.1, momentum=0.0), [jnp.asarray(2.0)], jnp.asarray(0.0)
    )
    np.testing.assert_allclose(found, [-0.2], rtol=1e-12)


def test_invalid_settings():
    with pytest.raises(ValueError, match="or 'hierarchical', got 'banded'"):
        inverse_free_shampoo(0.1, structure="banded")
