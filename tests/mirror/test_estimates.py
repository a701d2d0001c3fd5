"""Estimates of the natural gradient: exact where they claim to be."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngvi.families import Gaussian
from ngvi.linalg import Dense, Diagonal
from ngvi.mirror.draws import antithetic, ladder
from ngvi.mirror.estimates import (
    Estimate,
    FirstOrder,
    mean_metric,
    second_order,
    zeroth_order,
)
from tests.mirror.problems import (
    ESTIMATORS,
    estimate,
    estimate_quadratic,
    every_structure,
    fresh_draws,
    gaussian,
    quadratic,
    roots,
    smooth,
    truth,
)

DIM = 3
seeds = st.integers(0, 2**32 - 1)


FIRST, SECOND = FirstOrder(), second_order()
WITH_CURVATURE = {t: FirstOrder(t, full_curvature=True) for t in (1.0, 0.3)}


def tangent_dense(tangent: Any) -> np.ndarray:
    """A tangent as a dense array."""
    tangent = np.asarray(tangent)
    return tangent if tangent.ndim == 2 else np.diag(tangent)


def check(result: Estimate, expected: tuple, tolerance: float = 1e-9) -> None:
    value, gamma, error = expected
    scale = 1 + abs(value) + np.abs(gamma).max() + np.abs(error).max()
    atol = tolerance * scale
    np.testing.assert_allclose(result.value, value, atol=atol)
    np.testing.assert_allclose(result.gradient.mean, gamma, atol=atol)
    curvature = tangent_dense(result.gradient.curvature)
    np.testing.assert_allclose(curvature, error, atol=atol)


# -- exact for a quadratic ------------------------------------------------------------


@every_structure
@pytest.mark.parametrize("temperature", [1.0, 0.3])
@given(seed=seeds, definite=st.booleans())
def test_first_order_with_matched_draws_is_exact_for_a_quadratic(
    name: str, temperature: float, seed: int, definite: bool
) -> None:
    rng = np.random.default_rng(seed)
    q, target = gaussian(name, rng, DIM), quadratic(rng, DIM, definite)
    eps = jnp.asarray(antithetic(rng.standard_normal((DIM + 1, DIM))))
    result = estimate_quadratic(WITH_CURVATURE[temperature], target, q, eps)
    check(result, truth(name, q, target, temperature))
    a = roots(q.precision)[1]
    full = a.T @ target.h @ a
    np.testing.assert_allclose(
        result.curvature, full, atol=1e-9 * (1 + np.abs(full).max())
    )
    # The part of Aᵀ∇ℓ that is linear in ε leaves γ no error: the spread is γ's square.
    np.testing.assert_allclose(result.spread, result.gradient.mean**2, rtol=1e-6)


@every_structure
@given(seed=seeds)
def test_second_order_needs_two_draws_for_a_quadratic(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, target = gaussian(name, rng, DIM), quadratic(rng, DIM, definite=False)
    half = rng.standard_normal((1, DIM))
    eps = jnp.asarray(np.concatenate([half, -half]))
    result = estimate_quadratic(SECOND, target, q, eps)
    _, gamma, error = truth(name, q, target, 1.0)
    check(result._replace(value=jnp.zeros(())), (0.0, gamma, error))


# -- the exact gradient of the fixed-draw objective -----------------------------------


@pytest.mark.parametrize(("temperature", "matched"), [(1.0, True), (0.4, False)])
def test_first_order_is_the_gradient_of_the_fixed_draw_objective(
    temperature: float, matched: bool
) -> None:
    # mean ℓ(m + A (δ + exp(X) ε)) − τ tr X along (δ, X), X symmetric, for any draws.
    rng = np.random.default_rng(6)
    q = gaussian("dense", rng, DIM)
    half = rng.standard_normal((2 if not matched else 9, DIM))
    eps = jnp.asarray(antithetic(half) if matched else half)
    a = jnp.asarray(roots(q.precision)[1])

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def slopes(delta: jax.Array, x: jax.Array) -> jax.Array:
        z = q.mean + (delta + eps @ jax.scipy.linalg.expm(x).T) @ a.T
        logdet = jnp.linalg.slogdet(a)[1] + jnp.trace(x)
        return jax.vmap(smooth)(z).mean() - temperature * logdet

    result = estimate(FirstOrder(temperature), smooth, q, eps)
    delta, x = slopes(jnp.zeros(DIM), jnp.zeros((DIM, DIM)))
    np.testing.assert_allclose(result.gradient.mean, delta, atol=1e-11)
    # Along a symmetric X only the symmetric part of the gradient counts.
    np.testing.assert_allclose(result.gradient.curvature, (x + x.T) / 2, atol=1e-11)


def test_first_order_is_the_gradient_of_the_diagonal_objective() -> None:
    rng = np.random.default_rng(7)
    q = gaussian("diagonal", rng, DIM)
    eps = jnp.asarray(antithetic(rng.standard_normal((9, DIM))))
    sd = jnp.sqrt(q.variance)

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def slopes(delta: jax.Array, x: jax.Array) -> jax.Array:
        z = q.mean + sd * (delta + eps * jnp.exp(x))
        return jax.vmap(smooth)(z).mean() - (jnp.log(sd) + x).sum()

    zero = jnp.zeros(DIM)
    result = estimate(FIRST, smooth, q, eps)
    for mine, theirs in zip(result.gradient, slopes(zero, zero), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)


def test_batches_of_a_level_average_to_the_whole() -> None:
    rng = np.random.default_rng(8)
    q = gaussian("dense", rng, DIM)
    draws = ladder(DIM, 10, 3, 16, 0, float)
    batches = draws.batches[3:7]
    parts = [estimate(FIRST, smooth, q, batch) for batch in batches]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 4, *parts)
    halves, negatives = jnp.split(batches, 2, axis=1)
    whole = jnp.concatenate([halves.reshape(-1, DIM), negatives.reshape(-1, DIM)])
    together = estimate(FIRST, smooth, q, whole)
    for a, b in zip(*map(jax.tree.leaves, (mean, together)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_zeroth_order_sees_only_the_shaped_values() -> None:
    q = gaussian("dense", np.random.default_rng(0), DIM)
    eps = fresh_draws(jax.random.key(0), 20, DIM)

    def ranks(values: jax.Array) -> jax.Array:
        return jnp.argsort(jnp.argsort(values)).astype(float)

    ranked = zeroth_order(0.0, ranks)
    plain = estimate(ranked, smooth, q, eps).gradient
    warped = estimate(ranked, lambda z: jnp.exp(3 * smooth(z)) + 5, q, eps)
    for a, b in zip(*map(jax.tree.leaves, (plain, warped.gradient)), strict=True):
        np.testing.assert_array_equal(a, b)


# -- metric and types ----------------------------------------------------------------


def test_mean_metric() -> None:
    rng = np.random.default_rng(10)
    q, target = gaussian("diagonal", rng, DIM), quadratic(rng, DIM)
    eps = jnp.asarray(antithetic(rng.standard_normal((DIM + 1, DIM))))
    gamma = jnp.asarray(rng.standard_normal(DIM))
    plain = estimate_quadratic(FIRST, target, q, eps)
    assert plain.curvature is None
    np.testing.assert_array_equal(mean_metric(plain)(gamma), gamma)
    full = estimate_quadratic(WITH_CURVATURE[1.0], target, q, eps)
    a = np.asarray(q.precision.unwhiten(jnp.eye(DIM)))
    expected = np.linalg.solve(a @ target.h @ a, gamma)
    np.testing.assert_allclose(mean_metric(full)(gamma), expected, rtol=1e-8)
    # So the mean of a diagonal Gaussian reaches a quadratic's optimum in one step.
    step = q.precision.unwhiten(mean_metric(full)(full.gradient.mean))
    np.testing.assert_allclose(
        q.mean - step, np.linalg.solve(target.h, target.b), rtol=1e-8
    )
    # Indefinite curvature is made positive.
    bent = full._replace(curvature=jnp.diag(jnp.asarray([-2.0, 0.0, 4.0])))
    np.testing.assert_allclose(mean_metric(bent)(jnp.ones(3)), [0.5, 100.0, 0.25])


@pytest.mark.parametrize("make", list(ESTIMATORS.values()), ids=list(ESTIMATORS))
@pytest.mark.parametrize("structure", [Dense, Diagonal])
def test_single_precision_stays_single(make: Callable, structure: type) -> None:
    q = Gaussian(
        jnp.zeros(DIM, jnp.float32),
        structure.from_dense(jnp.eye(DIM, dtype=jnp.float32)),
    )
    eps = jnp.asarray(np.random.default_rng(0).standard_normal((8, DIM)), jnp.float32)
    for leaf in jax.tree.leaves(jax.eval_shape(partial(make(), smooth), q, eps)):
        assert leaf.dtype == jnp.float32
