"""Negative powers of matrices, against eigenvalues by NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.nets.optimizers.inverse_roots import inverse_power

RNG = np.random.default_rng(0)
D = 6
compiled = jax.jit(inverse_power, static_argnums=(1, 3))


def matrices(condition: float) -> np.ndarray:
    bases = np.linalg.qr(RNG.normal(size=(2, D, D)))[0]
    values = np.geomspace(1, 1 / condition, D)
    return bases * values @ bases.mT


def expected(matrix: np.ndarray, power: float, epsilon: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors * (values + epsilon * np.linalg.norm(values)) ** -power @ vectors.T


@pytest.mark.parametrize("power", [1.0, 1 / 2, 1 / 4, 1 / 6])
@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_both_methods_in_double_precision(method, power):
    a = matrices(1e4)
    found = compiled(a, power, 1e-6, method)
    for matrix, one in zip(a, found, strict=True):
        right = expected(matrix, power, 1e-6)
        np.testing.assert_allclose(one, right, atol=1e-9 * np.abs(right).max())


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_both_methods_in_single_precision(method):
    # Relative to the greatest entry: the ridge alone leaves a condition of 1e6.
    a = matrices(1e8)
    found = compiled(jnp.asarray(a, jnp.float32), 1 / 4, 1e-6, method)
    for matrix, one in zip(a, found, strict=True):
        right = expected(matrix, 1 / 4, 1e-6)
        np.testing.assert_allclose(one, right, atol=0.05 * np.abs(right).max())
        assert one.dtype == jnp.float32


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_scale_and_zero(method):
    a = matrices(10.0)
    one, scaled = (compiled(c * a, 1 / 4, 1e-6, method) for c in (1.0, 1e-8))
    np.testing.assert_allclose(scaled, 100 * one, rtol=1e-8, atol=1e-8)
    assert np.isfinite(compiled(np.zeros((1, D, D)), 1 / 4, 1e-6, method)).all()
