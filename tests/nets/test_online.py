"""Rows that come one batch after the other, each counted once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.nets import ObservationNoise, full, ivon
from ngvi.nets.online import absorb
from tests.nets import linear, problems
from tests.nets.problems import close

NOTHING = 1e-12
"""The curvature of the one row that there is before any."""


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_posterior_of_a_linear_model_is_exact(repeats: int) -> None:
    kappa = 0.6
    algorithm = full(
        linear.apply,
        linear.LIKELIHOOD,
        1,
        prior_precision=linear.DELTA,
        kl_weight=kappa,
        initial_curvature=NOTHING,
        samples=2,
        antithetic=True,
    )
    zeros = jax.tree.map(jnp.zeros_like, linear.PARAMS)
    state = problems.begun(algorithm, zeros, (linear.X, linear.Y))
    for rows in (slice(0, 5), slice(5, 10), slice(10, 12)):
        x, y = linear.X[rows], linear.Y[rows]
        key = jax.random.key(rows.start)
        state, _ = absorb(algorithm.rule, state, x, y, key, repeats=repeats)
    mean, s = linear.exact(kl_weight=kappa)
    close(state.mean, mean, 1e-9)
    close(state.precision.dense(), s, 1e-9)
    assert state.data_size == 13
    np.testing.assert_allclose(state.scale, 13 / kappa)


def test_a_curvature_of_any_sign_leaves_the_precision_positive() -> None:
    # By the retraction of S₁ in the change (b/κ) ĥ.
    algorithm = ivon(
        problems.apply, "categorical", 2, initial_curvature=0.1, prior_precision=0.5
    )
    before = problems.begun(
        algorithm, problems.PARAMS, (problems.X[0], problems.LABELS[0])
    )
    batch, key = (problems.X[0], problems.LABELS[0]), jax.random.key(0)
    state, _ = absorb(algorithm.rule, before, *batch, key, repeats=1)
    of_weights, _ = jax.random.split(jax.random.split(key, 1)[0])
    old = 2 * 0.1 + 0.5
    eps = np.asarray(jax.random.normal(of_weights, (problems.DIM,)))
    w = problems.START + eps / np.sqrt(old)
    gradient = problems.gradients(w, *batch).mean(0)
    h = gradient * (w - problems.START) * old
    assert h.min() < 0
    m = problems.BATCH * h / old
    new = old * (1 + m + m**2 / 2)
    close(state.precision.diagonal(), new)
    step = problems.BATCH * gradient / new
    length = np.sqrt((new * step**2).mean())
    assert algorithm.rule.trust is not None
    close(problems.START - state.mean, step * min(1, algorithm.rule.trust / length))


def test_noise_counts_every_number_once() -> None:
    rng = np.random.default_rng(0)
    outputs, y = jnp.asarray(rng.standard_normal((2, 4, 3))), jnp.ones((4, 3))
    noise: Any = ObservationNoise.begin(2.0, 0.5)
    q = noise.absorb(outputs, y).absorb(outputs[:1], y).q
    squares = ((outputs - 1) ** 2).sum((1, 2))
    np.testing.assert_allclose(q.concentration, 2.0 + 12 / 2 * 2)
    np.testing.assert_allclose(q.rate, 0.5 + squares.mean() / 2 + squares[0] / 2)
