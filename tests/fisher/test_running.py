"""Averages over batches, and factorisations that are kept for a while."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.fisher import Curvature, RunningCurvature, Stale, fisher

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((4, 6, 3)))
PARAMS = [jnp.asarray(RNG.standard_normal(shape)) for shape in [(3, 4), (4, 2)]]


def net(p: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ p[0]) @ p[1]


def curvature(i: int, structure: Any = "dense", **options: Any) -> Curvature:
    chosen = {"likelihood": "categorical", "structure": structure, **options}
    return fisher(net, PARAMS, X[i], **chosen)


def test_the_mean_over_batches_is_that_over_all_examples() -> None:
    running = RunningCurvature.begin(curvature(0), decay=1)
    for i in range(1, 4):
        running = running.update(curvature(i))
    whole = fisher(net, PARAMS, X.reshape(24, 3), likelihood="categorical")
    np.testing.assert_allclose(running.curvature.dense(), whole.dense(), atol=1e-14)


def test_the_exponential_average_has_no_bias() -> None:
    # Weights β^(t−i) over their sum.
    beta, matrices = 0.7, [np.asarray(curvature(i).dense()) for i in range(4)]
    running = RunningCurvature.begin(curvature(0), beta)
    update = jax.jit(lambda running, new: running.update(new))
    for i in range(1, 4):
        running = update(running, curvature(i))
    weights = beta ** np.arange(3, -1, -1.0)
    expected = np.tensordot(weights / weights.sum(), matrices, 1)
    np.testing.assert_allclose(running.curvature.dense(), expected, atol=1e-14)


def test_kronecker_factors_are_averaged_each() -> None:
    # Which is not the average of the products.
    both = curvature(0, "kronecker").average(curvature(1, "kronecker"), 0.5)
    pairs = [curvature(i, "kronecker").matrix.blocks[0] for i in (0, 1)]
    mean = both.matrix.blocks[0]
    np.testing.assert_allclose(mean.left, (pairs[0].left + pairs[1].left) / 2)
    np.testing.assert_allclose(mean.right, (pairs[0].right + pairs[1].right) / 2)
    products = (pairs[0].dense() + pairs[1].dense()) / 2
    assert np.abs(mean.dense() - products).max() > 1e-3


def test_ekfac_is_averaged_in_one_basis() -> None:
    first = curvature(0, "kronecker-eigen")
    with pytest.raises(TypeError, match="other eigenvectors"):
        first.average(curvature(1, "kronecker-eigen"), 0.5)
    second = curvature(1, "kronecker-eigen", basis=first)
    block, exact = (
        second.matrix.blocks[0],
        curvature(1, "block-diagonal").matrix.blocks[0],
    )
    basis = np.kron(block.left_vectors, block.right_vectors)
    moments = np.diag(basis.T @ exact.dense() @ basis).reshape(block.values.shape)
    np.testing.assert_allclose(block.values, moments, atol=1e-13)
    mean = first.average(second, 0.25).matrix.blocks[0].values
    np.testing.assert_allclose(
        mean, 0.75 * first.matrix.blocks[0].values + 0.25 * block.values
    )
    with pytest.raises(ValueError, match="'kronecker-eigen' curvature of the same"):
        curvature(1, "kronecker-eigen", basis=curvature(0))
    with pytest.raises(ValueError, match="a basis is for"):
        curvature(1, "kronecker", basis=first)


def test_a_stale_factorisation_is_renewed_when_it_is_due() -> None:
    first, second = curvature(0, "kronecker"), curvature(1, "kronecker")
    stale = Stale.begin(first, 0.1, every=2)
    update = jax.jit(lambda stale, new: stale.update(new, 0.1))
    one = update(stale, second)
    for leaf, other in zip(
        *map(jax.tree.leaves, (one.damped, stale.damped)), strict=True
    ):
        np.testing.assert_array_equal(leaf, other)
    two = update(one, second)
    np.testing.assert_allclose(
        two.damped.solve(PARAMS)[0], second.solve(PARAMS, damping=0.1)[0], rtol=1e-10
    )
    assert int(one.age) == 1 and int(two.age) == 0


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="decay must be from 0 to 1"):
        RunningCurvature.begin(curvature(0), 1.5)
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        Stale.begin(curvature(0), 0.1, every=0)
