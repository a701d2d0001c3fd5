"""Steps in a ball of the divergence, and rules for damping and step sizes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.fisher import (
    adapted_damping,
    best_combination,
    fisher,
    mean_kl,
    reduction_ratio,
    trust_region_step,
)

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((30, 3)))
Y = jnp.asarray(RNG.integers(0, 2, 30))
PARAMS = {"w": jnp.asarray(RNG.standard_normal(3)), "b": jnp.asarray(0.3)}


def logits(params: Any, x: jax.Array) -> jax.Array:
    return x @ params["w"] + params["b"]


def loss(params: Any) -> jax.Array:
    f = logits(params, X)
    return (jnp.logaddexp(0, f) - Y * f).mean()


def kl(other: Any) -> jax.Array:
    return mean_kl(logits, PARAMS, other, X, likelihood="bernoulli")


F = fisher(logits, PARAMS, (X, Y), likelihood="bernoulli")


def test_the_divergence_of_a_short_step_is_half_its_square_in_f() -> None:
    # The error is of third order.
    direction = {"w": jnp.asarray([1.0, -0.5, 0.3]), "b": jnp.asarray(-0.7)}
    errors = []
    for h in (2e-2, 1e-2):
        step = jax.tree.map(lambda d, h=h: h * d, direction)
        moved = jax.tree.map(jnp.add, PARAMS, step)
        errors.append(abs(kl(moved) - F.quadratic(step) / 2))
    np.testing.assert_allclose(errors[0] / errors[1], 8, rtol=0.1)


@pytest.mark.parametrize("max_kl, bound", [(1e-8, 1e-3), (1e-4, 5e-2)])
def test_a_step_fills_the_ball_and_lowers_the_loss(max_kl: float, bound: float) -> None:
    step = trust_region_step(loss, kl, PARAMS, F, max_kl)
    assert bool(step.accepted) and step.loss < loss(PARAMS)
    assert step.kl <= max_kl
    # Full length, or halved once where the third order makes the ball smaller.
    assert step.kl > (1 - bound) * max_kl * 0.25 ** float(step.halvings)
    np.testing.assert_allclose(step.ratio, 1, atol=0.1)


def test_a_solve_by_conjugate_gradients_takes_the_same_step() -> None:
    free = fisher(
        logits, PARAMS, (X, Y), likelihood="bernoulli", structure="matrix-free"
    )
    one = trust_region_step(loss, kl, PARAMS, F, 1e-3)
    other = trust_region_step(loss, kl, PARAMS, free, 1e-3, tolerance=1e-12)
    np.testing.assert_allclose(one.params["w"], other.params["w"], rtol=1e-8)


def test_damping_bounds_the_divergence_and_not_the_damped_length() -> None:
    step = trust_region_step(loss, kl, PARAMS, F, 1e-6, damping=0.5)
    assert step.halvings <= 1
    assert step.kl > 0.2e-6


def test_nothing_moves_where_nothing_lowers_the_loss() -> None:
    best = {"w": PARAMS["w"], "b": PARAMS["b"]}
    for _ in range(12):
        at = fisher(logits, best, (X, Y), likelihood="bernoulli")
        best = jax.tree.map(jnp.subtract, best, at.solve(jax.grad(loss)(best)))
    at = fisher(logits, best, (X, Y), likelihood="bernoulli")
    step = trust_region_step(
        loss,
        lambda new: mean_kl(logits, best, new, X, likelihood="bernoulli"),
        best,
        at,
        1e-2,
    )
    assert not bool(step.accepted)
    np.testing.assert_array_equal(step.params["w"], best["w"])


def test_the_reduction_ratio_of_a_quadratic_is_one() -> None:
    def linear(params: Any, x: jax.Array) -> jax.Array:
        return x @ params

    w, y = PARAMS["w"], X @ jnp.asarray([1.0, 2.0, 3.0])

    def half_square(w: jax.Array) -> jax.Array:
        return ((linear(w, X) - y) ** 2).mean() / 2

    f = fisher(linear, w, (X, y), likelihood="gaussian")
    gradient, step = jax.grad(half_square)(w), jnp.asarray([0.3, 0.1, -0.2])
    after = half_square(w + step)
    ratio = reduction_ratio(half_square(w), after, gradient, step, f)
    np.testing.assert_allclose(ratio, 1, rtol=1e-10)
    # One natural step of length 1 is the solution; along it and another direction too.
    natural = f.solve(gradient)
    c, value = best_combination(gradient, [natural, step], f)
    np.testing.assert_allclose(c, [-1, 0], atol=1e-10)
    np.testing.assert_allclose(value, half_square(w - natural) - half_square(w))
    # Parallel directions share the step.
    c, _ = best_combination(gradient, [natural, natural], f)
    np.testing.assert_allclose(c.sum(), -1, atol=1e-8)


def test_damping_follows_the_ratio() -> None:
    ratios = [0.9, 0.5, 0.1, -1.0, np.nan]
    adapted = [float(adapted_damping(1.0, jnp.asarray(r), 2.0)) for r in ratios]
    assert adapted == [0.5, 1.0, 2.0, 2.0, 2.0]
    assert float(adapted_damping(1.0, jnp.asarray(0.9), 2.0, minimum=0.8)) == 0.8
