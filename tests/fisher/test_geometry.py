"""Fisher kernel, and the flow of a family: the same in all coordinates."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.families import Bernoulli, Normal
from ngvi.fisher import fisher, fisher_kernel, natural_gradient_flow

RNG = np.random.default_rng(0)
X, Y = jnp.asarray(RNG.standard_normal((8, 2))), jnp.asarray(RNG.integers(0, 3, 8))
W = jnp.asarray(RNG.standard_normal((2, 3)))


def linear(w: Any, x: jax.Array) -> jax.Array:
    return x @ w


def test_the_fisher_kernel_is_the_scores_in_the_inverse_metric() -> None:
    damped = fisher(linear, W, (X, Y), likelihood="categorical").damp(0.1)
    kernel = fisher_kernel(
        linear, W, (X, Y), (X[:3], Y[:3]), damped, likelihood="categorical"
    )
    residuals = jax.nn.one_hot(Y, 3) - jax.nn.softmax(X @ W)
    scores = (X[:, :, None] * residuals[:, None, :]).reshape(8, 6)
    expected = scores @ np.linalg.solve(damped.dense(), scores[:3].T)
    np.testing.assert_allclose(kernel, expected, rtol=1e-9)


def test_the_flow_of_an_expectation_is_a_straight_line_in_the_mean_parameters() -> None:
    # With L = ⟨c, μ⟩ the natural gradient in λ is c: λ(t) = λ − c t.
    q = Bernoulli.from_natural(jnp.asarray(0.4))
    times = jnp.asarray([0.0, 0.5, 1.0])
    path = natural_gradient_flow(q, lambda q: 2.0 * q.mean_params, times)
    np.testing.assert_allclose(path.natural_params, 0.4 - 2.0 * times, rtol=1e-7)


def test_the_flow_descends_to_the_target() -> None:
    target = Normal(jnp.asarray(1.0), jnp.asarray(0.5))
    q = Normal(jnp.asarray(-1.0), jnp.asarray(2.0))
    path = natural_gradient_flow(
        q, lambda q: q.kl(target), jnp.asarray([0.0, 1.0, 20.0])
    )
    gaps = np.asarray(jax.vmap(lambda q: q.kl(target))(path))
    assert gaps[1] < gaps[0] and gaps[2] < 1e-6
